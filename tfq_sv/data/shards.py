"""Shards: tar files of many recordings, `key.wav` and `key.spk` for each, as WeSpeaker writes them.

A shard's headers are read once; after that every recording is read in place, in any order, so
that a run can be repeated and resumed. Nothing is unpacked.
"""

import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
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


def members(path: Path) -> list[Member]:
    """Lists a tar file's files by their headers alone; a link is the file that it leads to.

    Raises:
        InputError: missing, compressed (there is no way to reach a recording in it), not a tar
            file, or cut short; a link out of the archive, or a device; sparse files.
    """
    if not path.is_file():
        raise InputError(f"shard {path} does not exist")
    size = path.stat().st_size
    files: dict[str, Member] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                if entry.isdir():
                    continue
                member = _member(path, entry, files)
                if not 0 <= member.size <= size - member.offset:
                    raise InputError(f"shard {path} is cut short: {entry.name} is not whole")
                if entry.name in files:
                    raise InputError(f"shard {path} holds {entry.name} several times; leave one")
                files[entry.name] = member
            end = tar.offset
    # What tarfile raises on damaged numbers, it does not wrap.
    except (tarfile.TarError, EOFError, OverflowError, MemoryError, RecursionError) as error:
        raise InputError(f"shard {path} is not an uncompressed tar file: {error}") from None
    with path.open("rb") as file:
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):  # where it should end, tarfile found no header
            last = next(reversed(files), "its start")
            raise InputError(f"shard {path} is damaged after {last}; get it again")
    return list(files.values())


def _member(path: Path, entry: tarfile.TarInfo, files: Mapping[str, Member]) -> Member:
    if entry.isfile() and not entry.issparse():
        return Member(path, entry.name, entry.offset_data, entry.size)
    if entry.issym() or entry.islnk():
        # A symbolic link is meant from its own folder, a hard one from the archive's.
        folder = posixpath.dirname(entry.name) if entry.issym() else ""
        target = posixpath.normpath(posixpath.join(folder, entry.linkname))
        # `tar cf a.tar .` writes names with a ./ in front.
        for name in (*([entry.linkname] if entry.islnk() else []), target, f"./{target}"):
            if found := files.get(name):
                return replace(found, name=entry.name)
        raise InputError(
            f"shard {path}: {entry.name} is a link to {entry.linkname}, which no earlier file in "
            "the shard is; write the recording itself"
        )
    raise InputError(
        f"shard {path}: {entry.name} is neither a file nor a folder nor a link; leave it out"
    )
