"""What kept results were measured with: they are of no use to a run with other settings."""

import json
from pathlib import Path
from typing import Any

from tfq_sv.errors import InputError
from tfq_sv.files import atomic


def keep(path: Path, settings: dict[str, Any]) -> None:
    """Writes settings to a JSON file, if it is not there.

    Raises:
        InputError: it is there, and says something else.
    """
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n")
    kept = json.loads(path.read_text())
    if kept != settings:
        raise InputError(f"{path} says {kept}, this run {settings}; give another --out")
