"""say whether two recordings are of the same voice, or one is an enrolled speaker's

The threshold is one stored in the .tflite (tfq-sv evaluate --store): at the EER, or at the
--operating_point; or it is --threshold. A warning says where a recording is noise, hum, a tone or a
click rather than speech. Of recordings longer than a minute, the mean of windows is taken.
With --speaker, one recording is compared with a speaker that tfq-sv enroll has enrolled.

example:
  tfq-sv verify model.tflite first.wav second.flac
  tfq-sv verify --model=model.tflite --enrolled=speakers.json --speaker=ann second.flac
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from tfq_sv.cli.common import open_encoder, required
from tfq_sv.cli.enrolled import (
    chosen,
    define_enrolled,
    define_threshold,
    open_verifier,
    print_network,
    print_threshold,
    print_warnings,
)
from tfq_sv.errors import InputError
from tfq_sv.evaluation.extraction import embed_recording
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.verification.decision import Threshold, find_threshold

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, ".tflite (or a network, for two recordings)", flag_values=FLAGS)
define_enrolled(FLAGS)
flags.DEFINE_string("speaker", None, "enrolled speaker to compare with", flag_values=FLAGS)
define_threshold(FLAGS)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Compares and prints."""
    if FLAGS.speaker or FLAGS.enrolled:
        return _enrolled(arguments)
    if len(arguments) != (2 if FLAGS.model else 3):
        raise InputError(
            f"expected a model and two recordings, found {len(arguments)} arguments: "
            "tfq-sv verify model.tflite first.wav second.wav"
        )
    model, *paths = [FLAGS.model, *arguments] if FLAGS.model else arguments
    encoder = open_encoder(model)
    recordings = [embed_recording(encoder, path) for path in paths]
    warnings: dict[str, str] = {}
    for path, recording in zip(paths, recordings, strict=True):
        for change in recording.changes:
            print(f"{path}: {change}")
        if recording.doubt:
            print(f"{path}: warning: perhaps no speech: {recording.doubt}")
            warnings[path] = recording.doubt
    first, second = (recording.embedding for recording in recordings)
    if np.array_equal(first, second):
        warnings[paths[1]] = "both recordings are the same"
        print(f"{paths[1]}: warning: the same recording as {paths[0]}")
    about = getattr(encoder, "about", {})
    stored = (about.get("thresholds") or {}).values()
    known = FLAGS.threshold is not None or any(x["threshold"] is not None for x in stored)
    threshold = find_threshold(about, chosen(FLAGS), model) if known else None
    score = cosine(first, second)
    print(f"score      {score:.4f}  (cosine, -1 to 1)")
    if threshold is None:
        print(
            f"threshold  unknown: {model} holds none; give --threshold, or measure one with "
            "tfq-sv evaluate --store"
        )
        print_network(encoder)
        _warn(warnings, model, encoder, None)
        return {"score": score, "threshold": None, "same_speaker": None, "warnings": warnings}
    same = bool(score >= threshold.value)
    print_threshold(threshold)
    print_network(encoder)
    print(f"decision   {'same speaker' if same else 'different speakers'}")
    _warn(warnings, model, encoder, threshold)
    return {
        "score": score,
        "threshold": threshold.value,
        "same_speaker": same,
        "warnings": warnings,
    }


def _enrolled(arguments: Sequence[str]) -> dict[str, Any]:
    model, file, name = required(FLAGS, "model", "enrolled", "speaker")
    if len(arguments) != 1:
        raise InputError(
            f"expected one recording, found {len(arguments)}: tfq-sv verify --model=model.tflite "
            f"--enrolled=speakers.json --speaker={name} voice.wav"
        )
    (path,) = arguments
    verifier = open_verifier(model, file)
    verification = verifier.verify(name, path, chosen(FLAGS))
    warnings: dict[str, str] = {path: verification.doubt} if verification.doubt else {}
    if verification.doubt:
        print(f"{path}: warning: perhaps no speech: {verification.doubt}")
    print(f"score      {verification.score:.4f}  (against {name}'s recordings; cosine, -1 to 1)")
    if verification.llr is not None:
        print(
            f"LLR        {verification.llr:+.2f}  (natural logarithm; above 0 rather one speaker)"
        )
    print_threshold(verification.threshold)
    print_network(verifier.encoder)
    print(f"decision   {'accepted' if verification.accepted else 'rejected'}: {name}")
    _warn(warnings, model, verifier.encoder, verification.threshold)
    return {
        "speaker": name,
        "score": verification.score,
        "llr": verification.llr,
        "threshold": verification.threshold.value,
        "same_speaker": verification.accepted,
        "warnings": warnings,
    }


def _warn(warnings: dict[str, str], model: str, encoder: Any, threshold: Threshold | None) -> None:
    """Adds what print_warnings says of the model."""
    if messages := print_warnings(encoder, threshold):
        warnings[model] = "; ".join(messages)
