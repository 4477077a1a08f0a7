"""The recordings of a folder: each file once, whatever links there are, without tools' folders."""

import os
from array import array
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfq_sv.data.lists import printable

# What systems and programs leave beside people's files; every name that begins with a dot as well.
_TOOLS = frozenset(
    {
        "__macosx", "__pycache__", "lost+found", "@eadir", "#recycle", "#snapshot", "$recycle.bin",
        "system volume information", "node_modules", "cvs", "venv", "wandb", "tensorboard",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """What a folder holds.

    Attributes:
        files: path below the folder, with `/` -> the same as the file system spells it; sorted.
        notes: what was left out, for people.
    """

    files: dict[str, str]
    notes: tuple[str, ...] = ()


def is_tools(name: str) -> bool:
    """Whether a folder or file is a tool's or the system's: hidden, or of a known name.

    >>> is_tools(".git"), is_tools("__MACOSX"), is_tools("ann")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _TOOLS


def walk(root: Path, suffixes: Collection[str]) -> Tree:
    """Lists the files of some suffixes, at any depth.

    A link to a folder is followed, unless it leads to a folder that is read anyway or to one that
    holds the link, so that a walk ends whatever the links are. A file that is reached twice, by
    links or hard links, counts once: by its own name rather than by a link's.

    Args:
        root: the folder.
        suffixes: in lower case, with the dot.
    """
    walker = _Walker(root, frozenset(suffixes))
    walker.run()
    files = walker.unique()
    return Tree(dict(sorted(files.items())), tuple(walker.notes()))


class _Walker:
    def __init__(self, root: Path, suffixes: frozenset[str]) -> None:
        self.root, self.suffixes = str(root), suffixes
        self.names: list[str] = []
        self.places = array("Q")  # device and inode of each of `names`
        self.links: set[int] = set()  # which of `names` are links
        self.seen: set[tuple[int, int]] = set()
        self.tools: list[str] = []
        self.skipped: list[str] = []
        self.closed: list[str] = []
        self.repeated: list[tuple[str, str]] = []

    def run(self) -> None:
        here = os.path.realpath(self.root)
        # The folders that hold the root are no part of it, whatever links to them.
        while True:
            self.seen.add(_identity(os.stat(here)))  # noqa: PTH116
            here, below = os.path.dirname(here), here  # noqa: PTH120
            if here == below:
                break
        pending: list[str] = []
        self._folders("", pending)
        # Links wait until all real folders are known, so that none takes a real one's place.
        while pending:
            pending.sort(reverse=True)
            link = pending.pop()
            target = os.path.realpath(self._path(link))
            holder = os.path.realpath(os.path.dirname(self._path(link)))  # noqa: PTH120
            identity = _identity(os.stat(target))  # noqa: PTH116
            if identity in self.seen or f"{holder}/".startswith(target.rstrip("/") + "/"):
                self.skipped.append(link)
                continue
            self.seen.add(identity)
            self._folders(link, pending)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _folders(self, first: str, pending: list[str]) -> None:
        """Reads a folder and the real ones below it; links to folders are added to `pending`."""
        stack = [first]
        while stack:
            folder = stack.pop()
            try:
                entries = sorted(os.scandir(self._path(folder)), key=lambda entry: entry.name)
                device = os.stat(self._path(folder)).st_dev  # noqa: PTH116
            except OSError as error:
                self.closed.append(f"{printable(folder)} ({error.strerror})")
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if _is_folder(entry):
                    if is_tools(entry.name):
                        self.tools.append(name)
                    elif entry.is_symlink():
                        pending.append(name)
                    else:
                        identity = (device, entry.inode())
                        if os.path.ismount(entry.path):
                            identity = _identity(entry.stat())
                        if identity in self.seen:
                            self.skipped.append(name)
                            continue
                        self.seen.add(identity)
                        stack.append(name)
                elif _suffix(entry.name) in self.suffixes and not entry.name.startswith("."):
                    self._file(name, entry, device)

    def _file(self, name: str, entry: "os.DirEntry[str]", device: int) -> None:
        place = (device, entry.inode())
        if entry.is_symlink():
            self.links.add(len(self.names))
            try:
                place = _identity(entry.stat())
            except OSError:  # leads nowhere; who reads it says so
                place = (2**64 - 1, len(self.names))
        self.names.append(name)
        self.places.extend(place)

    def unique(self) -> dict[str, str]:
        """Each file once: a real name before a link's, then the first in order."""
        count = len(self.names)
        order = sorted(range(count), key=lambda i: (i in self.links, self.names[i]))
        places = np.array(self.places, np.uint64).reshape(count, 2)[order]
        _, first, which = np.unique(places, axis=0, return_index=True, return_inverse=True)
        kept = first[which.reshape(-1)]
        files = {}
        for number, (i, same) in enumerate(zip(order, kept.tolist(), strict=True)):
            if same == number:
                files[printable(self.names[i])] = self.names[i]
            else:
                self.repeated.append((self.names[i], self.names[order[same]]))
        return files

    def notes(self) -> list[str]:
        notes = []
        if self.tools:
            notes.append(f"left out, tools' folders: {_first_few(self.tools)}")
        if self.skipped:
            notes.append(
                f"left out, links to folders that are read anyway: {_first_few(self.skipped)}"
            )
        if self.repeated:
            again = [f"{name} (is {same})" for name, same in self.repeated]
            notes.append(f"left out, the same file under a second name: {_first_few(again)}")
        if self.closed:
            notes.append(f"left out, folders that cannot be read: {_first_few(self.closed)}")
        return notes


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(printable(name) for name in sorted(names)[:3]) + more


def _suffix(name: str) -> str:
    place = name.rfind(".")
    return name[place:].lower() if place > 0 else ""


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
