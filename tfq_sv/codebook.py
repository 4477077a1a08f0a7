"""Codebooks: 2^b centroids fitted to a layer's weights, and one b-bit code a weight.

Everything downstream (fine-tuning, size, packing, validation) knows weights in this form only.
NumPy alone; no TensorFlow.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

Floats = npt.NDArray[np.floating]

GRID_LEVELS = 127
"""A stored centroid is `scale * level`, level an integer in [-127, 127], one scale a layer."""


@dataclass(frozen=True, eq=False)
class Codebook:
    """One layer's weights as codes into a table of centroids.

    Attributes:
        centroids: float32 (2**bits,), sorted.
        codes: uint8, the kernel's shape.

    >>> book = Codebook(np.float32([-1, 1]), np.uint8([[0, 1, 1]]))
    >>> book.bits, book.decode().tolist()
    (1, [[-1.0, 1.0, 1.0]])
    """

    centroids: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]

    @property
    def bits(self) -> int:
        """Bits a code takes."""
        return int(self.centroids.size).bit_length() - 1

    def decode(self) -> npt.NDArray[np.float32]:
        """Returns the kernel that the codes stand for, float32, the codes' shape."""
        return self.centroids[self.codes]

    def grid(self) -> tuple[float, npt.NDArray[np.int8]]:
        """Returns (scale, levels): the centroids as `scale * levels`, int8 (2**bits,)."""
        scale = grid_scale(self.centroids)
        return scale, np.rint(self.centroids / np.float32(scale)).astype(np.int8)


def grid_scale(centroids: Floats) -> float:
    """Returns the step of the int8 grid on which the greatest centroid is level 127."""
    peak = float(np.max(np.abs(centroids)))
    return float(np.float32(peak / GRID_LEVELS)) or 1.0


def snap(centroids: Floats) -> npt.NDArray[np.float32]:
    """Moves centroids onto the int8 grid that the exported file stores.

    >>> snap(np.array([-1.0, 0.1, 1.27])).round(4).tolist()
    [-1.0, 0.1, 1.27]
    """
    scale = np.float32(grid_scale(centroids))
    return np.rint(centroids / scale).astype(np.float32) * scale


def fit(weights: Floats, bits: int, *, max_steps: int = 5000) -> npt.NDArray[np.float32]:
    """Fits 2**bits centroids to weights by one-dimensional k-means.

    The start spaces centroids by the cube root of the density, which is optimal for many
    centroids (Panter and Dite, 1951); Lloyd's steps on sorted weights with prefix sums follow, each
    costing a binary search a centroid, until no weight changes its centroid.

    Args:
        weights: any shape, finite.
        bits: 1-8.
        max_steps: at most so many Lloyd steps.

    Returns:
        Sorted centroids, float32 (2**bits,). With fewer distinct weights than centroids, the
        last ones repeat.

    Raises:
        InputError: bits out of range; no weights; NaN or infinite ones.

    >>> fit(np.array([0.0, 0.1, 0.9, 1.0]), bits=1).round(3).tolist()
    [0.05, 0.95]
    """
    values = _sorted(weights)
    count = 2 ** check_bits(bits)
    distinct = np.unique(values)
    if distinct.size <= count:
        return np.pad(distinct, (0, count - distinct.size), mode="edge").astype(np.float32)
    return _lloyd(values, _companded(values, count), max_steps)


def refine(weights: Floats, centroids: Floats, *, steps: int) -> npt.NDArray[np.float32]:
    """Returns the centroids after a few Lloyd steps from where they are: float32, sorted.

    This is how codebooks follow the weights in fine-tuning.

    >>> refine(np.array([0.0, 0.1, 0.9, 1.0]), np.array([0.0, 0.5]), steps=2).round(3).tolist()
    [0.05, 0.95]
    """
    return _lloyd(_sorted(weights), np.asarray(centroids, np.float64), steps)


def assign(weights: Floats, centroids: Floats) -> npt.NDArray[np.uint8]:
    """Returns each weight's nearest centroid: uint8 codes, the weights' shape.

    Args:
        weights: any shape.
        centroids: sorted, (2**bits,).

    >>> assign(np.array([[0.2, 0.8]]), np.array([0.0, 1.0])).tolist()
    [[0, 1]]
    """
    table = np.asarray(centroids, np.float32)
    midpoints = (table[1:] + table[:-1]) / 2
    return np.searchsorted(midpoints, np.asarray(weights, np.float32)).astype(np.uint8)


def check_bits(bits: int) -> int:
    """Returns bits, or raises InputError if no codebook can have so many."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 1 <= bits <= 8:
        raise InputError(f"bits must be a whole number from 1 to 8, not {bits!r}")
    return int(bits)


def _sorted(weights: Floats) -> npt.NDArray[np.float64]:
    values = np.sort(np.asarray(weights, np.float64), axis=None)
    if values.size == 0:
        raise InputError("a codebook needs at least one weight; the kernel is empty")
    # Sorted, so that the ends tell: NaN sorts last.
    if not (np.isfinite(values[0]) and np.isfinite(values[-1])):
        bad = values.size - np.count_nonzero(np.isfinite(values))
        raise InputError(f"{bad} of {values.size} weights are NaN or infinite; nothing fits them")
    return values


def _companded(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    density, edges = np.histogram(values, bins=max(1024, 16 * count))
    cumulated = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
    targets = (np.arange(count) + 0.5) / count * cumulated[-1]
    return np.interp(targets, cumulated, edges)


def _lloyd(
    values: npt.NDArray[np.float64], centroids: npt.NDArray[np.float64], steps: int
) -> npt.NDArray[np.float32]:
    prefix = np.concatenate([[0.0], np.cumsum(values)])
    bounds = None
    for _ in range(steps):
        inner = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        new = np.concatenate([[0], inner, [values.size]])
        if bounds is not None and np.array_equal(new, bounds):
            break
        bounds = new
        sizes = np.diff(bounds)
        means = np.diff(prefix[bounds]) / np.maximum(sizes, 1)
        centroids = np.where(sizes > 0, means, centroids)
    return np.sort(centroids).astype(np.float32)
