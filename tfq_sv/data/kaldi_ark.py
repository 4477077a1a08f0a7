"""Kaldi's archives (`.ark`) and lists (`.scp`) of vectors, read without running anything.

An archive repeats `name`, a space and a vector. Kaldi has binary vectors ("\\0B", "FV " or "DV ",
"\\4", an int32 of the length, then the values, little-endian) and text ones (" [ 1.5 -2 ]", a
line each). A list has lines of `name file` or `name file:offset`.

Kaldi itself and kaldiio take more: a list's commands, and in an archive sound and pickles, which
run code. Here only what is written above is read, from regular files; all else is an error.

Source: Kaldi's matrix/kaldi-vector.cc (`Vector::Read`) and util/kaldi-table-inl.h.
"""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tfq_sv.data.corpus import read_pairs
from tfq_sv.errors import InputError
from tfq_sv.files import require_file

MAX_VALUES = 1 << 16
"""Longest vector that is read: no embedding is near, and a hostile length asks for no memory."""

_MAX_NAME = 1 << 12  # bytes
_MAX_LINE = 32 * MAX_VALUES  # bytes of a text vector: more than its numbers' digits need
_KINDS: dict[bytes, np.dtype[Any]] = {b"FV ": np.dtype("<f4"), b"DV ": np.dtype("<f8")}
_PLACE = re.compile(r"(?P<file>.+?)(?::(?P<offset>\d{1,18}))?")

Vector = npt.NDArray[np.floating]


def read_archive(path: str | os.PathLike[str]) -> Iterator[tuple[str, Vector]]:
    """Reads an archive's names and vectors, in order.

    Args:
        path: the `.ark`.

    Yields:
        A name and its vector (D,), float32 or float64.

    Raises:
        InputError: missing; anything in it but names and vectors; cut short.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "text.ark"
    >>> _ = path.write_text("ann  [ 1 2.5 ]\\n")
    >>> list(read_archive(path))
    [('ann', array([1. , 2.5]))]
    """
    with require_file(path, "archive").open("rb") as file:
        while name := _name(file, path):
            yield name, _vector(file, f"{path}: {name}")


def read_list(path: str | os.PathLike[str]) -> Iterator[tuple[str, Vector]]:
    """Reads the vectors that a list names, as `read_archive` yields them.

    Raises:
        InputError: missing or malformed; duplicate names; a place that is no regular file, such
            as a command; a place that holds no vector.
    """
    archive: BinaryIO | None = None
    opened = ""
    try:
        for name, place in read_pairs(Path(path)).items():
            match = _PLACE.fullmatch(place)
            if not match or not _is_file(match["file"]):
                raise InputError(
                    f"{path}: {name} is at {place!r:.200}, which is no file; expected `file` or "
                    "`file:offset`, and commands are never run"
                )
            if archive is None or opened != match["file"]:
                if archive:
                    archive.close()
                opened = match["file"]
                archive = Path(opened).open("rb")  # noqa: SIM115 (closed below)
            offset = int(match["offset"] or 0)
            if offset > os.fstat(archive.fileno()).st_size:
                raise InputError(f"{path}: {name} is at {place!r:.200}, beyond the archive's end")
            archive.seek(offset)
            yield name, _vector(archive, f"{opened}: {name}")
    finally:
        if archive:
            archive.close()


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long, for instance
        return False


def _name(file: BinaryIO, path: str | os.PathLike[str]) -> str | None:
    """The next name; None at the archive's end."""
    start = file.tell()
    name = bytearray()
    while (byte := file.read(1)) not in (b"", b" ") and len(name) < _MAX_NAME:
        name += byte
    if not name and not byte:
        return None
    try:
        if byte == b" " and name.decode().split() == [name.decode()]:
            return name.decode()
    except UnicodeDecodeError:
        pass
    raise InputError(
        f"{path} does not hold vectors: expected a name and a space at byte {start:,}, found "
        f"{bytes(name[:40])!r}"
    )


def _vector(file: BinaryIO, what: str) -> Vector:
    start = file.read(2)
    return _binary(file, what) if start == b"\0B" else _text(file, start, what)


def _binary(file: BinaryIO, what: str) -> Vector:
    header = file.read(8)
    kind = _KINDS.get(header[:3])
    if kind is None or len(header) < 8 or header[3] != 4:
        raise _no_vector(what, b"\0B" + header)
    (length,) = struct.unpack("<i", header[4:])
    _check_length(length, what)
    values = file.read(length * kind.itemsize)
    if len(values) < length * kind.itemsize:
        raise InputError(f"{what} is cut short: the file ends within its {length} values")
    return np.frombuffer(values, kind)


def _text(file: BinaryIO, start: bytes, what: str) -> Vector:
    line = start if start.endswith(b"\n") else start + file.readline(_MAX_LINE)
    if not (match := re.fullmatch(rb"\s*\[([^\[\]\n]*)\]\s*", line)):
        raise _no_vector(what, line)
    words = match[1].split()
    _check_length(len(words), what)
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        raise _no_vector(what, line) from None


def _check_length(length: int, what: str) -> None:
    if not 0 < length <= MAX_VALUES:
        raise InputError(f"{what} says it has {length} values; expected 1 to {MAX_VALUES:,}")


def _no_vector(what: str, found: bytes) -> InputError:
    return InputError(
        f"{what} is no vector but {found[:24]!r}; expected Kaldi's FV or DV, or its text "
        "`[ 1.5 -2 ]`"
    )
