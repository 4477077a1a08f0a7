"""One choice per layer, at the least total cost that fits into a budget of bytes.

What a choice is, a bit width for instance, is not known here: it has a cost, bytes of its own, and
tables that it shares with other choices.
"""

import contextlib
import ctypes
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import LinearConstraint, milp

from tfq_sv.mixed_precision.file_size import LayerSize, shared_bytes

Choice = TypeVar("Choice", bound=Hashable)

Columns = npt.NDArray[np.int64]
"""(L,), one choice for each of L layers: its column in the tables of a problem."""

SECTIONS = 4

# The solver ends at an absolute gap of 1e-6 to the optimum, so costs must be large numbers.
_LARGEST_COST = 1e6
_INFEASIBLE = 2
_STDOUT = threading.Lock()


@dataclass(frozen=True, eq=False)
class MixedPrecisionProblem:
    """Costs and sizes of C choices for each of L layers.

    Attributes:
        costs: float64 (L, C); infinite where a layer does not have that choice.
        bytes: int64 (L, C), what a choice takes by itself.
        tables: bool (L, C, T), which of T shared tables a choice uses. The file holds a table once,
            if any layer uses it.
        table_bytes: int64 (T,).

    >>> tables = np.array([[[True], [False]], [[True], [False]]])
    >>> problem = MixedPrecisionProblem(
    ...     np.array([[1.0, 2.0], [1.0, 3.0]]), np.full((2, 2), 10), tables, np.array([5])
    ... )
    >>> problem.solve(25), problem.solve(24), problem.solve(19)
    (array([0, 0]), array([1, 1]), None)
    """

    costs: npt.NDArray[np.float64]
    bytes: npt.NDArray[np.int64]
    tables: npt.NDArray[np.bool_]
    table_bytes: npt.NDArray[np.int64]

    @classmethod
    def from_layers(
        cls,
        costs: Mapping[str, Mapping[Choice, float]],
        sizes: Mapping[str, Mapping[Any, LayerSize]],
    ) -> "MixedPrecisionProblem":
        """Builds the arrays from layer -> choice -> cost, and -> size; costs give the order."""
        grid = [[sizes[name][choice] for choice in row] for name, row in costs.items()]
        shared = sorted({table for row in grid for size in row for table in size.shared}, key=str)
        tables = [[[table in size.shared for table in shared] for size in row] for row in grid]
        return cls(
            np.array([list(row.values()) for row in costs.values()], np.float64),
            np.array([[size.bytes for size in row] for row in grid], np.int64),
            np.array(tables, np.bool_),
            np.array([shared_bytes(table) for table in shared], np.int64),
        )

    def cost(self, columns: Columns) -> float:
        """Returns the sum of the layers' costs."""
        return float(self.costs[np.arange(len(columns)), columns].sum())

    def size(self, columns: Columns) -> int:
        """Returns the bytes of all layers and of the tables that they use."""
        layers = np.arange(len(columns))
        used = self.tables[layers, columns].any(axis=0)
        return int(self.bytes[layers, columns].sum() + self.table_bytes[used].sum())

    def solve(self, budget: int) -> Columns | None:
        """Returns the choice of least cost within a budget of bytes; None if none fits."""
        return self._minimize(self.costs, np.zeros(len(self.table_bytes)), budget)

    def solve_sections(self, budget: int, order: Sequence[int]) -> Columns | None:
        """Returns the best with one choice per section of the layers in this order, or None.

        Source: arXiv 2406.05359, which has four sections.
        """
        best, least = None, np.inf
        for columns in self._in_sections(order):
            if self.cost(columns) < least and self.size(columns) <= budget:
                best, least = columns, self.cost(columns)
        return best

    def _in_sections(self, order: Sequence[int]) -> Iterator[Columns]:
        sections = [s for s in np.array_split(np.asarray(order), SECTIONS) if s.size]
        for choices in itertools.product(range(self.costs.shape[1]), repeat=len(sections)):
            columns = np.empty(len(self.costs), np.int64)
            for section, choice in zip(sections, choices, strict=True):
                columns[section] = choice
            yield columns

    def smallest(self) -> Columns:
        """Returns the choice of fewest bytes."""
        sizes = np.where(np.isfinite(self.costs), self.bytes, np.inf)
        found = self._minimize(sizes, self.table_bytes, np.inf)
        assert found is not None
        return found

    def smallest_sections(self, order: Sequence[int]) -> Columns:
        """Returns the choice of fewest bytes with one choice per section, see `solve_sections`."""
        return min(self._in_sections(order), key=self.size)

    def _minimize(
        self,
        values: npt.NDArray[np.float64],
        table_values: npt.NDArray[np.float64] | npt.NDArray[np.int64],
        budget: float,
    ) -> Columns | None:
        """A mixed-integer linear program: which choice each layer has, and which tables exist."""
        layers, choices, tables = self.tables.shape
        allowed = np.isfinite(values)
        objective = np.append(np.where(allowed, values, 0), table_values)
        objective = objective / (objective.max() or 1) * _LARGEST_COST
        one = sparse.kron(sparse.eye(layers), np.ones(choices))
        uses = sparse.block_diag([layer.T for layer in self.tables])
        exists = sparse.kron(np.ones((layers, 1)), sparse.eye(tables))
        with _debug_lines_dropped():
            found = milp(
                objective,
                integrality=np.append(np.ones(allowed.size), np.zeros(tables)),
                bounds=(0, np.append(allowed.ravel(), np.ones(tables))),
                constraints=[
                    LinearConstraint(sparse.hstack([one, np.zeros((layers, tables))]), 1, 1),
                    LinearConstraint(sparse.hstack([uses, -exists]), -np.inf, 0),
                    LinearConstraint(np.append(self.bytes, self.table_bytes), -np.inf, budget),
                ],
                options={"mip_rel_gap": 0},
            )
        if found.status == _INFEASIBLE:
            return None
        return np.argmax(found.x[: allowed.size].reshape(layers, choices), axis=1)


@contextlib.contextmanager
def _debug_lines_dropped() -> Iterator[None]:
    """Keeps what HiGHS, as in SciPy 1.17, prints for its developers from the process's stdout.

    C code prints past `sys.stdout`, so the descriptor itself is turned aside. What other threads
    print meanwhile follows at the end; the lock is for other solvers.
    """
    with _STDOUT, contextlib.ExitStack() as stack:
        stdout = None
        with contextlib.suppress(OSError):  # it may be closed
            stdout = os.dup(1)
        if stdout is None:
            yield
            return
        stack.callback(os.close, stdout)
        printed = stack.enter_context(tempfile.TemporaryFile())
        _flush()
        os.dup2(printed.fileno(), 1)
        try:
            yield
        finally:
            _flush()
            os.dup2(stdout, 1)
            printed.seek(0)
            for line in printed:
                if not line.startswith(b"Highs"):
                    os.write(1, line)


def _flush() -> None:
    """Empties the buffers of Python's stdout and of C's."""
    if sys.stdout is not None:
        sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
