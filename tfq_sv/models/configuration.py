"""What the configurations of WeSpeaker, 3D-Speaker and SpeechBrain say about the front end."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfq_sv.errors import InputError
from tfq_sv.features import SPEECHBRAIN, THREE_D_SPEAKER, WESPEAKER, FbankOptions
from tfq_sv.models.checkpoint import CONFIG, Checkpoint

# What YAML reads as truth values where it is not in quotes.
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_OWN: dict[str, dict[str, Any]] = {
    "3D-Speaker": {
        "window": THREE_D_SPEAKER.window,
        "sample_scale": THREE_D_SPEAKER.sample_scale,
    }
}


def front_end(checkpoint: Checkpoint, bins: int) -> FbankOptions:
    """Returns the front end that a checkpoint's network was trained with.

    Raises:
        InputError: one that `features` does not compute.
    """
    if checkpoint.origin == "SpeechBrain":
        return replace(SPEECHBRAIN, num_bins=bins)
    return replace(_read(checkpoint, bins), **_OWN.get(checkpoint.origin, {}))


def _read(checkpoint: Checkpoint, bins: int) -> FbankOptions:
    """Reads the front end: `dataset_args`, or `feature_args` of the first versions."""
    dataset = section(checkpoint, "dataset_args")
    frontend = dataset.get("frontend", "fbank")

    def refuse(what: str, expected: str) -> InputError:
        return InputError(f"{checkpoint.path}: {CONFIG} asks for {what}; only {expected} is read")

    if frontend != "fbank":
        raise refuse(f"the front end {frontend!r}", "'fbank'")
    cmvn = section(checkpoint, "cmvn_args", dataset)
    if cmvn.get("norm_var", False):
        raise refuse("normalized variance", "mean normalization")
    rate = dataset.get("resample_rate", 16000)
    if rate != WESPEAKER.sample_rate:
        raise refuse(f"{rate!r:.60} Hz", f"{WESPEAKER.sample_rate} Hz")
    settings = {
        # `raw_wav`, `num_frms` and `feat_dim` say how to train; the rest is the front end.
        **section(checkpoint, "feature_args"),
        **section(checkpoint, "fbank_args", dataset),
    }
    for ignored in ("raw_wav", "num_frms", "feat_dim", "dither"):
        settings.pop(ignored, None)
    found = settings.pop("num_mel_bins", bins)
    if found != bins:
        raise refuse(f"{found!r:.60} mel bins for a network of feat_dim {bins}", "equal numbers")
    per_ms = WESPEAKER.sample_rate / 1000
    length, shift = settings.pop("frame_length", 25), settings.pop("frame_shift", 10)
    for name, value in (("frame_length", length), ("frame_shift", shift)):
        if type(value) not in (int, float) or not 1 <= value <= 1000:
            raise refuse(f"{name} {value!r:.40}", "1 to 1000 ms")
    if settings:
        name, value = next(iter(settings.items()))
        what = f"{' '.join(str(name).split())} {value!r}"
        raise refuse(f"{what:.80}", "num_mel_bins, frame_length, frame_shift or dither")
    means = dataset.get("cmvn", True), cmvn.get("norm_mean", True)
    for value in means:
        if value not in (True, False, None):
            raise refuse(f"cmvn {value!r:.40}", "true or false")
    return replace(
        WESPEAKER,
        num_bins=bins,
        frame_length=round(length * per_ms),
        frame_shift=round(shift * per_ms),
        subtract_mean=all(means),
    )


def section(
    checkpoint: Checkpoint, name: str, parent: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns a part of a configuration by its name; empty if it is not there."""
    section = (checkpoint.config if parent is None else parent).get(name) or {}
    if not isinstance(section, dict):
        raise InputError(f"{checkpoint.path}: {name} in {CONFIG} should hold settings by name")
    return {name: _plain(value) for name, value in section.items()}


def _plain(value: Any) -> Any:
    """A number or a truth value that YAML reads as a text, because it stands in quotes."""
    if not isinstance(value, str):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    text = value.strip().lower()
    if text in _TRUTHS:
        return _TRUTHS[text]
    if re.fullmatch(r"[+-]?\d{1,12}", text):
        return int(text)
    if re.fullmatch(r"[+-]?\d{1,12}\.\d{0,12}", text):
        return _plain(float(text))
    return value
