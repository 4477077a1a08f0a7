"""What `evaluate` and `threshold` share: writing thresholds into a .tflite."""

import datetime
import importlib.util
from collections.abc import Mapping
from typing import Any

from tfq_sv import assets
from tfq_sv.cli.common import is_tflite
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import Evaluation
from tfq_sv.evaluation.scoring import SCALES
from tfq_sv.files import check_output
from tfq_sv.origin import speech_of, threshold_warning


def other_model(name: str) -> str:
    """What to do where --model is not a .tflite, or missing; the end of a message."""
    return f"{name} is not one; export it first" if name else "give --model=model.tflite"


def check_store(name: str) -> None:
    """Sees, before the work, whether thresholds can be stored in a file.

    Raises:
        InputError: it is no .tflite, cannot be written, or LiteRT is not installed.
    """
    if not is_tflite(name):
        raise InputError(f"--store writes into a .tflite; {other_model(name)}")
    if not importlib.util.find_spec("ai_edge_litert"):
        raise InputError("--store needs LiteRT, to write the file: pip install ai-edge-litert")
    if (shipped := assets.file(name)) != name:
        raise InputError(f"{name} ships with tfq-sv and stays as it is; copy it: cp {shipped} .")
    check_output(name)


def described(result: Evaluation, corpus: Corpus) -> dict[str, Any]:
    """Thresholds for a file's metadata, with the speech that they are of, and today's date.

    Raises:
        InputError: too few trials.
    """
    found = result.thresholds()
    trials = {"speech": speech_of(corpus.root), "date": datetime.date.today().isoformat()}
    return {**found, "trials": {**found["trials"], **trials}}


def store(
    name: str,
    result: Evaluation,
    corpus: Corpus,
    calibration: Mapping[str, float] | None = None,
) -> None:
    """Stores the thresholds, and which speech they are of, and prints them as they are stored.

    The calibration of earlier trials is replaced too: it may be of other speech.

    Raises:
        InputError: too few trials.
    """
    from tfq_sv.export import write_about

    fields = described(result, corpus)
    write_about(name, **fields, calibration=calibration)
    print(f"  stored the thresholds in {name}  ({SCALES['cosine']})")
    for point, entry in fields["thresholds"].items():
        value = entry["threshold"]
        print(f"    {point}  " + ("too few trials to say" if value is None else f"{value:.4f}"))
    if warning := threshold_warning(fields):
        print(f"warning: {warning}")
