import contextlib
import itertools
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfq_sv.data import audio
from tfq_sv.data.shards import Member
from tfq_sv.errors import InputError


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("samples", [1600, 16001, 40003])
def test_resampling_is_librosas(rate: int, samples: int) -> None:
    import librosa

    noise = np.random.default_rng(0).normal(0, 0.1, samples * rate // 16000).astype(np.float32)
    expected = librosa.resample(noise, orig_sr=rate, target_sr=16000, res_type="soxr_hq")
    np.testing.assert_array_equal(audio._to_16_khz(noise, rate), expected)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_any_rate_becomes_16_khz(suffix: str, rate: int, tmp_path: Path) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate), rate)
    recording = audio.read(path)
    assert recording.samples.dtype == np.float32
    assert recording.samples.shape == (16000,)
    # Away from the ends, where filters ring, it is the same tone.
    inner = slice(2000, 14000)
    np.testing.assert_allclose(recording.samples[inner], tone(16000)[inner], atol=0.05)
    expected = () if rate == 16000 else (f"resampled from {rate} Hz",)
    assert recording.changes == audio.probe(path).changes == expected


def test_channels_are_mixed_down(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(16000), 0.5 * tone(16000)], axis=1), 16000)
    recording = audio.read(path)
    np.testing.assert_allclose(recording.samples, 0.75 * tone(16000), atol=1e-4)
    assert recording.changes == ("2 channels mixed down",)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.linspace(0, 0.9, 16000), 16000)
    part = audio.read(path, start=0.25, seconds=0.5).samples
    assert part.shape == (8000,)
    assert part[0] == pytest.approx(0.9 * 0.25, abs=1e-3)


def test_bad_files_are_named(tmp_path: Path) -> None:
    cases = {
        "text.wav": (lambda p: p.write_text("hello"), "cannot be read as audio"),
        "nothing.wav": (lambda p: p.write_bytes(b""), "cannot be read as audio"),
        "short.wav": (lambda p: soundfile.write(p, tone(16000, 0.1), 16000), "holds 0.100 s"),
        "silent.wav": (lambda p: soundfile.write(p, np.zeros(16000), 16000), "is silent"),
        "nan.wav": (
            lambda p: soundfile.write(p, np.full(16000, np.nan), 16000, subtype="FLOAT"),
            "NaN or infinite",
        ),
        "missing.wav": (lambda p: None, "does not exist"),
        "folder.wav": (lambda p: p.mkdir(), "is not a file"),
    }
    for name, (make, message) in cases.items():
        make(tmp_path / name)
        with pytest.raises(InputError, match=message) as caught:
            audio.read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("kind", ["wav", "wav FLOAT", "wav PCM_24", "ogg", "ogg OPUS"])
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_cut_file_is_refused(kind: str, kept: float, tmp_path: Path) -> None:
    suffix, _, subtype = kind.partition(" ")
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).normal(0, 0.1, 64000)  # several pages of an OGG
    soundfile.write(whole, noise, 16000, subtype=subtype or None)
    assert audio.read(whole).samples.shape == (64000,)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    member = Member(cut, cut.name, 0, cut.stat().st_size)
    for source, call in itertools.product((cut, member), (audio.read, audio.probe)):
        with pytest.raises(audio.BadAudioError, match=r"is cut short: ") as caught:
            call(source)
        assert caught.value.kind == "cut short"
    with pytest.raises(audio.BadAudioError, match=r"is cut short: "):
        audio.read(cut, start=0.1, seconds=0.2)


@pytest.mark.parametrize(
    ("riff", "length"),
    [
        (2**32 - 1, 2**32 - 1), (2**31 - 1, 2**31 - 37), (0x7FFFF024, 0x7FFFF000), (8, 0),
        (32080, 32044),
    ],
)  # fmt: skip
def test_a_wav_whose_length_was_not_filled_in_is_read(
    riff: int, length: int, tmp_path: Path
) -> None:
    """To a pipe, for instance. Or it was, but with the header counted in."""
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(16000), 16000)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 4, riff)
    struct.pack_into("<I", content, 40, length)
    path.write_bytes(content)
    assert audio.probe(path).seconds == 1
    assert audio.read(path).samples.shape == (16000,)


def test_a_cut_mp3_is_refused_when_it_is_read(tmp_path: Path) -> None:
    """All of it, or a part that is not there; its header cannot say."""
    whole, cut = tmp_path / "whole.mp3", tmp_path / "cut.mp3"
    soundfile.write(whole, np.random.default_rng(0).normal(0, 0.1, 80000), 16000)
    assert audio.read(whole).samples.shape == (80000,)
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    for source in (cut, Member(cut, cut.name, 0, cut.stat().st_size)):
        for part in ({}, {"start": 2.0, "seconds": 1.0}, {"start": 4.0, "seconds": 0.5}):
            with pytest.raises(audio.BadAudioError, match=r"is cut short: ") as caught:
                audio.read(source, **part)
            assert caught.value.kind == "cut short"
    assert audio.read(cut, start=1.0, seconds=1.0).samples.shape == (16000,)


def test_more_than_sound_in_a_wav_is_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "listed.wav"
    soundfile.write(path, tone(16000), 16000)
    with path.open("ab") as file:
        file.write(b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert audio.read(path).samples.shape == (16000,)


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a"])
def test_a_name_that_is_not_utf_8(suffix: str, tmp_path: Path) -> None:
    plain = tmp_path / f"plain.{suffix}"
    if suffix == "m4a":
        write_aac(plain, tone(16000), 16000)
    else:
        soundfile.write(plain, tone(16000), 16000)
    path = tmp_path / os.fsdecode(b"caf\xe9." + suffix.encode())
    try:
        plain.rename(path)
    except OSError:
        pytest.skip("this file system keeps UTF-8 names only")
    assert audio.probe(path).seconds == pytest.approx(1, abs=0.1)
    assert audio.read(path).samples.size == pytest.approx(16000, abs=1600)


def test_a_truncated_flac_is_an_error_or_short(tmp_path: Path) -> None:
    whole = tmp_path / "whole.flac"
    soundfile.write(whole, np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole.read_bytes()[:20000])
    with pytest.raises(InputError, match=r"cut\.flac"):
        audio.read(cut)


def write_aac(path: Path, samples: np.ndarray, rate: int) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        stream.bit_rate = 128_000  # FFmpeg's encoder spoils a pure tone at its default
        frame = av.AudioFrame.from_ndarray(
            samples[None].astype(np.float32), format="fltp", layout="mono"
        )
        frame.rate, frame.pts = rate, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])


@pytest.mark.parametrize("rate", [16000, 48000])
def test_aac_as_voxceleb2_has_it(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "tone.m4a"
    write_aac(path, tone(rate), rate)
    recording = audio.read(path)
    inner = slice(2000, 14000)
    np.testing.assert_allclose(recording.samples[inner], tone(16000)[inner], atol=0.05)
    assert recording.changes == audio.probe(path).changes
    assert audio.probe(path).seconds == pytest.approx(1.0, abs=0.1)
    part = audio.read(path, start=0.25, seconds=0.5).samples
    np.testing.assert_allclose(part[100:-100], recording.samples[4100:11900], atol=0.02)
    (tmp_path / "text.m4a").write_text("hello")
    for call in (audio.read, audio.probe):
        with pytest.raises(audio.BadAudioError, match=r"text\.m4a cannot be read as audio"):
            call(tmp_path / "text.m4a")


@pytest.mark.parametrize("suffix", ["m4a", "aac"])
def test_aac_is_read_whatever_its_name_says(suffix: str, tmp_path: Path) -> None:
    for number, form in enumerate(("m4a", "aac", "mov", "mp4")):
        write_aac(tmp_path / f"x.{form}", tone(16000), 16000)
        path = (tmp_path / f"x.{form}").rename(tmp_path / f"{number}.{suffix}")
        assert len(audio.read(path).samples) == pytest.approx(16000, abs=2048)
        member = Member(path, path.name, 0, path.stat().st_size)
        assert len(audio.read(member).samples) == pytest.approx(16000, abs=2048)


@pytest.mark.parametrize(("layout", "channels"), [("5.1", 6), ("7.1", 8)])
def test_aac_of_many_channels(layout: str, channels: int, tmp_path: Path) -> None:
    """PyAV reads past the planes of eight channels or more, and may crash."""
    av = pytest.importorskip("av")
    gains = np.linspace(0.5, 1, channels, dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(
        np.outer(tone(16000), gains).astype(np.float32).reshape(1, -1), "flt", layout
    )
    frame.sample_rate = 16000
    with av.open(str(tmp_path / "x.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout=layout)
        stream.bit_rate = 128_000 * channels
        for planar in av.AudioResampler(format="fltp").resample(frame):
            container.mux(stream.encode(planar))
        container.mux(stream.encode(None))
    recording = audio.read(tmp_path / "x.m4a")
    assert recording.changes == (f"{channels} channels mixed down",)
    assert len(recording.samples) == pytest.approx(16000, abs=2048)
    assert np.isfinite(recording.samples).all()


def test_tags_that_are_not_utf_8(tmp_path: Path) -> None:
    """Found by mutation: PyAV decodes them strictly."""
    path = tmp_path / "x.m4a"
    write_aac(path, tone(16000), 16000)
    content = path.read_bytes()
    assert content.count(b"SoundHandler") == 1
    path.write_bytes(content.replace(b"SoundHandler", b"Sound\xffandler"))
    with contextlib.suppress(audio.BadAudioError):
        audio.read(path)


def test_a_length_that_no_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by mutation: an MP3's header may announce terabytes of sound."""
    soundfile.write(tmp_path / "x.mp3", tone(16000), 16000)

    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError((1 << 41, 1), np.float32)

    monkeypatch.setattr(soundfile.SoundFile, "read", out_of_memory)
    with pytest.raises(audio.BadAudioError, match="cannot be read as audio"):
        audio.read(tmp_path / "x.mp3")


def test_a_recording_refers_to_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg plays lists and takes file names for addresses."""
    monkeypatch.chdir(tmp_path)
    write_aac(tmp_path / "secret.m4a", tone(16000), 16000)
    write_aac(tmp_path / "secret.aac", tone(16000), 16000)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\nsecret.aac\n#EXT-X-ENDLIST\n"
    for name, text in {
        "list.m4a": "ffconcat version 1.0\nfile secret.m4a\n",
        "hls.m4a": playlist,
        "hls.aac": playlist,
        "sdp.m4a": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        "concat:secret.m4a|secret.m4a": "x",
        "subfile,,start,0,end,0,,:secret.m4a": "x",
    }.items():
        Path(name).write_text(text)
        for call in (audio.read, audio.probe):
            with pytest.raises(audio.BadAudioError, match="cannot be read as audio"):
                call(name)


@pytest.mark.parametrize("content", [b"\xff\xf1" + bytes(20), b"x" * 300])
def test_aac_without_a_sample_rate(content: bytes, tmp_path: Path) -> None:
    """Found by mutation: FFmpeg then knows neither rate nor length."""
    (tmp_path / "x.aac").write_bytes(content)
    for call in (audio.read, audio.probe):
        with pytest.raises(audio.BadAudioError, match="cannot be read as audio"):
            call(tmp_path / "x.aac")


def test_aac_without_a_decoder_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.m4a").write_text("hello")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'tfq-sv\[aac\]'") as caught:
        audio.read(tmp_path / "a.m4a")
    assert not isinstance(caught.value, audio.BadAudioError)  # no file would be read: it ends a run


def test_a_survey_counts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", tone(8000), 8000)
    (tmp_path / "bad.wav").write_text("hello")
    paths = {name: tmp_path / f"{name}.wav" for name in ("good", "bad", "missing")}
    found = audio.survey(paths)
    assert found.changes == {"resampled from 8000 Hz": 1}
    assert {key: error.kind for key, error in found.bad.items()} == {
        "bad": "not audio",
        "missing": "missing",
    }
    with pytest.raises(audio.BadAudioError, match=r"bad\.wav"):
        audio.survey(paths, strict=True)
