"""Bits for every layer, so that the file has a wanted size and the network suffers least."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from tfq_sv import codebook
from tfq_sv.errors import InputError
from tfq_sv.mixed_precision import knapsack
from tfq_sv.mixed_precision.file_size import FileSize, once_bytes
from tfq_sv.mixed_precision.knapsack import Relaxation
from tfq_sv.progress import tqdm
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe

Floats = npt.NDArray[np.float64]
Sensitivity = Mapping[str, float] | Mapping[str, Mapping[int, float]]

METHODS = ("exact", "sections")
SECTIONS = 4

# What the prediction of sizes may err by: a share of the target, and bytes.
_MARGIN, _MARGIN_BYTES = 5e-4, 256
_NEVER = 2**50  # bytes


@dataclass(frozen=True)
class Allocation:
    """One answer.

    Attributes:
        recipe: bits a layer.
        bytes: predicted size of the exported file.
        cost: the objective, the sum of the layers' costs.
    """

    recipe: QuantizationRecipe
    bytes: int
    cost: float


def allocate_bits(
    model: keras.Model,
    traces: Sensitivity,
    *,
    target_bytes: int,
    bits: Iterable[int] = range(1, 9),
    method: str = "exact",
    sizes: FileSize | None = None,
) -> QuantizationRecipe:
    """Chooses each layer's bits for a file of at most so many bytes.

    The size is that of the finished file, graph and all, as `file_size` predicts it; a twentieth
    of a percent and 256 bytes are kept back, because predictions err.

    Args:
        model: the float network.
        traces: layer -> trace, from `hessian_traces` or `fisher_traces`; or layer -> bits -> cost,
            from `embedding_distortions`. See `quantization_costs`.
        target_bytes: the most that the exported file may have.
        bits: the widths to choose from.
        method: "exact": the least cost over all layers and widths. "sections": the
            paper's search (arXiv 2406.05359): layers sorted by trace in 4 sections, one width a
            section, all combinations.
        sizes: what files take; `FileSize.of(model)` if None, which is for waveform input.

    Returns:
        A recipe of k-means codebooks.

    Raises:
        InputError: no recipe is small enough (it says the least size); traces of other layers, or
            not finite, or negative; bits out of range; no such method.

    >>> from tfq_sv import models
    >>> network = models.build("ResNet18", channels=16)
    >>> traces = dict.fromkeys(quantizable(network), 1.0)
    >>> recipe = allocate_bits(network, traces, target_bytes=400_000, bits=[1, 2, 4])
    >>> sorted({layer.bits for layer in recipe.layers.values()})
    [1, 2, 4]
    """
    return sweep(model, traces, [target_bytes], bits=bits, method=method, sizes=sizes)[0].recipe


def sweep(
    model: keras.Model,
    traces: Sensitivity,
    targets: Iterable[int],
    *,
    bits: Iterable[int] = range(1, 9),
    method: str = "exact",
    order: Sequence[str] | None = None,
    sizes: FileSize | None = None,
) -> list[Allocation]:
    """Chooses bits for several sizes at once: the Pareto curve of predicted cost against bytes.

    Arguments and errors are those of `allocate_bits`, but for the list of targets, and `order`: the
    layers as sections take them, `sensitivity_order(traces)` if None.

    Returns:
        One answer a target, in their order.

    Raises:
        InputError: as `allocate_bits`; an order that has not every layer once.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    costs = quantization_costs(model, traces, bits)
    problem = _Problem.of(costs, sizes or FileSize.of(model))
    order = sensitivity_order(traces) if order is None else order
    if sorted(order) != sorted(problem.names):
        raise InputError(f"order must have every layer once: {', '.join(problem.names)}")
    answers = []
    for target in targets:
        budget = int((1 - _MARGIN) * target) - _MARGIN_BYTES - problem.fixed
        if method == "exact":
            choice = problem.solve(budget)
        else:
            choice = problem.solve_sections(budget, [problem.names.index(n) for n in order])
        if choice is None:
            least = (problem.least() + problem.fixed + _MARGIN_BYTES) / (1 - _MARGIN)
            raise InputError(
                f"no file of {target:,} bytes is possible: the least target is "
                f"{int(np.ceil(least)) + 1:,} bytes; raise it"
                + (" or allow fewer bits" if min(problem.widths) > 1 else "")
            )
        answers.append(problem.allocation(choice))
    return answers


def quantization_costs(
    model: keras.Model, traces: Sensitivity, bits: Iterable[int] = range(1, 9)
) -> dict[str, dict[int, float]]:
    """Returns what each width costs each layer: layer -> bits -> cost.

    With H the Hessian of the loss and d the change of n weights by quantization, the loss grows by
    d'Hd / 2; for d of no special direction that is trace(H) / n x |d|^2 / 2 (HAWQ-V2, Dong et al.,
    2020). |d|^2 is the squared error of the k-means codebook that the layer would get. A trace that
    was estimated as less than its standard error, negative perhaps, counts as that.

    Args:
        model: the float network.
        traces: layer -> trace. A table of layer -> bits -> cost is checked and returned as it is.
        bits: the widths.

    Raises:
        InputError: as `allocate_bits`.
    """
    layers = quantizable(model)
    widths = sorted({codebook.check_bits(b) for b in bits})
    if not widths:
        raise InputError("no bit width to choose from; give some of 1-8")
    for name in layers:
        if name not in traces:
            raise InputError(f"no trace is given for layer {name!r} of {model.name}")
    for name in traces:
        if name not in layers:
            raise InputError(
                f"a trace is given for {name!r}, which is no quantizable layer of {model.name}; "
                f"those are {', '.join(layers)}"
            )
    for name in layers:
        given = traces[name]
        values = given if isinstance(given, Mapping) else dict.fromkeys(widths, _known(given))
        for width in widths:
            if width not in values:
                raise InputError(f"layer {name!r} has no cost at {width} bits")
            if not np.isfinite(values[width]) or values[width] < 0:
                raise InputError(
                    f"the sensitivity of layer {name!r} is {values[width]}; it must be 0 or more"
                )
    table: dict[str, dict[int, float]] = {}
    for name, layer in tqdm(layers.items(), desc="codebooks", unit="layer", disable=None):
        given = traces[name]
        if isinstance(given, Mapping):
            table[name] = {width: float(given[width]) for width in widths}
        else:
            kernel = getattr(layer, str(kernel_attribute(layer))).numpy()
            weight = _known(given) / kernel.size / 2
            table[name] = {width: weight * kernel_error(kernel, width) for width in widths}
    return table


def kernel_error(kernel: npt.NDArray[np.float32], bits: int) -> float:
    """Returns the squared error |W - Q(W)|^2 of a kernel's codebook, on the file's int8 grid.

    >>> kernel_error(np.float32([0, 1, 10, 11]), bits=1) > 0.9
    True
    """
    centroids = codebook.fit_on_grid(kernel, bits)
    change = kernel - centroids[codebook.assign(kernel, centroids)]
    return float(np.sum(np.square(change, dtype=np.float64)))


def _known(trace: float) -> float:
    """No layer is free because few probes were made."""
    error = getattr(trace, "standard_error", trace)
    if np.isnan(error):  # of a single probe
        error = abs(trace)
    return float(error) if error > trace else float(trace)


def sensitivity_order(traces: Sensitivity) -> list[str]:
    """Returns the layers, the most sensitive first; of a table, by the cost at the fewest bits.

    >>> sensitivity_order({"a": 1.0, "b": 2.0})
    ['b', 'a']
    """

    def key(name: str) -> float:
        value = traces[name]
        return -float(value[min(value)] if isinstance(value, Mapping) else value)

    return sorted(traces, key=key)


_Part = tuple[Floats, npt.NDArray[np.int64], int, Relaxation]
"""Costs, bytes, budget and relaxation of a knapsack."""


@dataclass(frozen=True, eq=False)
class _Problem:
    """Which width for which layer: a knapsack with one choice a layer.

    Beside its bytes, a choice may need tables and the like, which the file holds once.

    Attributes:
        names: of the layers, L.
        widths: to choose from, W.
        costs: float64 (L, W).
        bytes: int64 (L, W).
        needs: int64 (L, W), a bit for each thing of `once`.
        once: bytes of each.
        fixed: bytes of everything else.
    """

    names: Sequence[str]
    widths: Sequence[int]
    costs: Floats
    bytes: npt.NDArray[np.int64]
    needs: npt.NDArray[np.int64]
    once: Sequence[int]
    fixed: int

    @classmethod
    def of(cls, costs: Mapping[str, Mapping[int, float]], sizes: FileSize) -> "_Problem":
        widths = list(next(iter(costs.values())))
        grid = [[sizes.layers[name][width] for width in widths] for name in costs]
        once = sorted({thing for row in grid for size in row for thing in size.once}, key=str)
        number = {thing: 1 << i for i, thing in enumerate(once)}
        return cls(
            names=list(costs),
            widths=widths,
            costs=np.array([list(row.values()) for row in costs.values()], np.float64),
            bytes=np.array([[size.bytes for size in row] for row in grid], np.int64),
            needs=np.array(
                [[sum(number[thing] for thing in size.once) for size in row] for row in grid],
                np.int64,
            ),
            once=[once_bytes(thing) for thing in once],
            fixed=sizes.fixed,
        )

    def allocation(self, choice: npt.NDArray[np.int64]) -> Allocation:
        """Returns the answer that takes column choice[l] for layer l."""
        layers = np.arange(len(self.names))
        bits = [self.widths[column] for column in choice]
        return Allocation(
            QuantizationRecipe(
                {n: LayerRecipe("kmeans", b) for n, b in zip(self.names, bits, strict=True)}
            ),
            self.fixed
            + int(self.bytes[layers, choice].sum())
            + self._once_bytes(self._held(choice)),
            self._cost(choice),
        )

    def least(self) -> int:
        """Returns the fewest bytes that any choice takes; at most what one is charged."""
        found = []
        for held in self._needs():
            sizes = np.where((self.needs & ~held) != 0, _NEVER, self.bytes).min(1)
            found.append(int(sizes.sum()) + self._once_bytes(held))
        return min(found)

    def solve(self, budget: int) -> npt.NDArray[np.int64] | None:
        """Returns the choice of least cost within a budget of bytes; None if none fits.

        Where a width needs the same things once in every layer, it is the best there is. Elsewhere,
        with negative gains before depthwise convolutions and others, each set of widths is charged
        with what any layer may need; what the best of them saves of that, it is given back.
        """
        parts = {held: self._part(held, budget) for held in self._needs()}
        possible = {held: part for held, part in parts.items() if part is not None}
        best, least, charged = None, np.inf, 0
        for held, part in sorted(possible.items(), key=lambda item: item[1][3].bound):
            if part[3].bound >= least:
                break
            choice = knapsack.solve(*part, least)
            if (cost := self._cost(choice)) < least:
                best, least, charged = choice, cost, held
        while best is not None and self._held(best) != charged:
            charged = self._held(best)
            if (saved := self._part(charged, budget)) is None:
                break
            choice = knapsack.solve(*saved, least)
            if self._cost(choice) < least:
                best, least = choice, self._cost(choice)
        return best

    def solve_sections(self, budget: int, order: Sequence[int]) -> npt.NDArray[np.int64] | None:
        """Returns the best choice of one width a section of layers; None if none fits."""
        sections = [s for s in np.array_split(np.asarray(order), SECTIONS) if s.size]
        costs = [self.costs[section].sum(0) for section in sections]
        sizes = [self.bytes[section].sum(0) for section in sections]
        needs = [np.bitwise_or.reduce(self.needs[section], axis=0) for section in sections]
        best, least = None, np.inf
        for columns in itertools.product(range(len(self.widths)), repeat=len(sections)):
            held = int(np.bitwise_or.reduce([n[c] for n, c in zip(needs, columns, strict=True)]))
            size = sum(int(s[c]) for s, c in zip(sizes, columns, strict=True))
            cost = sum(float(k[c]) for k, c in zip(costs, columns, strict=True))
            if size + self._once_bytes(held) <= budget and cost < least:
                best, least = columns, cost
        if best is None:
            return None
        choice = np.empty(len(self.names), np.int64)
        for section, column in zip(sections, best, strict=True):
            choice[section] = column
        return choice

    def _needs(self) -> set[int]:
        """Every set of widths by what it may need once; as bits, see `needs`."""
        needs = np.bitwise_or.reduce(self.needs, axis=0)
        held = {0}
        for column in needs:
            held |= {int(column) | other for other in held}
        return held

    def _part(self, held: int, budget: int) -> _Part | None:
        """The knapsack of what needs these things at most; None if it has no answer.

        What needs others costs infinitely much.
        """
        lacking = (self.needs & ~held) != 0
        if lacking.all(1).any():
            return None
        costs = np.where(lacking, np.inf, self.costs)
        sizes = np.where(lacking, _NEVER, self.bytes)
        left = budget - self._once_bytes(held)
        relaxed = Relaxation.of(costs, sizes, left)
        return None if relaxed is None else (costs, sizes, left, relaxed)

    def _held(self, choice: npt.NDArray[np.int64]) -> int:
        return int(np.bitwise_or.reduce(self.needs[np.arange(len(choice)), choice]))

    def _cost(self, choice: npt.NDArray[np.int64]) -> float:
        return float(self.costs[np.arange(len(choice)), choice].sum())

    def _once_bytes(self, held: int) -> int:
        return sum(size for i, size in enumerate(self.once) if held >> i & 1)
