"""Codebooks: 2^b centroids fitted to a layer's weights, and one b-bit code a weight.

Everything downstream (fine-tuning, size, packing, validation) knows weights in this form only.
NumPy alone; no TensorFlow.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

Floats = npt.NDArray[np.floating]

# With so many bins the error of a kernel is within 0.1 % of the optimum at every width (tests).
_MIN_BINS, _BINS_A_CENTROID = 2048, 20

_SHRINK = 0.95  # from one step of the grid that is tried to the next
_CLIP = 0.75  # of the greatest centroid, again and again: where the grid may end
_NEAR = 1.003  # times the squared error without a grid: good enough
_CROWD = 32  # centroids: from here on rounding them to the grid is not enough

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


def grid_scale(centroids: Floats) -> float:
    """Returns the step of the int8 grid on which the greatest centroid is level 127."""
    peak = float(np.max(np.abs(centroids)))
    return float(np.float32(peak / GRID_LEVELS)) or 1.0


def snap(centroids: Floats) -> npt.NDArray[np.float32]:
    """Rounds centroids to the int8 grid that the exported file stores.

    >>> snap(np.array([-1.0, 0.7, 127.0])).tolist()
    [-1.0, 1.0, 127.0]
    """
    scale = np.float32(grid_scale(centroids))
    return np.rint(centroids / scale).astype(np.float32) * scale


def fit(weights: Floats, bits: int, importance: Floats | None = None) -> npt.NDArray[np.float32]:
    """Fits 2**bits centroids to weights by one-dimensional k-means.

    The weights are gathered into at most a few thousand bins, for which dynamic programming finds
    the optimum (Wang and Song, 2011: Ckmeans.1d.dp); Lloyd's steps on the weights themselves then
    take away what the bins cost. Deterministic.

    Written by hand: general k-means libraries find local optima only and need N x K memory, those
    for one dimension K x N.

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
    return _fit(*_sorted(weights, importance), check_bits(bits))


def fit_on_grid(
    weights: Floats, bits: int, importance: Floats | None = None
) -> npt.NDArray[np.float32]:
    """Fits 2**bits centroids on the int8 grid to weights: what a layer is quantized with.

    Up to 4 bits these are `fit`'s, rounded. From 5 bits on rounded centroids would crowd on some
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
    values, mass = _sorted(weights, importance)
    if 2 ** check_bits(bits) > 2 * GRID_LEVELS:
        ends = np.linspace(values[0], values[-1], 2**bits).astype(np.float32)
        return _on_grid(values, mass, ends, shrink=True)
    return _on_grid(values, mass, _fit(values, mass, bits), shrink=True)


def fit_equal_count(weights: Floats, bits: int) -> npt.NDArray[np.float32]:
    """Returns 2**bits centroids as the means of equal counts of the central 90 % of the weights.

    The start that a public re-implementation of arXiv 2406.05359 takes, for comparison: `fit` is
    never worse in squared error.

    >>> fit_equal_count(np.arange(20.0), bits=1).tolist()
    [5.0, 14.0]
    """
    values, _ = _sorted(weights, None)
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
    values, mass = _sorted(weights, None)
    return _lloyd(values, mass, np.asarray(centroids, np.float64), steps)


def refine_on_grid(weights: Floats, centroids: Floats, *, steps: int) -> npt.NDArray[np.float32]:
    """`refine`, and onto the int8 grid: how codebooks follow the weights in fine-tuning.

    >>> refine_on_grid(np.array([0.0, 0.5, 2.0, 2.5]), np.array([0.0, 1.0]), steps=2).round(3)
    array([0.248, 2.25 ], dtype=float32)
    """
    if np.size(centroids) > 2 * GRID_LEVELS:
        return fit_on_grid(weights, bits=8)  # all levels: only the step can move
    values, mass = _sorted(weights, None)
    moved = _lloyd(values, mass, np.asarray(centroids, np.float64), steps)
    return _on_grid(values, mass, moved, shrink=False)


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


def _sorted(
    weights: Floats, importance: Floats | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns weights in order, and what each counts."""
    values = np.asarray(weights, np.float64).reshape(-1)
    if importance is None:
        values, mass = np.sort(values), np.ones(values.size)
    else:
        mass = np.asarray(importance, np.float64)
        if mass.shape != np.shape(weights):
            raise InputError(f"importance is {mass.shape}, the weights are {np.shape(weights)}")
        if mass.size and not (np.isfinite(mass).all() and mass.min() >= 0 < mass.max()):
            raise InputError("importance must be finite, not negative, and not zero everywhere")
        order = np.argsort(values)
        values, mass = values[order], mass.reshape(-1)[order]
    if values.size == 0:
        raise InputError("a codebook needs at least one weight; the kernel is empty")
    # Sorted, so that the ends tell: NaN sorts last.
    if not (np.isfinite(values[0]) and np.isfinite(values[-1])):
        bad = values.size - np.count_nonzero(np.isfinite(values))
        raise InputError(f"{bad} of {values.size} weights are NaN or infinite; nothing fits them")
    # A weight of no importance still needs a code. It counts next to nothing, but enough to be seen
    # in sums over all weights, whose differences would otherwise be 0.
    return values, np.maximum(mass, 1e-12 * mass.sum())


def _fit(
    values: npt.NDArray[np.float64], mass: npt.NDArray[np.float64], bits: int
) -> npt.NDArray[np.float32]:
    count, distinct = 2**bits, np.unique(values)
    if distinct.size <= count:
        return np.pad(distinct, (0, count - distinct.size), mode="edge").astype(np.float32)
    return _lloyd(values, mass, _optimum(*_bins(values, mass, distinct, count), count), steps=200)


def _bins(
    values: npt.NDArray[np.float64],
    mass: npt.NDArray[np.float64],
    distinct: npt.NDArray[np.float64],
    groups: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gathers sorted values; returns what each bin counts, and the sum of what it holds."""
    most = max(_MIN_BINS, _BINS_A_CENTROID * groups)
    if distinct.size <= most:
        starts = np.searchsorted(values, distinct)
    else:
        # Half of the edges at equal distances, for the tails; half at equal counts, for the rest.
        half = most // 2
        widths = np.searchsorted(values, np.linspace(values[0], values[-1], half, endpoint=False))
        starts = np.unique(np.concatenate([widths, np.arange(half) * values.size // half]))
    return np.add.reduceat(mass, starts), np.add.reduceat(mass * values, starts)


def _optimum(
    counts: npt.NDArray[np.float64], sums: npt.NDArray[np.float64], groups: int
) -> npt.NDArray[np.float64]:
    """Returns the means of the best cut of bins into groups.

    best[k][j], the least cost of the first j bins in k groups, is the least over i of
    best[k - 1][i] + cost(i, j). The best i never falls as j grows, so all j of a level of a binary
    subdivision search between the answers of the level above: n log n a group, in whole arrays.
    """
    n = counts.size
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(sums - sums.sum() / weight[-1] * counts)])
    cuts = np.zeros((groups, n + 1), np.int32)
    # Squared error but for a constant: less the square of the sum over the count.
    best = np.append(np.inf, -(total[1:] ** 2) / weight[1:])
    for k in range(1, groups):
        level_best = np.full(n + 1, np.inf)
        # cut[j] for j <= k is never asked for: k groups need k bins.
        step = 1 << n.bit_length()
        cut = np.zeros(n + 2, np.int64)
        cut[0], cut[n + 1] = k, n
        while step > 1:
            step //= 2
            ends = np.arange(step, n + 1, 2 * step)
            ends = ends[ends > k]
            if not ends.size:
                continue
            first = np.maximum(cut[ends - step], k)
            above = np.minimum(ends + step, n + 1)
            last = np.minimum(cut[above], ends - 1)
            lengths = last - first + 1
            offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            starts = np.arange(lengths.sum()) - np.repeat(offsets - first, lengths)
            stops = np.repeat(ends, lengths)
            cost = best[starts] - (total[stops] - total[starts]) ** 2 / (
                weight[stops] - weight[starts]
            )
            least = np.minimum.reduceat(cost, offsets)
            hits = np.flatnonzero(cost == np.repeat(least, lengths))
            where = starts[hits[np.searchsorted(hits, offsets)]]
            level_best[ends], cut[ends] = least, where
        best, cuts[k] = level_best, cut[: n + 1]
    edges = [n]
    for k in range(groups - 1, 0, -1):
        edges.append(int(cuts[k, edges[-1]]))
    bounds = np.array([0, *edges[::-1]])
    return np.add.reduceat(sums, bounds[:-1]) / np.diff(weight[bounds])


def _lloyd(
    values: npt.NDArray[np.float64],
    mass: npt.NDArray[np.float64],
    centroids: npt.NDArray[np.float64],
    steps: int,
) -> npt.NDArray[np.float32]:
    total = np.concatenate([[0.0], np.cumsum(mass)])
    moment = np.concatenate([[0.0], np.cumsum(mass * values)])
    bounds = None
    for _ in range(steps):
        inner = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        new = np.concatenate([[0], inner, [values.size]])
        if bounds is not None and np.array_equal(new, bounds):
            break
        bounds = new
        counts = np.diff(total[bounds])
        means = np.diff(moment[bounds]) / np.where(counts > 0, counts, 1)
        centroids = np.where(counts > 0, means, centroids)
    return np.sort(centroids).astype(np.float32)


def _on_grid(
    values: npt.NDArray[np.float64],
    mass: npt.NDArray[np.float64],
    centroids: npt.NDArray[np.float32],
    shrink: bool,
) -> npt.NDArray[np.float32]:
    """Moves fitted centroids onto the int8 grid that their greatest sets, or one that errs less."""
    low, high = float(centroids[0]), float(centroids[-1])
    if not max(-low, high) > 0:
        return snap(centroids)
    total = np.concatenate([[0.0], np.cumsum(mass)])
    moment = np.concatenate([[0.0], np.cumsum(mass * values)])

    def best(step: float) -> tuple[float, npt.NDArray[np.float64]]:
        return _best_levels(values, total, moment, centroids.size, step, high >= -low)

    start = grid_scale(centroids)
    if centroids.size < _CROWD:
        rounded = snap(centroids)
        square = float(np.sum(mass * values**2))
        free, snapped = (_error(values, total, moment, c) + square for c in (centroids, rounded))
        if not shrink or snapped <= _NEAR * free:
            return rounded
        # One weight far out spans a grid that is too coarse for the rest: it may be worth clipping.
        trials = [best(start)]
        while len(trials) - 1 <= np.argmin([trial[0] for trial in trials]) + 1:  # two worse ones
            trials.append(best(start * _CLIP ** len(trials)))
        least, chosen = min(trials, key=lambda trial: trial[0])
    else:
        least, chosen = best(start)
    while shrink:
        error, levels = best(grid_scale(chosen) * _SHRINK)
        if not error < least:
            break
        least, chosen = error, levels
    return snap(chosen)


def _error(
    values: npt.NDArray[np.float64],
    total: npt.NDArray[np.float64],
    moment: npt.NDArray[np.float64],
    centroids: npt.NDArray[np.float32],
) -> float:
    """The squared error of the nearest centroids, less the sum of the weights' squares."""
    table = centroids.astype(np.float64)
    inner = np.searchsorted(values, (table[1:] + table[:-1]) / 2)
    bounds = np.concatenate([[0], inner, [values.size]])
    return float(np.sum(table * (table * np.diff(total[bounds]) - 2 * np.diff(moment[bounds]))))


def _best_levels(
    values: npt.NDArray[np.float64],
    total: npt.NDArray[np.float64],
    moment: npt.NDArray[np.float64],
    count: int,
    step: float,
    positive: bool,
) -> tuple[float, npt.NDArray[np.float64]]:
    """Returns (error, centroids): the best `count` levels of a grid, the outermost among them.

    best[j], the least error of all weights up to level j with k centroids, j the last of them, is
    the least over i < j of that with k - 1, i the last, and of the weights between: to i below the
    midpoint, to j above it. Errors are less the sum of the weights' squares.
    """
    levels = np.arange(-GRID_LEVELS, GRID_LEVELS + 1)
    bounds = np.searchsorted(values, np.arange(2 * levels[0], 2 * levels[-1] + 1) * (step / 2))
    mass, sums, table = total[bounds], moment[bounds], levels * np.float64(step)
    own = slice(None, None, 2)  # of midpoints i + j, those where i is j
    middle = np.add.outer(np.arange(levels.size), np.arange(levels.size))

    def error(centroid: Any, mass: Any, sums: Any) -> Any:
        return centroid * (centroid * mass - 2 * sums)

    between = np.where(
        levels[:, None] < levels,
        error(table[:, None], mass[middle] - mass[own, None], sums[middle] - sums[own, None])
        + error(table, mass[own] - mass[middle], sums[own] - sums[middle]),
        np.inf,
    )
    below = error(table, mass[own], sums[own])
    above = error(table, total[-1] - mass[own], moment[-1] - sums[own])
    if count >= levels.size:
        least = below[0] + np.trace(between, offset=1) + above[-1]
        return float(least), np.pad(table, (0, count - levels.size), mode="edge")
    # The greatest centroid is level 127 or -127: by that the step is known again.
    if positive:
        above[:-1] = np.inf
    else:
        below[1:] = np.inf
    best, before = below, []
    for _ in range(count - 1):
        costs = best[:, None] + between
        before.append(np.argmin(costs, axis=0))
        best = np.min(costs, axis=0)
    last = [int(np.argmin(best + above))]
    for cut in reversed(before):
        last.append(int(cut[last[-1]]))
    return float(np.min(best + above)), table[last[::-1]]
