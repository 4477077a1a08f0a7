"""Scores as log-likelihood ratios that take the length of the tested speech into account.

A cosine of 0.4 says more after six seconds than after one, and against three references than
against one. Logistic regression turns all of it into the natural logarithm of how much likelier the
score is from one speaker than from two. ENROLMENT.md has the rules; `Calibration.kt` and
`calibration.js` keep the same ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.metrics import cllr, min_cllr
from tfq_sv.strict_json import is_number

LEAST_ERRORS = 10
"""Trials of each kind on the wrong side of LLR 0, below which the weights are not determined."""


@dataclass(frozen=True)
class Calibration:
    """LLR = intercept + score s + log_seconds ln t + score_log_seconds s ln t
             + log_references ln n + score_log_references s ln n

    of score s, net speech t of the tested recording in seconds, and n references.

    Attributes:
        intercept: natural logarithm.
        score: per unit of score.
        log_seconds: per unit of ln t.
        score_log_seconds: of both.
        shortest: t, from here ...
        longest: ... to here, as it was fitted on; t is clipped to this range.
        log_references: per unit of ln n.
        score_log_references: of score and ln n.
        most_references: n, up to which it was fitted; more count as so many.
    """

    intercept: float
    score: float
    log_seconds: float
    score_log_seconds: float
    shortest: float
    longest: float
    log_references: float = 0.0
    score_log_references: float = 0.0
    most_references: float = 1.0

    def llr(
        self, scores: npt.ArrayLike, seconds: npt.ArrayLike, references: npt.ArrayLike = 1
    ) -> npt.NDArray[np.float64]:
        """LLRs, float64 (N,).

        Args:
            scores: (N,).
            seconds: of net speech in the tested recording, (N,).
            references: number of enrolled recordings that each score is against, (N,).

        >>> Calibration(-4.0, 10.0, -1.0, 2.0, 1.0, 6.0).llr([0.5, 0.5], [1.0, 60.0]).round(2)
        array([1., 1.])
        >>> Calibration(-4.0, 10.0, -1.0, 3.0, 1.0, 6.0).llr([0.5, 0.5], [1.0, 60.0]).round(2)
        array([1. , 1.9])
        """
        values = np.asarray(scores, np.float64)
        time = np.log(np.clip(np.asarray(seconds, np.float64), self.shortest, self.longest))
        count = np.log(np.minimum(np.asarray(references, np.float64), self.most_references))
        slope = self.score + self.score_log_seconds * time + self.score_log_references * count
        offset = self.intercept + self.log_seconds * time + self.log_references * count
        return offset + slope * values

    def about(self) -> dict[str, float]:
        """What a file's metadata keep under `calibration`."""
        return asdict(self)

    @classmethod
    def of_file(cls, about: Mapping[str, Any]) -> "Calibration | None":
        """Reads it from a file's metadata; None where they hold none that can be used.

        >>> Calibration.of_file({"calibration": None})
        """
        stored = about.get("calibration")
        if not isinstance(stored, Mapping):
            return None
        values = [
            _finite(stored.get(field.name, None if field.default is MISSING else field.default))
            for field in fields(cls)
        ]
        if None in values:
            return None
        found = cls(*(value for value in values if value is not None))
        fine = 0 < found.shortest <= found.longest and found.most_references >= 1
        return found if fine else None


def _finite(value: Any) -> float | None:
    """A JSON number as float64 has it; None for what is none, or too great."""
    return float(value) if is_number(value) else None


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Trials to calibrate on; whole and short recordings may be mixed.

    Attributes:
        scores: float64 (N,).
        labels: bool (N,), true for target trials.
        seconds: net speech of each tested recording, float64 (N,).
        references: how many recordings each score is against, int (N,).
        speakers: the enrolled and the tested speaker of each trial.
    """

    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.bool_]
    seconds: npt.NDArray[np.float64]
    references: npt.NDArray[np.int64]
    speakers: tuple[list[str], list[str]]

    @classmethod
    def joined(cls, parts: Sequence["ScoredTrials"]) -> "ScoredTrials":
        """All of them in one."""
        first, second = ([name for part in parts for name in part.speakers[i]] for i in (0, 1))
        scores, labels, seconds, references = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("scores", "labels", "seconds", "references")
        )
        return cls(scores, labels, seconds, references, (first, second))

    def among(self, speakers: frozenset[str]) -> "ScoredTrials":
        """The trials both of whose speakers are among some."""
        both = zip(*self.speakers, strict=True)
        chosen = np.array([a in speakers and b in speakers for a, b in both], bool)
        first, second = (
            [name for name, keep in zip(names, chosen, strict=True) if keep]
            for names in self.speakers
        )
        columns = (self.scores, self.labels, self.seconds, self.references)
        scores, labels, seconds, references = (column[chosen] for column in columns)
        return ScoredTrials(scores, labels, seconds, references, (first, second))


def fit(trials: ScoredTrials) -> Calibration:
    """Fits by logistic regression (scikit-learn).

    Target and nontarget trials weigh the same, and so do those of each number of references.

    Raises:
        InputError: too few trials of one kind are hard enough to say where the other begins.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(400) < 200
    >>> scores = rng.normal(np.where(labels, 0.6, 0.2), 0.2)  # LLR is 10 (s - 0.4)
    >>> seconds = rng.uniform(1, 4, 400)
    >>> single = np.ones(400, int)
    >>> found = fit(ScoredTrials(scores, labels, seconds, single, (["a"] * 400, ["b"] * 400)))
    >>> bool(abs(found.llr(0.4, 2.0)) < 0.3), bool(3 < found.llr(0.8, 2.0) < 5)
    (True, True)
    """
    few = "no calibration: {}; record more speakers"
    targets = int(trials.labels.sum())
    if min(targets, len(trials.labels) - targets) < LEAST_ERRORS:
        counts = f"{targets} target and {len(trials.labels) - targets} nontarget trials"
        raise InputError(few.format(f"{counts}; {LEAST_ERRORS} of each are needed"))
    found = _fitted(trials)
    single = trials.references == trials.references.min()  # others repeat the same recordings
    llrs, labels = found.llr(trials.scores, trials.seconds, trials.references), trials.labels
    wrong = int((llrs[single & labels] < 0).sum()), int((llrs[single & ~labels] >= 0).sum())
    if min(wrong) < LEAST_ERRORS:
        counts = f"{wrong[0]} target and {wrong[1]} nontarget"
        raise InputError(
            few.format(
                f"{counts} trials lie on the wrong side, and {LEAST_ERRORS} of each are needed to "
                "say how far the others are from it"
            )
        )
    return found


def _fitted(trials: ScoredTrials) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    scores, time = trials.scores, np.log(trials.seconds)
    count = np.log(trials.references)
    features = np.column_stack([scores, time, scores * time, count, scores * count])
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-9] = 1.0  # all equally long, or of one reference
    _, group, sizes = np.unique(
        2 * trials.references + trials.labels, return_inverse=True, return_counts=True
    )
    model = LogisticRegression(C=1e4, solver="newton-cholesky", tol=1e-8)
    weights = len(group) / len(sizes) / sizes[group]
    model.fit((features - centre) / scale, trials.labels, sample_weight=weights)
    slopes = model.coef_[0] / scale
    intercept = float(model.intercept_[0] - slopes @ centre)
    score, log_seconds, score_log_seconds, log_references, score_log_references = slopes.tolist()
    return Calibration(
        intercept,
        score,
        log_seconds,
        score_log_seconds,
        float(trials.seconds.min()),
        float(trials.seconds.max()),
        log_references,
        score_log_references,
        float(trials.references.max()),
    )


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
        fit(other).llr(half.scores, half.seconds, half.references)
        for half, other in zip(halves, halves[::-1], strict=True)
    ]
    labels = np.concatenate([half.labels for half in halves])
    return cllr(np.concatenate(llrs), labels), min_cllr(np.concatenate(llrs), labels)
