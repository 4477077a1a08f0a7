"""What a file says of itself, checked: a reader acts on it. FORMAT.md lists the fields."""

import os
from collections.abc import Mapping
from typing import Any

from tfq_sv.errors import InputError
from tfq_sv.features import FbankOptions


def check(about: Any, path: str | os.PathLike[str] = "the file") -> dict[str, Any]:
    """Returns a file's metadata as they came, if an encoder can work by them.

    Args:
        about: what the JSON held.
        path: the file, for the message.

    Raises:
        InputError: a field that encoders need is missing or is none of what FORMAT.md allows.

    >>> check({"input": "audio"}, "a.tflite")
    Traceback (most recent call last):
      ...
    tfq_sv.errors.InputError: a.tflite has wrong metadata: input is 'audio'; export it again
    """
    if not isinstance(about, Mapping):
        raise InputError(f"{path} has wrong metadata: {about!r:.60} is no object; export it again")
    takes_waveforms = about.get("input") == "waveform"
    right = {
        "input": about.get("input") in ("waveform", "features"),
        "compute": about.get("compute") in ("int8", "float32"),
        **{name: _count(about.get(name)) for name in ("feat_dim", "embed_dim", "sample_rate")},
        "min_samples": _count(about.get("min_samples")) or not takes_waveforms,
        "frontend": _front_end(about.get("frontend")),
        "thresholds": about.get("thresholds") is None or isinstance(about["thresholds"], Mapping),
        "inflated_sha256": _hexadecimal(about.get("inflated_sha256")),
    }
    for name, fine in right.items():
        if not fine:
            wrong = f"{name} is {about.get(name)!r:.60}"
            raise InputError(f"{path} has wrong metadata: {wrong}; export it again")
    return dict(about)


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _hexadecimal(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _front_end(value: Any) -> bool:
    if value is None:
        return True
    try:
        FbankOptions(**value)
    except (TypeError, InputError):
        return False
    return True
