"""Writing files so that a full disk, an interrupt or a power cut never leaves half of one."""

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfq_sv.errors import InputError

_DESCRIPTOR = re.compile(r"(?:/dev|/proc/self)/fd/(\d+)")


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`; it replaces `path` when the block ends well.

    The temporary name keeps the suffix, because Keras chooses its format by it. Folders on the
    way are made. If the block raises, what was at `path` stays as it was. A symbolic link stays,
    and what it leads to is replaced. A device, a FIFO or `/dev/stdout` is written into, at the
    end of the block.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "a.txt"
    >>> with atomic(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'

    Raises:
        InputError: nothing can be written there, see `check_output`.
        OSError: the disk is full, for instance; it names `path`, not the temporary.
    """
    check_output(path)
    stream = _stream(path)
    target = Path(os.path.realpath(path))
    try:
        temporary = _temporary(target, target.parent if stream is None else None)
    except OSError as error:
        raise _naming(path, error) from None
    try:
        yield temporary
        if stream is None:
            temporary.chmod(_rights(target))
            # Without power a renamed file may be empty, if its content was not on the disk before.
            sync(temporary)
            temporary.replace(target)
            with contextlib.suppress(OSError):  # not every system can, and the file is whole
                sync(target.parent)
        else:
            if sys.stdout:
                sys.stdout.flush()  # may be the same stream, with a line still open
            ours = isinstance(stream, str)
            with temporary.open("rb") as content, open(stream, "wb", closefd=ours) as file:
                shutil.copyfileobj(content, file)
    except OSError as error:
        if error.filename not in (None, str(temporary)):  # of another file
            raise
        raise _naming(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _rights(path: Path) -> int:
    """Those that open() would leave: a file's own, or a new one's. mkstemp makes files private."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def check_output(path: str | os.PathLike[str]) -> None:
    """Checks, before long work, that `atomic` can write there; creates nothing.

    Raises:
        InputError: a folder, or something under a file or under a folder that may not be written.
    """
    target = Path(path)
    with _cannot_be_written(path):
        if target.is_dir():
            raise InputError(f"{path} is a folder; name a file")
        stream = _stream(path)
        if isinstance(stream, int):
            return
        if stream is None:  # a file is replaced, so its folder counts
            _check_place(path, Path(os.path.realpath(target)).parent)
        elif not os.access(target, os.W_OK):
            raise InputError(f"{path} cannot be written: no right to write to {target}")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Checks, before long work, that files can be written to this folder; creates nothing.

    Raises:
        InputError: a file, or something under a file or under a folder that may not be written.
    """
    with _cannot_be_written(path):
        if Path(path).exists() and not Path(path).is_dir():
            raise InputError(f"{path} is a file; name a folder")
        _check_place(path, Path(os.path.realpath(path)))


@contextmanager
def _cannot_be_written(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _check_place(path: str | os.PathLike[str], folder: Path) -> None:
    """Whether `folder` may be written: it, or the one that is, and that it can be made in."""
    place = next(x for x in (folder, *folder.parents) if x.exists())
    if not place.is_dir():
        raise InputError(f"{path} cannot be written: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no right to write to {place}")
    with tempfile.TemporaryFile(dir=place):  # root has every right, even in /proc
        pass


def _stream(path: str | os.PathLike[str]) -> int | str | None:
    """What to write into if `path` is no file that could be replaced: a descriptor, or a path."""
    place = Path(path).absolute()
    if not place.exists():
        return None
    while True:
        # Whatever a descriptor leads to, even a file, others go on writing through it.
        if found := _DESCRIPTOR.fullmatch(str(place)):
            return int(found[1])
        if not place.is_symlink():
            return None if place.is_file() else str(path)
        place = place.parent / place.readlink()


def _temporary(target: Path, folder: Path | None) -> Path:
    """Makes an empty file in `folder`, or in the system's for such, that ends as `target` does."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.stem[:40]}-", suffix=target.suffix, dir=folder
    )
    os.close(descriptor)
    return Path(name)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk.

    >>> import tempfile
    >>> sync(Path(tempfile.mkdtemp()))
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _naming(path: str | os.PathLike[str], error: OSError) -> OSError:
    """The same error, naming another file."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OSError(error.errno, reason, os.fspath(path))


def require_file(path: str | os.PathLike[str], what: str) -> Path:
    """Returns the path of a file that must be there; raises InputError if it is not."""
    target = Path(path)
    if not target.exists():
        raise InputError(f"{what} {target} does not exist")
    if not target.is_file():
        raise InputError(f"{what} {target} is not a file")
    return target
