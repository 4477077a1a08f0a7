"""The seal: by it a file is known to be one of ours, whole and unharmed, before anything parses it.

It is a record of 64 bytes somewhere in the file (a buffer of its metadata), little-endian:

    16 bytes  the magic
    uint32    the format's version
    uint32    zero
    uint64    the file's length
    32 bytes  SHA-256 of the whole file, with these 32 bytes zero
"""

import hashlib
import os
import struct

from tfq_sv.errors import InputError

MAGIC = b"\x89tfq-sv-file\r\n\x1a\n"
VERSION = 1

_HEAD = struct.Struct("<16sIIQ")
_DIGEST_BYTES = 32
BLANK = MAGIC + bytes(_HEAD.size - len(MAGIC) + _DIGEST_BYTES)
"""The record before it is filled in."""


def seal(data: bytes) -> bytes:
    """Returns the file with its one record filled in.

    >>> check(seal(b"0000TFL3" + BLANK + b"weights"))
    """
    if data.count(MAGIC) != 1:
        raise ValueError("a file has exactly one seal")
    start = data.find(MAGIC)
    head = _HEAD.pack(MAGIC, VERSION, 0, len(data))
    blank = data[:start] + head + bytes(_DIGEST_BYTES) + data[start + len(BLANK) :]
    return _with_digest(blank, start + _HEAD.size, hashlib.sha256(blank).digest())


def check(data: bytes, path: str | os.PathLike[str] = "the file") -> None:
    """Raises InputError, with `path` in its message, unless the seal is there and holds."""
    if not data:
        raise InputError(f"{path} is empty")
    if data[4:8] != b"TFL3":
        raise InputError(f"{path} is not a .tflite file")
    start = data.find(MAGIC)
    if start < 0 or start + len(BLANK) > len(data):
        raise InputError(
            f"{path} is not a tfq-sv file, or is cut short: it has no tfq-sv seal (nor has "
            "what the inflate signature returns; write that with tfq-sv inflate)"
        )
    _, version, _, length = _HEAD.unpack_from(data, start)
    if version > VERSION:
        raise InputError(
            f"{path} has format {version}, and this tfq-sv reads up to {VERSION}; upgrade tfq-sv"
        )
    if length != len(data):
        raise InputError(f"{path} is damaged: it has {len(data)} bytes and should have {length}")
    place = start + _HEAD.size
    blank = _with_digest(data, place, bytes(_DIGEST_BYTES))
    if hashlib.sha256(blank).digest() != data[place : place + _DIGEST_BYTES]:
        raise InputError(f"{path} is damaged: its checksum does not match; get it again")


def _with_digest(data: bytes, place: int, digest: bytes) -> bytes:
    return data[:place] + digest + data[place + _DIGEST_BYTES :]
