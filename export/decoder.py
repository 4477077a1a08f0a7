"""The ops that turn packed codes into filters while the file runs: CAST, GATHER, RESHAPE.

A byte of codes is looked up in a table of 256 rows: the levels of each code in it. The table itself
is looked up in the layer's levels by a table of codes that all layers share, so that a layer stores
no more than its codes and 2**bits levels.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq_sv.export import codec
from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import INT8, Graph


class Decoder:
    """Appends decoding ops to one subgraph.

    The int8 levels may be handled as uint8, for whoever wants the filter's bytes.
    """

    def __init__(self, graph: Graph, kind: int) -> None:
        """Decodes within `graph`, into tensors of type `kind` (INT8 or UINT8)."""
        self._graph = graph
        self._kind = kind
        self._tables: dict[tuple[int, int, bool], int] = {}

    def filter(self, filter: Filter, output: int) -> None:
        """Appends the ops that decode a filter of 1-7 bits into a tensor of its shape or flat."""
        graph, bits = self._graph, filter.book.bits
        _, levels = filter.book.grid()
        both = np.concatenate([levels, -levels]) if filter.signed else levels
        stored = graph.constant(both, self._kind)
        if len(codec.planes(bits)) == 1 and _whole_bytes(filter):
            table = graph.gather(stored, self._table(bits, 0, filter.signed))
            positions = graph.cast_int32(graph.constant(filter.packed()[0]))
            positions = self._second_half(filter, positions, 256)
            cells = self._cut(graph.gather(table, positions), filter.codes.size)
        else:
            positions = self._second_half(filter, self._codes(filter), 2**bits)
            cells = graph.gather(stored, positions)
        graph.reshape(cells, graph.subgraph.tensors[output].shape, output)

    def _codes(self, filter: Filter) -> int:
        """The sum of the planes, each looked up as the part of the code that it gives."""
        graph, total, shift = self._graph, -1, 0
        for width, plane in zip(codec.planes(filter.book.bits), filter.packed(), strict=True):
            positions = graph.cast_int32(graph.constant(plane))
            part = graph.gather(self._table(width, shift, False), positions)
            part = self._cut(part, filter.codes.size)
            total = part if shift == 0 else graph.arithmetic("ADD", total, part)
            shift += width
        return total

    def _table(self, width: int, shift: int, twice: bool) -> int:
        """The codes in each byte, shifted: int32 (256, 8 / width).

        Twice has as many rows again, for bytes of negated channels: they point to the second half
        of the levels.
        """
        key = (width, shift, twice)
        if key not in self._tables:
            graph = self._graph
            if twice:
                table = codec.unpack_table(width)
                values = np.concatenate([table, table + np.uint8(2**width)])
                self._tables[key] = graph.cast_int32(graph.constant(values))
            elif shift:
                plain = self._table(width, 0, False)
                factor = graph.constant(np.array([2**shift], np.int32))
                self._tables[key] = graph.arithmetic("MUL", plain, factor)
            else:
                plain = graph.constant(codec.unpack_table(width))
                self._tables[key] = graph.cast_int32(plain)
        return self._tables[key]

    def _second_half(self, filter: Filter, positions: int, step: int) -> int:
        """Adds `step` to the positions of negated channels."""
        if not filter.signed:
            return positions
        graph, channels = self._graph, len(filter.signs)
        count = int(np.prod(graph.subgraph.tensors[positions].shape))
        shape, along = [channels, count // channels], [channels, 1]
        if filter.axis == 3:
            shape, along = shape[::-1], along[::-1]
        signs = graph.cast_int32(graph.constant(filter.signs.reshape(along)))
        factor = graph.constant(np.array([step], np.int32))
        steps = graph.arithmetic("MUL", signs, factor)
        return graph.arithmetic("ADD", graph.reshape(positions, shape), steps)

    def _cut(self, cells: int, count: int) -> int:
        """Makes one row of cells, without what fills up its last byte."""
        graph = self._graph
        kind = graph.subgraph.tensors[cells].type
        found = int(np.prod(graph.subgraph.tensors[cells].shape))
        cells = graph.reshape(cells, [found])
        if found == count:
            return cells
        begin = graph.constant(np.zeros(1, np.int32))
        size = graph.constant(np.array([count], np.int32))
        output = graph.tensor([count], kind)
        version = 2 if kind == INT8 else 1
        options = schema.SliceOptionsT()
        return graph.op("SLICE", [cells, begin, size], output, version=version, options=options)


def _whole_bytes(filter: Filter) -> bool:
    """Whether no byte holds codes of two channels, one negated and one not."""
    if not filter.signed:
        return True
    return filter.axis == 0 and filter.codes[0].size * filter.book.bits % 8 == 0
