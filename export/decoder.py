"""The ops that turn packed codes into filters while the file runs: CAST, GATHER, RESHAPE.

A byte of codes is looked up in a table of 256 rows: the levels of each code in it. The table itself
is looked up in the layer's levels by a table of codes that all layers share, so that a layer stores
no more than its codes and 2**bits levels. Codes in several planes have longer tables, with a row
for each byte of the first plane together with the parts of the others' bytes that belong to the
same codes: one lookup per row is much faster than arithmetic per code.

Each op and each tensor costs some 50 bytes in the file, twice, for `embed` and for `inflate`. So
bytes and tables are given shapes by which planes of different widths meet without a RESHAPE, and
the signs of all channels of the network are unpacked by one run of ops.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfq_sv import codec
from tfq_sv.codebook import Codebook
from tfq_sv.export.code_tables import BYTE, CodeTables, binary_shape
from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import Graph
from tfq_sv.export.group_decoder import GroupDecoder
from tfq_sv.export.trellis_decoder import TrellisDecoder
from tfq_sv.quantization.trellis import TrellisCodebook


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
        self._tables = CodeTables(graph)
        self._group = GroupDecoder(graph, kind, filters, self._tables)
        self._negated: dict[_Negation, list[Filter]] = defaultdict(list)
        self._steps: dict[Filter, int] = {}
        for filter in filters:
            if filter.signed and isinstance(filter.book, Codebook) and filter.book.bits < 8:
                self._negated[_negation(filter)].append(filter)

    def filter(self, filter: Filter, output: int) -> None:
        """Appends the ops that decode a filter below 8 bits into a tensor of its shape or flat."""
        if isinstance(filter.book, TrellisCodebook):
            return self._trellis.filter(filter, output)
        piece = self._group.piece(filter)
        cells = self._single(filter) if piece is None else piece
        self._graph.reshape(cells, self._graph.subgraph.tensors[output].shape, output)

    def flat(self, filter: Filter) -> int:
        """Appends the ops that decode a filter below 8 bits; returns its levels: (size,)."""
        piece = None
        if not isinstance(filter.book, TrellisCodebook):
            piece = self._group.piece(filter)
        if piece is None:
            piece = self._graph.tensor([filter.size], self._kind)
            self.filter(filter, piece)
        return piece

    def _single(self, filter: Filter) -> int:
        """The levels of a filter that is in no group: as many as it has weights, in any shape."""
        graph, bits = self._graph, _bits(filter)
        assert isinstance(filter.book, Codebook)
        _, levels = filter.book.grid()
        both = np.concatenate([levels, -levels]) if filter.signed else levels
        stored = graph.constant(both, self._kind)
        whole = _by_bytes(filter)
        if whole or not filter.signed:
            table = graph.gather(stored, self._tables.codes(bits, whole))
            cells = graph.gather(table, self._rows(filter))
        else:
            codes = graph.gather(self._tables.codes(bits), self._rows(filter))
            codes = self._trimmed(codes, filter.size)
            codes = graph.reshape(codes, _by_channel(filter, filter.size))
            codes = graph.arithmetic("ADD", codes, self._negations(filter))
            cells = graph.gather(stored, codes)
        return self._trimmed(cells, filter.size)

    def _rows(self, filter: Filter) -> int:
        """Which row of the table holds each group of codes, int32.

        The last plane's bytes have shape (..., n), those of a plane of twice its width
        (..., n, 2), and so on; each byte of a later plane gives as many parts: shapes are equal.
        """
        graph, widths = self._graph, codec.planes(_bits(filter))
        rows, shift = -1, 0
        for width, plane in zip(widths, filter.packed(), strict=True):
            inner, last = binary_shape(width // widths[-1]), width == widths[-1]
            count = plane.size // math.prod(inner)
            shape = _by_channel(filter, count) if _by_bytes(filter) else [count]
            found = graph.cast_int32(graph.constant(plane.reshape(*shape, *inner)))
            if _by_bytes(filter) and last:
                found = graph.arithmetic("ADD", found, self._negations(filter))
            if shift:
                parts = self._tables.parts(_bits(filter), width, shift, _by_bytes(filter) and last)
                found = graph.arithmetic("ADD", rows, graph.gather(parts, found))
            rows, shift = found, shift + width
        return rows

    def _negations(self, filter: Filter) -> int:
        """What is added to a filter's positions, per channel: the step or 0.

        All filters of a kind are served by the same ops: their signs are one row of bits.
        """
        if filter not in self._steps:
            kind, graph = _negation(filter), self._graph
            filters = self._negated[kind]
            signs = np.concatenate([filter.signs for filter in filters])
            packed = graph.cast_int32(graph.constant(codec.pack(signs, 1)[0]))
            step = graph.constant(np.array([kind.step], np.int32))
            steps = graph.gather(graph.arithmetic("MUL", self._tables.unpacked(1), step), packed)
            column = [signs.size, 1] if kind.axis == 0 else [1, signs.size]
            steps = graph.reshape(self._trimmed(steps, signs.size), column)
            sizes = [filter.signs.size for filter in filters]
            pieces = graph.split(steps, sizes, kind.axis)
            self._steps.update(zip(filters, pieces, strict=True))
        return self._steps[filter]

    def _trimmed(self, cells: int, count: int) -> int:
        """Drops what fills up the last byte, in one row; as they are if there is none."""
        graph = self._graph
        size = int(np.prod(graph.subgraph.tensors[cells].shape))
        if size == count:
            return cells
        return graph.slice(graph.reshape(cells, [size]), [0], [count])


def _bits(filter: Filter) -> int:
    assert isinstance(filter.book, Codebook)
    return filter.book.bits


def _negation(filter: Filter) -> _Negation:
    if not _by_bytes(filter):
        return _Negation(2 ** _bits(filter), 0 if filter.axis == 0 else 1)
    return _Negation(BYTE, 0)


def _by_bytes(filter: Filter) -> bool:
    """Whether whole bytes are negated: no byte holds codes of two channels."""
    cells = 8 // codec.planes(_bits(filter))[-1]
    return filter.signed and filter.axis == 0 and math.prod(filter.shape[1:]) % cells == 0


def _by_channel(filter: Filter, count: int) -> list[int]:
    channels = filter.signs.size
    return [channels, count // channels] if filter.axis == 0 else [count // channels, channels]
