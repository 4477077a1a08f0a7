"""Trellis codes: a weight's table entry depends on its own code and on the codes before it.

A kernel is a matrix, (channels, inputs). Its codes are bytes, (channels, inputs * bits / 8). A byte
and the byte of the channel before, in the same column, form a 16-bit word that holds 8 / bits
weights of the byte's channel: each weight is the table entry for a window of k + 8 bits of the
word. So a weight of k bits is one of 2**(k + 8) values instead of 2**k, at the same size. The last
channel comes before the first: each column is a closed path, and independent of all others.

Decoding looks every word up at once. Encoding searches each column for the path with the least
error (Viterbi). NumPy; numba compiles the search.

Source: the bitshift trellis of QTIP (Tseng et al., NeurIPS 2024, arXiv 2406.11235); trellis-coded
quantization, Marcellin and Fischer, IEEE Trans. Communications 38(1), 1990.
"""

import functools
import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WIDTHS = (0.5, 1, 2, 4)
"""Bits per weight that there are codes for."""

GROUP = 2_000_000
"""Weights that a file decodes together; more take memory, fewer take ops."""

_STATES = 256  # of a path between two rows: the byte
_REFINEMENTS = 2


@dataclass(frozen=True, eq=False)
class TrellisCodebook:
    """One layer's weights as trellis codes, with a scale per channel: as `codebook.Codebook`.

    Attributes:
        codes: uint8 (channels, n), see the module.
        scales: float32 (channels,): a weight is an entry of `table(bits)` times its channel's.
        bits: per weight, one of `WIDTHS`.
        shape: the Keras kernel's, channels last.
    """

    codes: Bytes
    scales: Floats
    bits: float
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many weights."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What the codes take in a file, which holds the table once for all layers."""
        return self.codes.nbytes

    def levels(self) -> npt.NDArray[np.int8]:
        """Returns the kernel in units of the scales: int8, the kernel's shape."""
        return as_kernel(decode(self.codes, table(self.bits)), self.shape)

    def steps(self) -> Floats:
        """Returns the scale of each output channel, float32 (channels,)."""
        return self.scales

    def decode(self) -> Floats:
        """Returns the kernel that the codes stand for, float32, the kernel's shape."""
        return self.levels() * self.scales


def as_matrix(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a Keras kernel, channels last, as (channels, inputs)."""
    return np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)


def as_kernel(matrix: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The inverse of `as_matrix`."""
    return np.moveaxis(matrix.reshape(shape[-1], *shape[:-1]), 0, -1)


def check_bits(bits: float) -> float:
    """Returns bits, or raises InputError if there is no trellis of that width."""
    if isinstance(bits, bool) or bits not in WIDTHS:
        raise InputError(f"a trellis has 0.5, 1, 2 or 4 bits per weight, not {bits!r}")
    return float(bits) if bits < 1 else int(bits)


def block(bits: float) -> int:
    """Returns how many weights a byte holds; the inputs of a kernel must be a multiple of it.

    >>> block(0.5), block(2)
    (16, 4)
    """
    return int(8 / check_bits(bits))


@functools.cache
def table(bits: float) -> npt.NDArray[np.int8]:
    """Returns the table that all networks share: int8 (2**(k + 8), v), see `rows`.

    At half a bit, each code of k = 1 bit stands for v = 2 weights.

    >>> table(0.5).shape, table(4).shape
    ((512, 2), (4096, 1))
    """
    return _constant(f"levels_{check_bits(bits):g}")


def deviation(bits: float) -> float:
    """Returns the standard deviation of the weights that `table` was fitted to, in its units."""
    return float(_constant(f"deviation_{check_bits(bits):g}"))


@functools.cache
def _constant(name: str) -> npt.NDArray[Any]:
    with resources.files("tfq_sv.assets").joinpath("trellis.npz").open("rb") as file:
        values = np.load(file)[name]
    values.flags.writeable = False
    return values


def fit(
    kernel: npt.NDArray[np.floating], bits: float, *, per_channel: bool = True
) -> tuple[Bytes, Floats]:
    """Returns codes and a scale per channel: kernel is about decode(codes, table(bits)) * scales.

    Scales start from each channel's root mean square; least squares gives them for the codes found,
    and codes are found again for them, as long as the error falls.

    Args:
        kernel: (channels, inputs), inputs a multiple of `block(bits)`.
        bits: one of `WIDTHS`.
        per_channel: False for scales that are all equal.

    Returns:
        uint8 (channels, inputs * bits / 8), float32 (channels, 1).

    Raises:
        InputError: as `encode`, and for other bits.

    >>> kernel = np.random.default_rng(0).normal(size=(64, 32))
    >>> codes, scales = fit(kernel, bits=2)
    >>> error = kernel - decode(codes, table(2)) * scales
    >>> codes.nbytes, round(float(np.mean(error**2)), 2)
    (512, 0.08)
    """
    levels = table(bits)
    scales = initial_scales(kernel, bits, per_channel)
    least, best = np.inf, None
    for _ in range(_REFINEMENTS):
        codes = encode(kernel / scales, levels)
        values = decode(codes, levels).astype(np.float32)
        scales = least_squares_scales(kernel, values, scales, per_channel)
        error = float(np.sum(np.square(kernel - values * scales), dtype=np.float64))
        if error < least:
            least, best = error, (codes, scales)
    assert best is not None
    return best


def initial_scales(
    kernel: npt.NDArray[np.floating], bits: float, per_channel: bool = True
) -> Floats:
    """Returns the scale by which each channel is as strong as the table wants it: (channels, 1)."""
    power = _mean(np.square(kernel, dtype=np.float64), per_channel)
    scales = np.where(power > 0, np.sqrt(power), 1) / deviation(bits)
    return scales.astype(np.float32)


def least_squares_scales(
    kernel: npt.NDArray[np.floating],
    values: npt.NDArray[np.floating],
    scales: Floats,
    per_channel: bool = True,
) -> Floats:
    """Returns the scales with the least error for values; where all are zero, those given."""
    power = _mean(np.square(values, dtype=np.float64), per_channel)
    found = _mean(values * np.float64(kernel), per_channel) / np.where(power > 0, power, 1)
    return np.where(found > 0, found, scales).astype(np.float32)


def _mean(values: npt.NDArray[np.float64], per_channel: bool) -> npt.NDArray[np.float64]:
    mean = np.mean(values, axis=1 if per_channel else None, keepdims=True)
    return np.broadcast_to(mean, (len(values), 1))


def rows(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the weights in every 16-bit word.

    Args:
        table: (2**(k + 8), v): v values for each window of k + 8 bits, k = 1, 2 or 4. A window is
            moved on by k bits from one code to the next, so that a weight takes k / v bits.

    Returns:
        (65536, 8 / k * v), the table's dtype.

    >>> table = np.arange(1024)[:, None]  # k = 2: four codes per byte
    >>> rows(table)[0b1101_1000_0000_0111].tolist()
    [7, 513, 384, 864]
    """
    codes = 1
    while len(table) < _STATES**2:
        # 2 m codes are m codes at the word's start, and m codes that start m codes later.
        step = len(table) // _STATES
        table = np.hstack([np.tile(table, (step, 1)), np.repeat(table, step, axis=0)])
        codes *= 2
    return table


def words(codes: Bytes) -> npt.NDArray[np.uint16]:
    """Returns each byte as the upper half of a word, the byte above it as the lower half.

    >>> words(np.uint8([[1], [2]])).tolist()
    [[258], [513]]
    """
    own, above = codes.astype(np.uint16), np.roll(codes, 1, axis=0).astype(np.uint16)
    return np.bitwise_or(above, np.left_shift(own, np.uint16(8)))


def decode(codes: Bytes, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the kernel that codes stand for.

    Args:
        codes: uint8 (channels, n).
        table: see `rows`.

    Returns:
        (channels, n * 8 / k * v), the table's dtype.
    """
    return rows(table)[words(codes)].reshape(len(codes), -1)


def encode(
    kernel: npt.NDArray[np.floating],
    table: npt.NDArray[Any],
    coupling: npt.NDArray[np.floating] | None = None,
    importance: npt.NDArray[np.floating] | None = None,
) -> Bytes:
    """Returns the codes whose kernel is nearest to this one, column by column.

    Args:
        kernel: (channels, inputs), in the table's units.
        table: see `rows`.
        coupling: see `viterbi.closed_paths`; none if None.
        importance: see `viterbi.closed_paths`; all weights alike if None.

    Returns:
        uint8 (channels, inputs / (8 / k * v)).

    Raises:
        InputError: the inputs do not fill whole bytes; weights that are not finite.
    """
    from tfq_sv.quantization import viterbi  # numba takes half a second to import

    entries, values = table.shape
    branches = entries // _STATES
    width = 8 // (branches.bit_length() - 1) * values
    if kernel.shape[1] % width:
        raise InputError(f"{kernel.shape[1]} inputs do not fill bytes of {width} weights")
    if not np.isfinite(kernel).all():
        raise InputError("some weights are NaN or infinite; nothing encodes them")
    columns = np.asarray(kernel, np.float32).reshape(len(kernel), -1, width).transpose(1, 0, 2)
    by_code = table.astype(np.float32).T.reshape(values, branches, -1, branches)
    return viterbi.closed_paths(
        np.ascontiguousarray(columns),
        np.ascontiguousarray(by_code.transpose(0, 3, 1, 2)),
        _single(np.zeros((width, width)) if coupling is None else coupling),
        _single(np.ones(width) if importance is None else importance),
    ).T


def _single(values: npt.NDArray[np.floating]) -> Floats:
    return np.ascontiguousarray(values, np.float32)
