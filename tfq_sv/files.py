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


def existing(path: str | os.PathLike[str], what: str) -> Path:
    """Returns the path of a file that must be there; raises InputError if it is not."""
    target = Path(path)
    if not target.exists():
        raise InputError(f"{what} {target} does not exist")
    if not target.is_file():
        raise InputError(f"{what} {target} is not a file")
    return target
