import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfq_sv.data import audio
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError

KEYS = ["id2/a/1.wav", "id1/a/1.wav", "id1/b/2.wav"]


def recordings(root: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    files = {}
    for key in KEYS:
        files[key] = root / key
        files[key].parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(files[key], rng.normal(0, 0.1, 8000), 16000)
    return files


def write_shard(path: Path, entries: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """As WeSpeaker's make_shard_list.py writes them: key.spk, then key.wav."""
    files = recordings(tmp_path / "wav")
    for number, keys in enumerate((KEYS[:2], KEYS[2:])):
        entries = {}
        for key in keys:
            entries[f"{key}.spk"] = key.split("/")[0].encode()
            entries[f"{key}.wav"] = files[key].read_bytes()
        write_shard(tmp_path / f"shards_{number:09d}.tar", entries)
    (tmp_path / "shard.list").write_text("shards_000000000.tar\nshards_000000001.tar\n")
    return tmp_path / "shard.list"


def test_shards_read_like_the_files_they_were_made_of(shards: Path) -> None:
    corpus = Corpus.read(shards)
    assert list(corpus.paths) == KEYS  # their own order
    assert corpus.speakers == {key: key.split("/")[0] for key in KEYS}
    assert Corpus.read(shards.parent).paths == corpus.paths
    for key, member in corpus.paths.items():
        file = shards.parent / "wav" / key
        np.testing.assert_array_equal(audio.read(member).samples, audio.read(file).samples)
        assert audio.probe(member) == audio.probe(file)
        part = audio.read(member, start=0.1, seconds=0.2).samples
        np.testing.assert_array_equal(part, audio.read(file, start=0.1, seconds=0.2).samples)
    assert len({audio.stamp(member) for member in corpus.paths.values()}) == 3
    waveforms, _ = next(batches(corpus, batch_size=3, seconds=0.3))
    assert waveforms.shape == (3, 4800)


def test_bad_shards_are_named(shards: Path) -> None:
    folder = shards.parent
    whole = (folder / "shards_000000000.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tar").write_text("hello " * 200)
    write_shard(folder / "packed.tar", {"a.spk": b"a"}, "w:gz")
    write_shard(folder / "nobody.tar", {"a.wav": b"x"})
    write_shard(folder / "silent.tar", {"a.spk": b"a"})
    for line, message in [
        ("none.tar", "shard none.tar does not exist"),
        ("cut.tar", "is cut short|not an uncompressed tar"),
        ("text.tar", "is not an uncompressed tar"),
        ("packed.tar", "is not an uncompressed tar"),
        ("nobody.tar", "no .spk for 1 of 1 recordings .first: a"),
        ("silent.tar", "holds no .3gp"),
        ("shards_000000000.tar\nshards_000000000.tar", "2 duplicate keys .first: id2/a/1.wav"),
        ("", "lists nothing"),
    ]:
        shards.write_text(line)
        with pytest.raises(InputError, match=message):
            Corpus.read(shards)


def test_a_bad_recording_in_a_shard_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.tar", {"a.spk": b"ann", "a.wav": b"no audio", "a.txt": b"?"})
    (tmp_path / "my.list").write_text(f"{tmp_path / 'x.tar'}\n")
    member = Corpus.read(tmp_path / "my.list").paths["a"]
    with pytest.raises(audio.BadAudioError, match=r"x\.tar:a\.wav cannot be read as audio"):
        audio.read(member)


def add(path: Path, name: str, kind: bytes, target: str = "") -> None:
    with tarfile.open(path, "a") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        tar.addfile(entry)


def test_links_within_a_shard_are_read(shards: Path) -> None:
    """As GNU tar writes a recording that lies under two names."""
    path = shards.parent / "shards_000000001.tar"
    for suffix in ("spk", "wav"):
        add(path, f"hard.{suffix}", tarfile.LNKTYPE, f"{KEYS[2]}.{suffix}")
        add(path, f"again.{suffix}", tarfile.LNKTYPE, f"hard.{suffix}")
        add(path, f"id9/soft.{suffix}", tarfile.SYMTYPE, f"../{KEYS[2]}.{suffix}")
    add(path, "folder", tarfile.DIRTYPE)
    corpus = Corpus.read(shards)
    assert list(corpus.paths) == [*KEYS, "hard", "again", "id9/soft"]
    expected = audio.read(corpus.paths[KEYS[2]]).samples
    for key in ("hard", "again", "id9/soft"):
        assert corpus.speakers[key] == "id1"
        np.testing.assert_array_equal(audio.read(corpus.paths[key]).samples, expected)


def test_links_in_a_shard_of_a_folder_are_read(tmp_path: Path) -> None:
    """As `tar cf shard.tar .` writes names."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/1.wav", np.full(8000, 0.1), 16000)
    (tmp_path / "in/1.spk").write_text("ann")
    for suffix in ("wav", "spk"):
        (tmp_path / f"in/2.{suffix}").symlink_to(f"1.{suffix}")
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("1.spk", "1.wav", "2.spk", "2.wav"):
            tar.add(tmp_path / "in" / name, f"./{name}")
    (tmp_path / "shard.list").write_text(f"{shard}\n")
    corpus = Corpus.read(tmp_path / "shard.list")
    assert set(corpus.speakers.values()) == {"ann"}
    assert len(corpus.paths) == 2


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        (tarfile.LNKTYPE, "/etc/passwd", "a link to /etc/passwd"),
        (tarfile.LNKTYPE, "../../x.wav", "a link to"),
        (tarfile.SYMTYPE, "../x.wav", "a link to"),
        (tarfile.SYMTYPE, "/dev/zero", "a link to"),
        (tarfile.SYMTYPE, "x.wav", "a link to"),  # itself
        (tarfile.CHRTYPE, "", "neither a file"),
        (tarfile.FIFOTYPE, "", "neither a file"),
    ],
)
def test_what_lies_outside_a_shard_is_refused(
    kind: bytes, target: str, message: str, shards: Path
) -> None:
    add(shards.parent / "shards_000000001.tar", "x.wav", kind, target)
    with pytest.raises(InputError, match=rf"shards_000000001\.tar: x\.wav is {message}"):
        Corpus.read(shards)


def test_a_damaged_shard_drops_nothing_silently(shards: Path) -> None:
    path = shards.parent / "shards_000000000.tar"
    whole = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        entries = tar.getmembers()
    whole[entries[2].offset + 150] ^= 1  # its checksum's field
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"is damaged after id2/a/1\.wav\.wav"):
        Corpus.read(shards)


def header(size: bytes) -> bytes:
    block = bytearray(tarfile.TarInfo("x.wav").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [-1024, -512, 1 << 62])
def test_a_shard_never_goes_in_circles(size: int, shards: Path) -> None:
    content = header(
        (size % (1 << 96)).to_bytes(12, "big")
        if size < 0
        else b"\x80" + bytes(3) + size.to_bytes(8, "big")
    )
    (shards.parent / "shards_000000000.tar").write_bytes(content + bytes(1024))
    with pytest.raises(InputError, match=r"shard .*shards_000000000"):
        Corpus.read(shards)


def test_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """Whichever counted, the other would be gone without a word."""
    wav = next(iter(recordings(tmp_path).values())).read_bytes()
    path = tmp_path / "s.tar"
    (tmp_path / "shard.list").write_text("# made by hand\ns.tar\n")
    write_shard(path, {"a.spk": b"ann", "a.wav": wav})
    with tarfile.open(path, "a") as tar:
        entry = tarfile.TarInfo("a.spk")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"eve"))
    with pytest.raises(InputError, match=r"s\.tar holds a\.spk several times"):
        Corpus.read(tmp_path)


def test_speakers_of_another_encoding_stay_two(tmp_path: Path) -> None:
    """And what macOS packs beside each file is no recording."""
    wav = next(iter(recordings(tmp_path).values())).read_bytes()
    (tmp_path / "shard.list").write_text("s.tar\n")
    names = {"a": "李".encode("gbk"), "b": "刘".encode("gbk")}
    entries = {f"{key}.spk": name for key, name in names.items()}
    entries |= {f"{key}.wav": wav for key in names} | {"._a.wav": b"\0\5\x16\7"}
    write_shard(tmp_path / "s.tar", entries)
    corpus = Corpus.read(tmp_path)
    assert list(corpus.paths) == ["a", "b"]
    assert len(corpus.speaker_ids) == 2


def test_raw_lists(tmp_path: Path) -> None:
    recordings(tmp_path / "wav")
    rows = [{"key": key, "spk": key.split("/")[0], "wav": f"wav/{key}"} for key in KEYS]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "raw.list").write_text(text)
    for corpus in (Corpus.read(tmp_path), Corpus.read(tmp_path / "raw.list")):
        assert corpus.paths == {key: tmp_path / "wav" / key for key in sorted(KEYS)}
        assert corpus.speakers == {key: key.split("/")[0] for key in KEYS}
    for broken, message in [
        ('{"key": "a", "wav": "a.wav"}\n', "raw.list:1: expected"),
        (text + "{oops\n", "raw.list:4: expected"),
        (text + text, "3 duplicate keys"),
        ('{"key": "a", "spk": null, "wav": "a.wav"}\n', "raw.list:1: expected"),
        ('{"key": "a", "spk": " ", "wav": "a.wav"}\n', "raw.list:1: expected"),
        ('{"key": "\\ud800", "spk": "ann", "wav": "a.wav"}\n', "raw.list:1: expected"),
        ('{"key": "a", "spk": "ann", "wav": ["a.wav"]}\n', "raw.list:1: expected"),
    ]:
        (tmp_path / "raw.list").write_text(broken)
        with pytest.raises(InputError, match=message):
            Corpus.read(tmp_path)


def test_one_recording_of_two_speakers_in_a_raw_list(tmp_path: Path) -> None:
    row = {"key": "a", "spk": " ann", "wav": "a.wav"}
    (tmp_path / "raw.list").write_text(
        f"# made by hand\n{json.dumps(row)}\n{json.dumps({**row, 'key': 'b', 'spk': 'bob'})}\n"
    )
    corpus = Corpus.read(tmp_path)
    assert corpus.speakers == {"a": "ann", "b": "bob"}
    assert "1 utterances are another speaker's too (first: b is a)" in corpus.notes[0]


def test_raw_lists_of_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wav` is what wav.scp may have: a file, or a place in an archive; never a command."""
    files, rows, data = recordings(tmp_path / "wav"), [], b""
    for key, file in files.items():
        data += f"{key} ".encode()
        rows.append({"key": key, "spk": 7, "wav": f"a.ark:{len(data)}"})
        data += file.read_bytes()
    (tmp_path / "a.ark").write_bytes(data)
    rows.append({"key": "x", "spk": 8, "wav": "wav/id2/a/1.wav"})
    monkeypatch.chdir(tmp_path)
    for folder in ("", f"{tmp_path}/"):
        wavs = [row | {"wav": f"{folder}{row['wav']}"} for row in rows]
        (tmp_path / "raw.list").write_text("".join(f"{json.dumps(row)}\n" for row in wavs))
        corpus = Corpus.read("raw.list")
        assert corpus.speakers == dict.fromkeys(KEYS, "7") | {"x": "8"}
        for key in KEYS:
            np.testing.assert_array_equal(
                audio.read(corpus.paths[key]).samples, audio.read(files[key]).samples
            )
    for wav, message in (
        ("touch ran |", "raw.list has commands for 1 of 1 utterances .* never run"),
        ("| touch ran", "raw.list has commands"),
        ("touch ran |:0", r"raw\.list: touch ran \| does not exist"),
        ("b.ark:3", r"raw.list: b\.ark does not exist"),
        ("a.ark:999999", "begins at byte 999,999"),
        ("wav:4", "raw.list: wav does not exist"),
    ):
        (tmp_path / "raw.list").write_text(json.dumps(rows[0] | {"wav": wav}))
        with pytest.raises(InputError, match=message):
            Corpus.read("raw.list")
    assert not (tmp_path / "ran").exists()


def test_parts_that_a_raw_list_names_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    recordings(tmp_path)
    rows = [{"key": key, "spk": "ann", "wav": key} for key in KEYS]
    rows[1]["vad"] = [[0.1, 0.4]]  # type: ignore[assignment]
    (tmp_path / "raw.list").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (note,) = Corpus.read(tmp_path).notes
    assert "not the parts of 1 lines" in note


def test_a_list_of_recordings_alone(tmp_path: Path) -> None:
    """Enough where speakers need not be known; else one line says what is lacking."""
    recordings(tmp_path / "wav")
    (tmp_path / "files.txt").write_text("".join(f"wav/{key}\n" for key in KEYS))
    corpus = Corpus.read(tmp_path / "files.txt", unlabelled=True)
    assert corpus.paths == {f"wav/{key}": tmp_path / "wav" / key for key in sorted(KEYS)}
    assert corpus.speakers == {}
    with pytest.raises(InputError, match=r"files\.txt lists recordings without speakers"):
        Corpus.read(tmp_path / "files.txt")


def test_streams_from_shards_whatever_the_number_of_threads_and_workers(tmp_path: Path) -> None:
    """Forty recordings in four shards, one in ten of them corrupt, five epochs."""
    rng = np.random.default_rng(0)
    for shard in range(4):
        entries = {}
        for number in range(10):
            file = io.BytesIO()
            samples = rng.normal(0, 0.1, rng.integers(4000, 12000))
            soundfile.write(file, samples, 16000, format="FLAC")
            whole = file.getvalue()
            if number == shard:
                whole = whole[:200] + bytes(len(whole) - 200)
            key = f"id{number % 5}-{shard}-{number}"
            entries[f"{key}.spk"] = key.split("-")[0].encode()
            entries[f"{key}.flac"] = whole
        write_shard(tmp_path / f"{shard}.tar", entries)
    (tmp_path / "shard.list").write_text("".join(f"{shard}.tar\n" for shard in range(4)))
    corpus = Corpus.read(tmp_path)
    assert len(corpus.paths) == 40

    def take(threads: int, rows: slice = slice(None)) -> tuple[list[np.ndarray], set[str]]:
        stream = batches(corpus, batch_size=8, seconds=0.4, workers=threads, rows=rows)
        return [next(stream)[0] for _ in range(25)], set(stream.skipped)

    alone, skipped = take(1)
    assert skipped == {f"id{i}-{i}-{i}" for i in range(4)}
    for threads in (2, 8):
        np.testing.assert_array_equal(take(threads)[0], alone)
    halves = [take(2, rows)[0] for rows in (slice(0, 4), slice(4, 8))]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), alone)
