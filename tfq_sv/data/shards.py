"""Shards: tar files of many recordings, `key.wav` and `key.spk` for each, as WeSpeaker writes them.

A shard's headers are read once; after that every recording is read in place, in any order, so
that a run can be repeated and resumed. Nothing is unpacked.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tfq_sv.errors import InputError


@dataclass(frozen=True)
class Member:
    """A file inside a tar file.

    Attributes:
        archive: the tar file.
        name: the file's name there.
        offset: where its bytes begin.
        size: how many they are.
    """

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def read_bytes(self) -> bytes:
        """Its content."""
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def open(self) -> io.BytesIO:
        """Its content as a file."""
        return io.BytesIO(self.read_bytes())


def members(path: Path) -> list[Member]:
    """Lists a tar file's files by their headers alone.

    Raises:
        InputError: missing, compressed (there is no way to reach a recording in it), not a tar
            file, or cut short.
    """
    if not path.is_file():
        raise InputError(f"shard {path} does not exist")
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            found = [
                Member(path, entry.name, entry.offset_data, entry.size)
                for entry in tar
                if entry.isfile()
            ]
    except tarfile.TarError as error:
        raise InputError(f"shard {path} is not an uncompressed tar file: {error}") from None
    if found and found[-1].offset + found[-1].size > size:
        raise InputError(f"shard {path} is cut short: {found[-1].name} is not whole")
    return found
