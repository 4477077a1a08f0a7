"""The ops that turn packed codes into filters while the file runs: CAST, GATHER, RESHAPE.

A byte of codes is looked up in a table of 256 rows: the levels of each code in it. The table itself
is looked up in the layer's levels by a table of codes that all layers share, so that a layer stores
no more than its codes and 2**bits levels. Codes in several planes have longer tables, with a row
for each byte of the first plane together with the parts of the others' bytes that belong to the
same codes: one lookup per row is much faster than arithmetic per code.

Each op and each tensor costs some 50 bytes in the file, twice, for `embed` and for `inflate`. So
bytes and tables are given shapes by which planes of different widths meet without a RESHAPE.
"""

from collections.abc import Iterable

import numpy as np

from tfq_sv import codec
from tfq_sv.codebook import Codebook
from tfq_sv.export.code_tables import CodeTables, binary_shape
from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import Graph
from tfq_sv.export.group_decoder import GroupDecoder
from tfq_sv.export.trellis_decoder import TrellisDecoder
from tfq_sv.quantization.trellis import TrellisCodebook


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
        graph = self._graph
        assert isinstance(filter.book, Codebook)
        _, levels = filter.book.grid()
        stored = graph.constant(levels, self._kind)
        table = graph.gather(stored, self._tables.codes(filter.book.bits))
        return self._trimmed(graph.gather(table, self._rows(filter)), filter.size)

    def _rows(self, filter: Filter) -> int:
        """Which row of the table holds each group of codes, int32.

        The last plane's bytes have shape (..., n), those of a plane of twice its width
        (..., n, 2), and so on; each byte of a later plane gives as many parts: shapes are equal.
        """
        assert isinstance(filter.book, Codebook)
        graph, bits = self._graph, filter.book.bits
        widths = codec.planes(bits)
        rows, shift = -1, 0
        for width, plane in zip(widths, filter.packed(), strict=True):
            inner = binary_shape(width // widths[-1])
            found = graph.cast_int32(graph.constant(plane.reshape(-1, *inner)))
            if shift:
                parts = self._tables.parts(bits, width, shift)
                found = graph.arithmetic("ADD", rows, graph.gather(parts, found))
            rows, shift = found, shift + width
        return rows

    def _trimmed(self, cells: int, count: int) -> int:
        """Drops what fills up the last byte, in one row; as they are if there is none."""
        graph = self._graph
        size = int(np.prod(graph.subgraph.tensors[cells].shape))
        if size == count:
            return cells
        return graph.slice(graph.reshape(cells, [size]), [0], [count])
