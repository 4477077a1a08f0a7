"""Encodings, containers and headers that people's files have."""

import gzip
import io
import re
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from node import web

from tfq_sv.data import audio
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.shards import Member

RATE = 16000
TONE = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def member(path: Path) -> Member:
    return Member(path, path.name, 0, path.stat().st_size)


def check(path: Path, seconds: float = 1.0, tolerance: float = 0.08) -> None:
    """Whole and in part, as a file and in a shard, it is the tone."""
    for source in (path, member(path)):
        recording = audio.read(source)
        assert len(recording.samples) == pytest.approx(seconds * RATE, abs=0.1 * RATE)
        inner = recording.samples[4000:12000]
        angle = 2 * np.pi * 440 * np.arange(8000) / RATE
        wave = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        fitted = wave @ np.linalg.lstsq(wave, inner, rcond=None)[0]
        assert np.abs(fitted).max() == pytest.approx(0.3, abs=tolerance)
        assert np.sqrt(np.mean((inner - fitted) ** 2)) < tolerance
        assert audio.probe(source).seconds == pytest.approx(seconds, abs=0.1)
        part = audio.read(source, start=0.25, seconds=0.25).samples
        np.testing.assert_allclose(part[200:-200], recording.samples[4200:7800], atol=0.1)


SUBTYPES = [
    ("WAV", name) for name in (
        "PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM",
        "GSM610", "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32")
] + [
    ("AU", "G721_32"), ("AU", "G723_24"), ("AU", "G723_40"), ("AU", "PCM_16"), ("AIFF", "PCM_16"),
    ("AIFF", "GSM610"), ("AIFF", "DWVW_16"), ("W64", "GSM610"),
    ("CAF", "ALAC_16"), ("CAF", "PCM_16"), ("RF64", "PCM_16"),
    ("NIST", "PCM_16"), ("NIST", "ULAW"), ("OGG", "OPUS"), ("OGG", "VORBIS"), ("WAVEX", "PCM_16"),
    ("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_24"),
]  # fmt: skip
SUFFIX = {"NIST": "sph", "RF64": "wav", "WAVEX": "wav"}


@pytest.mark.parametrize(("kind", "subtype"), SUBTYPES)
def test_encodings_of_libsndfile(kind: str, subtype: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{SUFFIX.get(kind, kind.lower())}"
    soundfile.write(path, TONE, RATE, format=kind, subtype=subtype)
    check(path)


@pytest.mark.parametrize("suffix", ["sph", "opus", "aiff", "aif", "au", "caf", "w64", "WAV", "oga"])
def test_all_that_verify_reads_is_read_in_trees_and_shards(suffix: str, tmp_path: Path) -> None:
    kind = {"sph": "NIST", "opus": "OGG", "oga": "OGG", "aif": "AIFF"}.get(suffix, suffix.upper())
    for speaker in ("ann", "bob"):
        (tmp_path / speaker).mkdir()
        soundfile.write(
            tmp_path / speaker / f"1.{suffix}", TONE, RATE, format=kind,
            subtype="OPUS" if suffix == "opus" else None,
        )  # fmt: skip
    with tarfile.open(tmp_path / "1.tar", "w") as tar:
        for speaker in ("ann", "bob"):
            (tmp_path / "spk").write_text(speaker)
            tar.add(tmp_path / "spk", f"{speaker}/1.spk")
            tar.add(tmp_path / speaker / f"1.{suffix}", f"{speaker}/1.{suffix}")
    (tmp_path / "my.list").write_text("1.tar\n")
    for place, keys in (
        (tmp_path, [f"ann/1.{suffix}", f"bob/1.{suffix}"]),
        (tmp_path / "my.list", ["ann/1", "bob/1"]),
    ):
        corpus = Corpus.read(place)
        assert list(corpus.paths) == keys
        assert corpus.speaker_ids == ["ann", "bob"]
        assert not audio.survey(corpus.paths).bad
        assert next(batches(corpus, batch_size=2, seconds=0.5))[0].shape == (2, 8000)


def encode(path: Path, codec: str, kind: str) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=kind) as container:
        rate = 48000 if codec == "libopus" else RATE
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 128_000
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        planar = codec in ("aac", "libvorbis")
        samples = tone[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            samples, format="fltp" if planar else "flt", layout="mono"
        )
        frame.rate, frame.pts = rate, 0
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or None
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


CONTAINERS = [
    ("mp4", "aac", "mp4"), ("mov", "aac", "mov"), ("m4a", "aac", "ipod"), ("aac", "aac", "adts"),
    ("webm", "libopus", "webm"), ("mkv", "aac", "matroska"), ("mp4", "libopus", "mp4"),
    ("wma", "wmav2", "asf"),
    # the content decides
    ("wav", "aac", "mp4"), ("wav", "aac", "adts"), ("wav", "libopus", "webm"),
    ("mp3", "aac", "mp4"),
    ("wav", "libopus", "ogg"), ("flac", "aac", "mov"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec", "kind"), CONTAINERS)
def test_containers_of_ffmpeg(suffix: str, codec: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    try:
        encode(path, codec, kind)
    except ValueError as error:
        pytest.skip(f"this FFmpeg does not write it: {error}")
    check(path)


@pytest.mark.parametrize("suffix", ["mp4", "m4a", "aac", "flac", "mp3", "ogg"])
def test_a_wav_of_any_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, TONE, RATE, format="WAV")
    check(path)


@pytest.mark.parametrize("suffix", ["wav", "mp4", "m4a", "webm", "flac"])
@pytest.mark.parametrize(
    "text", [b"#EXTM3U\nhttp://x/a.ts\n", b"ffconcat version 1.0\nfile 'b.wav'\n", b"hello " * 9]
)
def test_playlists_and_text_are_no_audio(suffix: str, text: bytes, tmp_path: Path) -> None:
    """FFmpeg would open what a playlist names."""
    soundfile.write(tmp_path / "b.wav", TONE, RATE)
    (tmp_path / f"a.{suffix}").write_bytes(text)
    for call in (audio.read, audio.probe):
        with pytest.raises(audio.BadAudioError, match="cannot be read as audio"):
            call(tmp_path / f"a.{suffix}")


def written(kind: str, **changes: int) -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, TONE, RATE, format=kind, endian="BIG" if kind == "AU" else None)
    return bytearray(file.getvalue())


@pytest.mark.parametrize("riff", [0, 8, 36, 2**31 - 1, 2**32 - 1, 32036])
@pytest.mark.parametrize("length", [0, 2**32 - 1, 2**31 - 1])
def test_a_wav_of_no_stated_length_goes_to_its_end(riff: int, length: int, tmp_path: Path) -> None:
    content = written("WAV")
    struct.pack_into("<I", content, 4, riff)
    struct.pack_into("<I", content, 40, length)
    (tmp_path / "a.wav").write_bytes(content)
    check(tmp_path / "a.wav", tolerance=0.001)


@pytest.mark.parametrize("before", [10, 4050, 4096, 6001, 100_000])
@pytest.mark.parametrize("length", [0, 2**32 - 1])
def test_chunks_before_sound_of_no_stated_length(before: int, length: int, tmp_path: Path) -> None:
    """A list of tags, a picture."""
    content = written("WAV")
    tags = b"LIST" + struct.pack("<I", before) + b"INFO" + bytes(before - 4 + before % 2)
    sound = struct.pack("<4sI", b"data", length) + content[44:]
    (tmp_path / "a.wav").write_bytes(bytes(content[:36]) + tags + sound)
    check(tmp_path / "a.wav", tolerance=0.001)


@pytest.mark.parametrize(
    ("kind", "mark", "after", "form", "values"),
    [
        ("AU", b".snd", 8, ">I", (0, 2**32 - 1)), ("AIFF", b"SSND", 4, ">I", (0, 2**32 - 1)),
        ("AIFF", b"COMM", 10, ">I", (0, 2**32 - 1)), ("CAF", b"data", 4, ">q", (0, -1)),
        ("W64", b"data", 16, "<q", (0, -1)), ("RF64", b"ds64", 16, "<q", (0, -1)),
    ],
)  # fmt: skip
def test_other_headers_of_no_stated_length(
    kind: str, mark: bytes, after: int, form: str, values: tuple[int, ...], tmp_path: Path
) -> None:
    for value in values:
        content = written(kind)
        struct.pack_into(form, content, content.find(mark) + after, value)
        path = tmp_path / f"a.{SUFFIX.get(kind, kind.lower())}"
        path.write_bytes(content)
        check(path, tolerance=0.001)


@pytest.mark.parametrize("total", [0, 2**36 - 1])
def test_a_flac_of_no_stated_length(total: int, tmp_path: Path) -> None:
    content = written("FLAC")
    word = int.from_bytes(content[18:26], "big") >> 36 << 36 | total
    content[18:26] = word.to_bytes(8, "big")
    (tmp_path / "a.flac").write_bytes(content)
    check(tmp_path / "a.flac", tolerance=0.001)


def test_a_wav_that_is_empty_is_too_short(tmp_path: Path) -> None:
    content = written("WAV")[:44]
    struct.pack_into("<I", content, 40, 0)
    for more in (b"", b"LIST" + struct.pack("<I", 4) + b"INFO"):
        (tmp_path / "a.wav").write_bytes(bytes(content) + more)
        with pytest.raises(audio.BadAudioError) as caught:
            audio.read(tmp_path / "a.wav")
        assert caught.value.kind in ("too short", "not audio")


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (24, "<I", 1, "its header states a rate of 1 Hz"),
        (24, "<I", 100, "its header states a rate of 100 Hz"),
        (24, "<I", 2**31 - 1, "its header states a rate of 2147483647 Hz"),
        (24, "<I", 2**32 - 1, "its header states a rate that cannot be"),
        (24, "<I", 0, "its header states a rate that cannot be"),
        (22, "<H", 1000, "its header states 1000 channels"),
        (22, "<H", 65535, "cannot be read as audio"),
        (22, "<H", 0, "cannot be read as audio"),
    ],
)
def test_headers_that_state_what_cannot_be(
    offset: int, form: str, value: int, message: str, tmp_path: Path
) -> None:
    content = written("WAV")
    struct.pack_into(form, content, offset, value)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    for source in (path, member(path)):
        for call in (audio.read, audio.probe):
            with pytest.raises(audio.BadAudioError, match=message) as caught:
                call(source)
            assert caught.value.kind == "not audio"


def test_what_is_often_taken_for_a_recording(tmp_path: Path) -> None:
    path, pointer = (
        tmp_path / "a.wav",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    )
    for content, message in (
        (pointer, "it is a pointer of Git LFS: git lfs pull brings the file"),
        (b"\n<!DOCTYPE html><html>404", "it is a page of HTML: its download failed"),
        (gzip.compress(bytes(written("WAV"))), "gzip compressed it"),
        (b"PK\3\4" + bytes(90), "it is a zip archive"),
    ):
        path.write_bytes(content)
        for source in (path, member(path)):
            with pytest.raises(audio.BadAudioError, match=message):
                audio.read(source)
    with pytest.raises(audio.BadAudioError, match="File name too long") as caught:
        audio.read("x" * 5000)
    assert caught.value.kind == "missing"


@pytest.mark.parametrize("offset", [0.0, -1.0, 2.0**-15])
@pytest.mark.parametrize("gain", [1.0, 0.9])
def test_channels_in_antiphase_are_not_lost(offset: float, gain: float, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    left = TONE + 0.05 * np.random.default_rng(0).normal(size=RATE)
    soundfile.write(path, np.stack([left, -gain * left - offset], axis=1), RATE, subtype="FLOAT")
    recording = audio.read(path)
    np.testing.assert_allclose(recording.samples, left, atol=1e-6)
    assert recording.changes == ("channel 1 of 2 in antiphase taken",)


@pytest.mark.parametrize("delay", [1, 3])
def test_channels_in_antiphase_may_lag(delay: int, tmp_path: Path) -> None:
    """Of speech, whose power lies at low frequencies, the mix would keep the highest alone."""
    low = np.cumsum(np.random.default_rng(0).normal(size=RATE))
    left = low - np.convolve(low, np.ones(400) / 400, "same")
    channels = np.stack([left, -np.roll(left, delay)], axis=1) / 100
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    (change,) = audio.read(tmp_path / "a.wav").changes
    assert re.fullmatch("channel [12] of 2 in antiphase taken", change)


def test_other_channels_are_mixed(tmp_path: Path) -> None:
    """One that is silent, unrelated ones, eight of which one speaks."""
    rng = np.random.default_rng(0)
    for channels in (
        np.stack([TONE, 0 * TONE], axis=1), rng.normal(0, 0.1, (RATE, 2)),
        TONE[:, None] * (np.arange(8) == 3), np.stack([TONE, -0.1 * TONE], axis=1),
    ):  # fmt: skip
        soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
        recording = audio.read(tmp_path / "a.wav")
        np.testing.assert_allclose(recording.samples, channels.mean(axis=1), atol=1e-6)
        assert recording.changes == (f"{channels.shape[1]} channels mixed down",)


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0**-15, 0.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_constant_is_silence(value: float, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full((RATE, channels), value), RATE)
    with pytest.raises(
        audio.BadAudioError, match=r"is silent: (every sample is zero|a constant)"
    ) as caught:
        audio.read(path)
    assert caught.value.kind == "silent"


def test_copies_of_one_recording_count_once(tmp_path: Path) -> None:
    for name, kind in (
        ("ann/1.WAV", "NIST"),
        ("ann/1.WAV.wav", "WAV"),
        ("bob/1.flac", "FLAC"),
        ("bob/1.opus", "OGG"),
        ("bob/2.sph", "NIST"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, TONE, RATE, format=kind)
    corpus = Corpus.read(tmp_path)
    assert list(corpus.paths) == ["ann/1.WAV.wav", "bob/1.flac", "bob/2.sph"]
    assert corpus.notes == ("left out, the same recording in another form: 2 files",)


def test_the_page_makes_one_channel_alike() -> None:
    rng = np.random.default_rng(0)
    left, other = rng.normal(0, 0.1, (2, 400)).astype(np.float32)
    cases = [
        [left], [left, other], [left, -left - 2**-15], [left, -1.1 * left], [left, 0 * left],
        [left, -0.5 * left], [left, -left, left, -left], [0.5 * left, -0.4 * left, 0 * left],
    ]  # fmt: skip
    script = """
      const { oneChannel } = await import(at("channels.js"));
      const typed = input.map((channels) => channels.map((x) => Float32Array.from(x)));
      const answers = typed.map((channels) => oneChannel(channels));
      console.log(JSON.stringify(answers.map((x) => [[...x.samples], x.taken])));
    """
    given = [[channel.tolist() for channel in channels] for channels in cases]
    for channels, (samples, taken) in zip(cases, web(script, given), strict=True):
        expected, _, index = audio._to_mono(Path("a.wav"), np.stack(channels, axis=1))
        assert taken == index
        np.testing.assert_allclose(samples, expected, atol=1e-6)
    assert {taken for _, taken in web(script, given)} == {None, 0, 1}


def test_the_page_refuses_silence_alike(tmp_path: Path) -> None:
    """By the same rule and in the same words; what a browser's resampler adds to a constant too."""
    step, rng = 2**-15, np.random.default_rng(0)
    dither, pop = step * rng.integers(0, 2, 16000), np.zeros(16000)
    pop[:200] = rng.normal(0, 0.1, 200)
    signals = [
        *(np.zeros(16000), np.full(16000, 0.25), np.full(16000, -step), dither, 0.5 + dither),
        *(2 * dither, 0.5 + 2 * dither, pop, rng.normal(0, 0.1, 16000)),
    ]
    cases = [signal.astype(np.float32) for signal in signals]
    script = """
      const { silence } = await import(at("windows.js"));
      console.log(JSON.stringify(input.map((samples) => silence(Float32Array.from(samples)))));
    """
    answers = web(script, [case.tolist() for case in cases])
    for samples, answer in zip(cases, answers, strict=True):
        soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
        try:
            audio.read(tmp_path / "a.wav")
            expected = ""
        except audio.BadAudioError as error:
            expected = str(error).partition(" is silent: ")[2]
        assert answer == expected
    assert [bool(answer) for answer in answers] == [True] * 5 + [False] * 4
    resampled = np.full(16000, 0.25, np.float32)  # as Chromium makes it of 44.1 kHz
    resampled[:5], resampled[-2:] = (0.1658, 0.2691, 0.2436, 0.2516, 0.2498), (0.2487, 0.2612)
    resampled[::7] -= 2.2e-5
    assert web(script, [resampled.tolist()]) == ["a constant of 0.2500, from a muted input perhaps"]
