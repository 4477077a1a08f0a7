"""The rules of deciding: which threshold, what score, whose voice. ENROLMENT.md has them.

`Decision.kt` and `decision.js` keep the same ones; tests/data/enrolment.json has cases for all
three.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.evaluation.scoring import enrolment_scale

OPERATING_POINT = "eer"
"""The threshold that is taken where none is named."""


@dataclass(frozen=True)
class Threshold:
    """From which score on voices count as one.

    Attributes:
        value: a score.
        source: where it comes from, for people.
    """

    value: float
    source: str


def find_threshold(about: Mapping[str, Any], choice: str | float, file: str) -> Threshold:
    """Returns a threshold of a file, or the one given.

    Args:
        about: the file's metadata.
        choice: an operating point of the file ("eer", "far_1e-2", "far_1e-3"), or a score.
        file: what messages call the file.

    Raises:
        InputError: the file has no such threshold.

    >>> about = {"thresholds": {"eer": {"threshold": 0.4, "eer": 0.01}}, "trials": {"source": "x"}}
    >>> find_threshold(about, "eer", "a.tflite")
    Threshold(value=0.4, source='stored, at the EER of 1.00 % on x')
    """
    if not isinstance(choice, str):
        number = isinstance(choice, int | float | np.number) and not isinstance(choice, bool)
        if not number or not np.isfinite(choice):
            raise InputError(f"a threshold is a finite score, not {choice!r:.60}")
        return Threshold(float(choice), "given")
    stored = about.get("thresholds") or {}
    entry = stored.get(choice) or {}
    if entry.get("threshold") is not None:
        return Threshold(float(entry["threshold"]), _source(about, choice, entry))
    known = [name for name, at in stored.items() if at["threshold"] is not None]
    if not known:
        raise InputError(f"{file} has no thresholds; measure them: tfq-sv evaluate --store")
    if choice in stored:
        raise InputError(
            f"{file} has no threshold {choice!r}: too few trials to say; it has {', '.join(known)}"
        )
    raise InputError(f"{file} has no threshold {choice!r}; it has {', '.join(known)}")


def _source(about: Mapping[str, Any], choice: str, entry: Mapping[str, Any]) -> str:
    """Where a stored threshold comes from, as far as the file says it."""
    trials = about.get("trials")
    at_eer = ((about.get("thresholds") or {}).get("eer") or {}).get("eer")
    rate = f"{100 * at_eer:.2f} %" if isinstance(at_eer, float) else ""
    if choice == "eer":
        point = f"the EER of {rate}" if rate else "the EER"
    else:
        point = f"FAR {choice[4:]}" if choice.startswith("far_") else choice
    if not isinstance(trials, Mapping):
        return f"stored, at {point}"
    counts = [n for n in (trials.get("target"), trials.get("nontarget")) if type(n) is int]
    speech, source = trials.get("speech"), trials.get("source", "unknown speech")
    drawn = " pairs " in str(source)  # which says how many
    number = f"{sum(counts):,} trials of " if len(counts) == 2 and not drawn else ""
    of = f", {speech}" if isinstance(speech, str) and speech not in str(source) else ""
    also = f", whose EER is {rate}" if rate and choice != "eer" else ""
    return f"stored, at {point} on {number}{source}{of}{also}{_age(trials.get('date'))}"


def _age(date: Any) -> str:
    """When thresholds were measured, where the file says it."""
    try:
        days = (datetime.date.today() - datetime.date.fromisoformat(date)).days
    except (TypeError, ValueError):
        return ""
    ago = "today" if days < 1 else f"{days:,} day{'s' * (days > 1)} ago"
    return f"; measured {date}, {ago}"


@dataclass(frozen=True)
class Verification:
    """How like a voice is to an enrolled one.

    Attributes:
        name: who was enrolled.
        score: see `score`.
        threshold: from which on the voices count as one, and where it comes from.
        doubt: why the recording is perhaps no speech; empty where nothing says so.
        llr: natural logarithm of how much likelier the score is from the enrolled speaker than from
            another; None where the file holds no calibration, and of `identify`, which takes the
            best of many.
    """

    name: str
    score: float
    threshold: Threshold
    doubt: str = ""
    llr: float | None = field(default=None, kw_only=True)

    @property
    def accepted(self) -> bool:
        """Whether the voices count as one."""
        return self.score >= self.threshold.value


@dataclass(frozen=True)
class Identification(Verification):
    """Whom a voice is most like, and whether it is likely theirs: it may be a stranger's.

    Attributes:
        runner_up: the second best; None if one speaker is enrolled.
        runner_up_score: their score.
    """

    runner_up: str | None = None
    runner_up_score: float | None = None

    @property
    def margin(self) -> float | None:
        """How much better the best is than the runner-up; None if there is none."""
        return None if self.runner_up_score is None else self.score - self.runner_up_score

    @property
    def speaker(self) -> str | None:
        """Whose voice it is; None if it is nobody's that is enrolled."""
        return self.name if self.accepted else None


def unit(embedding: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Scales an embedding (embed_dim,) to length 1.

    Raises:
        InputError: it is zero or not finite.
    """
    vector = np.asarray(embedding, np.float64)
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        raise InputError(f"an embedding of length {length} has no direction; record again")
    return (vector / length).astype(np.float32)


def score(references: npt.NDArray[np.floating], test: npt.NDArray[np.floating]) -> float:
    """The score of a voice against a speaker: the cosine with the mean of the references, scaled.

    Args:
        references: of length 1, (N, embed_dim).
        test: of length 1, (embed_dim,).

    >>> round(score(np.array([[1.0, 0.0]]), np.array([0.8, 0.6])), 3)
    0.8
    >>> round(score(np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([0.8, 0.6])), 3)
    0.907
    """
    mean = np.mean(references, axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if not length:  # they cancel out
        return 0.0
    cosine = min(1.0, max(-1.0, float(mean @ np.asarray(test, np.float64)) / length))
    return float(cosine * enrolment_scale(len(references)))


def best(
    speakers: Mapping[str, npt.NDArray[np.floating]],
    test: npt.NDArray[np.floating],
    threshold: Threshold,
    doubt: str = "",
) -> Identification:
    """Whom a voice is most like.

    Args:
        speakers: one or more, name -> references, as in `score`.
        test: of length 1, (embed_dim,).
        threshold: for the best score.
        doubt: see `Identification`.

    >>> speakers = {"ann": np.array([[1.0, 0.0]]), "bob": np.array([[0.0, 1.0]])}
    >>> found = best(speakers, np.array([0.8, 0.6]), Threshold(0.7, "given"))
    >>> found.speaker, found.runner_up, round(found.margin, 3)
    ('ann', 'bob', 0.2)
    """
    scores = {name: score(references, test) for name, references in speakers.items()}
    # Stable: of equal ones the first stays first.
    first, *others = sorted(scores, key=lambda name: -scores[name])
    second = others[0] if others else None
    return Identification(
        first, scores[first], threshold, doubt, second, None if second is None else scores[second]
    )
