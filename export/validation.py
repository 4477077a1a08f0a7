"""Whether a file verifies as well as the network it was made from: `validate`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.extraction import Encoder, Extraction, extract
from tfq_sv.evaluation.measurement import Evaluation, KerasEncoder, measure
from tfq_sv.export.encoder import SpeakerEncoder
from tfq_sv.metrics import eer_interval
from tfq_sv.reports.table import Table

SIGNATURES = ("embed", "inflate")
"""The two ways a file runs: decoding as it runs, and inflated first."""

REFERENCE = "Keras"


@dataclass(frozen=True, eq=False)
class Parity:
    """A file in the interpreter, by one signature, beside its network in Keras.

    Attributes:
        signature: "embed" or "inflate".
        result: its error rates.
        difference: 95 % interval of its EER less the network's: paired bootstrap over speakers;
            None where nobody knows them.
        cosines: between the file's embedding and the network's, of each utterance, float64 (N,).
        score_change: the greatest change of a trial's score.
        flips: trials that are decided otherwise, each system at its own EER threshold.
    """

    signature: str
    result: Evaluation
    difference: tuple[float, float] | None
    cosines: npt.NDArray[np.float64]
    score_change: float
    flips: int


@dataclass(frozen=True, eq=False)
class Validation:
    """What `validate` found: the network in Keras, and the file by each signature."""

    reference: Evaluation
    parities: Sequence[Parity]

    def __str__(self) -> str:
        """The table as text."""
        return self.table()

    def table(self) -> Table:
        """Returns the results as a table."""
        header = ["system", "EER %", "minDCF", "minus Keras, 95 %", "cosine", "worst"]
        header += ["score change", "flips"]
        rows = [[REFERENCE, f"{100 * self.reference.eer:.3f}", f"{self.reference.min_dcf:.4f}"]]
        rows[0] += [""] * (len(header) - len(rows[0]))
        for parity in self.parities:
            interval = ""  # where nobody knows the speakers
            if parity.difference:
                low, high = (100 * bound for bound in parity.difference)
                interval = f"[{low:+.3f}, {high:+.3f}]"
            rows.append(
                [
                    f".tflite, {parity.signature}",
                    f"{100 * parity.result.eer:.3f}",
                    f"{parity.result.min_dcf:.4f}",
                    interval,
                    f"{parity.cosines.mean():.6f}",
                    f"{parity.cosines.min():.6f}",
                    f"{parity.score_change:.1e}",
                    f"{parity.flips:,}",
                ]
            )
        return Table(header, rows)


def validate(
    path: str | os.PathLike[str],
    model: Any,
    corpus: Corpus,
    trials: Trials,
    *,
    signatures: Sequence[str] = SIGNATURES,
    strict: bool = False,
    progress: bool = False,
) -> Validation:
    """Measures a file in the interpreter beside the Keras model it was exported from.

    Args:
        path: what `export_tflite` wrote.
        model: the quantized model that was exported; its FP32 network, to see what quantization and
            export cost together; or any encoder.
        corpus: where the trials' utterances are.
        trials: what is compared.
        signatures: how the file is run.
        strict: raise the first bad recording; else all systems do without it.
        progress: whether to show progress bars.

    Raises:
        InputError: a file that is none of ours or is damaged; trials of one kind only.
    """
    trials.check()
    reference = model if hasattr(model, "embed") else KerasEncoder(model)
    encoders: dict[str, Encoder] = {REFERENCE: reference}
    encoders |= {
        name: SpeakerEncoder(path, fast=name == "inflate", check_speech=False)
        for name in signatures
    }
    extractions: dict[str, Extraction] = {
        name: extract(
            encoder, corpus, trials.utterances, strict=strict, progress=name if progress else None
        )
        for name, encoder in encoders.items()
    }
    skipped = {
        key: e for extraction in extractions.values() for key, e in extraction.skipped.items()
    }
    results = {
        name: measure(Extraction(extraction.embeddings, skipped), corpus, trials)
        for name, extraction in extractions.items()
    }
    expected = results.pop(REFERENCE)
    keys = [key for key in trials.utterances if key not in skipped]
    vectors = {
        name: extraction.embeddings.matrix[extraction.embeddings.rows(keys)]
        for name, extraction in extractions.items()
    }
    parities = [
        _parity(name, result, expected, corpus, _cosines(vectors[REFERENCE], vectors[name]))
        for name, result in results.items()
    ]
    return Validation(expected, parities)


def _parity(
    signature: str,
    result: Evaluation,
    reference: Evaluation,
    corpus: Corpus,
    cosines: npt.NDArray[np.float64],
) -> Parity:
    kept = reference.trials
    whose = kept.speakers(corpus)
    difference = whose and eer_interval(result.scores, kept.labels, whose, minus=reference.scores)
    decisions = [one.scores >= one.threshold for one in (result, reference)]
    return Parity(
        signature,
        result,
        difference,
        cosines,
        score_change=float(np.abs(result.scores - reference.scores).max()),
        flips=int(np.count_nonzero(decisions[0] != decisions[1])),
    )


def _cosines(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    a, b = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (a, b))
    return np.clip((a.astype(np.float64) * b).sum(1), -1, 1)
