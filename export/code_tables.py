"""Tables that say which codes are in a byte: each is appended when it is first asked for."""

from collections.abc import Callable

import numpy as np

from tfq_sv import codec
from tfq_sv.export.flatbuffer import Graph

BYTE = 256


class CodeTables:
    """The tables of one subgraph, which all layers share."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._shared: dict[tuple[str | int, ...], int] = {}

    def codes(self, bits: int) -> int:
        """The codes of every row: int32 (rows, codes per row)."""
        graph, widths = self._graph, codec.planes(bits)
        cells = 8 // widths[0]

        def make() -> int:
            codes, rows, shift = self.unpacked(widths[0]), BYTE, widths[0]
            for width in widths[1:]:
                values = 2 ** (width * cells)
                every = codec.unpack_table(width)[:values, None, :cells] << np.uint8(shift)
                added = graph.cast_int32(graph.constant(every))
                rows, shift = rows * values, shift + width
                codes = graph.arithmetic("ADD", added, codes)  # (values, rows before, cells)
                codes = graph.reshape(codes, [rows, cells])
            return codes

        return self._shared_table(make, "table", bits)

    def parts(self, bits: int, width: int, shift: int) -> int:
        """What the parts of a byte add to the row, of a later plane: int32 (256, 2, 2, ...).

        `shift`: how many bits of a code are in the planes before.
        """
        graph, first = self._graph, codec.planes(bits)[0]
        step = 2 ** (shift * 8 // first)

        def make() -> int:
            part = width * 8 // first  # bits of a part
            every = codec.unpack_table(part).reshape(BYTE, *binary_shape(8 // part))
            values = graph.cast_int32(graph.constant(every))
            return graph.arithmetic("MUL", values, graph.constant(np.array([step], np.int32)))

        return self._shared_table(make, "parts", width, first, step)

    def unpacked(self, width: int) -> int:
        """The codes in every byte: int32 (256, 8 / width)."""
        every = codec.unpack_table(width)
        return self._shared_table(
            lambda: self._graph.cast_int32(self._graph.constant(every)), "unpacked", width
        )

    def _shared_table(self, make: Callable[[], int], *key: str | int) -> int:
        """What `make` appended when it was first called with that key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]


def binary_shape(cells: int) -> list[int]:
    """The shape (2, 2, ...) of so many cells.

    >>> binary_shape(8)
    [2, 2, 2]
    """
    return [2] * (cells.bit_length() - 1)
