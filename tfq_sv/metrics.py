"""Error rates of verification trials, with confidence intervals. NumPy alone.

Written by hand because the intervals need thousands of weighted EERs at once, which no library
computes; the tests hold them against scikit-learn's curves.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

Scores = npt.ArrayLike


def eer(scores: Scores, labels: npt.ArrayLike) -> tuple[float, float]:
    """Equal error rate: where as many targets are rejected as nontargets are accepted.

    Between two operating points the crossing is interpolated linearly.

    Args:
        scores: (N,), higher means more alike.
        labels: (N,), true for target trials.

    Returns:
        (eer, threshold): the rate as a fraction, and the score at which it is reached.

    Raises:
        InputError: shapes differ, a class is missing, or a score is NaN.

    >>> eer([0.9, 0.8, 0.1, 0.3], [1, 1, 0, 0])[0]
    0.0
    """
    curve = _Curve(scores, labels)
    rate, position = curve.crossing(np.ones((1, curve.size)))
    return float(rate[0]), curve.threshold(float(position[0]))


def min_dcf(
    scores: Scores,
    labels: npt.ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """Least detection cost over all thresholds, divided by the cost of not listening (NIST SRE).

    >>> min_dcf([0.9, 0.8, 0.1, 0.3], [1, 1, 0, 0])
    0.0
    """
    misses, alarms = error_rates(scores, labels)
    cost = c_miss * p_target * misses + c_fa * (1 - p_target) * alarms
    return float(cost.min() / min(c_miss * p_target, c_fa * (1 - p_target)))


def error_rates(
    scores: Scores, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns (miss rates, false alarm rates) at every operating point, the DET curve's axes.

    Points go from accepting everything to rejecting everything; tied scores make one step.
    """
    curve = _Curve(scores, labels)
    misses, alarms = curve.rates(np.ones((1, curve.size)))
    return misses[0], alarms[0]


def threshold_at_far(scores: Scores, labels: npt.ArrayLike, far: float) -> float | None:
    """Returns the least threshold whose false alarm rate is at most `far`.

    None if there are too few nontarget trials to speak of such a rate (under 10 / far).
    """
    _, alarms = error_rates(scores, labels)
    if np.count_nonzero(~np.asarray(labels, bool)) < 10 / far:
        return None
    return _Curve(scores, labels).threshold(float(np.argmax(alarms <= far)))


def eer_interval(
    scores: Scores,
    labels: npt.ArrayLike,
    speakers: tuple[Sequence[str], Sequence[str]],
    *,
    minus: Scores | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of the EER by a bootstrap over speakers.

    Trials of one speaker are not independent, so whole speakers are drawn, with replacement; a
    trial counts as often as the draws of its two speakers multiply to.

    Args:
        scores: (N,).
        labels: (N,).
        speakers: the enrolled and the tested speaker of each trial.
        minus: scores of a second system on the same trials. The interval is then of the paired
            difference, EER(scores) - EER(minus), with the same speakers drawn for both.
        resamples: bootstrap draws.
        level: coverage.
        seed: of the draws.

    Returns:
        (low, high), as fractions.

    >>> scores, labels = [0.9, 0.8, 0.1, 0.3], [1, 1, 0, 0]
    >>> eer_interval(scores, labels, (["a", "b", "a", "b"], ["a", "b", "b", "a"]))
    (0.0, 0.0)
    """
    names, codes = np.unique(np.concatenate([speakers[0], speakers[1]]), return_inverse=True)
    enrolled, tested = np.split(codes, 2)
    curves = [_Curve(s, labels) for s in ([scores] if minus is None else [scores, minus])]
    target = np.asarray(labels, bool)
    rng = np.random.default_rng(seed)
    rates = []
    for _ in range(resamples):
        # Draws that leave a class empty have no EER; with several speakers they hardly occur.
        while True:
            drawn = np.bincount(rng.integers(names.size, size=names.size), minlength=names.size)
            weights = np.where(enrolled == tested, drawn[enrolled], drawn[enrolled] * drawn[tested])
            if weights[target].any() and weights[~target].any():
                break
        found = [curve.crossing(weights[None].astype(np.float64))[0][0] for curve in curves]
        rates.append(found[0] - found[1] if minus is not None else found[0])
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class _Curve:
    """Trials sorted once, so that error rates under many weightings are cumulated sums."""

    def __init__(self, scores: Scores, labels: npt.ArrayLike) -> None:
        values, target = np.asarray(scores, np.float64), np.asarray(labels, bool)
        if values.ndim != 1 or values.shape != target.shape:
            raise InputError(f"{values.shape} scores do not match {target.shape} labels")
        if np.isnan(values).any():
            raise InputError(f"{np.isnan(values).sum()} of {values.size} scores are NaN")
        if target.all() or not target.any():
            kind = "nontarget" if target.size and target.all() else "target"
            raise InputError(f"none of the {target.size} trials is a {kind} trial")
        self.order = np.argsort(values, kind="stable")
        self.target = target[self.order]
        self.values = values[self.order]
        self.ends = np.append(np.flatnonzero(np.diff(self.values)), values.size - 1)
        self.size = values.size

    def rates(
        self, weights: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weights (R, N) -> miss and false alarm rates, (R, points)."""
        ordered = weights[:, self.order]
        below = []
        for kind in (self.target, ~self.target):
            cumulated = np.cumsum(ordered * kind, axis=1)[:, self.ends]
            share = cumulated / cumulated[:, -1:]
            below.append(np.concatenate([np.zeros((len(share), 1)), share], axis=1))
        return below[0], 1.0 - below[1]

    def crossing(
        self, weights: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weights (R, N) -> (EER, fractional index of its operating point), (R,) each."""
        misses, alarms = self.rates(weights)
        gap = misses - alarms
        after = np.argmax(gap >= 0, axis=1)
        rows = np.arange(len(gap))
        share = -gap[rows, after - 1] / (gap[rows, after] - gap[rows, after - 1])
        rate = misses[rows, after - 1] + share * (misses[rows, after] - misses[rows, after - 1])
        return rate, after - 1 + share

    def threshold(self, position: float) -> float:
        """The score at a fractional operating point: accept what reaches it."""
        steps = self.values[self.ends]
        between = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
        # Rejecting everything needs a threshold above the greatest score.
        between[-1] = np.nextafter(between[-1], np.inf)
        return float(np.interp(position, np.arange(between.size), between))
