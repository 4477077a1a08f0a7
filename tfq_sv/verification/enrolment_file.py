"""The file of enrolled speakers: JSON, bound to its network. ENROLMENT.md has the layout.

`Enrolment.kt` and `enrolment.js` read and write the same; tests/data/enrolment.json has files that
all three take or refuse.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.files import atomic, require_file
from tfq_sv.strict_json import as_integer, is_number, parse

FORMAT = "tfq-sv enrolment"
VERSION = 1
_LENGTH_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Reference:
    """What is kept of one enrolled recording.

    Attributes:
        embedding: float32 (embed_dim,), of length 1.
        seconds: of net speech in the recording.
    """

    embedding: npt.NDArray[np.float32]
    seconds: float


Speakers = Mapping[str, Sequence[Reference]]
"""Name -> one reference or more, in the order of enrolment."""


def dumps(speakers: Speakers, network: str, embed_dim: int) -> str:
    """The file's text.

    Args:
        speakers: who is enrolled.
        network: `inflated_sha256` of the network that made the embeddings.
        embed_dim: length of an embedding.

    >>> ann = Reference(np.float32([0.6, 0.8]), 2.5)
    >>> text = dumps({"ann": [ann]}, "0" * 64, 2)
    >>> loads(text, "0" * 64, 2)["ann"][0].embedding
    array([0.6, 0.8], dtype=float32)
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "network": network,
        "embed_dim": embed_dim,
        "speakers": [
            {
                "name": name,
                "references": [
                    {"seconds": round(one.seconds, 3), "embedding": _shortest(one.embedding)}
                    for one in references
                ],
            }
            for name, references in speakers.items()
        ],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def loads(
    text: str | bytes, network: str, embed_dim: int, path: str | os.PathLike[str] = "the file"
) -> dict[str, list[Reference]]:
    """Reads a file's text; see `dumps`.

    Raises:
        InputError: no file of enrolled speakers, of a newer version or of another network, or with
            a value that ENROLMENT.md does not allow.
    """
    content = parse(text)
    if content is None or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a file of enrolled speakers; enroll again")
    version = as_integer(content.get("version"))
    if version is not None and version > VERSION:
        raise InputError(
            f"{path} has version {version}, and this tfq-sv reads up to {VERSION}; upgrade tfq-sv"
        )
    if version is None or version < 1:
        raise _invalid(path, "version", content.get("version"))
    if not isinstance(content.get("network"), str):
        raise _invalid(path, "network", content.get("network"))
    if content["network"] != network:
        raise InputError(
            f"{path} was enrolled with another network, whose embeddings do not compare; "
            "enroll again"
        )
    if as_integer(content.get("embed_dim")) != embed_dim:
        raise _invalid(path, "embed_dim", content.get("embed_dim"))
    return _speakers(content.get("speakers"), embed_dim, path)


def read(path: str | os.PathLike[str], network: str, embed_dim: int) -> dict[str, list[Reference]]:
    """Reads a file; see `loads`."""
    return loads(require_file(Path(path), "file").read_bytes(), network, embed_dim, path)


def write(path: str | os.PathLike[str], speakers: Speakers, network: str, embed_dim: int) -> None:
    """Writes a file, at once or not at all; see `dumps`."""
    with atomic(path) as temporary:
        temporary.write_bytes(dumps(speakers, network, embed_dim).encode())


def check_name(name: Any) -> str:
    """Returns a speaker's name; raises InputError if it is not text that a file can hold."""
    if not isinstance(name, str) or not name or not _unicode(name):
        raise InputError(f"a speaker's name is text of one character or more, not {name!r:.60}")
    return name


def _speakers(
    entries: Any, embed_dim: int, path: str | os.PathLike[str]
) -> dict[str, list[Reference]]:
    if not isinstance(entries, list):
        raise _invalid(path, "speakers", entries)
    found: dict[str, list[Reference]] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not name or not _unicode(name) or name in found:
            raise _invalid(path, "name", name)
        references = entry.get("references")
        if not isinstance(references, list) or not references:
            raise _invalid(path, "references", references)
        found[name] = [_reference(reference, embed_dim, path) for reference in references]
    return found


def _reference(entry: Any, embed_dim: int, path: str | os.PathLike[str]) -> Reference:
    entry = entry if isinstance(entry, Mapping) else {}
    seconds, values = entry.get("seconds"), entry.get("embedding")
    if not is_number(seconds) or seconds < 0:
        raise _invalid(path, "seconds", seconds)
    if not isinstance(values, list) or len(values) != embed_dim or not all(map(is_number, values)):
        raise _invalid(path, "embedding", values)
    if abs(math.hypot(*values) - 1) > _LENGTH_TOLERANCE:
        raise _invalid(path, "embedding", values)
    return Reference(np.array(values, np.float32), float(seconds))


def _invalid(path: str | os.PathLike[str], field: str, value: Any) -> InputError:
    shown = json.dumps(value)
    return InputError(f"{path} is damaged: {field} is {shown:.60}; enroll again")


def _unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON may spell half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shortest(values: npt.NDArray[np.float32]) -> list[float]:
    """The shortest decimals that are these float32 values."""
    return [float(str(value)) for value in values]
