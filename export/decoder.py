"""The ops that turn packed codes into filters while the file runs: CAST, GATHER, RESHAPE.

A byte of codes is looked up in a table of 256 rows: the levels of each code in it. The table itself
is looked up in the layer's levels by a table of codes that all layers share, so that a layer stores
no more than its codes and 2**bits levels. Codes in several planes have longer tables, with a row
for each byte of the first plane together with the parts of the others' bytes that belong to the
same codes: a lookup a row is much faster than arithmetic a code.

Each op and each tensor costs some 50 bytes in the file, twice, for `embed` and for `inflate`. So
bytes and tables are given shapes by which planes of different widths meet without a RESHAPE, and
the signs of all channels of the network are unpacked by one run of ops.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from tfq_sv import codec
from tfq_sv.codebook import Codebook
from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import Graph
from tfq_sv.export.trellis_decoder import TrellisDecoder
from tfq_sv.quantization.trellis import TrellisCodebook

_BYTE = 256


class _Negation(NamedTuple):
    """How channels of negative gain find their levels, the second half of the table.

    Attributes:
        step: what is added to their positions: to a byte's, or to a code's.
        axis: 0 where positions are (channels, n), 1 where they are (n, channels).
    """

    step: int
    axis: int


class Decoder:
    """Appends decoding ops to one subgraph.

    The int8 levels may be handled as uint8, for whoever wants the filter's bytes.
    """

    def __init__(self, graph: Graph, kind: int, filters: Iterable[Filter]) -> None:
        """Decodes some of `filters` within `graph`, as tensors of type `kind` (INT8 or UINT8)."""
        self._graph = graph
        self._kind = kind
        filters = list(filters)
        trellises = [x for x in filters if isinstance(x.book, TrellisCodebook)]
        self._trellis = TrellisDecoder(graph, kind, trellises)
        self._shared: dict[tuple[str | int, ...], int] = {}
        self._negated: dict[_Negation, list[Filter]] = defaultdict(list)
        self._steps: dict[Filter, int] = {}
        for filter in filters:
            if filter.signed and isinstance(filter.book, Codebook) and filter.book.bits < 8:
                self._negated[_negation(filter)].append(filter)

    def filter(self, filter: Filter, output: int) -> None:
        """Appends the ops that decode a filter below 8 bits into a tensor of its shape or flat."""
        if isinstance(filter.book, TrellisCodebook):
            return self._trellis.filter(filter, output)
        graph, bits = self._graph, filter.book.bits
        _, levels = filter.book.grid()
        both = np.concatenate([levels, -levels]) if filter.signed else levels
        stored = graph.constant(both, self._kind)
        whole = _by_bytes(filter)
        if whole or not filter.signed:
            table = graph.gather(stored, self._table(bits, whole))
            cells = graph.gather(table, self._rows(filter))
        else:
            codes = graph.gather(self._table(bits), self._rows(filter))
            codes = self._cut(codes, filter.size)
            codes = graph.reshape(codes, _by_channel(filter, filter.size))
            codes = graph.arithmetic("ADD", codes, self._negations(filter))
            cells = graph.gather(stored, codes)
        cells = self._cut(cells, filter.size)
        graph.reshape(cells, graph.subgraph.tensors[output].shape, output)

    def _rows(self, filter: Filter) -> int:
        """Which row of the table holds each group of codes, int32.

        The last plane's bytes have shape (..., n), those of a plane of twice its width
        (..., n, 2), and so on; each byte of a later plane gives as many parts: shapes are equal.
        """
        graph, widths = self._graph, codec.planes(_bits(filter))
        rows, shift = -1, 0
        for width, plane in zip(widths, filter.packed(), strict=True):
            inner, last = _twos(width // widths[-1]), width == widths[-1]
            count = plane.size // math.prod(inner)
            shape = _by_channel(filter, count) if _by_bytes(filter) else [count]
            found = graph.cast_int32(graph.constant(plane.reshape(*shape, *inner)))
            if _by_bytes(filter) and last:
                found = graph.arithmetic("ADD", found, self._negations(filter))
            if shift:
                parts = self._parts(_bits(filter), width, shift, _by_bytes(filter) and last)
                found = graph.arithmetic("ADD", rows, graph.gather(parts, found))
            rows, shift = found, shift + width
        return rows

    def _table(self, bits: int, negated: bool = False) -> int:
        """The codes of every row: int32 (rows, codes a row).

        With `negated`, as many rows again, for bytes of negated channels: codes + 2**bits.
        """
        graph, widths = self._graph, codec.planes(bits)
        cells = 8 // widths[0]

        def make() -> int:
            if negated:
                return self._twice(self._table(bits), 2**bits)
            codes, rows, shift = self._unpacked(widths[0]), _BYTE, widths[0]
            for width in widths[1:]:
                values = 2 ** (width * cells)
                every = codec.unpack_table(width)[:values, None, :cells] << np.uint8(shift)
                added = graph.cast_int32(graph.constant(every))
                rows, shift = rows * values, shift + width
                codes = graph.arithmetic("ADD", added, codes)  # (values, rows before, cells)
                codes = graph.reshape(codes, [rows, cells])
            return codes

        return self._once(make, "table", bits, negated)

    def _parts(self, bits: int, width: int, shift: int, negated: bool) -> int:
        """What the parts of a byte add to the row, of a later plane: int32 (256, 2, 2, ...).

        `shift`: how many bits of a code are in the planes before.

        With `negated`, as many rows again, for bytes of negated channels, which lead to the second
        half of the table.
        """
        graph, first = self._graph, codec.planes(bits)[0]
        step = 2 ** (shift * 8 // first)

        def make() -> int:
            if negated:
                return self._twice(self._parts(bits, width, shift, False), 2 ** (bits * 8 // first))
            part = width * 8 // first  # bits of a part
            every = codec.unpack_table(part).reshape(_BYTE, *_twos(8 // part))
            values = graph.cast_int32(graph.constant(every))
            return graph.arithmetic("MUL", values, graph.constant(np.array([step], np.int32)))

        return self._once(make, "parts", width, first, step, bits if negated else 0)

    def _unpacked(self, width: int) -> int:
        """The codes in every byte: int32 (256, 8 / width)."""
        every = codec.unpack_table(width)
        return self._once(
            lambda: self._graph.cast_int32(self._graph.constant(every)), "unpacked", width
        )

    def _twice(self, table: int, step: int) -> int:
        """A table, and once more with `step` added."""
        graph = self._graph
        more = graph.arithmetic("ADD", table, graph.constant(np.array([step], np.int32)))
        return graph.concatenate([table, more], 0)

    def _once(self, make: Callable[[], int], *key: str | int) -> int:
        """What `make` appended when it was first called with that key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _negations(self, filter: Filter) -> int:
        """What is added to a filter's positions, a channel: the step or 0.

        All filters of a kind are served by the same ops: their signs are one row of bits.
        """
        if filter not in self._steps:
            kind, graph = _negation(filter), self._graph
            filters = self._negated[kind]
            signs = np.concatenate([filter.signs for filter in filters])
            packed = graph.cast_int32(graph.constant(codec.pack(signs, 1)[0]))
            step = graph.constant(np.array([kind.step], np.int32))
            steps = graph.gather(graph.arithmetic("MUL", self._unpacked(1), step), packed)
            column = [signs.size, 1] if kind.axis == 0 else [1, signs.size]
            steps = graph.reshape(self._cut(steps, signs.size), column)
            sizes = [filter.signs.size for filter in filters]
            pieces = graph.split(steps, sizes, kind.axis)
            self._steps.update(zip(filters, pieces, strict=True))
        return self._steps[filter]

    def _cut(self, cells: int, count: int) -> int:
        """Drops what fills up the last byte, in one row; as they are if there is none."""
        graph = self._graph
        found = int(np.prod(graph.subgraph.tensors[cells].shape))
        if found == count:
            return cells
        return graph.slice(graph.reshape(cells, [found]), [0], [count])


def _bits(filter: Filter) -> int:
    assert isinstance(filter.book, Codebook)
    return filter.book.bits


def _negation(filter: Filter) -> _Negation:
    if not _by_bytes(filter):
        return _Negation(2 ** _bits(filter), 0 if filter.axis == 0 else 1)
    return _Negation(_BYTE, 0)


def _by_bytes(filter: Filter) -> bool:
    """Whether whole bytes are negated: no byte holds codes of two channels."""
    cells = 8 // codec.planes(_bits(filter))[-1]
    return filter.signed and filter.axis == 0 and math.prod(filter.shape[1:]) % cells == 0


def _by_channel(filter: Filter, count: int) -> list[int]:
    channels = filter.signs.size
    return [channels, count // channels] if filter.axis == 0 else [count // channels, channels]


def _twos(cells: int) -> list[int]:
    """The shape (2, 2, ...) of so many cells.

    >>> _twos(8)
    [2, 2, 2]
    """
    return [2] * (cells.bit_length() - 1)
