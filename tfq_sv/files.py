"""Writing files so that a full disk or an interrupt never leaves half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfq_sv.errors import InputError


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`; it replaces `path` when the block ends well.

    The temporary name keeps the suffix, because Keras chooses its format by it. Folders on the
    way are made. If the block raises, what was at `path` stays as it was.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "a.txt"
    >>> with atomic(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give them the rights that open() would have.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str]) -> None:
    """Sees, before long work, whether `atomic` will be able to write there; makes nothing.

    A device, a FIFO or `/dev/stdout` may be written as well.

    Raises:
        InputError: a folder, or something under a file or under a folder that may not be written.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise InputError(f"{path} is a folder; name a file")
        if target.exists() and not target.is_file():
            place, rights = target, os.W_OK
        else:  # a file is replaced, so its folder counts: the one that is, or that can be made in
            parents = Path(os.path.realpath(target)).parents
            place, rights = next(x for x in parents if x.exists()), os.W_OK | os.X_OK
            if not place.is_dir():
                raise InputError(f"{path} cannot be written: {place} is not a folder")
        if not os.access(place, rights):
            raise InputError(f"{path} cannot be written: no right to write to {place}")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def existing(path: str | os.PathLike[str], what: str) -> Path:
    """Returns the path of a file that must be there; raises InputError if it is not."""
    target = Path(path)
    if not target.exists():
        raise InputError(f"{what} {target} does not exist")
    if not target.is_file():
        raise InputError(f"{what} {target} is not a file")
    return target
