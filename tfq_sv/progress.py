"""tqdm's progress bars, which the environment variable TQDM_DISABLE turns off, all of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tqdm as _tqdm


def tqdm(*given: Any, disable: bool | None = False, **options: Any) -> Any:
    """Returns `tqdm.tqdm(...)`, silent if TQDM_DISABLE is set.

    tqdm itself reads that variable once, at its import, and only for those who say no `disable`.

    >>> list(tqdm("ab", disable=True))
    ['a', 'b']
    """
    return _tqdm.tqdm(*given, disable=bool(os.environ.get("TQDM_DISABLE")) or disable, **options)


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
