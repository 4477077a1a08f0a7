"""Inflated files, kept on disk by their hash, so that a file is inflated once on a machine."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from tfq_sv import files
from tfq_sv.errors import InputError

KEPT = 16
"""Inflated files that stay; beyond that, the one that was used longest ago goes first."""

_OURS = re.compile(r"[0-9a-f]{64}\.tflite")
_LEFT_BEHIND = re.compile(r"\.[0-9a-f]{40}-.*\.tflite")  # by `files.atomic` in a killed process
_DAY = 24 * 60 * 60


def folder() -> Path:
    """Returns where inflated files are kept: `tfq-sv` in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfq-sv"


def fetch(sha256: str, make: Callable[[], bytes]) -> bytes:
    """Returns the content that has this hash: kept from an earlier time, or made now and kept.

    Whole files replace each other, so any number of processes may do this at once. A cache that
    cannot be read or written costs time, no more. The last `KEPT` used stay.

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
            with contextlib.suppress(OSError):
                os.utime(kept)  # says that it was used
            return content
    except OSError:
        pass
    content = make()
    try:
        with files.atomic(kept) as temporary:
            temporary.write_bytes(content)
        _shrink(kept)
    except (InputError, OSError):
        pass
    return content


def _shrink(newest: Path) -> None:
    """Removes what was used longest ago, and what killed processes left."""
    used = {}
    for path in newest.parent.iterdir():
        with contextlib.suppress(OSError):  # another process may be doing the same
            if _OURS.fullmatch(path.name) and path != newest:
                used[path] = path.stat().st_mtime
            elif _LEFT_BEHIND.fullmatch(path.name) and time.time() - path.stat().st_mtime > _DAY:
                path.unlink()
    for path in sorted(used, key=used.__getitem__, reverse=True)[KEPT - 1 :]:
        with contextlib.suppress(OSError):
            path.unlink()
