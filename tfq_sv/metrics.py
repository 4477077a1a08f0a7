"""Error rates of verification trials, with confidence intervals. NumPy alone, but for `min_cllr`.

Written by hand because the intervals need thousands of weighted EERs at once, which no library
computes; the tests hold them against scikit-learn's curves.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

Scores = npt.ArrayLike

P_TARGETS = (0.01, 0.05)
"""Prior probabilities of a target trial that the field states minDCF for."""

# So many operating points of a long list are kept for resampling.
_POINTS = 1 << 14


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
    rate, position = _crossing(*curve.rates())
    return rate, curve.threshold(position)


def min_dcf(
    scores: Scores,
    labels: npt.ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """Least detection cost over all thresholds, divided by the best cost without scores (NIST SRE).

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
    return _Curve(scores, labels).rates()


def threshold_at_far(scores: Scores, labels: npt.ArrayLike, far: float) -> float | None:
    """Returns the least threshold whose false alarm rate is at most `far`.

    None if there are too few nontarget trials to speak of such a rate (under 10 / far).
    """
    curve = _Curve(scores, labels)
    accepted = curve.below[1][-1] - curve.below[1]  # nontargets, at each operating point
    # Exact, by counts: in floating point 0.29 of 100 trials are fewer than 29.
    allowed = Fraction(str(float(far))) * int(accepted[0])
    if allowed < 10:
        return None
    return curve.threshold(float(np.argmax(accepted <= int(allowed))))


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
    trial counts as often as the draws of its two speakers multiply to. 600,000 trials take some
    seconds; of lists longer than 16,384 trials so many operating points are kept.

    Args:
        scores: (N,); or (S, N), of one system trained from S seeds: its EER is their mean.
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
    # A dictionary, because sorting 1.2 million strings in NumPy takes seconds.
    place = {name: i for i, name in enumerate(sorted({*speakers[0], *speakers[1]}))}
    first, second = (np.array([place[name] for name in names]) for names in speakers)
    # A trial within one speaker counts once a draw, not squared: its second factor is a constant 1.
    second = np.where(first == second, len(place), second)
    systems = [
        [_Resampler(_Curve(one, labels, _POINTS), first, second) for one in np.atleast_2d(system)]
        for system in ([scores] if minus is None else [scores, minus])
    ]
    rng = np.random.default_rng(seed)
    rates: list[float] = []
    while len(rates) < resamples:
        draw = rng.integers(len(place), size=len(place))
        drawn = np.append(np.bincount(draw, minlength=len(place)), 1).astype(np.float64)
        found = [[resampler.eer(drawn) for resampler in system] for system in systems]
        # Draws that leave a class empty have no EER; with several speakers they hardly occur.
        if found[0][0] is not None:
            means = [float(np.mean(np.array(system, np.float64))) for system in found]
            rates.append(means[0] - means[1] if minus is not None else means[0])
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def cllr(llrs: Scores, labels: npt.ArrayLike) -> float:
    """Cost of log-likelihood ratios, in bits per trial: how much they know, and claim to know.

    0 is perfect; 1 is what an LLR of 0 for every trial costs. Both kinds of trials weigh the same.

    Args:
        llrs: natural logarithms, (N,).
        labels: (N,), true for target trials.

    Raises:
        InputError: shapes differ, a class is missing, or an LLR is NaN.

    Source: Brummer and du Preez, "Application-independent evaluation of speaker detection",
    Computer Speech and Language 20, 2006.

    >>> cllr([0.0, 0.0], [1, 0]), round(cllr([3.0, -3.0], [1, 0]), 3)
    (1.0, 0.07)
    """
    values, target = _checked(llrs, labels)
    costs = (np.logaddexp(0, -values[target]), np.logaddexp(0, values[~target]))
    return float(np.mean([cost.mean() for cost in costs]) / np.log(2))


def min_cllr(scores: Scores, labels: npt.ArrayLike) -> float:
    """Least `cllr` of any rising function of the scores, by pool adjacent violators (scikit-learn).

    >>> min_cllr([0.9, 0.8, 0.1, 0.3], [1, 1, 0, 0])
    0.0
    """
    from sklearn.isotonic import isotonic_regression

    values, target = _checked(scores, labels)
    _, place = np.unique(values, return_inverse=True)  # of equal scores no function tells apart
    shares = [np.bincount(place[kind], minlength=place.max() + 1) for kind in (target, ~target)]
    right, wrong = (share / share.sum() for share in shares)
    posterior = isotonic_regression(right / (right + wrong), sample_weight=right + wrong)
    posterior = np.clip(posterior, 0, 1)
    with np.errstate(divide="ignore"):
        llrs = np.log(posterior) - np.log1p(-posterior)
    return cllr(llrs[place], target)


def _checked(
    scores: Scores, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    values, target = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if values.ndim != 1 or values.shape != target.shape:
        raise InputError(f"{values.shape} scores do not match {target.shape} labels")
    if np.isnan(values).any():
        raise InputError(f"{np.isnan(values).sum()} of {values.size} scores are NaN")
    if target.all() or not target.any():
        kind = "nontarget" if target.size and target.all() else "target"
        raise InputError(f"none of the {target.size} trials is a {kind} trial")
    return values, target


class _Curve:
    """Trials sorted once, so that error rates under many weightings are cumulated sums."""

    def __init__(self, scores: Scores, labels: npt.ArrayLike, points: int | None = None) -> None:
        """Keeps every operating point, or about `points` of them, evenly over the trials."""
        values, target = _checked(scores, labels)
        order = np.argsort(values, kind="stable")
        values, target = values[order], target[order]
        ends = np.append(np.flatnonzero(values[1:] != values[:-1]), values.size - 1)
        if points is not None and ends.size > points:
            ends = ends[np.unique(np.linspace(0, ends.size - 1, points).astype(int))]
        self.steps = values[ends]
        # Trials of each kind in the order of their scores, and how many lie below each point.
        self.trials = order[target], order[~target]
        targets = np.cumsum(target)[ends]
        self.below = np.append(0, targets), np.append(0, ends + 1 - targets)

    def rates(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Miss and false alarm rates, (points,) each."""
        misses, rejected = (count / count[-1] for count in self.below)
        return misses, 1.0 - rejected

    def threshold(self, position: float) -> float:
        """The score at a fractional operating point: accept what reaches it."""
        steps = self.steps
        halves = (steps[1:] + steps[:-1]) / 2
        halves = np.where(halves > steps[:-1], halves, steps[1:])  # neighbours have none between
        between = np.concatenate([steps[:1], halves, steps[-1:]])
        # Rejecting everything needs a threshold above the greatest score.
        between[-1] = np.nextafter(between[-1], np.inf)
        return float(np.interp(position, np.arange(between.size), between))


class _Resampler:
    """EERs of one list of trials under many weightings, in buffers that are made once."""

    def __init__(
        self, curve: _Curve, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
    ) -> None:
        """A trial will weigh drawn[first] * drawn[second]."""
        self.kinds = [
            (first[trials], second[trials], below, np.empty((2, trials.size)))
            for trials, below in zip(curve.trials, curve.below, strict=True)
        ]

    def eer(self, drawn: npt.NDArray[np.float64]) -> float | None:
        """The EER; None where a class is empty."""
        shares = []
        for first, second, below, (weights, other) in self.kinds:
            # With a mode, NumPy writes into `out` directly.
            np.take(drawn, first, out=weights, mode="clip")
            np.take(drawn, second, out=other, mode="clip")
            weights *= other
            steps = np.diff(below)
            steps[steps > 0] = np.add.reduceat(weights, below[:-1][steps > 0])
            sums = np.append(0, np.cumsum(steps))
            if not sums[-1]:
                return None
            shares.append(sums / sums[-1])
        return _crossing(shares[0], 1.0 - shares[1])[0]


def _crossing(
    misses: npt.NDArray[np.float64], alarms: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Error rates (points,) -> EER, and the fractional index of its operating point."""
    gap = misses - alarms
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    rate = misses[after - 1] + share * (misses[after] - misses[after - 1])
    return float(rate), float(after - 1 + share)
