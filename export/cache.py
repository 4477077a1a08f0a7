"""Inflated files, kept on disk by their hash, so that a file is inflated once on a machine."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tfq_sv import files
from tfq_sv.errors import InputError


def folder() -> Path:
    """Returns where inflated files are kept: `tfq-sv` in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfq-sv"


def fetch(sha256: str, make: Callable[[], bytes]) -> bytes:
    """Returns the content that has this hash: kept from an earlier time, or made now and kept.

    Whole files replace each other, so any number of processes may do this at once. A cache that
    cannot be read or written costs time, no more.

    Args:
        sha256: of the content, hexadecimal.
        make: makes the content, and sees to it that it has this hash.
    """
    try:
        kept = folder() / f"{sha256}.tflite"
    except RuntimeError:  # a user without a home, as in some containers
        return make()
    try:
        content = kept.read_bytes()
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
    except OSError:
        pass
    content = make()
    try:
        with files.atomic(kept) as temporary:
            temporary.write_bytes(content)
    except (InputError, OSError):
        pass
    return content
