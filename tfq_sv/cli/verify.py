"""say whether two recordings are of the same voice

The threshold is the one stored in the .tflite (tfq-sv evaluate --store), or --threshold. A warning
says where a recording is noise, hum, a tone or a click rather than speech.

example:
  tfq-sv verify model.tflite first.wav second.flac
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from tfq_sv.cli.common import open_encoder
from tfq_sv.data import audio
from tfq_sv.data.speech_check import no_speech
from tfq_sv.errors import InputError
from tfq_sv.evaluation.scoring import cosine

FLAGS = flags.FlagValues()
flags.DEFINE_float("threshold", None, "accept scores from here on", flag_values=FLAGS)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Compares and prints."""
    if len(arguments) != 3:
        raise InputError(
            f"expected a model and two recordings, found {len(arguments)} arguments: "
            "tfq-sv verify model.tflite first.wav second.wav"
        )
    model, *paths = arguments
    encoder = open_encoder(model)
    recordings = [audio.read(path) for path in paths]
    warnings: dict[str, str] = {}
    for path, recording in zip(paths, recordings, strict=True):
        for change in recording.changes:
            print(f"{path}: {change}")
        reason = no_speech(recording.samples)
        if reason:
            print(f"{path}: warning: perhaps no speech: {reason}")
            warnings[path] = reason
    score = cosine(*(encoder.embed(recording.samples) for recording in recordings))
    print(f"score      {score:.4f}  (cosine, -1 to 1)")
    threshold, source = FLAGS.threshold, "given"
    if threshold is None:
        threshold, source = getattr(encoder, "threshold", None), "stored, at the EER"
    if threshold is None:
        print(
            f"threshold  unknown: {model} holds none; give --threshold, or measure one with "
            "tfq-sv evaluate --store"
        )
        return {"score": score, "threshold": None, "same_speaker": None, "warnings": warnings}
    same = bool(score >= threshold)
    print(f"threshold  {threshold:.4f}  ({source})")
    print(f"decision   {'same speaker' if same else 'different speakers'}")
    return {"score": score, "threshold": threshold, "same_speaker": same, "warnings": warnings}
