"""Codes as bytes and back: exactly b bits per code. Pure NumPy.

A byte holds 1, 2 or 4 bits of 8, 4 or 2 codes, the first of them in its lowest bits. Codes of 3, 5,
6 or 7 bits are cut into planes of such widths, the lowest bits of a code in the first plane:

    bits    1  2  3    4  5    6    7      8
    planes  1  2  2+1  4  4+1  4+2  4+2+1  8

so that every byte can be looked up in a table of 256 rows, which is all that a decoder made of
stock ops can do. Zeros fill up the last byte of the last plane, and as many cells in the others.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfq_sv.codebook import check_bits

Bytes = npt.NDArray[np.uint8]

FEWEST_GROUPED = 3
"""Layers of one segment that a file decodes together: fewer are smaller if decoded alone."""

_SEGMENT, _MOST_GROUPED = 1 << 19, 64
_CHUNK, _SHORT_CHUNK = 1024, 64  # weights
_LONGEST, _LONGEST_ODD = 1 << 17, 1 << 14  # weights: of a layer that is grouped
_PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}


def planes(bits: int) -> tuple[int, ...]:
    """Returns the widths of the planes that codes of so many bits are cut into, lowest bits first.

    >>> planes(7)
    (4, 2, 1)
    """
    return _PLANES[check_bits(bits)]


def pack(codes: Bytes, bits: int) -> list[Bytes]:
    """Packs codes; `unpack` is the inverse.

    Args:
        codes: uint8 (count,), each less than 2**bits.
        bits: 1-8.

    Returns:
        One array per plane: uint8 (n * width / 8,), n the count rounded up so that the last plane
        has whole bytes.

    >>> [plane.tolist() for plane in pack(np.uint8([1, 2, 3, 7]), bits=3)]
    [[249, 0], [8]]
    """
    packed, shift = [], 0
    codes = np.pad(codes, (0, -codes.size % (8 // planes(bits)[-1])))
    for width in planes(bits):
        cells = ((codes >> shift) & (2**width - 1)).reshape(-1, 8 // width)
        packed.append((cells << _shifts(width)).sum(-1, dtype=np.uint8))
        shift += width
    return packed


def unpack(packed: Sequence[Bytes], bits: int, count: int) -> Bytes:
    """Returns the codes that `pack` packed: uint8 (count,).

    >>> unpack([np.uint8([249, 0]), np.uint8([8])], bits=3, count=4).tolist()
    [1, 2, 3, 7]
    """
    codes, shift = np.zeros(count, np.uint8), 0
    for width, plane in zip(planes(bits), packed, strict=True):
        codes |= unpack_table(width)[plane].reshape(-1)[:count] << np.uint8(shift)
        shift += width
    return codes


def unpack_table(width: int) -> Bytes:
    """Returns the codes in every byte: uint8 (256, 8 / width).

    >>> unpack_table(4)[0x21].tolist()
    [1, 2]
    """
    every = np.arange(256, dtype=np.uint8)[:, None]
    return (every >> _shifts(width)) & np.uint8(2**width - 1)


def segments(weights: Sequence[int]) -> list[tuple[int, bool] | None]:
    """Says which layers of a network a file decodes together, where they have as many bits.

    At most half a million weights and 64 layers, so that little is in memory at once; and layers
    whose codes fill whole chunks of bytes, because each chunk is of one layer. Small layers of
    other sizes have shorter chunks, and segments of their own.

    Args:
        weights: how many each layer has, in the network's order.

    Returns:
        The segment of each layer; None if it is decoded alone.

    >>> segments([288, 9216, 4608, 2048, 1_000_000])
    [None, (0, True), (0, False), (0, True), None]
    """
    keys: list[tuple[int, bool] | None] = []
    filled = {True: [0, 0, 0], False: [0, 0, 0]}  # segment, weights and layers in it
    for count in weights:
        long = count % _CHUNK == 0
        if count % _SHORT_CHUNK or count > (_LONGEST if long else _LONGEST_ODD):
            keys.append(None)
            continue
        state = filled[long]
        if state[1] + count > _SEGMENT or state[2] == _MOST_GROUPED:
            state[:] = state[0] + 1, 0, 0
        state[1:] = state[1] + count, state[2] + 1
        keys.append((state[0], long))
    return keys


def _shifts(width: int) -> Bytes:
    return np.arange(0, 8, width, dtype=np.uint8)
