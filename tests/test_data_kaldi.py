"""Kaldi's segments and archives, against kaldiio and the recordings that they are parts of."""

import io
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from tfq_sv.data import audio, kaldi
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError

RATE = 16000


def noise(seed: int, seconds: float = 2.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 3000, int(seconds * RATE))).astype(np.int16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("r1", "r2")):
        soundfile.write(tmp_path / f"{name}.wav", noise(seed), RATE)
    (tmp_path / "wav.scp").write_text("r1 r1.wav\nr2 r2.wav\n")
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\nu3 bob\n")
    (tmp_path / "segments").write_text("u1 r1 0.25 1.0\nu2 r1 1.0 1.5\nu3 r2 1.25 -1\n")
    return tmp_path


def test_segments_are_the_utterances(root: Path) -> None:
    corpus = Corpus.read(root)
    assert corpus.speakers == {"u1": "ann", "u2": "bob", "u3": "bob"}
    for key, seed, first, last in (
        ("u1", 0, 4000, 16000),
        ("u2", 0, 16000, 24000),
        ("u3", 1, 20000, 32000),
    ):
        source = corpus.paths[key]
        expected = noise(seed)[first:last] / 2.0**15
        np.testing.assert_array_equal(audio.read(source).samples, expected.astype("f4"))
        assert audio.probe(source).seconds == (last - first) / RATE
        part = audio.read(source, start=0.125, seconds=0.125).samples
        np.testing.assert_array_equal(part, expected[2000:4000].astype("f4"))
        over = audio.read(source, start=0.25, seconds=60).samples
        np.testing.assert_array_equal(over, expected[4000:].astype("f4"))
    assert len({audio.stamp(path) for path in corpus.paths.values()}) == 3
    assert next(batches(corpus, batch_size=3, seconds=0.5))[0].shape == (3, 8000)


def test_a_wav_scp_stands_for_its_folder(root: Path) -> None:
    assert Corpus.read(root / "wav.scp") == Corpus.read(root)


def test_segments_named_as_their_recordings(root: Path) -> None:
    (root / "segments").write_text("r1 r1 0 0.5\nr2 r2 0.5 1\n")
    (root / "utt2spk").write_text("r1 ann\nr2 bob\n")
    corpus = Corpus.read(root)
    assert [audio.probe(path).seconds for path in corpus.paths.values()] == [0.5, 0.5]


def test_speakers_of_recordings_are_those_of_their_segments(root: Path) -> None:
    (root / "utt2spk").write_text("r1 ann\nr2 bob\n")
    assert Corpus.read(root).speakers == {"u1": "ann", "u2": "ann", "u3": "bob"}


def test_segments_of_one_channel(root: Path) -> None:
    """As Kaldi's extract-segments takes a fifth column: both sides of a call, never their mix."""
    sides = noise(7, 70), noise(8, 70)
    soundfile.write(root / "r1.wav", np.stack(sides, axis=1), RATE)
    (root / "utt2spk").write_text("u1 ann\nu2 bob\nu3 ann\nu4 bob\n")
    lines = ["u1 r1 0.25 1.0 0", "u2 r1 0.25 1.0 1", "u3 r1 0 -1 A", "u4 r1 0 -1 B", "u5 r1 0 1 -1"]
    (root / "segments").write_text("\n".join(lines[:4]) + "\n")
    corpus = Corpus.read(root)
    for key, side, part in (
        ("u1", 0, slice(4000, 16000)), ("u2", 1, slice(4000, 16000)), ("u3", 0, slice(None)),
        ("u4", 1, slice(None)),
    ):  # fmt: skip
        source, expected = corpus.paths[key], (sides[side][part] / 2.0**15).astype("f4")
        recording = audio.read(source)
        np.testing.assert_array_equal(recording.samples, expected)
        assert recording.changes == audio.probe(source).changes == ()
        found = audio.read_windows(source, lambda window: window)
        np.testing.assert_array_equal(np.concatenate(found.found), expected)
    assert len({audio.stamp(path) for path in corpus.paths.values()}) == 4
    (root / "segments").write_text(lines[4])
    (root / "utt2spk").write_text("u5 ann\n")
    assert audio.read(Corpus.read(root).paths["u5"]).changes == ("2 channels mixed down",)
    (root / "segments").write_text("u5 r2 0 1 1\n")
    for call in (audio.read, audio.probe):
        with pytest.raises(audio.BadAudioError, match=r"channel 2\) has 1 channels"):
            call(Corpus.read(root).paths["u5"])


@pytest.fixture
def call(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """r1.wav is a call of two sides."""
    sides = noise(7), noise(8)
    soundfile.write(root / "r1.wav", np.stack(sides, axis=1), RATE)
    return sides


@pytest.mark.parametrize("names", ["AB", "ab", "12", "01"])
@pytest.mark.parametrize("listed", ["files", "recordings"])
def test_sides_of_calls(
    root: Path, call: tuple[np.ndarray, np.ndarray], listed: str, names: str
) -> None:
    """reco2file_and_channel: wav.scp names the files, or each side with its command undone."""
    first, second = names
    if listed == "recordings":
        (root / "wav.scp").write_text("r1-A r1.wav\nr1-B r1.wav\nr2 r2.wav\n")
    (root / "reco2file_and_channel").write_text(f"r1-A r1 {first}\nr1-B r1 {second}\n")
    (root / "segments").write_text("u1 r1-A 0.25 1.0\nu2 r1-B 0.25 1.0\nu3 r2 0 1\n")
    corpus = Corpus.read(root)
    for key, side in zip(("u1", "u2"), call, strict=True):
        source, expected = corpus.paths[key], (side[4000:16000] / 2.0**15).astype("f4")
        recording = audio.read(source)
        np.testing.assert_array_equal(recording.samples, expected)
        assert recording.changes == audio.probe(source).changes == ()
    (root / "segments").unlink()  # whole sides
    (root / "utt2spk").write_text("r1-A ann\nr1-B bob\nr2 cy\n")
    corpus = Corpus.read(root)
    assert list(corpus.paths) == ["r1-A", "r1-B", "r2"]
    for key, side in zip(("r1-A", "r1-B"), call, strict=True):
        expected = (side / 2.0**15).astype("f4")
        np.testing.assert_array_equal(audio.read(corpus.paths[key]).samples, expected)


def test_sides_that_are_files_of_their_own(root: Path) -> None:
    """As Kaldi's own commands leave them: mono, though the list says B; AMI says A of each."""
    (root / "reco2file_and_channel").write_text("r1 call A\nr2 call B\nr9 other A\n")
    corpus = Corpus.read(root)
    for key, seed, part in (("u1", 0, slice(4000, 16000)), ("u3", 1, slice(20000, 32000))):
        expected = (noise(seed)[part] / 2.0**15).astype("f4")
        np.testing.assert_array_equal(audio.read(corpus.paths[key]).samples, expected)


def test_a_segments_channel_comes_first(root: Path, call: tuple[np.ndarray, np.ndarray]) -> None:
    (root / "reco2file_and_channel").write_text("r1 r1 A\n")
    (root / "segments").write_text("u1 r1 0 1 B\nu2 r1 0 1 -1\nu3 r1 0 1\n")
    corpus = Corpus.read(root)
    for key, side in (("u1", 1), ("u2", 0), ("u3", 0)):
        expected = (call[side][:16000] / 2.0**15).astype("f4")
        np.testing.assert_array_equal(audio.read(corpus.paths[key]).samples, expected)


def test_a_side_that_its_file_lacks(root: Path) -> None:
    (root / "reco2file_and_channel").write_text("r1-B r1 B\n")  # r1.wav is mono
    (root / "segments").write_text("u1 r1-B 0 1\n")
    (root / "utt2spk").write_text("u1 ann\n")
    with pytest.raises(audio.BadAudioError, match=r"channel 2\) has 1 channels"):
        audio.read(Corpus.read(root).paths["u1"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("r1 r1", "reco2file_and_channel:1: expected `recording file channel`"),
        ("r1 r1 left", "expected `recording file channel` with a channel A or B, or 1 or 2"),
        ("r1 r1 -1", "expected `recording file channel`"),
        ("r1 r1 A\nr1 r2 A", "reco2file_and_channel:2: r1 is a duplicate"),
        ("r3-A r3 A", "segments:1: wav.scp lists neither r3-A nor r3"),
    ],
)
def test_bad_sides_are_named(root: Path, lines: str, message: str) -> None:
    (root / "reco2file_and_channel").write_text(lines + "\n")
    (root / "segments").write_text("u1 r3-A 0 1\n")
    with pytest.raises(InputError, match=message):
        Corpus.read(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1 r9 0 1", "segments:1: wav.scp does not list r9"),
        ("u1 r1 1 0.5", "segments:1: u1 goes from 1 s to 0.5 s"),
        ("u1 r1 nan 1", "goes from nan"),
        ("u1 r1 0 inf", "goes from 0 s to inf"),
        ("u1 r1 -1 1", "goes from -1"),
        ("u1 r1 0", "expected `utterance recording start end`"),
        ("u1 r1 0 x", "expected `utterance recording start end`"),
        ("u1 r1 0 1 C", "and a channel from 0 perhaps, found 'u1 r1 0 1 C'"),
        ("u1 r1 0 1 -2", "and a channel"),
        ("u1 r1 0 1 0 0", "and a channel"),
        ("u1 r1 0 1\nu1 r2 0 1", "segments:2: u1 is a duplicate"),
    ],
)
def test_bad_segments_are_named(root: Path, line: str, message: str) -> None:
    (root / "segments").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        Corpus.read(root)


def test_a_segment_past_the_end_is_a_bad_recording(root: Path) -> None:
    """By more than half a second, as for Kaldi: times in milliseconds are not the whole of it."""
    lines = ["u1 r1 0 1", "u2 r1 5 6", "u3 r1 1.5 2.4", "u4 r1 0 1000", "u5 r1 1.9 2.4"]
    (root / "segments").write_text("\n".join(lines))
    (root / "utt2spk").write_text("r1 ann\nr2 bob\n")
    corpus = Corpus.read(root)
    bad = audio.survey(corpus.paths).bad
    assert {key: error.kind for key, error in bad.items()} == {
        "u2": "past the end", "u4": "past the end", "u5": "too short",
    }  # fmt: skip
    assert "(0.00-1000.00 s) ends after its recording, of 2.00 s" in str(bad["u4"])
    with pytest.raises(audio.BadAudioError, match=r"holds 0\.000 s"):
        audio.read(corpus.paths["u2"])
    assert audio.read(corpus.paths["u3"]).samples.shape == (8000,)


def test_lists_of_speakers_that_contradict_each_other(root: Path) -> None:
    (root / "spk2utt").write_text("ann u1\nbob u2 u3\n")
    assert Corpus.read(root).speakers["u3"] == "bob"
    (root / "spk2utt").write_text("ann u1 u3\nbob u2\n")
    with pytest.raises(InputError, match=r"spk2utt contradict each other on 1 utterances .*u3"):
        Corpus.read(root)


@pytest.mark.parametrize("function", [None, "soundfile"])
def test_archives_by_offset(tmp_path: Path, function: str | None) -> None:
    sounds = {"u1": noise(1), "u2": noise(2, 1.0), "u3": noise(3, 0.5)}
    scp = tmp_path / "wav.scp"
    with kaldiio.WriteHelper(
        f"ark,scp:{tmp_path}/wav.ark,{scp}", write_function=function
    ) as writer:
        for key, samples in sounds.items():
            writer(key, (RATE, samples))
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\nu3 bob\n")
    for text in (scp.read_text(), scp.read_text().replace(f"{tmp_path}/", "")):
        scp.write_text(text)
        corpus = Corpus.read(tmp_path)
        for key, samples in sounds.items():
            found = audio.read(corpus.paths[key]).samples
            np.testing.assert_array_equal(found, (samples / 2.0**15).astype("f4"))
            assert audio.probe(corpus.paths[key]).seconds == len(samples) / RATE
        (tmp_path / "segments").write_text("u3 u1 0.5 1\n")
        (source,) = Corpus.read(tmp_path).paths.values()
        np.testing.assert_array_equal(
            audio.read(source).samples, (sounds["u1"][8000:16000] / 2.0**15).astype("f4")
        )
        (tmp_path / "segments").unlink()


def test_two_names_of_one_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0), RATE)
    (tmp_path / "a.ark").write_bytes(b"u1 " + (tmp_path / "a.wav").read_bytes())
    (tmp_path / "wav.scp").write_text("u1 a.ark:3\nu2 a.ark:3\n")
    corpus = Corpus.read(tmp_path, unlabelled=True)
    for path in corpus.paths.values():
        np.testing.assert_array_equal(audio.read(path).samples, (noise(0) / 2.0**15).astype("f4"))


def test_an_archive_of_flac_ends_at_the_next_one(tmp_path: Path) -> None:
    lines, data = [], b""
    for key in ("u1", "u2"):
        file = io.BytesIO()
        soundfile.write(file, noise(len(lines)), RATE, format="FLAC")
        data += f"{key} ".encode()
        lines.append(f"{key} a.ark:{len(data)}\n")
        data += file.getvalue()
    (tmp_path / "a.ark").write_bytes(data)
    (tmp_path / "wav.scp").write_text("".join(lines))
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\n")
    for number, path in enumerate(Corpus.read(tmp_path).paths.values()):
        expected = (noise(number) / 2.0**15).astype("f4")
        np.testing.assert_array_equal(audio.read(path).samples, expected)


def test_bad_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "utt2spk").write_text("u1 ann\n")
    (tmp_path / "a.ark").write_bytes(b"u1 hello")
    for line, message in (
        ("u1 b.ark:3", "b.ark does not exist"),
        ("u1 a.ark:99", "begins at byte 99"),
    ):
        (tmp_path / "wav.scp").write_text(line + "\n")
        with pytest.raises(InputError, match=message):
            Corpus.read(tmp_path)
    (tmp_path / "wav.scp").write_text("u1 a.ark:3\n")
    with pytest.raises(audio.BadAudioError, match=r"a\.ark:u1 cannot be read as audio"):
        audio.read(Corpus.read(tmp_path).paths["u1"])


@pytest.mark.parametrize("place", ["touch ran |", "| touch ran", "-", "cat a.wav | sox - - |"])
def test_commands_are_refused_and_never_run(
    root: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    (root / "wav.scp").write_text(f"r1 {place}\nr2 r2.wav\n")
    with pytest.raises(
        InputError, match=r"commands for 1 of 2 utterances .first: r1., which are never run"
    ):
        Corpus.read(root, unlabelled=True)
    assert not (root / "ran").exists()


def test_lists_in_a_folder_below_the_recordings(tmp_path: Path) -> None:
    """speechocean762: train/wav.scp names WAVE/SPEAKER0001/..., from the folder above."""
    (tmp_path / "WAVE/SPEAKER0001").mkdir(parents=True)
    soundfile.write(tmp_path / "WAVE/SPEAKER0001/1.WAV", noise(0), RATE)
    (tmp_path / "train").mkdir()
    (tmp_path / "train/wav.scp").write_text("1\tWAVE/SPEAKER0001/1.WAV\n")
    (tmp_path / "train/utt2spk").write_text("1 0001\n")
    corpus = Corpus.read(tmp_path / "train")
    assert audio.probe(corpus.paths["1"]).seconds == 2.0


def test_utt2spk_beside_a_tree(tmp_path: Path) -> None:
    for name in ("a_1.wav", "x/a_2.wav", "b_1.wav", "c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, noise(0), RATE)
    (tmp_path / "utt2spk").write_text("a_1 ann\nx/a_2.wav ann\nb_1.wav bob\n")
    corpus = Corpus.read(tmp_path)
    assert corpus.speakers == {"a_1.wav": "ann", "b_1.wav": "bob", "x/a_2.wav": "ann"}
    assert any("1 files" in note for note in corpus.notes)


def test_speakers_that_are_not_needed(root: Path) -> None:
    (root / "utt2spk").unlink()
    corpus = Corpus.read(root, unlabelled=True)
    assert list(corpus.paths) == ["u1", "u2", "u3"]
    assert corpus.speakers == {}
    with pytest.raises(InputError, match="no utt2spk beside it"):
        Corpus.read(root)


def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    for name in ("x" * 5000, "é" * 200, "/" + "x" * 300, "x/" * 3000):
        with pytest.raises(InputError, match=r"no path is .*: File name too long") as caught:
            kaldi.located(tmp_path, name)
        assert len(str(caught.value)) < 300


def test_one_recording_of_two_speakers_is_said(root: Path) -> None:
    """Both sides of a call in one file, where no list says which channel is whose."""
    (root / "segments").unlink()
    (root / "utt2spk").write_text("a ann\nb bob\nc bob\n")
    (root / "wav.scp").write_text("a r1.wav\nb r1.wav\nc r2.wav\n")
    (note,) = Corpus.read(root).notes
    assert "1 utterances are another speaker's too (first: b is a); a reco2file_and" in note
    (root / "wav.scp").write_text("a r1.wav:0\nb r1.wav:0\nc r2.wav\n")
    assert "(first: b is a)" in Corpus.read(root).notes[0]
    (root / "reco2file_and_channel").write_text("a r A\nb r B\n")
    (root / "wav.scp").write_text("a r1.wav\nb r1.wav\nc r2.wav\n")
    assert not Corpus.read(root).notes
    (root / "reco2file_and_channel").unlink()
    (root / "utt2spk").write_text("a ann\nb ann\nc bob\n")
    assert not Corpus.read(root).notes


def test_a_third_column_of_speakers_is_refused(root: Path) -> None:
    (root / "utt2spk").write_text("u1 ann 2.5\nu2 bob 1.5\nu3 bob 1.0\n")
    with pytest.raises(InputError, match=r"expected `utterance speaker`, found 'u1' 'ann 2\.5'"):
        Corpus.read(root)


def test_lists_with_comments_and_unseen_marks(root: Path) -> None:
    for name, mark in (("wav.scp", ""), ("utt2spk", "\u200b"), ("segments", "\ufeff")):
        lines = (root / name).read_text()
        (root / name).write_text(f"# made by hand\n#u9 x y 1\n{mark}{lines}", encoding="utf-8")
    assert Corpus.read(root).speakers == {"u1": "ann", "u2": "bob", "u3": "bob"}
