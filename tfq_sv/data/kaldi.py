"""Kaldi's lists: wav.scp, segments, reco2file_and_channel, utt2spk, spk2utt.

Nothing that they name is executed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tfq_sv.data.lists import read_lines, read_pairs
from tfq_sv.data.segment import Segment
from tfq_sv.data.shards import Member
from tfq_sv.errors import InputError

_OFFSET = re.compile(r"(.+):(\d+)")
_LETTERS = {"A": 0, "B": 1}  # the sides of a call
_LONG = 255  # bytes, beyond which a name may be none


@dataclass(frozen=True)
class ArkEntry(Member):
    """A recording in a Kaldi archive, which says itself how long it is.

    `size` is a bound: where the next recording of the list begins, or the archive's end.
    """

    def read_bytes(self) -> bytes:
        """Its content, empty if there is none."""
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            head = file.read(min(self.size, 9))
            # kaldiio's FLAC and others: length of the length, length
            if head[:5] == b"AUDIO" and len(head) > 5:
                digits = head[5]
                length = int.from_bytes((head[6:] + file.read(digits))[:digits], "little")
                file.seek(self.offset + 6 + digits)
                return file.read(min(self.size, length))
            size = self.size
            if (
                head[:4] == b"RIFF"
                and 0 < (riff := int.from_bytes(head[4:8], "little")) < 2**31 - 1
            ):
                size = min(size, riff + 8)
            return head + file.read(size - len(head))


def read_places(root: Path) -> dict[str, Path | Member | Segment]:
    """Reads wav.scp, segments and reco2file_and_channel: utterance -> where it is.

    The last, where it is there, says which side of a call a recording is: of a file that wav.scp
    lists under its own name, or of the recording's file if that has several channels.

    Raises:
        InputError: no utterance, a malformed line, a command instead of a file, or a segment of a
            recording that is not listed.
    """
    listed = read_pairs(root / "wav.scp", comments=True)
    sides = _sides(root / "reco2file_and_channel")
    recordings = _with_sides(recordings_of(root / "wav.scp", listed), sides)
    segments = root / "segments"
    if segments.is_file():
        return _segments(segments, recordings, sides)
    files = {file for name, (file, _) in sides.items() if name not in listed} - sides.keys()
    return {key: place for key, place in recordings.items() if key not in files}


def read_speakers(root: Path, utterances: Mapping[str, Path | Member | Segment]) -> dict[str, str]:
    """Reads utt2spk or spk2utt: utterance -> speaker, for all of some utterances.

    Raises:
        InputError: no such list, a malformed one, or an utterance that it does not name.
    """
    source, speakers = _speakers(root)
    lacking = [key for key in utterances if key not in speakers]
    if lacking and (root / "segments").is_file():
        # A list of recordings will do, where each is of one speaker.
        of = {
            line.split()[0]: line.split()[1]
            for _, line in read_lines(root / "segments", comments=True)
        }
        speakers |= {key: speakers[of[key]] for key in lacking if of[key] in speakers}
        lacking = [key for key in lacking if key not in speakers]
    if lacking:
        raise InputError(
            f"{source} names no speaker for {len(lacking)} of {len(utterances)} "
            f"utterances (first: {lacking[0]})"
        )
    return {key: speakers[key] for key in utterances}


def has_speakers(root: Path) -> bool:
    """Whether a folder has a list of speakers."""
    return any((root / name).is_file() for name in ("utt2spk", "spk2utt"))


def located(root: Path, value: str) -> Path:
    """A path of a list: from the list's folder, the folder above, or where one is now.

    Raises:
        InputError: a text that no file system takes as a name.
    """
    path = Path(value)
    if len(value.encode("utf-8", "surrogatepass")) > _LONG:
        try:
            path.exists()
        except OSError as error:
            raise InputError(f"{root}: no path is {value:.60}...: {error.strerror}") from None
    if path.is_absolute():
        return path
    for base in (root, root.parent):
        if (base / path).exists():
            return base / path
    return path


def recordings_of(source: Path, listed: Mapping[str, str]) -> dict[str, Path | Member]:
    """Finds the recordings of a list: paths, or `archive:offset`.

    Args:
        source: the list, for messages; paths may be from its folder.
        listed: utterance -> where the list says it is.

    Raises:
        InputError: nothing is listed, a command instead of a file, an archive that does not exist
            or ends before an offset.
    """
    if not listed:
        raise InputError(f"{source} lists no utterance")
    commands = [k for k, v in listed.items() if v.endswith("|") or v.startswith("|") or v == "-"]
    if commands:
        raise InputError(
            f"{source} has commands for {len(commands)} of {len(listed)} utterances "
            f"(first: {commands[0]}), which are never run; give paths instead: .m4a, .sph, .flac "
            "and the like are read as is, or run the commands once and list what they write"
        )
    recordings: dict[str, Path | Member] = {}
    entries: dict[Path, list[tuple[int, str]]] = {}
    bases: dict[str, Path] = {}
    for key, value in listed.items():
        match = _OFFSET.fullmatch(value)
        path = located(source.parent, value)
        if match and not path.exists():
            name = match[1]
            archive = bases.setdefault(name, located(source.parent, name))
            entries.setdefault(archive, []).append((int(match[2]), key))
        recordings[key] = path
    for archive, places in entries.items():
        if not archive.is_file():
            raise InputError(f"{source}: {archive} does not exist")
        offsets = sorted({offset for offset, _ in places})
        ends = dict(zip(offsets, [*offsets[1:], archive.stat().st_size], strict=True))
        for offset, key in places:
            size = ends[offset] - offset
            if size <= 0:
                raise InputError(
                    f"{source}: {key} begins at byte {offset:,} of {archive}, where no recording is"
                )
            recordings[key] = ArkEntry(archive, key, offset, size)
    return recordings


def _sides(path: Path) -> dict[str, tuple[str, int]]:
    """Reads reco2file_and_channel: recording -> its file and, from 0, its channel there."""
    rows = read_lines(path, comments=True) if path.is_file() else []
    first = 0 if any(line.split()[2:] == ["0"] for _, line in rows) else 1
    sides: dict[str, tuple[str, int]] = {}
    for number, line in rows:
        try:
            name, file, side = line.split()
            channel = _LETTERS.get(side.upper())
            channel = int(side) - first if channel is None else channel
            if channel < 0:
                raise ValueError(side)
        except ValueError:
            raise InputError(
                f"{path}:{number}: expected `recording file channel` with a channel A or B, or "
                f"1 or 2, found {line!r:.200}"
            ) from None
        if name in sides:
            raise InputError(f"{path}:{number}: {name} is a duplicate")
        sides[name] = file, channel
    return sides


def _with_sides(
    recordings: Mapping[str, Path | Member], sides: Mapping[str, tuple[str, int]]
) -> dict[str, Path | Member | Segment]:
    """The recordings, those that are a side of a file among them."""
    found: dict[str, Path | Member | Segment] = dict(recordings)
    for name, (file, channel) in sides.items():
        if whole := recordings.get(name, recordings.get(file)):
            found[name] = Segment(whole, 0.0, None, channel, split=name in recordings)
    return found


def _segments(
    path: Path,
    recordings: Mapping[str, Path | Member | Segment],
    sides: Mapping[str, tuple[str, int]],
) -> dict[str, Path | Member | Segment]:
    places: dict[str, Path | Member | Segment] = {}
    for number, line in read_lines(path, comments=True):
        fields = line.split()
        try:
            key, recording, start, end = fields[:4]
            first, last = float(start), float(end)
            channel = _channel(fields[4:])
        except ValueError:
            raise InputError(
                f"{path}:{number}: expected `utterance recording start end`, and a channel from 0 "
                f"perhaps, found {line!r:.200}"
            ) from None
        # Kaldi writes -1 for the recording's end.
        if not 0 <= first < float("inf") or not (last == -1 or first < last < float("inf")):
            raise InputError(f"{path}:{number}: {key} goes from {start} s to {end} s")
        if recording not in recordings:
            file, _ = sides.get(recording, ("", 0))
            lists = (
                f"lists neither {recording} nor {file}" if file else f"does not list {recording}"
            )
            raise InputError(f"{path}:{number}: wav.scp {lists}")
        if key in places:
            raise InputError(f"{path}:{number}: {key} is a duplicate")
        places[key] = _segment(recordings[recording], first, None if last == -1 else last, channel)
    if not places:
        raise InputError(f"{path} lists no utterance")
    return places


def _segment(
    recording: Path | Member | Segment, start: float, end: float | None, channel: int | None
) -> Segment:
    """A part of a recording, on the side that the recording is where `channel` is None."""
    if not isinstance(recording, Segment):
        return Segment(recording, start, end, channel)
    if channel is not None:
        return Segment(recording.whole, start, end, channel)
    return replace(recording, start=start, end=end)


def _channel(fields: list[str]) -> int | None:
    """The channel that a line of `segments` may end with; -1 is any, as for Kaldi.

    Raises:
        ValueError: it is none.
    """
    if fields in ([], ["-1"]):
        return None
    (text,) = fields
    channel = _LETTERS.get(text)
    channel = int(text) if channel is None else channel
    if channel < 0:
        raise ValueError(text)
    return channel


def listed_speakers(root: Path) -> dict[str, str]:
    """Reads utt2spk, or spk2utt: utterance -> speaker."""
    return _speakers(root)[1]


def _speakers(root: Path) -> tuple[Path, dict[str, str]]:
    """The list that names the speakers, and utterance -> speaker."""
    listed, source = root / "utt2spk", root / "spk2utt"
    if not source.is_file():
        if not listed.is_file():
            raise InputError(f"{root} has a wav.scp but no utt2spk beside it")
        return listed, _read_utt2spk(listed)
    grouped = _grouped(source)
    if not listed.is_file():
        return source, grouped
    speakers = _read_utt2spk(listed)
    wrong = [key for key, speaker in speakers.items() if grouped.get(key, speaker) != speaker]
    if wrong:
        raise InputError(
            f"{listed} and spk2utt contradict each other on {len(wrong)} utterances (first: "
            f"{wrong[0]}); delete the wrong one"
        )
    return listed, speakers


def _read_utt2spk(source: Path) -> dict[str, str]:
    speakers = read_pairs(source, comments=True)
    for key, speaker in speakers.items():
        if " " in speaker:  # a third column, of durations for instance, would split each speaker
            raise InputError(f"{source}: expected `utterance speaker`, found {key!r} {speaker!r}")
    return speakers


def shared_recordings(
    places: Mapping[str, Path | Member | Segment], speakers: Mapping[str, str]
) -> list[str]:
    """Says how many utterances are another speaker's utterance too, if any are."""
    first: dict[object, str] = {}
    shared = []
    for key, place in places.items():
        where = (place.archive, place.offset) if isinstance(place, Member) else place
        other = first.setdefault(where, key)
        if speakers[key] != speakers[other]:
            shared.append(f"{key} is {other}")
    if not shared:
        return []
    return [
        f"warning: {len(shared):,} utterances are another speaker's too (first: {shared[0]}); a "
        "reco2file_and_channel says which channel is whose"
    ]


def _grouped(source: Path) -> dict[str, str]:
    """Reads spk2utt: utterance -> speaker."""
    speakers: dict[str, str] = {}
    for speaker, keys in read_pairs(source, comments=True).items():
        for key in keys.split():
            if speakers.setdefault(key, speaker) != speaker:
                raise InputError(f"{source}: {key} has two speakers, {speakers[key]} and {speaker}")
    return speakers


def by_path(speakers: Mapping[str, str], files: Iterable[str]) -> dict[str, str]:
    """Speakers of a tree's files by an utt2spk whose keys are paths, names or stems.

    >>> by_path({"a": "ann", "x/b.wav": "bob"}, ["x/a.wav", "x/b.wav"])
    {'x/a.wav': 'ann', 'x/b.wav': 'bob'}
    """
    found = {}
    for file in files:
        stem = file.rpartition(".")[0]
        for name in (file, stem, file.rpartition("/")[2], stem.rpartition("/")[2]):
            if name in speakers:
                found[file] = speakers[name]
                break
    return found
