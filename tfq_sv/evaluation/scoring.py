"""Trial scores from embeddings. NumPy alone.

Mean subtraction is `embeddings - cohort.mean()` before anything else here.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.files import atomic
from tfq_sv.metrics import error_rates

SCALES = {"cosine": "cosine, -1 to 1", "half": "(cosine + 1) / 2, 0 to 1"}
"""Both scales that the field uses, and how to say which."""

TOP = 300
"""Speakers of the cohort that AS-norm compares a side of a trial with: the usual number."""

TYPICAL_COSINE = 0.7
"""Of two recordings of one speaker; see `enrolment_scale`."""

# Rows at a time: enough for BLAS, and a few dozen MB.
_TRIALS, _UTTERANCES = 8192, 2048


def cosine(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Cosine of the angle between two embeddings (D,), in [-1, 1].

    >>> cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])).__round__(4)
    0.7071
    """
    return float(np.clip(np.dot(_unit(a), _unit(b)), -1, 1))


def enrolment_scale(recordings: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """What a cosine against a mean of several embeddings is multiplied by, to mean what one does.

    The mean of n embeddings is nearer to any voice than each of them. For embeddings of length 1
    with a cosine of c among them, its length is sqrt((1 + (n - 1) c) / n), and cosines against it
    are so much greater than those against one. With a typical c, 0.7, for every speaker, thresholds
    of trials of single recordings hold for any n, and the better separation of the mean stays.

    >>> enrolment_scale([1, 3]).round(4)
    array([1.    , 0.8944])
    """
    count = np.asarray(recordings, np.float64)
    return np.sqrt((1 + (count - 1) * TYPICAL_COSINE) / count)


def to_scale(cosines: npt.ArrayLike, scale: str) -> npt.NDArray[np.float64]:
    """Cosines on one of `SCALES`.

    >>> to_scale([-1.0, 0.5], "half")
    array([0.  , 0.75])
    """
    if scale not in SCALES:
        raise InputError(f"score scale must be {' or '.join(SCALES)}, not {scale!r}")
    values = np.asarray(cosines, np.float64)
    return (values + 1) / 2 if scale == "half" else values


def cosine_scores(
    embeddings: Mapping[str, npt.NDArray[np.floating]], trials: Trials
) -> npt.NDArray[np.float64]:
    """Raw cosine of every trial, float64 (N,).

    Args:
        embeddings: utterance key -> (D,).
        trials: pairs of those keys. Enrolments of several utterances are their mean.

    Raises:
        InputError: an embedding is missing, zero or not finite.
    """
    return _sides(embeddings, trials).cosines()


@dataclass(frozen=True, eq=False)
class Cohort:
    """Other speakers, against whom scores are normalized: training speakers as a rule.

    Attributes:
        mean: float32 (D,), of all their utterances.
        speakers: each speaker's mean embedding, less that mean.
        utterances: how many there were.
    """

    mean: npt.NDArray[np.float32]
    speakers: Embeddings
    utterances: int

    @classmethod
    def of(cls, embeddings: Embeddings, speakers: Mapping[str, str]) -> "Cohort":
        """From embeddings and the speaker of each; who has none stands alone."""
        groups: dict[str, list[str]] = {}
        for name in embeddings:
            groups.setdefault(speakers.get(name, name), []).append(name)
        mean = embeddings.mean()
        return cls(mean, embeddings.averaged(groups) - mean, len(embeddings))


@dataclass(frozen=True, eq=False)
class NormalizedScores:
    """Scores after AS-norm, and what the field writes beside them; float64 (N,) each.

    Attributes:
        scores: normalized.
        enroll_length: length of the enrolled embedding, as it was given.
        test_length: of the tested one.
        enroll_mean: mean of the enrolled embedding's scores against its part of the cohort.
        test_mean: of the tested one's.
    """

    scores: npt.NDArray[np.float64]
    enroll_length: npt.NDArray[np.float64]
    test_length: npt.NDArray[np.float64]
    enroll_mean: npt.NDArray[np.float64]
    test_mean: npt.NDArray[np.float64]


def as_norm(
    embeddings: Mapping[str, npt.NDArray[np.floating]],
    trials: Trials,
    cohort: Mapping[str, npt.NDArray[np.floating]],
    *,
    top: int = TOP,
) -> NormalizedScores:
    """Adaptive symmetric score normalization (AS-norm; Matejka et al., Interspeech 2017).

    Each side of a trial is scored against the cohort; mean m and population standard deviation s
    of its `top` greatest cosines give ((c - m_e) / s_e + (c - m_t) / s_t) / 2 for the cosine c.

    Args:
        embeddings: utterance key -> (D,), with the mean subtracted if it is to be.
        trials: pairs of those keys.
        cohort: other speakers' mean embeddings, the same mean subtracted.
        top: how many of them a side is compared with; all if there are fewer.

    Raises:
        InputError: an embedding is missing, zero or not finite; fewer than two in the cohort.

    >>> rng = np.random.default_rng(0)
    >>> cohort = Embeddings([f"speaker {i}" for i in range(9)], rng.normal(size=(9, 4)))
    >>> pair = Embeddings(["a", "b"], rng.normal(size=(2, 4)))
    >>> trials = Trials(["a"], ["b"], np.array([True]), "an example")
    >>> as_norm(pair, trials, cohort, top=5).scores.shape
    (1,)
    """
    if len(cohort) < 2 or top < 2:
        raise InputError(
            f"AS-norm needs two speakers or more; the cohort has {len(cohort)}, top is {top}"
        )
    speakers = Embeddings.of(cohort)
    others, _ = _units(speakers.names, speakers.matrix)
    sides = _sides(embeddings, trials)
    mean, std = _cohort_statistics(sides.units, others, min(top, len(others)))
    if not std.all():
        raise InputError("the cohort's embeddings are all the same to a trial: no AS-norm")
    cosines, enroll, test = sides.cosines(), sides.enroll, sides.test
    scores = ((cosines - mean[enroll]) / std[enroll] + (cosines - mean[test]) / std[test]) / 2
    lengths = sides.lengths
    return NormalizedScores(scores, lengths[enroll], lengths[test], mean[enroll], mean[test])


def write_scores(
    path: str | os.PathLike[str], trials: Trials, scores: npt.ArrayLike | NormalizedScores
) -> None:
    """Writes `enroll test score target|nontarget` lines, as Kaldi and WeSpeaker do.

    With tabs, where a name contains a space. AS-norm adds WeSpeaker's four columns: lengths of the
    enrolled and the tested embedding, and their cohort means.
    """
    columns: list[npt.NDArray[np.float64]] = []
    if isinstance(scores, NormalizedScores):
        columns = [
            scores.enroll_length,
            scores.test_length,
            scores.enroll_mean,
            scores.test_mean,
        ]
        scores = scores.scores
    more = zip(*columns, strict=True) if columns else [()] * len(trials)
    rows = zip(trials.enroll, trials.test, np.asarray(scores), trials.labels, more, strict=True)
    gap = "\t" if any(" " in name for name in (*trials.enroll, *trials.test)) else " "
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for enroll, test, score, label, rest in rows:
            kind = "target" if label else "nontarget"
            fields = (enroll, test, f"{score:.5f}", kind, *(f"{value:.4f}" for value in rest))
            file.write(gap.join(fields) + "\n")


def write_det(path: str | os.PathLike[str], scores: npt.ArrayLike, labels: npt.ArrayLike) -> None:
    """Writes the DET curve as `threshold miss_rate false_alarm_rate` lines, rates as fractions.

    From accepting every trial to rejecting every one; a trial is accepted whose score reaches the
    threshold.
    """
    misses, alarms = error_rates(scores, labels)
    thresholds = np.append(np.unique(np.asarray(scores, np.float64)), np.inf)
    with atomic(path) as temporary:
        np.savetxt(temporary, np.column_stack([thresholds, misses, alarms]), fmt="%.8g")


@dataclass(frozen=True, eq=False)
class _Sides:
    """The embeddings that trials need, each once: unit vectors, lengths, and a row per trial."""

    units: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.float64]
    enroll: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    def cosines(self) -> npt.NDArray[np.float64]:
        scores = np.empty(len(self.enroll))
        for i in range(0, len(scores), _TRIALS):
            part = slice(i, i + _TRIALS)
            a, b = self.units[self.enroll[part]], self.units[self.test[part]]
            scores[part] = np.einsum("nd,nd->n", a, b)
        return np.clip(scores, -1, 1)  # rounding leads out


def _sides(embeddings: Mapping[str, npt.NDArray[np.floating]], trials: Trials) -> _Sides:
    every = Embeddings.of(embeddings)
    if trials.models:
        enrolled = every.averaged(trials.models)
        tested = sorted(set(trials.test))
        matrix = np.concatenate([enrolled.matrix, every.matrix[every.rows(tested)]])
        names = [*enrolled.names, *tested]
        place = {name: len(enrolled) + row for row, name in enumerate(tested)}
        enroll = enrolled.rows(trials.enroll)
        test = np.fromiter((place[name] for name in trials.test), np.int64, len(trials))
    else:
        names = trials.utterances
        needed = Embeddings(names, every.matrix[every.rows(names)])
        matrix, enroll, test = needed.matrix, needed.rows(trials.enroll), needed.rows(trials.test)
    return _Sides(*_units(names, matrix), enroll, test)


def _cohort_statistics(
    units: npt.NDArray[np.float32], cohort: npt.NDArray[np.float32], top: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and population standard deviation of each row's `top` greatest cosines."""
    mean, std = np.empty(len(units)), np.empty(len(units))
    for i in range(0, len(units), _UTTERANCES):
        part = slice(i, i + _UTTERANCES)
        cosines = units[part] @ cohort.T
        cosines.partition(len(cohort) - top, axis=1)
        greatest = cosines[:, len(cohort) - top :].astype(np.float64)
        mean[part], std[part] = greatest.mean(axis=1), greatest.std(axis=1)
    return mean, std


def _units(
    names: Sequence[str], matrix: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Rows of length one, and the lengths that they had."""
    lengths = np.sqrt(np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if bad.size:
        raise InputError(
            f"{names[bad[0]]}: an embedding of length {lengths[bad[0]]} has no direction"
        )
    return matrix / lengths[:, None].astype(np.float32), lengths


def _unit(embedding: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    vector = np.asarray(embedding, np.float64)
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        raise InputError(f"an embedding of length {length} has no direction")
    return vector / length
