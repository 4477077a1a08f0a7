"""Error rates where the tested recording comes by phone, through noise, or is short."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfq_sv import metrics
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.conditions import CONDITIONS, Samples
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.extraction import Cache, Encoder, Extraction, extract
from tfq_sv.evaluation.measurement import measure
from tfq_sv.evaluation.operating_points import (
    LEAST_SPEAKERS,
    Rate,
    pair_scores,
    rates,
    tested_on,
)

CLEAN = "as recorded"
"""The row of the recordings as they are."""


class Changed:
    """An encoder that hears every recording, of long ones the first minute, changed.

    Args:
        encoder: what embeds.
        change: samples (N,) -> samples, a condition for instance.
    """

    in_one = True

    def __init__(self, encoder: Encoder, change: Callable[[Samples], Samples]) -> None:
        self._encoder, self._change = encoder, change

    def embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Samples in [-1, 1] at 16 kHz, (N,) -> (embed_dim,)."""
        return self._encoder.embed(self._change(waveform))


@dataclass(frozen=True)
class ErrorRates:
    """Of one network under one condition.

    Attributes:
        trials: how many there were.
        eer: equal error rate.
        far: at the fixed threshold.
        frr: at the fixed threshold.
    """

    trials: int
    eer: Rate
    far: Rate
    frr: Rate


@dataclass(frozen=True, eq=False)
class Measured:
    """A network under every condition.

    Attributes:
        threshold: that far and frr are of.
        source: where it comes from, for people.
        rows: condition -> error rates; None where too few recordings are long enough.
        skipped: recordings that could not be used as they are -> why.
    """

    threshold: float
    source: str
    rows: Mapping[str, ErrorRates | None]
    skipped: Mapping[str, BadAudioError]


def threshold_of(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, str]:
    """The threshold at FAR 1e-2, or at the EER where the trials are too few, and which it is."""
    strict = metrics.threshold_at_far(scores, labels, 1e-2)
    if strict is not None:
        return strict, "at FAR 1e-2 of the trials as recorded"
    return metrics.eer(scores, labels)[1], "at the EER of the trials as recorded"


def measure_conditions(
    encoder: Encoder,
    corpus: Corpus,
    trials: Trials,
    *,
    threshold: tuple[float, str] | None = None,
    cache: Mapping[str, Cache] | None = None,
    strict: bool = False,
    progress: str | None = None,
) -> Measured:
    """Measures an encoder with the tested side of every trial under each of `CONDITIONS`.

    The enrolled side stays as recorded, as most enrolments are made with care. Recordings that
    cannot be used, or are too short for a condition, are left out with their trials.

    Args:
        encoder: what embeds.
        corpus: where the trials' utterances are, with their speakers.
        trials: of single recordings.
        threshold: a fixed one, and where it comes from; else `threshold_of` the trials as recorded.
        cache: condition, or `CLEAN` -> what keeps its embeddings from run to run.
        strict: raise the first bad recording instead of leaving it out.
        progress: name of the progress bars; none if None.

    Raises:
        InputError: trials of several recordings per enrolment; speakers that are not known, or are
            fewer than `operating_points.LEAST_SPEAKERS`; a bad recording, if `strict`.
    """
    if trials.models:
        raise InputError("conditions are measured on trials of single recordings; no --enroll_map")
    unknown = [key for key in trials.utterances if key not in corpus.paths]
    _speakers(corpus, trials.without(unknown))  # said before the work
    caches = cache or {}

    def embedded(heard: Encoder, keys: list[str], name: str, strict: bool = False) -> Extraction:
        bar = f"{progress}, {name}" if progress else None
        return extract(heard, corpus, keys, cache=caches.get(name), strict=strict, progress=bar)

    whole = embedded(encoder, trials.utterances, CLEAN, strict)
    clean = measure(whole, corpus, trials)
    at, source = threshold or threshold_of(clean.scores, clean.trials.labels)
    rows: dict[str, ErrorRates | None] = {
        CLEAN: _rates(clean.scores, corpus, clean.trials, at),
    }
    tested = sorted(set(clean.trials.test))
    for condition in CONDITIONS:
        changed = embedded(Changed(encoder, condition), tested, condition.name).embeddings
        left = tested_on(clean.trials, changed)
        scores = pair_scores(whole.embeddings, changed, left) if len(left) else np.zeros(0)
        rows[condition.name] = _rates(scores, corpus, left, at)
    return Measured(at, source, rows, whole.skipped)


def error_rates(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.bool_],
    speakers: tuple[Sequence[str], Sequence[str]],
    threshold: float,
) -> ErrorRates:
    """Error rates of trials, with intervals by a bootstrap over speakers.

    Args:
        scores: (N,).
        labels: (N,), true for target trials.
        speakers: the enrolled and the tested speaker of each trial.
        threshold: that FAR and FRR are of.
    """
    eer = metrics.eer(scores, labels)[0]
    low, high = metrics.eer_interval(scores, labels, speakers)
    ((far, frr),) = rates(scores, labels, speakers, [threshold])
    return ErrorRates(len(scores), Rate(eer, low, high), far, frr)


def _rates(
    scores: npt.NDArray[np.float64], corpus: Corpus, trials: Trials, threshold: float
) -> ErrorRates | None:
    try:
        whose = _speakers(corpus, trials)
        trials.check()
    except InputError:
        return None
    return error_rates(scores, trials.labels, whose, threshold)


def _speakers(corpus: Corpus, trials: Trials) -> tuple[list[str], list[str]]:
    whose = trials.speakers(corpus)
    if whose is None:
        raise InputError(
            f"{corpus.root}: the speakers, over whom intervals are taken, are not known; give a "
            "folder of speakers, or --speaker_level"
        )
    if len(set(whose[1])) < LEAST_SPEAKERS:
        raise InputError(
            f"{trials.source} tests {len(set(whose[1]))} speakers; error rates of fewer than "
            f"{LEAST_SPEAKERS} say nothing"
        )
    return whose
