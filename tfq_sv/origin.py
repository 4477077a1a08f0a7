"""Where a network is from and which speech it has heard: kept in the network and in its files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SYNTHETIC = "synthetic speech (espeak-ng)"
"""What networks and thresholds have heard that are no use for real voices."""


@dataclass(frozen=True)
class Origin:
    """What is known of a network; empty where nothing is.

    Attributes:
        source: who published it and where, with its version.
        licence: its name, as the publisher states it.
        speech: what it was trained on.
    """

    source: str = ""
    licence: str = ""
    speech: str = ""

    @classmethod
    def of(cls, fields: Any) -> "Origin":
        """Reads a file's metadata or a layer's configuration, whatever they hold.

        >>> Origin.of({"speech": "VoxCeleb2", "age": 3})
        Origin(source='', licence='', speech='VoxCeleb2')
        """
        known = fields if isinstance(fields, Mapping) else {}
        names = ("source", "licence", "speech")
        return cls(**{x: known[x] for x in names if isinstance(known.get(x), str)})

    def fields(self) -> dict[str, str]:
        """What is known, for a file's metadata."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        """In a line.

        >>> print(Origin("Ann's, 2026", "MIT", "VoxCeleb2"))
        Ann's, 2026; licence MIT; speech: VoxCeleb2
        """
        parts = [self.source or "unknown source", f"licence {self.licence or 'not stated'}"]
        return "; ".join([*parts, f"speech: {self.speech or 'unknown'}"])


def speech_of(corpus: Path) -> str:
    """Says what speech a corpus is: what `tfq-sv make-corpus` marked, or the folder's name."""
    for folder in (corpus, *corpus.absolute().parents[:2]):  # it, its test/, its test/wav/
        try:
            what = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["what"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if str(what).startswith("Synthetic speech"):
            return SYNTHETIC
    return folder_name(corpus)


def folder_name(folder: Path) -> str:
    """A folder's own name, of `.` and `..` too.

    >>> folder_name(Path("my/test")), folder_name(Path(".")) == Path.cwd().name
    ('test', True)
    """
    return folder.name if folder.name.strip(".") else folder.resolve().name


def network_warning(origin: Origin) -> str:
    """Says that a network does not know real voices; empty if nothing says so.

    >>> network_warning(Origin(speech="VoxCeleb2"))
    ''
    """
    if origin.speech != SYNTHETIC:
        return ""
    return (
        f"the network has only heard {SYNTHETIC}; on real voices its decisions mean little. "
        "resnet18-real, which ships too, and tfq-sv import --checkpoint=campplus know real voices"
    )


def threshold_warning(about: Mapping[str, Any]) -> str:
    """Says that a file's thresholds were measured on synthetic speech; empty if nothing says so."""
    trials = about.get("trials")
    entry = trials if isinstance(trials, Mapping) else {}
    if not any("synthetic speech" in str(entry.get(x, "")) for x in ("speech", "source")):
        return ""
    return (
        "the threshold was measured on synthetic speech; measure it on recordings like yours: "
        "tfq-sv threshold --store"
    )
