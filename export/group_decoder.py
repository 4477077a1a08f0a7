"""The ops that decode many layers at once: a deep narrow network pays for groups, not for layers.

A layer decoded alone costs four ops, twice. Layers of equal width, one after the other, share them:
their codes are one run of bytes, cut into chunks of one layer each, and each layer has a table of
rows of its own, all of them in one. The number of a chunk's layer leads into its table. SPLIT_V
cuts what comes out into filters: a layer costs one RESHAPE, and none where its bytes are wanted.

Layers of odd sizes are decoded alone: `tfq_sv.codec.segments`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tfq_sv import codec
from tfq_sv.codebook import Codebook
from tfq_sv.export.code_tables import CodeTables, binary_shape
from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import Graph


class GroupDecoder:
    """Appends decoding ops to one subgraph."""

    def __init__(
        self, graph: Graph, kind: int, filters: Sequence[Filter], tables: CodeTables
    ) -> None:
        """Decodes those of `filters` that can be grouped, as tensors of type `kind`."""
        self._graph, self._kind, self._tables = graph, kind, tables
        self._groups = {filter: group for group in _grouped(filters) for filter in group}
        self._pieces: dict[Filter, int] = {}

    def piece(self, filter: Filter) -> int | None:
        """Returns a filter's levels, flat; None if it is to be decoded alone."""
        group = self._groups.get(filter)
        if group is None:
            return None
        if filter not in self._pieces:
            self._pieces.update(zip(group, self._decoded(group), strict=True))
        return self._pieces[filter]

    def _decoded(self, group: list[Filter]) -> list[int]:
        graph, bits = self._graph, _bits(group[0])
        levels = np.stack([_book(filter).grid()[1] for filter in group])
        codes = self._tables.codes(bits)
        rows, cells = map(int, graph.subgraph.tensors[codes].shape)
        table = graph.gather(graph.constant(levels, self._kind), codes, axis=1)
        table = graph.reshape(table, [len(group) * rows, cells])
        sizes = [filter.size for filter in group]
        weights = graph.gather(table, self._rows(group, rows))
        return graph.split(graph.reshape(weights, [sum(sizes)]), sizes, axis=0)

    def _rows(self, group: list[Filter], table_rows: int) -> int:
        """Which row of which layer's table holds each run of codes: int32 (chunks, bytes, ...)."""
        graph, bits = self._graph, _bits(group[0])
        widths = codec.planes(bits)
        sizes = [filter.size * widths[-1] // 8 for filter in group]  # bytes of the last plane
        chunk = math.gcd(*sizes)
        packed = zip(*(filter.packed() for filter in group), strict=True)
        rows, shift = -1, 0
        for width, plane in zip(widths, map(np.concatenate, packed), strict=True):
            shape = [sum(sizes) // chunk, chunk, *binary_shape(width // widths[-1])]
            found = graph.cast_int32(graph.constant(plane.reshape(shape)))
            if shift:
                parts = self._tables.parts(bits, width, shift)
                found = graph.arithmetic("ADD", rows, graph.gather(parts, found))
            rows, shift = found, shift + width
        numbers = np.repeat(np.arange(len(group)), np.array(sizes) // chunk).astype(np.uint8)
        rank = len(graph.subgraph.tensors[rows].shape)
        layers = graph.cast_int32(graph.constant(numbers.reshape(-1, *[1] * (rank - 1))))
        step = graph.constant(np.array([table_rows], np.int32))
        return graph.arithmetic("ADD", rows, graph.arithmetic("MUL", layers, step))


def _grouped(filters: Sequence[Filter]) -> list[list[Filter]]:
    groups = defaultdict(list)
    for filter, segment in zip(filters, codec.segments([x.size for x in filters]), strict=True):
        if segment is not None and isinstance(filter.book, Codebook):
            groups[segment, filter.book.bits].append(filter)
    return [
        group
        for (_, bits), group in groups.items()
        if bits < 8 and len(group) >= codec.FEWEST_GROUPED
    ]


def _book(filter: Filter) -> Codebook:
    assert isinstance(filter.book, Codebook)
    return filter.book


def _bits(filter: Filter) -> int:
    return _book(filter).bits
