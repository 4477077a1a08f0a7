"""say which enrolled speaker recordings are of, if any

The best score decides, if it reaches the threshold; else no enrolled speaker is named. The more
speakers are enrolled, the likelier one of them resembles a stranger: then take a stricter
--operating_point. The margin to the runner-up is printed as well.

example:
  tfq-sv identify --model=model.tflite --enrolled=speakers.json first.wav
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from tfq_sv.cli.common import required
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
from tfq_sv.verification.decision import Identification

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, ".tflite", flag_values=FLAGS)
define_enrolled(FLAGS)
define_threshold(FLAGS)
REQUIRED = ("model", "enrolled")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Identifies and prints, a line for each recording."""
    model, file = required(FLAGS, *REQUIRED)
    if not arguments:
        raise InputError(
            "no recording: tfq-sv identify --model=model.tflite --enrolled=speakers.json voice.wav"
        )
    verifier = open_verifier(model, file)
    identifications = {path: verifier.identify(path, chosen(FLAGS)) for path in arguments}
    threshold = next(iter(identifications.values())).threshold
    print_threshold(threshold)
    print_network(verifier.encoder)
    for path, result in identifications.items():
        print(f"{path}: {_say(result)}")
        if result.doubt:
            print(f"{path}: warning: perhaps no speech: {result.doubt}")
    print_warnings(verifier.encoder, threshold)
    return {path: _record(result) for path, result in identifications.items()}


def _say(result: Identification) -> str:
    if result.runner_up is None:
        rest = ""
    else:
        rest = f", then {result.runner_up}, {result.margin:.4f} lower"
    if result.speaker is None:
        return f"nobody who is enrolled; most like {result.name}, score {result.score:.4f}{rest}"
    return f"{result.speaker}, score {result.score:.4f}{rest}"


def _record(result: Identification) -> dict[str, Any]:
    return {
        "speaker": result.speaker,
        "best": result.name,
        "score": result.score,
        "threshold": result.threshold.value,
        "runner_up": result.runner_up,
        "margin": result.margin,
        "warning": result.doubt,
    }
