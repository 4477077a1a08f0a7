"""Corpora: which utterances there are, where their audio is, and who speaks.

What can be read:

    folder/wav.scp, utt2spk             Kaldi's lists (spk2utt will do for utt2spk), with segments,
                                        reco2file_and_channel and `file.ark:offset` places
    folder/raw.list                     WeSpeaker's {"key", "spk", "wav"}, one JSON object per line;
                                        `wav` as in a wav.scp
    folder/shard.list                   WeSpeaker's tar files of key.wav and key.spk, one per line
    folder/.../speaker/.../a.wav        a tree; `speaker_level` says how the speakers are found
    folder/utt2spk and a tree           speakers by the list, keys are paths

and a raw.list or shard.list of any name by its own path.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern

from tfq_sv.data import kaldi, shards, speaker_level, tree
from tfq_sv.data.audio import Source
from tfq_sv.data.decoding import SUFFIXES
from tfq_sv.data.lists import composed, printable, read_lines, read_pairs
from tfq_sv.data.speaker_level import Level, UnknownSpeakersError
from tfq_sv.errors import InputError

__all__ = ["Corpus", "Files", "printable", "read_lines", "read_pairs"]

# Of two forms of one recording, converted in place, the one named first here is read.
_PREFERRED = (".wav", ".flac", ".w64", ".aiff", ".aif", ".au", ".caf", ".sph", ".opus", ".ogg")
# Fields of a raw.list's line that name a part of its recording.
_PART = re.compile(r'"(vad|segments?|start|end|begin|duration|offset|channel)": ')


class Files(Mapping[str, Source]):
    """Keys and their files below a folder; paths are made when they are asked for.

    A million `Path` objects take half a gigabyte; their names alone a tenth of it.

    >>> Files(Path("c"), {"ann/1.wav": "wav/ann/1.wav"})["ann/1.wav"]
    PosixPath('c/wav/ann/1.wav')
    """

    def __init__(self, root: Path, names: Mapping[str, str]) -> None:
        self._root, self._names = root, names

    def __getitem__(self, key: str) -> Source:
        return self._root / self._names[key]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def without(self, keys: Collection[str]) -> "Files":
        """All files but some."""
        return Files(self._root, {k: name for k, name in self._names.items() if k not in keys})


@dataclass(frozen=True)
class Corpus:
    """Utterances with their files and speakers.

    Attributes:
        root: the folder it was read from.
        paths: utterance key -> audio file, place in a shard or segment of one; sorted, shards in
            their own order.
        speakers: utterance key -> speaker; empty where nobody knows (`unlabelled`).
        notes: how it was read, for people.
    """

    root: Path
    paths: Mapping[str, Source]
    speakers: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def speaker_ids(self) -> list[str]:
        """All speakers, sorted."""
        return sorted(set(self.speakers.values()))

    def without(self, keys: Collection[str]) -> "Corpus":
        """The corpus less some utterances."""
        keys = frozenset(keys)  # of a list, each look-up would go through all of it
        if isinstance(self.paths, Files):
            paths: Mapping[str, Source] = self.paths.without(keys)
        else:
            paths = {key: path for key, path in self.paths.items() if key not in keys}
        speakers = {key: who for key, who in self.speakers.items() if key not in keys}
        return replace(self, paths=paths, speakers=speakers)

    @classmethod
    def read(
        cls,
        folder: str | os.PathLike[str],
        *,
        speaker_level: int | None = None,
        unlabelled: bool = False,
    ) -> "Corpus":
        """Reads a folder, or a wav.scp, raw.list, shard.list or list of files.

        Args:
            folder: the folder or list; a wav.scp stands for its folder.
            speaker_level: in a tree, how deep the speakers' folders lie: 1 is the folder's own
                sub-folders. By default the tree's structure says.
            unlabelled: speakers need not be known; where they are not, `speakers` is empty.

        Raises:
            InputError: missing or empty, a list is malformed, a duplicate key, or an utterance
                has no speaker, unless `unlabelled`.
        """
        root = Path(folder)
        if root.name == "wav.scp" and root.is_file():
            return cls._from_kaldi(root.parent, unlabelled=unlabelled)
        if root.is_file():
            return cls._from_list(root, unlabelled=unlabelled)
        if not root.is_dir():
            raise InputError(f"corpus folder {root} does not exist")
        if (root / "wav.scp").is_file():
            return cls._from_kaldi(root, unlabelled=unlabelled)
        for name in ("raw.list", "shard.list"):
            if (root / name).is_file():
                return cls._from_list(root / name, unlabelled=unlabelled)
        train, test = root / "train", root / "test"
        if (train / "wav.scp").is_file() and not unlabelled:
            raise InputError(f"{root} holds two corpora; give {train} or {test}")
        return cls._from_tree(root, speaker_level, unlabelled=unlabelled)

    @classmethod
    def joined(cls, corpora: Sequence["Corpus"]) -> "Corpus":
        """Several corpora as one, in which no name means two things.

        The first one's utterances and speakers are called `1/...`, the second one's `2/...`, and so
        on, because corpora like to number their speakers alike. One alone stays as it is.

        >>> ann = Corpus(Path("a"), {"1": Path("a/1.wav")}, {"1": "ann"})
        >>> Corpus.joined([ann, ann]).speakers
        {'1/1': '1/ann', '2/1': '2/ann'}
        """
        if len(corpora) == 1:
            return corpora[0]
        paths: dict[str, Source] = {}
        speakers: dict[str, str] = {}
        for number, corpus in enumerate(corpora, 1):
            paths.update({f"{number}/{key}": path for key, path in corpus.paths.items()})
            speakers.update({f"{number}/{k}": f"{number}/{x}" for k, x in corpus.speakers.items()})
        return cls(Path(", ".join(str(corpus.root) for corpus in corpora)), paths, speakers)

    @classmethod
    def of_files(cls, files: Iterable[str | os.PathLike[str]]) -> "Corpus":
        """A corpus of single files without speakers; keys are the paths as given."""
        paths: dict[str, Source] = {printable(os.fspath(file)): Path(file) for file in files}
        return cls(Path(), paths, {})

    @classmethod
    def _from_kaldi(cls, root: Path, *, unlabelled: bool) -> "Corpus":
        places = kaldi.read_places(root)
        speakers: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        if kaldi.has_speakers(root) or not unlabelled:
            try:
                speakers = kaldi.read_speakers(root, places)
            except InputError as error:
                if not unlabelled:
                    raise
                notes = (f"speakers are not known: {error}",)
        else:
            notes = (f"speakers are not known: {root} has no utt2spk",)
        keys = sorted(places)
        known = {key: speakers[key] for key in keys} if speakers else {}
        if known:
            notes = (*notes, *kaldi.shared_recordings(places, known))
        return cls(root, {key: places[key] for key in keys}, known, notes)

    @classmethod
    def _from_list(cls, path: Path, *, unlabelled: bool) -> "Corpus":
        lines = read_lines(path, comments=True)
        if not lines:
            raise InputError(f"{path} lists nothing")
        if os.path.splitext(lines[0][1])[1].lower() in SUFFIXES:  # noqa: PTH122
            if not unlabelled:
                raise InputError(
                    f"{path} lists recordings without speakers; give their folder, or a folder "
                    "with a wav.scp of `name file` and an utt2spk of `name speaker` lines"
                )
            places = {line: kaldi.located(path.parent, line) for _, line in lines}
            return cls(path.parent, dict(sorted(places.items())), {}, ("speakers are not known",))
        raw = lines[0][1].startswith("{")
        rows = _raw_rows(path, lines) if raw else _shard_rows(path, lines)
        paths: dict[str, Source] = {}
        speakers, repeated = {}, []
        for key, speaker, source in rows:
            if key in paths:
                repeated.append(key)
            paths[key], speakers[key] = source, intern(speaker)
        if repeated:
            raise InputError(f"{path}: {len(repeated)} duplicate keys (first: {repeated[0]})")
        parts = sum(_PART.search(line) is not None for _, line in lines) if raw else 0
        notes = [f"warning: whole recordings are read, not the parts of {parts:,} lines"]
        notes = [*(notes if parts else []), *kaldi.shared_recordings(paths, speakers)]
        keys = sorted(paths) if raw else list(paths)  # a shard is best read in its own order
        found = {key: paths[key] for key in keys}
        return cls(path.parent, found, speakers, tuple(notes))

    @classmethod
    def _from_tree(cls, root: Path, level: int | None, *, unlabelled: bool) -> "Corpus":
        listing = tree.walk(root, SUFFIXES)
        if not listing.files:
            raise InputError(f"{root} holds no {', '.join(sorted(SUFFIXES))} file")
        files, copies = _without_copies(listing.files)
        notes = [*listing.notes]
        if copies:
            notes.append(f"left out, the same recording in another form: {copies:,} files")
        if kaldi.has_speakers(root):
            return cls._by_utt2spk(root, files, notes)
        try:
            at = _level(root, files, level)
        except UnknownSpeakersError as error:
            if not unlabelled:
                raise
            notes.append(f"speakers are not known: {error}")
            return cls(root, Files(root, files), {}, tuple(notes))
        if at.excluded:
            inside = tuple(f"{folder}/" for folder in at.excluded)
            files = {name: path for name, path in files.items() if not name.startswith(inside)}
            notes.append(f"left out, no speakers' folders: {', '.join(at.excluded)}")
        if at.note:
            notes.append(at.note)
        keys, speakers = _keys(root, files, at)
        return cls(root, Files(root, keys), speakers, tuple(notes))

    @classmethod
    def _by_utt2spk(cls, root: Path, files: Mapping[str, str], notes: list[str]) -> "Corpus":
        source = root / ("utt2spk" if (root / "utt2spk").is_file() else "spk2utt")
        speakers = kaldi.by_path(kaldi.listed_speakers(root), files)
        lacking = len(files) - len(speakers)
        if not speakers:
            raise InputError(
                f"{source} names none of the {len(files)} recordings of {root} "
                f"(first: {next(iter(files))})"
            )
        notes.append(f"speakers: by {source}")
        if lacking:
            notes.append(f"left out, {source} does not name them: {lacking:,} files")
        names = {name: path for name, path in files.items() if name in speakers}
        return cls(root, Files(root, names), speakers, tuple(notes))


def _level(root: Path, files: Mapping[str, str], level: int | None) -> Level:
    if level is None:
        return speaker_level.find_level(str(root), files)
    if level < 1:
        raise InputError(f"--speaker_level must be 1 or more, not {level}")
    return speaker_level.level_at(str(root), files, level)


def _keys(root: Path, files: Mapping[str, str], at: Level) -> tuple[dict[str, str], dict[str, str]]:
    """Key -> file, and key -> speaker; keys begin with the speaker where that names each once."""
    keys: dict[str, str] = {}
    speakers: dict[str, str] = {}
    repeated = []
    for name, path in files.items():
        _, key = at.speaker(name)
        if key in keys:
            repeated.append(key)
        keys[key] = path
        speakers[key] = intern(composed(key.split("/", 1)[0]))
    if repeated and not speaker_level.same_speaker_parts(at.containers):
        raise InputError(
            f"{root}: {len(repeated)} keys stand in two of its parts (first: {repeated[0]})"
        )
    if repeated:
        speakers = {name: intern(composed(at.speaker(name)[1].split("/", 1)[0])) for name in files}
        return dict(files), speakers
    order = sorted(keys)
    return {key: keys[key] for key in order}, {key: speakers[key] for key in order}


def _without_copies(files: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """One form of each recording: VoxCeleb2 is often converted in place, TIMIT's .WAV too."""
    best: dict[str, str] = {}
    for name in files:
        stem, _, _ = name.rpartition(".")
        other = best.get(stem)
        if other is None or _rank(name) < _rank(other):
            best[stem] = name
    # a.WAV (NIST's) and a.WAV.wav
    kept = {name for stem, name in best.items() if f"{name}.wav" not in files}
    return {name: path for name, path in files.items() if name in kept}, len(files) - len(kept)


def _rank(name: str) -> tuple[int, str]:
    suffix = name[name.rfind(".") :].lower()
    place = _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED)
    return place, name


def _raw_rows(path: Path, lines: list[tuple[int, str]]) -> Iterable[tuple[str, str, Source]]:
    rows = []
    for number, line in lines:
        try:
            row = json.loads(line)
            rows.append(tuple(_text(row[name]) for name in ("key", "spk", "wav")))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f'{path}:{number}: expected {{"key": ..., "spk": ..., "wav": ...}}, '
                f"found {line!r:.200}"
            ) from None
    places = kaldi.recordings_of(path, {key: wav for key, _, wav in rows})
    return ((key, speaker, places[key]) for key, speaker, _ in rows)


def _text(value: object) -> str:
    """A field of a raw.list: text, or the number that a speaker may be called by."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise TypeError(value)
    text = str(value).strip()
    text.encode()  # JSON may spell half a surrogate pair
    return text


def _shard_rows(path: Path, lines: list[tuple[int, str]]) -> Iterable[tuple[str, str, Source]]:
    for _, line in lines:
        shard = kaldi.located(path.parent, line)
        sounds, speakers = {}, {}
        for member in shards.members(shard):
            if member.name.rpartition("/")[2].startswith("._"):  # macOS' own beside each file
                continue
            key, _, suffix = printable(member.name).rpartition(".")
            if suffix == "spk":
                # Names of another encoding stay different.
                speakers[key] = member.read_bytes().decode("utf-8", "backslashreplace").strip()
            elif f".{suffix.lower()}" in SUFFIXES:
                sounds[key] = member
        lacking = [key for key in sounds if not speakers.get(key)]
        if lacking:
            raise InputError(
                f"shard {shard} has no .spk for {len(lacking)} of {len(sounds)} recordings "
                f"(first: {lacking[0]})"
            )
        if not sounds:
            raise InputError(f"shard {shard} holds no {', '.join(sorted(SUFFIXES))} file")
        yield from ((key, speakers[key], member) for key, member in sounds.items())
