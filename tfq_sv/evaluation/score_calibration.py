"""Scores as log-likelihood ratios that take the length of the tested speech into account.

A cosine of 0.4 says more after six seconds than after one. Logistic regression turns both into the
natural logarithm of how much likelier the score is from one speaker than from two.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.metrics import cllr, min_cllr

LEAST_ERRORS = 10
"""Trials of each kind on the wrong side of LLR 0, below which four weights are not determined."""


@dataclass(frozen=True)
class Calibration:
    """LLR = intercept + score * s + log_seconds * ln t + product * s * ln t, of score s and time t.

    Attributes:
        intercept: natural logarithm.
        score: per unit of score.
        log_seconds: per unit of ln t.
        product: of both.
        shortest: net speech of the tested recording in seconds, from here ...
        longest: ... to here, as it was fitted on; t is clipped to this range.
    """

    intercept: float
    score: float
    log_seconds: float
    product: float
    shortest: float
    longest: float

    def llr(self, scores: npt.ArrayLike, seconds: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Scores (N,) and net seconds of tested speech (N,) -> LLRs, float64 (N,).

        >>> Calibration(-4.0, 10.0, -1.0, 2.0, 1.0, 6.0).llr([0.5, 0.5], [1.0, 60.0]).round(2)
        array([1., 1.])
        >>> Calibration(-4.0, 10.0, -1.0, 3.0, 1.0, 6.0).llr([0.5, 0.5], [1.0, 60.0]).round(2)
        array([1. , 1.9])
        """
        values = np.asarray(scores, np.float64)
        time = np.log(np.clip(np.asarray(seconds, np.float64), self.shortest, self.longest))
        slope = self.score + self.product * time
        return self.intercept + slope * values + self.log_seconds * time

    def about(self) -> dict[str, float]:
        """What a file's metadata keep under `calibration`."""
        return dict(zip(_FIELDS, astuple(self), strict=True))

    @classmethod
    def of_file(cls, about: Mapping[str, Any]) -> "Calibration | None":
        """Reads it from a file's metadata; None where they hold none that can be used.

        >>> Calibration.of_file({"calibration": None})
        """
        stored = about.get("calibration")
        if not isinstance(stored, Mapping):
            return None
        values = [float(x) for x in map(stored.get, _FIELDS) if isinstance(x, int | float)]
        if len(values) < len(_FIELDS) or not all(map(math.isfinite, values)):
            return None
        found = cls(*values)
        return found if 0 < found.shortest <= found.longest else None


_FIELDS = ("intercept", "score", "log_seconds", "score_log_seconds", "shortest", "longest")


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Trials to calibrate on; whole and short recordings may be mixed.

    Attributes:
        scores: float64 (N,).
        labels: bool (N,), true for target trials.
        seconds: net speech of each tested recording, float64 (N,).
        speakers: the enrolled and the tested speaker of each trial.
    """

    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.bool_]
    seconds: npt.NDArray[np.float64]
    speakers: tuple[list[str], list[str]]

    @classmethod
    def joined(cls, parts: Sequence["ScoredTrials"]) -> "ScoredTrials":
        """All of them in one."""
        first, second = ([name for part in parts for name in part.speakers[i]] for i in (0, 1))
        scores, labels, seconds = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("scores", "labels", "seconds")
        )
        return cls(scores, labels, seconds, (first, second))

    def among(self, speakers: frozenset[str]) -> "ScoredTrials":
        """The trials both of whose speakers are among some."""
        both = zip(*self.speakers, strict=True)
        kept = np.array([a in speakers and b in speakers for a, b in both], bool)
        first, second = (
            [name for name, keep in zip(names, kept, strict=True) if keep]
            for names in self.speakers
        )
        return ScoredTrials(
            self.scores[kept], self.labels[kept], self.seconds[kept], (first, second)
        )


def fit(trials: ScoredTrials) -> Calibration:
    """Fits by logistic regression (scikit-learn), target and nontarget trials weighing the same.

    Raises:
        InputError: too few trials of one kind are hard enough to say where the other begins.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(400) < 200
    >>> scores = rng.normal(np.where(labels, 0.6, 0.2), 0.2)  # LLR is 10 (s - 0.4)
    >>> seconds = rng.uniform(1, 4, 400)
    >>> found = fit(ScoredTrials(scores, labels, seconds, (["a"] * 400, ["b"] * 400)))
    >>> bool(abs(found.llr(0.4, 2.0)) < 0.3), bool(3 < found.llr(0.8, 2.0) < 5)
    (True, True)
    """
    from sklearn.linear_model import LogisticRegression

    few = "no calibration: {}; record more speakers"
    targets = int(trials.labels.sum())
    if min(targets, len(trials.labels) - targets) < LEAST_ERRORS:
        counts = f"{targets} target and {len(trials.labels) - targets} nontarget trials"
        raise InputError(few.format(f"{counts}; {LEAST_ERRORS} of each are needed"))
    time = np.log(trials.seconds)
    features = np.column_stack([trials.scores, time, trials.scores * time])
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-9] = 1.0  # all equally long
    model = LogisticRegression(C=1e4, class_weight="balanced", solver="newton-cholesky", tol=1e-8)
    model.fit((features - centre) / scale, trials.labels)
    weights = model.coef_[0] / scale
    intercept = float(model.intercept_[0] - weights @ centre)
    shortest, longest = (float(t) for t in (trials.seconds.min(), trials.seconds.max()))
    slope, log_seconds, product = (float(w) for w in weights)
    found = Calibration(intercept, slope, log_seconds, product, shortest, longest)
    llrs = found.llr(trials.scores, trials.seconds)
    wrong = int((llrs[trials.labels] < 0).sum()), int((llrs[~trials.labels] >= 0).sum())
    if min(wrong) < LEAST_ERRORS:
        counts = f"{wrong[0]} target and {wrong[1]} nontarget"
        raise InputError(
            few.format(
                f"{counts} trials lie on the wrong side, and {LEAST_ERRORS} of each are needed to "
                "say how far the others are from it"
            )
        )
    return found


def cross_checked(trials: ScoredTrials, *, seed: int = 0) -> tuple[float, float]:
    """Cllr of other speakers' scores, and the least of any calibration of them.

    The speakers are halved at random; each half is calibrated by the other.

    Raises:
        InputError: a half is too small for `fit`, or lacks a kind of trials.
    """
    names = sorted({*trials.speakers[0], *trials.speakers[1]})
    order = np.random.default_rng(seed).permutation(len(names))
    halves = [trials.among(frozenset(names[i] for i in part)) for part in np.array_split(order, 2)]
    llrs = [
        fit(other).llr(half.scores, half.seconds)
        for half, other in zip(halves, halves[::-1], strict=True)
    ]
    labels = np.concatenate([half.labels for half in halves])
    return cllr(np.concatenate(llrs), labels), min_cllr(np.concatenate(llrs), labels)
