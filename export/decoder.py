"""The ops that turn packed codes into filters while the file runs: CAST, GATHER, RESHAPE.

A byte of codes is looked up in a table of 256 rows: the levels of each code in it. The table itself
is looked up in the layer's levels by a table of codes that all layers share, so that a layer stores
no more than its codes and 2**bits levels.

Each op and each tensor costs some 50 bytes in the file, twice, for `embed` and for `inflate`. So
bytes and tables are given shapes by which planes of different widths meet without a RESHAPE, and
the signs of all channels of the network are unpacked by one run of ops.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq_sv.export import codec
from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import INT8, INT32, Graph

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
        self._tables: dict[tuple[int, int, int], int] = {}
        self._negated: dict[_Negation, list[Filter]] = defaultdict(list)
        self._steps: dict[Filter, int] = {}
        for filter in filters:
            if filter.signed and filter.book.bits < 8:
                self._negated[_negation(filter)].append(filter)

    def filter(self, filter: Filter, output: int) -> None:
        """Appends the ops that decode a filter of 1-7 bits into a tensor of its shape or flat."""
        graph, bits = self._graph, filter.book.bits
        _, levels = filter.book.grid()
        both = np.concatenate([levels, -levels]) if filter.signed else levels
        stored = graph.constant(both, self._kind)
        second = 2**bits if _by_bytes(filter) else 0
        widths, planes = codec.planes(bits), filter.packed()
        if len(widths) == 1 and (second or not filter.signed):
            table = graph.gather(stored, self._table(bits, 0, second))
            cells = graph.gather(table, self._bytes(filter, planes[0], bits))
        else:
            codes, shift = -1, 0
            for width, plane in zip(widths, planes, strict=True):
                last = width == widths[-1]
                table = self._table(width, shift, second if last else 0)
                part = graph.gather(table, self._bytes(filter, plane, width))
                codes = part if shift == 0 else graph.arithmetic("ADD", codes, part)
                shift += width
            if filter.signed and not second:
                codes = self._cut(codes, filter.codes.size)
                codes = graph.reshape(codes, _by_channel(filter, filter.codes.size))
                codes = graph.arithmetic("ADD", codes, self._negations(filter))
            cells = graph.gather(stored, codes)
        cells = self._cut(cells, filter.codes.size)
        graph.reshape(cells, graph.subgraph.tensors[output].shape, output)

    def _bytes(self, filter: Filter, plane: codec.Bytes, width: int) -> int:
        """A plane's bytes as positions in a table, in a shape that other planes match.

        The last plane has the most cells a byte, n, and shape (..., bytes); one that has half as
        many cells has shape (..., bytes, 2), and so on. Tables have shape (rows, 2, 2, ...): what
        is gathered has the same shape for all planes.
        """
        graph, last = self._graph, codec.planes(filter.book.bits)[-1]
        inner = _twos(width // last)
        count = plane.size // math.prod(inner)
        shape = _by_channel(filter, count) if _by_bytes(filter) else [count]
        positions = graph.cast_int32(graph.constant(plane.reshape(*shape, *inner)))
        if _by_bytes(filter) and width == last:
            positions = graph.arithmetic("ADD", positions, self._negations(filter))
        return positions

    def _table(self, width: int, shift: int, second: int) -> int:
        """The codes in each byte, shifted: int32 (256, 2, 2, ...), 8 / width codes a row.

        With `second`, as many rows again, for bytes of negated channels: codes + second.
        """
        key = (width, shift, second)
        if key not in self._tables:
            graph = self._graph
            if second:
                plain = self._table(width, shift, 0)
                step = graph.constant(np.array([second], np.int32))
                rows = [plain, graph.arithmetic("ADD", plain, step)]
                output = graph.tensor([2 * _BYTE, *_twos(8 // width)], INT32)
                options = schema.ConcatenationOptionsT(axis=0)
                table = graph.op("CONCATENATION", rows, output, options=options)
            elif shift:
                factor = graph.constant(np.array([2**shift], np.int32))
                table = graph.arithmetic("MUL", self._table(width, 0, 0), factor)
            else:
                every = codec.unpack_table(width).reshape(_BYTE, *_twos(8 // width))
                table = graph.cast_int32(graph.constant(every))
            self._tables[key] = table
        return self._tables[key]

    def _negations(self, filter: Filter) -> int:
        """What is added to a filter's positions, a channel: the step or 0.

        All filters of a kind are served by the same ops: their signs are one row of bits.
        """
        if filter not in self._steps:
            kind, graph = _negation(filter), self._graph
            filters = self._negated[kind]
            signs = np.concatenate([filter.signs for filter in filters])
            packed = graph.cast_int32(graph.constant(codec.pack(signs, 1)[0]))
            steps = graph.gather(self._table(1, kind.step.bit_length() - 1, 0), packed)
            column = [signs.size, 1] if kind.axis == 0 else [1, signs.size]
            steps = graph.reshape(self._cut(steps, signs.size), column)
            sizes = [filter.signs.size for filter in filters]
            pieces = graph.split(steps, sizes, kind.axis)
            self._steps.update(zip(filters, pieces, strict=True))
        return self._steps[filter]

    def _cut(self, cells: int, count: int) -> int:
        """Drops what fills up the last byte, in one row; as they are if there is none."""
        graph = self._graph
        kind = graph.subgraph.tensors[cells].type
        found = int(np.prod(graph.subgraph.tensors[cells].shape))
        if found == count:
            return cells
        row = graph.reshape(cells, [found])
        begin = graph.constant(np.zeros(1, np.int32))
        size = graph.constant(np.array([count], np.int32))
        output = graph.tensor([count], kind)
        version = 2 if kind == INT8 else 1
        options = schema.SliceOptionsT()
        return graph.op("SLICE", [row, begin, size], output, version=version, options=options)


def _negation(filter: Filter) -> _Negation:
    if not _by_bytes(filter):
        return _Negation(2**filter.book.bits, 0 if filter.axis == 0 else 1)
    return _Negation(_BYTE, 0)


def _by_bytes(filter: Filter) -> bool:
    """Whether whole bytes are negated: no byte holds codes of two channels."""
    cells = 8 // codec.planes(filter.book.bits)[-1]
    return filter.signed and filter.axis == 0 and filter.codes[0].size % cells == 0


def _by_channel(filter: Filter, count: int) -> list[int]:
    channels = filter.signs.size
    return [channels, count // channels] if filter.axis == 0 else [count // channels, channels]


def _twos(cells: int) -> list[int]:
    """The shape (2, 2, ...) of so many cells.

    >>> _twos(8)
    [2, 2, 2]
    """
    return [2] * (cells.bit_length() - 1)
