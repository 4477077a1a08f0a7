"""tqdm's progress bars, which the environment variable TQDM_DISABLE turns off, all of them."""

import os
from typing import Any

import tqdm as _tqdm


def tqdm(*given: Any, disable: bool | None = False, **options: Any) -> Any:
    """Returns `tqdm.tqdm(...)`, silent if TQDM_DISABLE is set.

    tqdm itself reads that variable once, at its import, and only for those who say no `disable`.

    >>> list(tqdm("ab", disable=True))
    ['a', 'b']
    """
    return _tqdm.tqdm(*given, disable=bool(os.environ.get("TQDM_DISABLE")) or disable, **options)
