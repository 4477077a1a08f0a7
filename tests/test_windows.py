"""Long speech: the same windows in every door and language, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from train_small import small

import tfq_sv
from tfq_sv import cli, windows
from tfq_sv.data import audio
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.corpus import Corpus
from tfq_sv.evaluation.extraction import WINDOWS, embed_recording, extract
from tfq_sv.evaluation.measurement import KerasEncoder
from tfq_sv.export import SpeakerEncoder, export_tflite
from tfq_sv.features import fbank

CASES = json.loads((Path(__file__).parent / "data" / "windows.json").read_text())
RATE = 16000


def speech(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Noise whose spectrum and level change every half second, and from part to part."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.1, int(seconds * rate))
    level = np.repeat(rng.uniform(0.1, 1, int(seconds * 2) + 1), rate // 2)[: noise.size]
    smooth = np.convolve(noise, np.ones(4) / 4, "same")
    mixing = np.repeat(rng.random(int(seconds * 2) + 1), rate // 2)[: noise.size]
    return np.float32(level * (mixing * noise + (1 - mixing) * smooth)).clip(-0.9, 0.9)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("windows")
    model = small()
    made = tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, bits=4), calibrate=False)
    paths = {entry: folder / f"{entry}.tflite" for entry in ("waveform", "features")}
    for entry, path in paths.items():
        export_tflite(made, path, entry)
    made.save(folder / "small.keras")
    return {**paths, "keras": folder / "small.keras"}


@pytest.mark.parametrize("case", CASES)
def test_the_borders_that_all_readers_agree_on(case: dict[str, Any]) -> None:
    found = windows.borders(case["length"], case["rate"])
    assert [list(pair) for pair in found[:1] + found[-1:]] == [case["first"], case["last"]]
    assert len(found) == case["count"]
    assert case.get("windows", found) == [list(pair) for pair in found] or len(found) > 4


@pytest.mark.parametrize("block", [1, 7, 39, 61, 1000])
@pytest.mark.parametrize("length", [0, 5, 59, 60, 61, 100, 101, 399, 1000])
def test_blocks_give_the_same_windows(length: int, block: int) -> None:
    values = np.arange(length, dtype=np.float32)
    splitter = windows.Splitter(rate=1)
    parts = [values[i : i + block] for i in range(0, length, block)]
    found = [window for part in parts for window in splitter.add(part)] + [splitter.end()]
    expected = [values[first:last] for first, last in windows.borders(length, 1)]
    assert [list(x) for x in found] == [list(x) for x in expected]


@pytest.mark.slow
def test_every_door_takes_the_mean_of_windows(files: dict[str, Path]) -> None:
    long = speech(130)
    parts = [long[first:last] for first, last in windows.borders(len(long), RATE)]
    assert len(parts) == 3
    encoders: dict[str, Any] = {
        entry: SpeakerEncoder(files[entry]) for entry in ("waveform", "features")
    }
    encoders["keras"] = KerasEncoder(tfq_sv.load_model(files["keras"]))
    for name, encoder in encoders.items():
        expected = np.mean([encoder.embed(part) for part in parts], axis=0)
        with pytest.warns(UserWarning, match=r"130\.0 s of speech are embedded in 3 windows"):
            found = encoder.embed(long)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
    frames = fbank(long)
    places = windows.borders(len(frames), 100)
    expected = np.mean([encoders["features"].embed(frames[a:b]) for a, b in places], axis=0)
    with pytest.warns(UserWarning, match="3 windows"):
        np.testing.assert_allclose(encoders["features"].embed(frames), expected, rtol=1e-5)


FORMS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "16 kHz.wav": (16000, 1, {}),
    "44.1 kHz.wav": (44100, 1, {}),
    "8 kHz.flac": (8000, 1, {}),
    "stereo.wav": (16000, 2, {}),
    "antiphase.wav": (48000, -2, {}),
    "antiphase, the second louder.wav": (16000, -3, {}),
    "lossy.ogg": (16000, 1, {}),
    "lossy.mp3": (16000, 1, {}),
}


@pytest.mark.parametrize("name", FORMS)
def test_files_are_read_in_blocks_as_they_are_whole(name: str, tmp_path: Path) -> None:
    rate, channels, options = FORMS[name]
    samples = speech(110, rate)
    if channels != 1:
        gain = {2: 0.5, -2: -1, -3: -1.1}[channels]
        samples = np.stack([samples, samples * gain], axis=1)
    soundfile.write(tmp_path / name, samples, rate, **options)
    whole = audio.read(tmp_path / name)
    found = audio.read_windows(tmp_path / name, lambda window: window)
    expected = windows.borders(len(whole.samples), RATE)
    assert [len(window) for window in found.found] == [last - first for first, last in expected]
    np.testing.assert_allclose(np.concatenate(found.found), whole.samples, atol=1e-6)
    assert (found.changes, found.count) == (whole.changes, len(expected))


class Level:
    """The mean, the peak, and a one."""

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        return np.array([waveform.mean(), waveform.max(), 1], np.float32)


def test_windows_of_silence_are_left_out(tmp_path: Path) -> None:
    samples = np.concatenate([speech(40), np.full(40 * RATE, 0.25), speech(40, seed=1)])
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    found = embed_recording(Level(), tmp_path / "a.wav")
    ends = [Level().embed(samples[part]) for part in (slice(640000), slice(1280000, None))]
    np.testing.assert_allclose(found.embedding, np.mean(ends, axis=0), rtol=1e-4)
    assert found.changes == (WINDOWS,)
    soundfile.write(tmp_path / "b.wav", np.full(70 * RATE, 0.25), RATE, subtype="FLOAT")
    with pytest.raises(BadAudioError, match=r"b\.wav is silent"):
        embed_recording(Level(), tmp_path / "b.wav")


def test_errors_of_an_encoder_are_its_own(tmp_path: Path) -> None:
    class Refuses:
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            raise MemoryError("no memory left")

    soundfile.write(tmp_path / "a.wav", speech(70), RATE)
    with pytest.raises(MemoryError, match="no memory left"):
        embed_recording(Refuses(), tmp_path / "a.wav")
    bad = speech(70)
    bad[-5] = np.nan
    soundfile.write(tmp_path / "b.wav", bad, RATE, subtype="FLOAT")
    with pytest.raises(BadAudioError, match="NaN or infinite"):
        embed_recording(Level(), tmp_path / "b.wav")


def test_commands_say_so(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("a", "b")):
        soundfile.write(tmp_path / f"{name}.wav", speech(65, seed=seed), RATE)
    paths = [str(tmp_path / f"{name}.wav") for name in "ab"]
    encoder = SpeakerEncoder(files["waveform"])
    corpus = Corpus.of_files(paths)
    found = extract(encoder, corpus, list(corpus.paths))
    assert found.changes == {WINDOWS: 2}
    assert cli.main(["verify", str(files["waveform"]), *paths]) == 0
    assert capsys.readouterr().out.count(f".wav: {WINDOWS}") == 2
    out = tmp_path / "out.npy"
    assert cli.main(["embed", f"--model={files['waveform']}", f"--out={out}", *paths]) == 0
    assert f"2 files: {WINDOWS}" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="in 2 windows"):
        expected = [encoder.embed(audio.read(path).samples) for path in paths]
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-4)


PROGRAM = """
import sys
from tfq_sv.evaluation.extraction import embed_recording
from tfq_sv.export import SpeakerEncoder
encoder = SpeakerEncoder(sys.argv[1])
embed_recording(encoder, sys.argv[2])
# getrusage's peak would be that of the process that started this one.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's count")
def test_memory_does_not_grow_with_length(files: dict[str, Path], tmp_path: Path) -> None:
    peaks = []
    minute = speech(60)
    for minutes in (2, 20):
        with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        command = [sys.executable, "-c", PROGRAM, str(files["waveform"]), str(tmp_path / "a.flac")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 40, peaks
