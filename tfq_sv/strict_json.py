"""JSON objects from elsewhere, by one rule in Python, in Kotlin (`StrictJson.kt`) and in the page.

The rule is RFC 8259's, in UTF-8 without a byte order mark, at most 64 levels deep. A number is one
number however it is written: 80, 80.0 and 8e1 are the same size.
"""

import json
import math
from typing import Any

LEVELS = 64


def parse(text: bytes | str) -> dict[str, Any] | None:
    """Returns a JSON object; None if it is none.

    >>> parse(b'{"a": 1}'), parse(b"[1]"), parse(b'{"a": NaN}')
    ({'a': 1}, None, None)
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_flat(value, LEVELS) else None


def as_integer(value: Any) -> int | None:
    """A number without fraction as an integer; None if it is none.

    >>> as_integer(80.0), as_integer(80.5), as_integer(True)
    (80, None, None)
    """
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _integer(digits: str) -> int | float:
    """Beyond any float, and any limit of Python's, it is infinite, as in JavaScript."""
    return int(digits) if len(digits) < 400 else float(digits)


def _is_flat(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(one, levels - 1) for one in inner)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
