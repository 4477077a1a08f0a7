"""Codebooks: 2^b centroids fitted to a layer's weights, and one b-bit code per weight.

Everything downstream (fine-tuning, size, packing, validation) knows weights in this form only.
NumPy alone; no TensorFlow.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfq_sv import kmeans
from tfq_sv.errors import InputError
from tfq_sv.grid import GRID_LEVELS as GRID_LEVELS  # public here
from tfq_sv.grid import grid_scale as grid_scale
from tfq_sv.grid import on_grid
from tfq_sv.grid import snap as snap

Floats = npt.NDArray[np.floating]


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
        """Bits per code."""
        return int(self.centroids.size).bit_length() - 1

    @property
    def size(self) -> int:
        """How many weights."""
        return self.codes.size

    @property
    def bytes(self) -> int:
        """What the kernel takes in a file."""
        return packed_bytes(self.size, self.bits)

    def decode(self) -> npt.NDArray[np.float32]:
        """Returns the kernel that the codes stand for, float32, the codes' shape."""
        return self.centroids[self.codes]

    def levels(self) -> npt.NDArray[np.int8]:
        """Returns the kernel in steps of the int8 grid: int8, the codes' shape."""
        return self.grid()[1][self.codes]

    def steps(self) -> npt.NDArray[np.float32]:
        """Returns the grid's step, float32 (1,)."""
        return np.array([self.grid()[0]], np.float32)

    def grid(self) -> tuple[float, npt.NDArray[np.int8]]:
        """Returns (scale, levels): the centroids as `scale * levels`, int8 (2**bits,)."""
        scale = grid_scale(self.centroids)
        return scale, np.rint(self.centroids / np.float32(scale)).astype(np.int8)


def fit(weights: Floats, bits: int, importance: Floats | None = None) -> npt.NDArray[np.float32]:
    """Fits 2**bits centroids to weights by one-dimensional k-means.

    The weights are gathered into at most a few thousand bins, for which dynamic programming finds
    the optimum (Wang and Song, 2011: Ckmeans.1d.dp); Lloyd's steps on the weights themselves then
    take away what the bins cost. Deterministic.

    Args:
        weights: any shape, finite.
        bits: 1-8.
        importance: how much each weight's squared error counts, the weights' shape, not negative;
            all alike if None.

    Returns:
        Sorted centroids, float32 (2**bits,). With fewer distinct weights than centroids, the
        last one repeats.

    Raises:
        InputError: bits out of range; no weights; NaN or infinite ones; an importance of another
            shape, negative, not finite, or zero everywhere.

    >>> fit(np.array([0.0, 0.5, 2.0, 2.5]), bits=1).tolist()
    [0.25, 2.25]
    >>> fit(np.array([0.0, 0.5, 2.0, 2.5]), bits=1, importance=np.array([3, 1, 1, 1])).tolist()
    [0.125, 2.25]
    """
    return kmeans.optimum(*kmeans.in_order(weights, importance), check_bits(bits))


def fit_on_grid(
    weights: Floats, bits: int, importance: Floats | None = None
) -> npt.NDArray[np.float32]:
    """Fits 2**bits centroids on the int8 grid to weights: what a layer is quantized with.

    Up to 4 bits these are `fit`'s, rounded, where that costs next to nothing. Where a few weights
    are far out, the grid that spans them is too coarse for the others: they may be clipped, and
    the best levels are found as from 5 bits on. There rounded centroids would crowd on some
    of the grid's 255 levels and leave others between them out: dynamic programming chooses the best
    levels, and the grid's step shrinks from the fitted one as long as the error does. At 8 bits the
    centroids are all levels, and only the step is to be found.

    Args, returns and raises: as `fit`. The last centroid repeats at 8 bits.

    >>> weights = np.random.default_rng(0).normal(size=1000)
    >>> for centroids in (fit_on_grid(weights, bits=7), snap(fit(weights, bits=7))):
    ...     print(f"{np.sum((weights - centroids[assign(weights, centroids)]) ** 2):.4f}")
    0.1000
    0.1200
    """
    values, mass = kmeans.in_order(weights, importance)
    if 2 ** check_bits(bits) > 2 * GRID_LEVELS:
        ends = np.linspace(values[0], values[-1], 2**bits).astype(np.float32)
        return on_grid(values, mass, ends, shrink=True)
    return on_grid(values, mass, kmeans.optimum(values, mass, bits), shrink=True)


def fit_equal_count(weights: Floats, bits: int) -> npt.NDArray[np.float32]:
    """Returns 2**bits centroids as the means of equal counts of the central 90 % of the weights.

    The start that a public re-implementation of arXiv 2406.05359 takes, for comparison: `fit` is
    never worse in squared error.

    >>> fit_equal_count(np.arange(20.0), bits=1).tolist()
    [5.0, 14.0]
    """
    values, _ = kmeans.in_order(weights, None)
    count = 2 ** check_bits(bits)
    tail = values.size // 20
    central = values[tail : values.size - tail]
    groups = np.array_split(central, min(count, central.size))
    means = np.array([np.mean(group) for group in groups])
    return np.pad(means, (0, count - means.size), mode="edge").astype(np.float32)


def refine(weights: Floats, centroids: Floats, *, steps: int) -> npt.NDArray[np.float32]:
    """Returns the centroids a few Lloyd steps on from where they are: float32, sorted.

    >>> refine(np.array([0.0, 0.5, 2.0, 2.5]), np.array([0.0, 1.0]), steps=2).tolist()
    [0.25, 2.25]
    """
    values, mass = kmeans.in_order(weights, None)
    return kmeans.lloyd(values, mass, np.asarray(centroids, np.float64), steps)


def refine_on_grid(weights: Floats, centroids: Floats, *, steps: int) -> npt.NDArray[np.float32]:
    """`refine`, and onto the int8 grid: how codebooks follow the weights in fine-tuning.

    >>> refine_on_grid(np.array([0.0, 0.5, 2.0, 2.5]), np.array([0.0, 1.0]), steps=2).round(3)
    array([0.248, 2.25 ], dtype=float32)
    """
    if np.size(centroids) > 2 * GRID_LEVELS:
        return fit_on_grid(weights, bits=8)  # all levels: only the step can move
    values, mass = kmeans.in_order(weights, None)
    moved = kmeans.lloyd(values, mass, np.asarray(centroids, np.float64), steps)
    return on_grid(values, mass, moved, shrink=False)


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


def packed_bytes(weights: int, bits: float) -> int:
    """Returns what a layer's kernel takes in a file: its codes, and the levels of its codebook.

    At 8 bits the codes are the levels themselves; 32 bits stand for float32.

    >>> packed_bytes(1000, 4), packed_bytes(1000, 8), packed_bytes(1000, 32)
    (516, 1000, 4000)
    """
    return -int(-weights * bits // 8) + (2 ** int(bits) if bits < 8 else 0)


def check_bits(bits: float) -> int:
    """Returns bits, or raises InputError if no codebook can have so many."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 1 <= bits <= 8:
        raise InputError(f"bits must be a whole number from 1 to 8, not {bits!r}")
    return int(bits)
