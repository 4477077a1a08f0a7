"""Measuring a network on trials: embed every utterance, score every trial, count the errors.

An encoder is anything with `embed(waveform) -> (embed_dim,)`: a Keras model here, a `.tflite` in
`tfq_sv.export`. Both go through the same lines below, so their figures can be compared.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv import windows
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.extraction import Cache, Encoder, Extraction, extract
from tfq_sv.evaluation.operating_points import pair_scores
from tfq_sv.evaluation.scoring import Cohort, NormalizedScores, as_norm, cosine_scores
from tfq_sv.features import fbank
from tfq_sv.metrics import eer, eer_interval, min_dcf, threshold_at_far
from tfq_sv.origin import folder_name

__all__ = ["Encoder", "Evaluation", "KerasEncoder", "evaluate", "measure"]

LEAST_TRIALS = 10
"""Target and nontarget trials below which no threshold is stored."""


class KerasEncoder:
    """A Keras model with the front end it was trained with."""

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        from tfq_sv.models import front_end, origin_of
        from tfq_sv.models.dilation import all_native, native_dilation, traced
        from tfq_sv.models.entry import as_entry, one_embedding, takes_waveform

        self.fbank, self._raw = front_end(model), takes_waveform(model)
        self.origin = origin_of(model)
        shape = [1, None] if self._raw else [1, None, self.fbank.num_bins]

        def call(entry: Any) -> Any:  # `tf` in an annotation would stop AutoGraph
            with native_dilation(model):
                return one_embedding(model, model(as_entry(model, entry), training=False))

        if all_native(model):  # one trace for every length
            self._call = tf.function(call, input_signature=[tf.TensorSpec(shape, tf.float32)])
        else:
            self._call = traced(call, model)

    def embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Samples in [-1, 1] at 16 kHz, (N,) -> (embed_dim,); long ones as `tfq_sv.windows`."""
        return windows.embed(self._embed, waveform, self.fbank.sample_rate)

    def _embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        entry = np.asarray(waveform, np.float32) if self._raw else fbank(waveform, self.fbank)
        found: npt.NDArray[np.float32] = self._call(entry[None]).numpy()[0]
        return found


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Error rates on a trial list.

    Attributes:
        eer: equal error rate, a fraction.
        interval: its 95 % interval, by a bootstrap over speakers; None where nobody knows them.
        threshold: the score at the EER.
        min_dcf: at p_target 0.01, normalized.
        scores: what was measured, float64 (N,): raw cosines, or AS-norm's scores.
        trials: what was compared.
        extraction: the embeddings, and the recordings that were skipped.
        trials_skipped: how many trials needed one of those.
        normalized: AS-norm's scores with their columns; None without AS-norm.
    """

    eer: float
    interval: tuple[float, float] | None
    threshold: float
    min_dcf: float
    scores: npt.NDArray[np.float64]
    trials: Trials
    extraction: Extraction | None = None
    trials_skipped: int = 0
    normalized: NormalizedScores | None = None

    def thresholds(self) -> dict[str, Any]:
        """What a file keeps, so that an app can decide: thresholds, and the trials they come from.

        Raw cosines: at the EER, and where one in a hundred and one in a thousand nontarget trials
        is accepted (null where the trials are too few to say). Where an enrolment has several
        utterances, scores are those of decisions (`operating_points.pair_scores`), not the cosines
        with the mean of the embeddings as they are: so they hold for any number.

        Raises:
            InputError: fewer than `LEAST_TRIALS` target or nontarget trials.
        """
        fewest = min(int(self.trials.labels.sum()), int((~self.trials.labels).sum()))
        if fewest < LEAST_TRIALS:
            raise InputError(
                f"{self.trials.source}: thresholds of fewer than {LEAST_TRIALS} target and "
                f"{LEAST_TRIALS} nontarget trials say nothing, and one kind has {fewest}; "
                "record more speech"
            )
        labels, scores, threshold = self.trials.labels, self.scores, self.threshold
        rate, interval = self.eer, self.interval
        if self.trials.models:
            assert self.extraction is not None
            embeddings = self.extraction.embeddings
            scores = pair_scores(embeddings, embeddings, self.trials)
            rate, threshold = eer(scores, labels)
            interval = None  # it is of other scores
        targets = int(labels.sum())
        return {
            "thresholds": {
                "eer": {"threshold": threshold, "eer": rate, "interval": interval},
                "far_1e-2": {"threshold": threshold_at_far(scores, labels, 1e-2)},
                "far_1e-3": {"threshold": threshold_at_far(scores, labels, 1e-3)},
            },
            "trials": {
                "source": _portable(self.trials.source),
                "target": targets,
                "nontarget": len(labels) - targets,
            },
        }


def _portable(source: str) -> str:
    """Where trials come from, without the folders of this machine: the file may be published.

    >>> _portable("/home/me/corpus/trials.txt")
    'trials.txt'
    >>> _portable("90 pairs drawn from /home/me/test (seed 0)")
    '90 pairs drawn from test (seed 0)'
    >>> _portable("90 pairs of my/test (seed 0)")
    '90 pairs of test (seed 0)'
    """
    if match := re.fullmatch(r"(\d+ pairs (?:drawn from|of) )(.*)( \(seed \d+\))", source):
        return f"{match[1]}{folder_name(Path(match[2]))}{match[3]}"
    return PurePath(source).name


def evaluate(
    encoder: Encoder,
    corpus: Corpus,
    trials: Trials,
    *,
    cohort: Cohort | None = None,
    normalize: bool = False,
    cache: Cache | None = None,
    strict: bool = False,
    progress: str | None = None,
) -> Evaluation:
    """Measures an encoder on trials.

    Args:
        encoder: what embeds.
        corpus: where the trials' utterances are.
        trials: what is compared.
        cohort: whose mean embedding is subtracted from every embedding; none if None.
        normalize: AS-norm against the cohort.
        cache: keeps embeddings from run to run.
        strict: raise the first bad recording; else trials that need one are skipped, and counted.
        progress: name of the progress bar; none if None.

    Raises:
        InputError: trials of one kind only, no trial left, or a bad recording, if `strict`.
    """
    trials.check()
    extraction = extract(
        encoder, corpus, trials.utterances, cache=cache, strict=strict, progress=progress
    )
    return measure(extraction, corpus, trials, cohort=cohort, normalize=normalize)


def measure(
    extraction: Extraction,
    corpus: Corpus,
    trials: Trials,
    *,
    cohort: Cohort | None = None,
    normalize: bool = False,
) -> Evaluation:
    """Measures embeddings on trials; as `evaluate`, which makes them first."""
    used = trials.without(extraction.skipped) if extraction.skipped else trials
    if not len(used):
        first = next(iter(extraction.skipped.values()))
        raise InputError(f"no trial is left of {len(trials)} from {trials.source}: {first}")
    used.check()
    embeddings = extraction.embeddings - cohort.mean if cohort else extraction.embeddings
    normalized = None
    if normalize:
        if cohort is None:
            raise InputError("AS-norm needs a cohort")
        normalized = as_norm(embeddings, used, cohort.speakers)
    scores = normalized.scores if normalized else cosine_scores(embeddings, used)
    rate, threshold = eer(scores, used.labels)
    whose = used.speakers(corpus)
    interval = eer_interval(scores, used.labels, whose) if whose else None
    cost = min_dcf(scores, used.labels)
    skipped = len(trials) - len(used)
    return Evaluation(
        rate, interval, threshold, cost, scores, used, extraction, skipped, normalized
    )
