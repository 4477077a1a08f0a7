"""Text lists, as any program wrote them: Kaldi's `key value` files, trials, WeSpeaker's lists."""

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tfq_sv.errors import InputError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",  # PowerShell's `>`
    codecs.BOM_UTF16_BE: "utf-16",
}


# Marks without width, which pages and joined files leave in the middle of names.
_UNSEEN = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))


def printable(name: str) -> str:
    r"""A file's name as lists can keep it: bytes that are not UTF-8 are spelled out.

    >>> import os
    >>> printable(os.fsdecode(b"id1/caf\xe9.wav"))
    'id1/caf\\xe9.wav'
    """
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def composed(name: str) -> str:
    r"""A name with its letters and accents as one, as macOS does not spell them (Unicode's NFC).

    >>> composed("zoe\u0308") == "zo\u00eb"
    True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def read_text(path: Path) -> str:
    """Reads a text file: UTF-8, or UTF-16 with or without a byte order mark.

    Raises:
        InputError: missing, a folder, or not text.
    """
    if not path.is_file():
        wrong = "is a folder; name a list" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {wrong}")
    data = path.read_bytes()
    encoding = next((code for mark, code in _MARKS.items() if data.startswith(mark)), "utf-8")
    head = data[:1000]
    if encoding == "utf-8" and head.count(0) > len(head) // 4 and not len(data) % 2:
        # Every other byte of plain names is zero; which one says the byte order.
        encoding = "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file in UTF-8 or UTF-16; convert it") from None
    if "\0" in text:
        raise InputError(f"{path} is not a text file")
    return text.translate(_UNSEEN)


def read_lines(path: Path, *, comments: bool = False) -> list[tuple[int, str]]:
    """Returns a text file's numbered lines that are not blank; tabs count as spaces.

    Args:
        path: the file.
        comments: leave out lines that begin with `#`.

    Raises:
        InputError: as `read_text`.
    """
    return list(_lines(path, comments))


def _lines(path: Path, comments: bool) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        stripped = line.replace("\t", " ").strip()
        if stripped and not (comments and stripped.startswith("#")):
            yield number, stripped


def read_pairs(path: Path, *, comments: bool = False) -> dict[str, str]:
    """Reads a Kaldi list of `key value` lines.

    Args:
        path: the file.
        comments: leave out lines that begin with `#`, as people write into lists by hand.

    Raises:
        InputError: missing, not text, a line without a value, or duplicate keys.
    """
    pairs: dict[str, str] = {}
    repeated = []
    for number, line in _lines(path, comments):
        key, _, value = line.partition(" ")
        if not value.strip():
            raise InputError(f"{path}:{number}: expected `key value`, found {line!r:.200}")
        if key in pairs:
            repeated.append((number, key))
        pairs[key] = value.strip()
    if repeated:
        number, key = repeated[0]
        more = f", and {len(repeated) - 1} more are" if len(repeated) > 1 else ""
        raise InputError(f"{path}:{number}: {key} is a duplicate{more}")
    return pairs
