"""What a file says of itself, checked once, before anything works by it.

FORMAT.md has the rules. `About.kt` and `about.js` keep the same ones; tests/data/metadata.json has
the cases that all three agree on.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tfq_sv.errors import InputError
from tfq_sv.features import FbankOptions
from tfq_sv.strict_json import as_integer, is_number
from tfq_sv.strict_json import parse as parse_json

_INT32 = 2**31 - 1
_MOST_COSINE = 1.01
_SIZES = ("feat_dim", "embed_dim", "sample_rate", "min_samples")


def parse(text: bytes, path: str | os.PathLike[str] = "the file") -> dict[str, Any]:
    """Returns the metadata that a file's `about` signature gave; see `check`.

    Args:
        text: UTF-8 JSON.
        path: the file, for the message.

    Raises:
        InputError: no JSON object; a field that `check` refuses.
    """
    about = parse_json(text)
    if about is None:
        raise InputError(f"{path} has wrong metadata: no JSON object; export it again")
    return check(about, path)


def check(about: Any, path: str | os.PathLike[str] = "the file") -> dict[str, Any]:
    """Returns a file's metadata, if an encoder can work by them; sizes are int, 80.0 too.

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
    features = about.get("input") == "features"
    right = {
        "input": about.get("input") in ("waveform", "features"),
        "compute": about.get("compute") in ("int8", "float32"),
        **{name: _count(about.get(name)) for name in _SIZES},
        "min_samples": _count(about.get("min_samples"))
        or (features and about.get("min_samples") is None),
        "frontend": _front_end(about.get("frontend"), computed=features),
        "score": about.get("score", "cosine") == "cosine",
        "thresholds": _thresholds(about.get("thresholds")),
        "inflated_sha256": _hexadecimal(about.get("inflated_sha256")),
    }
    for name, fine in right.items():
        if not fine:
            wrong = f"{name} is {about.get(name)!r:.60}"
            raise InputError(f"{path} has wrong metadata: {wrong}; export it again")
    return {**about, **{name: as_integer(about[name]) for name in _SIZES if about.get(name)}}


def _count(value: Any) -> bool:
    return 0 < (as_integer(value) or 0) <= _INT32


def _thresholds(value: Any) -> bool:
    """Null, or name -> {"threshold": a cosine or null, and whatever else}."""
    if value is None:
        return True
    return isinstance(value, Mapping) and all(
        isinstance(entry, Mapping)
        and "threshold" in entry
        and (entry["threshold"] is None or _is_cosine(entry["threshold"]))
        for entry in value.values()
    )


def _is_cosine(value: Any) -> bool:
    """With a little for rounding; beyond, all voices would be one, or none."""
    return is_number(value) and abs(value) <= _MOST_COSINE


def _hexadecimal(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _front_end(value: Any, *, computed: bool) -> bool:
    """Null or an object; where features are computed by it, of the right types and sizes."""
    if value is None or not isinstance(value, Mapping):
        return value is None
    if not computed:
        return True
    kinds: dict[str, Any] = {field.name: field.type for field in fields(FbankOptions)}
    for name, option in value.items():
        kind = kinds.get(name)
        fine = type(option) is int and _count(option) if kind is int else type(option) is kind
        if not fine and not (kind is float and is_number(option)):
            return False
    try:
        options = FbankOptions(**value)
    except InputError:
        return False
    return (
        options.frame_length <= options.sample_rate
        and 0 <= options.low_freq < options.high_freq <= options.sample_rate / 2
        and options.num_bins <= options.fft_length
    )
