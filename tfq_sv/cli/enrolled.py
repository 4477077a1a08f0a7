"""What `enroll`, `identify` and `verify --speaker` share: their flags, and opening a verifier."""

from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv import assets
from tfq_sv.cli.common import encoder_origin, is_tflite
from tfq_sv.errors import InputError
from tfq_sv.origin import Origin, network_warning, threshold_warning
from tfq_sv.verification import decision
from tfq_sv.verification.decision import Threshold
from tfq_sv.verification.speaker_verifier import SpeakerVerifier


def define_enrolled(flag_values: flags.FlagValues) -> None:
    """Defines --enrolled."""
    flags.DEFINE_string(
        "enrolled", None, "file of enrolled speakers (.json)", flag_values=flag_values
    )


def define_threshold(flag_values: flags.FlagValues) -> None:
    """Defines --operating_point and --threshold."""
    flags.DEFINE_string(
        "operating_point",
        decision.OPERATING_POINT,
        "which of the model's stored thresholds: eer, far_1e-2 or far_1e-3",
        flag_values=flag_values,
    )
    flags.DEFINE_float("threshold", None, "least score that is accepted", flag_values=flag_values)


def chosen(flag_values: flags.FlagValues) -> str | float:
    """The threshold asked for: a score, or an operating point."""
    given = flag_values["threshold"].value
    return flag_values["operating_point"].value if given is None else given


def open_verifier(model: str, enrolled: str | None) -> SpeakerVerifier:
    """Opens a model and, if given, loads who is enrolled."""
    if not is_tflite(model):
        raise InputError(f"--model {model} must be a .tflite: enrolments are bound to its network")
    verifier = SpeakerVerifier(assets.file(model))
    if enrolled is not None:
        if not Path(enrolled).exists():
            raise InputError(f"--enrolled {enrolled} does not exist; tfq-sv enroll writes it")
        verifier.load(enrolled)
    return verifier


def print_threshold(threshold: Threshold) -> None:
    """Says which it is and where it comes from."""
    print(f"threshold  {threshold.value:.4f}  ({threshold.source})")


def print_network(encoder: Any) -> None:
    """Says where a network is from and what speech it was trained on, if anything is known."""
    if (origin := encoder_origin(encoder)) != Origin():
        print(f"network    {origin}")


def print_warnings(encoder: Any, threshold: Threshold | None) -> list[str]:
    """Says where network or threshold know synthetic speech alone; returns these warnings."""
    found = [network_warning(encoder_origin(encoder))]
    if threshold and threshold.source != "given":
        found.append(threshold_warning(getattr(encoder, "about", {})))
    warnings = [warning for warning in found if warning]
    for warning in warnings:
        print(f"warning: {warning}")
    return warnings
