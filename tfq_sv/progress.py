"""tqdm's progress bars, and lines in their place for logs.

The environment variable TQDM_DISABLE turns all bars off.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

import tqdm as _tqdm

_EACH = 60.0  # seconds between two lines of a log
_LINE = (
    "{desc}: {percentage:.0f} %, {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)


def tqdm(*given: Any, disable: bool | None = False, **options: Any) -> Any:
    """Returns `tqdm.tqdm(...)`, silent if TQDM_DISABLE is set, as lines within `logged`.

    tqdm itself reads that variable once, at its import, and only for those who say no `disable`.

    >>> list(tqdm("ab", disable=True))
    ['a', 'b']
    """
    if _logged.get():
        options |= {"file": _Lines(sys.stderr), "bar_format": _LINE, "delay": _EACH}
        options |= {"mininterval": _EACH, "maxinterval": _EACH}
    else:
        disable = bool(os.environ.get("TQDM_DISABLE")) or disable
    return _tqdm.tqdm(*given, disable=disable, **options)


_logged: ContextVar[bool] = ContextVar("_logged", default=False)


@contextmanager
def logged() -> Iterator[None]:
    """Within, what takes more than a minute says every minute, in a line, how far it is.

    For standard errors that are no terminal but somebody's log.

    >>> with logged():
    ...     list(tqdm("ab"))
    ['a', 'b']
    """
    token = _logged.set(True)
    try:
        yield
    finally:
        _logged.reset(token)


class _Lines:
    """Where a bar writes: each of its states becomes a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if state := text.strip():
            self._file.write(f"{state}\n")

    def flush(self) -> None:
        self._file.flush()


_counted: ContextVar[Any] = ContextVar("_counted", default=None)


@contextmanager
def counted(total: int, **options: Any) -> Iterator[None]:
    """Shows a bar that `tick` moves, where a library stands between the loop and the work.

    >>> with counted(2, disable=True):
    ...     tick()
    """
    with tqdm(total=total, **options) as bar:
        token = _counted.set(bar)
        try:
            yield
        finally:
            _counted.reset(token)


def tick() -> None:
    """Moves the bar of `counted`, if there is one."""
    bar = _counted.get()
    if bar is not None:
        bar.update()
