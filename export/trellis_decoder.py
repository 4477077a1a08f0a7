"""The ops that turn trellis codes into filters while the file runs.

Filters of as many channels lie next to each other, as one matrix of bytes, and are decoded together
(`tfq_sv.quantization.trellis`): each byte and the byte above it are the number of a row, which
holds their weights. The rows are made from the table of the windows, the only table in the file.
SPLIT_V cuts the weights into filters: a layer costs one RESHAPE, and its part of seven ops.
"""

from collections.abc import Iterable

import numpy as np

from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import Graph
from tfq_sv.quantization import trellis
from tfq_sv.quantization.trellis import TrellisCodebook

_WORDS = 65_536


class TrellisDecoder:
    """Appends decoding ops to one subgraph."""

    def __init__(self, graph: Graph, kind: int, filters: Iterable[Filter]) -> None:
        """Decodes trellis filters within `graph`, as tensors of type `kind` (INT8 or UINT8)."""
        self._graph, self._kind = graph, kind
        self._groups = _grouped(filters)
        self._pieces: dict[Filter, int] = {}
        self._tables: dict[float, int] = {}

    def filter(self, filter: Filter, output: int) -> None:
        """Appends the ops that decode a filter into a tensor of its shape or flat."""
        if filter not in self._pieces:
            group = next(group for group in self._groups if filter in group)
            self._pieces.update(zip(group, self._decoded(group), strict=True))
        shape = self._graph.subgraph.tensors[output].shape
        self._graph.reshape(self._pieces[filter], shape, output)

    def _decoded(self, group: list[Filter]) -> list[int]:
        """The filters' weights: (channels, bytes, weights per byte) each."""
        graph = self._graph
        codes = np.hstack([_book(filter).codes for filter in group])
        channels, width = codes.shape
        own = graph.cast_int32(graph.constant(codes))
        above = graph.slice(graph.tile(own, [2, 1]), [channels - 1, 0], [channels, width])
        words = graph.arithmetic("ADD", self._times(own, 256), above)
        weights = graph.gather(self._rows(_book(group[0]).bits), words)
        sizes = [_book(filter).codes.shape[1] for filter in group]
        return [weights] if len(group) == 1 else graph.split(weights, sizes, axis=1)

    def _rows(self, bits: float) -> int:
        """The weights in every word: `trellis.rows`, in ops."""
        if bits not in self._tables:
            graph, windows = self._graph, trellis.table(bits)
            table = graph.constant(windows, self._kind)
            count, width = windows.shape
            while count < _WORDS:
                step = count // 256
                tiled = graph.tile(table, [step, 1])
                repeated = graph.reshape(graph.tile(table, [1, step]), [count * step, width])
                table = graph.concatenate([tiled, repeated], 1)
                count, width = count * step, 2 * width
            self._tables[bits] = table
        return self._tables[bits]

    def _times(self, tensor: int, factor: int) -> int:
        graph = self._graph
        return graph.arithmetic("MUL", tensor, graph.constant(np.array([factor], np.int32)))


def _book(filter: Filter) -> TrellisCodebook:
    assert isinstance(filter.book, TrellisCodebook)
    return filter.book


def _grouped(filters: Iterable[Filter]) -> list[list[Filter]]:
    """Filters of equal width and as many channels, in the order in which they come."""
    groups: list[list[Filter]] = []
    open: dict[tuple[float, int], list[Filter]] = {}
    for filter in filters:
        book = _book(filter)
        key = book.bits, len(book.codes)
        group = open.get(key)
        fits = group and sum(_book(other).size for other in group) + book.size <= trellis.GROUP
        if group is None or not fits:
            group = open[key] = []
            groups.append(group)
        group.append(filter)
    return groups
