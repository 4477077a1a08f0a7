"""K-means of one dimension, exactly: weights in order are cut where it costs least. NumPy.

Wang and Song, Ckmeans.1d.dp, The R Journal 2011. Written by hand: general libraries of k-means
find local optima only and need N x K memory, those for one dimension K x N.
"""

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

Floats = npt.NDArray[np.floating]

# With so many bins the error of a kernel is within 0.1 % of the optimum at every width (tests).
_MIN_BINS, _BINS_PER_CENTROID = 2048, 20


def in_order(
    weights: Floats, importance: Floats | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns weights in order, and what each counts."""
    check(weights)
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
    # A weight of no importance still needs a code. It counts next to nothing, but enough to be seen
    # in sums over all weights, whose differences would otherwise be 0.
    return values, np.maximum(mass, 1e-12 * mass.sum())


def check(weights: Floats) -> None:
    """Raises InputError for weights that no codebook fits: none at all, NaN or infinite ones."""
    if np.size(weights) == 0:
        raise InputError("a codebook needs at least one weight; the kernel is empty")
    if bad := np.size(weights) - np.count_nonzero(np.isfinite(weights)):
        raise InputError(
            f"{bad} of {np.size(weights)} weights are NaN or infinite; nothing fits them"
        )


def optimum(
    values: npt.NDArray[np.float64], mass: npt.NDArray[np.float64], bits: int
) -> npt.NDArray[np.float32]:
    """Returns the 2**bits centroids, sorted, of what `in_order` gave; the last one may repeat."""
    count, distinct = 2**bits, np.unique(values)
    if distinct.size <= count:
        return np.pad(distinct, (0, count - distinct.size), mode="edge").astype(np.float32)
    return lloyd(values, mass, _best_means(*_bins(values, mass, distinct, count), count), steps=200)


def lloyd(
    values: npt.NDArray[np.float64],
    mass: npt.NDArray[np.float64],
    centroids: npt.NDArray[np.float64],
    steps: int,
) -> npt.NDArray[np.float32]:
    """Returns centroids after at most so many of Lloyd's steps."""
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


def _bins(
    values: npt.NDArray[np.float64],
    mass: npt.NDArray[np.float64],
    distinct: npt.NDArray[np.float64],
    groups: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gathers sorted values; returns what each bin counts, and the sum of what it holds."""
    most = max(_MIN_BINS, _BINS_PER_CENTROID * groups)
    if distinct.size <= most:
        starts = np.searchsorted(values, distinct)
    else:
        # Half of the edges at equal distances, for the tails; half at equal counts, for the rest.
        half = most // 2
        widths = np.searchsorted(values, np.linspace(values[0], values[-1], half, endpoint=False))
        starts = np.unique(np.concatenate([widths, np.arange(half) * values.size // half]))
    return np.add.reduceat(mass, starts), np.add.reduceat(mass * values, starts)


def _best_means(
    counts: npt.NDArray[np.float64], sums: npt.NDArray[np.float64], groups: int
) -> npt.NDArray[np.float64]:
    """Returns the means of the best cut of bins into groups.

    best[k][j], the least cost of the first j bins in k groups, is the least over i of
    best[k - 1][i] + cost(i, j). The best i never falls as j grows, so all j of a level of a binary
    subdivision search between the answers of the level above: n log n per group, in whole arrays.
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
