"""A run's folder, with a label of its settings, so that only the same run resumes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.origin import folder_name

LABEL = "settings.json"


def check_settings(
    folder: str | os.PathLike[str],
    settings: Mapping[str, Any],
    *,
    begun: bool,
    write: bool = True,
) -> None:
    """Marks a folder as this run's.

    Args:
        folder: the run's.
        settings: what the run is; values for JSON.
        begun: whether the folder keeps something to resume from. If not, whatever run was tried
            there before has left nothing, and the folder is this one's.
        write: whether to write the label: of several workers, one does.

    Raises:
        InputError: it keeps what a run with other settings has done, or has no readable label.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> check_settings(folder, {"steps": 10}, begun=False)
    >>> check_settings(folder, {"steps": 10}, begun=True)
    """
    label, expected = Path(folder) / LABEL, json.loads(json.dumps(settings))
    if not begun:
        if write:
            with atomic(label) as temporary:
                temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    try:
        stored = dict(json.loads(label.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise InputError(
            f"{folder} holds a run, but no readable {LABEL}; give another folder, or delete it"
        ) from None
    for name in [*expected, *(stored.keys() - expected.keys())]:
        if stored.get(name) != expected.get(name):
            raise InputError(
                f"{folder} holds a run with "
                f"{_differing(name, stored.get(name), expected.get(name))};"
                " finish it with its own settings, or delete that folder"
            )


def remove(folder: str | os.PathLike[str]) -> None:
    """Removes a finished run's folder; a kill on the way leaves no half of one under its name.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "m.keras.state"
    >>> check_settings(folder, {"steps": 10}, begun=False)
    >>> remove(folder)
    >>> folder.exists()
    False
    """
    link, place = Path(folder), Path(os.path.realpath(folder))
    rest = place.with_name(f".{place.name}.done")
    shutil.rmtree(rest, ignore_errors=True)  # of a removal that was killed
    if place.exists():
        place.rename(rest)
        shutil.rmtree(rest, ignore_errors=True)
    if link.is_symlink():
        link.unlink()


def corpus_identity(corpus: Corpus) -> list[str | int]:
    """What tells corpora apart, wherever they are: folder's name, number and names of recordings.

    >>> corpus_identity(Corpus(Path("my/train"), {"ann/1.wav": Path("1.wav")}, {}))
    ['train', 1, 'd25d111ae1e3cf7a']
    """
    return [folder_name(corpus.root), len(corpus.paths), _text_digest(sorted(corpus.paths))]


def trials_identity(trials: Trials) -> list[str | int]:
    """What tells lists of trials apart: their number, names and labels."""
    rows = zip(trials.labels.tolist(), trials.enroll, trials.test, strict=True)
    return [len(trials), _text_digest(f"{int(label)} {a} {b}" for label, a, b in rows)]


def _text_digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def digest(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """Returns 16 characters that tell arrays apart.

    >>> digest([np.zeros(2), np.zeros(1)]) == digest([np.zeros(2), np.ones(1)])
    False
    """
    digester = hashlib.sha256()
    for array in arrays:
        digester.update(np.ascontiguousarray(array).tobytes())
    return digester.hexdigest()[:16]


def _differing(name: str, found: Any, wanted: Any) -> str:
    if isinstance(found, Mapping | list) or isinstance(wanted, Mapping | list):
        return f"another {name}"  # too long for a line
    return f"{name} {found}, not {wanted}"
