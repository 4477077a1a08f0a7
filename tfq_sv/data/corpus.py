"""Corpora: which utterances there are, where their audio is, and who speaks.

A folder is read either by its Kaldi lists (wav.scp, utt2spk) or as a tree in VoxCeleb's form,
`speaker/.../file.wav`, below the folder or below its `wav/`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from tfq_sv.data.audio import SUFFIXES
from tfq_sv.errors import InputError


@dataclass(frozen=True)
class Corpus:
    """Utterances with their files and speakers, in sorted order.

    Attributes:
        root: the folder it was read from.
        paths: utterance key -> audio file.
        speakers: utterance key -> speaker.
    """

    root: Path
    paths: dict[str, Path]
    speakers: dict[str, str]

    @property
    def speaker_ids(self) -> list[str]:
        """All speakers, sorted."""
        return sorted(set(self.speakers.values()))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Corpus":
        """Reads a folder.

        Raises:
            InputError: the folder is missing or empty, a list is malformed, or an utterance has
                no speaker.
        """
        root = Path(folder)
        if not root.is_dir():
            raise InputError(f"corpus folder {root} does not exist")
        if (root / "wav.scp").is_file():
            return cls._from_lists(root)
        if (root / "train" / "wav.scp").is_file():
            raise InputError(f"{root} holds two corpora; give {root / 'train'} or {root / 'test'}")
        return cls._from_tree(root)

    @classmethod
    def _from_lists(cls, root: Path) -> "Corpus":
        # Paths are meant from the list's own folder, or, as Kaldi does, from where one stands.
        paths = {
            key: root / value if (root / value).exists() else Path(value)
            for key, value in read_pairs(root / "wav.scp").items()
        }
        if not paths:
            raise InputError(f"{root / 'wav.scp'} lists no utterance")
        if not (root / "utt2spk").is_file():
            raise InputError(f"{root} has a wav.scp but no utt2spk beside it")
        speakers = read_pairs(root / "utt2spk")
        lacking = [key for key in paths if key not in speakers]
        if lacking:
            raise InputError(
                f"{root / 'utt2spk'} names no speaker for {len(lacking)} of {len(paths)} "
                f"utterances, {lacking[0]} first"
            )
        return cls(root, dict(sorted(paths.items())), {key: speakers[key] for key in sorted(paths)})

    @classmethod
    def _from_tree(cls, root: Path) -> "Corpus":
        top = root / "wav" if (root / "wav").is_dir() else root
        files = sorted(p for p in top.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise InputError(f"{root} holds no {', '.join(sorted(SUFFIXES))} file")
        keys = {file.relative_to(top).as_posix(): file for file in files}
        loose = [key for key in keys if "/" not in key]
        if loose:
            raise InputError(
                f"{top / loose[0]} lies in no speaker's folder; "
                f"expected {top}/<speaker>/.../{loose[0]}"
            )
        return cls(root, keys, {key: key.split("/", 1)[0] for key in keys})


def read_pairs(path: Path) -> dict[str, str]:
    """Reads a Kaldi list of `key value` lines.

    Raises:
        InputError: missing, not text, a line without a value, or a key that stands twice.
    """
    pairs: dict[str, str] = {}
    for number, line in read_lines(path):
        key, _, value = line.partition(" ")
        if not value.strip():
            raise InputError(f"{path}:{number}: expected `key value`, found {line!r}")
        if key in pairs:
            raise InputError(f"{path}:{number}: {key} stands twice")
        pairs[key] = value.strip()
    return pairs


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Returns a text file's numbered lines that are not blank; tabs count as spaces."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file") from None
    lines = enumerate(text.replace("\t", " ").splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]
