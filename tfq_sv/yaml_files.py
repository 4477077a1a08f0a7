"""YAML from elsewhere: plain values, and no more of them than the file seems to hold."""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_sv.errors import InputError

if TYPE_CHECKING:
    import yaml

MOST = 100_000
"""Values, with each alias counted as what it repeats."""

_NESTED = re.compile(r"(?:[\[{]\s*){200}")  # PyYAML takes seconds before it gives up


def read(file: Path, loader: "type[yaml.SafeLoader] | None" = None) -> Any:
    """Returns what a YAML file holds.

    Args:
        file: UTF-8.
        loader: `yaml.SafeLoader`, or one of its kind that knows more tags.

    Raises:
        InputError: no YAML; a duplicate name, of which the last would count, unseen; aliases of
            aliases that make more than `MOST` values of few ("a billion laughs"): these take no
            memory until something prints or merges them.
    """
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        if _NESTED.search(text):
            raise InputError(f"{file} is not YAML: its brackets nest too deeply")
        parser = (loader or yaml.SafeLoader)(text)
        node = parser.get_single_node()
        if node is not None and _size(node, {}) > MOST:
            raise InputError(f"{file} repeats more than {MOST:,} values by aliases; write them out")
        return None if node is None else parser.construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split()):.200}") from None


def _size(node: Any, known: dict[int, int]) -> int:
    """How many values a node stands for; too many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = MOST + 1
        inner = node.value if isinstance(node.value, list) else []
        names = Counter((e[0].tag, str(e[0].value)) for e in inner if isinstance(e, tuple))
        if names and (most := names.most_common(1)[0])[1] > 1 and most[0][1] != "<<":
            raise ValueError(f"{most[0][1]!r:.60} is a duplicate")
        parts = [
            part for entry in inner for part in (entry if isinstance(entry, tuple) else [entry])
        ]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]
