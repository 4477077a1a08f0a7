"""The int8 grid that centroids lie on in a file: `scale * level`, level in [-127, 127]. NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

_SHRINK = 0.95  # from one step of the grid that is tried to the next
_CLIP = 0.75  # of the greatest centroid, again and again: where the grid may end
_NEAR = 1.003  # times the squared error without a grid: good enough
_CROWD = 32  # centroids: from here on rounding them to the grid is not enough

GRID_LEVELS = 127
"""A stored centroid is `scale * level`, level an integer in [-127, 127], one scale per layer."""


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


def on_grid(
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
