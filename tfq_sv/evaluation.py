"""Measuring a network on trials: embed every utterance, score every trial, count the errors.

An encoder is anything with `embed(waveform) -> (embed_dim,)`: a Keras model here, a `.tflite` in
`tfq_sv.export`. Both go through the same lines below, so their figures can be compared.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.features import fbank
from tfq_sv.metrics import eer, eer_interval, min_dcf, threshold_at_far
from tfq_sv.scoring import cosine_scores

Embeddings = dict[str, npt.NDArray[np.float32]]


class Encoder(Protocol):
    """What turns a recording into an embedding."""

    def embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Samples in [-1, 1] at 16 kHz, (N,) -> (embed_dim,)."""


class KerasEncoder:
    """A Keras model with the front end it was trained with."""

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        from tfq_sv.models import front_end

        self.fbank = front_end(model)
        signature = [tf.TensorSpec([1, None, self.fbank.num_bins], tf.float32)]
        # One trace for every length.
        self._call = tf.function(lambda x: model(x, training=False), input_signature=signature)

    def embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Samples in [-1, 1] at 16 kHz, (N,) -> (embed_dim,)."""
        return self._call(fbank(waveform, self.fbank)[None]).numpy()[0]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Error rates on a trial list.

    Attributes:
        eer: equal error rate, a fraction.
        interval: its 95 % interval, by a bootstrap over speakers.
        threshold: the cosine at the EER.
        min_dcf: at p_target 0.01, normalised.
        scores: raw cosines, float64 (N,).
        trials: what was compared.
    """

    eer: float
    interval: tuple[float, float]
    threshold: float
    min_dcf: float
    scores: npt.NDArray[np.float64]
    trials: Trials

    def thresholds(self) -> dict[str, Any]:
        """What a file keeps, so that an app can decide: thresholds and the trials behind them.

        Raw cosines: at the EER, and where one in a hundred and one in a thousand nontarget trials
        is accepted (null where the trials are too few to say).
        """
        labels = self.trials.labels
        targets = int(labels.sum())
        return {
            "thresholds": {
                "eer": {"threshold": self.threshold, "eer": self.eer, "interval": self.interval},
                "far_1e-2": {"threshold": threshold_at_far(self.scores, labels, 1e-2)},
                "far_1e-3": {"threshold": threshold_at_far(self.scores, labels, 1e-3)},
            },
            "trials": {
                "source": self.trials.source,
                "target": targets,
                "nontarget": len(labels) - targets,
            },
        }


def evaluate(
    encoder: Encoder, corpus: Corpus, trials: Trials, *, progress: str | None = None
) -> Evaluation:
    """Measures an encoder on trials.

    Args:
        encoder: what embeds.
        corpus: where the trials' utterances are.
        trials: what is compared.
        progress: name of the progress bar; none if None.

    Raises:
        InputError: an utterance that cannot be read.
    """
    embeddings = embed_all(encoder, corpus, trials.utterances, progress=progress)
    scores = cosine_scores(embeddings, trials)
    rate, threshold = eer(scores, trials.labels)
    interval = eer_interval(scores, trials.labels, trials.speakers(corpus))
    cost = min_dcf(scores, trials.labels)
    return Evaluation(rate, interval, threshold, cost, scores, trials)


def embed_all(
    encoder: Encoder, corpus: Corpus, keys: list[str], *, progress: str | None = None
) -> Embeddings:
    """Embeds utterances whole: key -> float32 (embed_dim,)."""
    with tqdm(keys, desc=progress, unit="utt", disable=progress is None) as shown:
        return {key: encoder.embed(audio.read(corpus.paths[key]).samples) for key in shown}


def changes(corpus: Corpus, *, progress: str | None = None) -> Counter[str]:
    """Counts what reading a corpus changes ("resampled from 44100 Hz": 12), by headers alone.

    Raises:
        InputError: a file that is missing, not audio or too short.
    """
    paths = corpus.paths.values()
    with tqdm(paths, desc=progress, unit="file", disable=progress is None) as shown:
        return Counter(change for path in shown for change in audio.probe(path).changes)
