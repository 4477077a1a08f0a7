"""Corpora: which utterances there are, where their audio is, and who speaks.

What can be read:

    folder/wav.scp, utt2spk             Kaldi's lists (spk2utt will do for utt2spk)
    folder/raw.list                     WeSpeaker's {"key", "spk", "wav"}, one JSON object a line
    folder/shard.list                   WeSpeaker's tar files of key.wav and key.spk, a path a line
    folder/[wav|aac/]speaker/.../a.wav  a tree, VoxCeleb's for instance
    folder/dev/..., folder/test/...     both parts of VoxCeleb, as one corpus

and a raw.list or shard.list of any name by its own path.
"""

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tfq_sv.data import shards
from tfq_sv.data.audio import SUFFIXES, Source
from tfq_sv.errors import InputError

# VoxCeleb's parts: dev/ and test/, or as unpacked, vox1_dev_wav/, vox2_test_aac/ and so on.
_PART = re.compile(r"dev|test|vox[12]_.*")


@dataclass(frozen=True)
class Corpus:
    """Utterances with their files and speakers.

    Attributes:
        root: the folder it was read from.
        paths: utterance key -> audio file, or place in a shard; sorted, shards in their own order.
        speakers: utterance key -> speaker.
    """

    root: Path
    paths: dict[str, Source]
    speakers: dict[str, str]

    @property
    def speaker_ids(self) -> list[str]:
        """All speakers, sorted."""
        return sorted(set(self.speakers.values()))

    def without(self, keys: Collection[str]) -> "Corpus":
        """The corpus less some utterances."""
        kept = {key: path for key, path in self.paths.items() if key not in keys}
        return Corpus(self.root, kept, {key: self.speakers[key] for key in kept})

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Corpus":
        """Reads a folder, or a raw.list or shard.list.

        Raises:
            InputError: missing or empty, a list is malformed, a key stands twice, or an utterance
                has no speaker.
        """
        root = Path(folder)
        if root.is_file():
            return cls._from_list(root)
        if not root.is_dir():
            raise InputError(f"corpus folder {root} does not exist")
        if (root / "wav.scp").is_file():
            return cls._from_kaldi(root)
        for name in ("raw.list", "shard.list"):
            if (root / name).is_file():
                return cls._from_list(root / name)
        train, test = root / "train", root / "test"
        if (train / "wav.scp").is_file() or (_has_speakers(train) and _has_speakers(test)):
            raise InputError(f"{root} holds two corpora; give {train} or {test}")
        return cls._from_tree(root)

    @classmethod
    def _from_kaldi(cls, root: Path) -> "Corpus":
        places = read_pairs(root / "wav.scp")
        if not places:
            raise InputError(f"{root / 'wav.scp'} lists no utterance")
        piped = [key for key, place in places.items() if place.endswith("|")]
        if piped:
            raise InputError(
                f"{root / 'wav.scp'} has commands for {len(piped)} of {len(places)} utterances, "
                f"{piped[0]} first; give paths instead: .m4a, .flac and the like are read as is"
            )
        source, speakers = _speakers(root)
        lacking = [key for key in places if key not in speakers]
        if lacking:
            raise InputError(
                f"{source} names no speaker for {len(lacking)} of {len(places)} "
                f"utterances, {lacking[0]} first"
            )
        keys = sorted(places)
        paths: dict[str, Source] = {key: _located(root, places[key]) for key in keys}
        return cls(root, paths, {key: speakers[key] for key in keys})

    @classmethod
    def _from_list(cls, path: Path) -> "Corpus":
        lines = read_lines(path)
        if not lines:
            raise InputError(f"{path} lists nothing")
        raw = lines[0][1].startswith("{")
        rows = _raw_rows(path, lines) if raw else _shard_rows(path, lines)
        paths: dict[str, Source] = {}
        speakers, twice = {}, []
        for key, speaker, source in rows:
            if key in paths:
                twice.append(key)
            paths[key], speakers[key] = source, speaker
        if twice:
            raise InputError(f"{path}: {len(twice)} keys stand twice, {twice[0]} first")
        keys = sorted(paths) if raw else list(paths)  # a shard is best read in its own order
        return cls(path.parent, {key: paths[key] for key in keys}, speakers)

    @classmethod
    def _from_tree(cls, root: Path) -> "Corpus":
        keys: dict[str, Source] = {}
        twice = []
        for top in _tops(root):
            found = {legible(x.relative_to(top).as_posix()): x for x in _audio_files(top)}
            loose = [key for key in found if "/" not in key]
            if loose:
                raise InputError(
                    f"{top / loose[0]} lies in no speaker's folder; "
                    f"expected {top}/<speaker>/.../{loose[0]}"
                )
            twice += [key for key in found if key in keys]
            keys.update(found)
        # VoxCeleb2 is often converted in place: the same recording is there as AAC and as WAV.
        copies = {key for key in keys if key.endswith(".m4a") and f"{key[:-4]}.wav" in keys}
        if not keys:
            raise InputError(f"{root} holds no {', '.join(sorted(SUFFIXES))} file")
        if twice:
            raise InputError(
                f"{root}: {len(twice)} keys stand in two of its parts, {twice[0]} first"
            )
        paths = {key: keys[key] for key in sorted(keys.keys() - copies)}
        return cls(root, paths, {key: key.split("/", 1)[0] for key in paths})


def legible(name: str) -> str:
    r"""A file's name as lists can keep it: bytes that are not UTF-8 are spelled out.

    >>> legible(os.fsdecode(b"id1/caf\xe9.wav"))
    'id1/caf\\xe9.wav'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_pairs(path: Path) -> dict[str, str]:
    """Reads a Kaldi list of `key value` lines.

    Raises:
        InputError: missing, not text, a line without a value, or keys that stand twice.
    """
    pairs: dict[str, str] = {}
    twice = []
    for number, line in read_lines(path):
        key, _, value = line.partition(" ")
        if not value.strip():
            raise InputError(f"{path}:{number}: expected `key value`, found {line!r}")
        if key in pairs:
            twice.append((number, key))
        pairs[key] = value.strip()
    if twice:
        number, key = twice[0]
        more = f", and {len(twice) - 1} more keys do" if len(twice) > 1 else ""
        raise InputError(f"{path}:{number}: {key} stands twice{more}")
    return pairs


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Returns a text file's numbered lines that are not blank; tabs count as spaces."""
    if not path.is_file():
        wrong = "is a folder; name a list" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {wrong}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file") from None
    lines = enumerate(text.replace("\t", " ").splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _speakers(root: Path) -> tuple[Path, dict[str, str]]:
    """The list that names the speakers, and utterance -> speaker."""
    if (root / "utt2spk").is_file():
        return root / "utt2spk", read_pairs(root / "utt2spk")
    source = root / "spk2utt"
    if not source.is_file():
        raise InputError(f"{root} has a wav.scp but no utt2spk beside it")
    speakers: dict[str, str] = {}
    for speaker, keys in read_pairs(source).items():
        for key in keys.split():
            if speakers.setdefault(key, speaker) != speaker:
                raise InputError(f"{source}: {key} has two speakers, {speakers[key]} and {speaker}")
    return source, speakers


def _located(root: Path, value: str) -> Path:
    # Paths are meant from the list's own folder, or, as Kaldi does, from where one stands.
    path = Path(value)
    return path if path.is_absolute() or not (root / path).exists() else root / path


def _raw_rows(path: Path, lines: list[tuple[int, str]]) -> Iterable[tuple[str, str, Source]]:
    for number, line in lines:
        try:
            row = json.loads(line)
            yield row["key"], row["spk"], _located(path.parent, row["wav"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(
                f'{path}:{number}: expected {{"key": ..., "spk": ..., "wav": ...}}, found {line!r}'
            ) from None


def _shard_rows(path: Path, lines: list[tuple[int, str]]) -> Iterable[tuple[str, str, Source]]:
    for _, line in lines:
        shard = _located(path.parent, line)
        sounds, speakers = {}, {}
        for member in shards.members(shard):
            key, _, suffix = legible(member.name).rpartition(".")
            if suffix == "spk":
                speakers[key] = member.read_bytes().decode("utf-8", "replace").strip()
            elif f".{suffix.lower()}" in SUFFIXES:
                sounds[key] = member
        lacking = [key for key in sounds if not speakers.get(key)]
        if lacking:
            raise InputError(
                f"shard {shard} has no .spk for {len(lacking)} of {len(sounds)} recordings, "
                f"{lacking[0]} first"
            )
        if not sounds:
            raise InputError(f"shard {shard} holds no {', '.join(sorted(SUFFIXES))} file")
        yield from ((key, speakers[key], member) for key, member in sounds.items())


def _has_speakers(folder: Path) -> bool:
    """Whether it is not a speaker's own folder: no recording lies in it, but in folders below."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    loose = any(entry.suffix.lower() in SUFFIXES for entry in entries)
    return not loose and any(entry.is_dir() for entry in entries)


def _tops(root: Path) -> list[Path]:
    """The folders whose sub-folders are speakers."""
    parts = [part for part in sorted(root.iterdir()) if part.is_dir() and _PART.match(part.name)]
    tops = [folder / name for folder in (root, *parts) for name in ("wav", "aac")]
    return [top for top in tops if top.is_dir()] or [root]


def _audio_files(top: Path) -> list[Path]:
    return [
        Path(folder, name)
        for folder, _, names in os.walk(top, followlinks=True)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (a million times)
    ]
