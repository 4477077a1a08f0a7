"""Muted and broken inputs are told from speech, whatever the level, the length and the offset."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.speech_check import EDGES, no_speech

RATE = 16000


def sounds(seconds: float, seed: int = 0) -> dict[str, tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    white = rng.normal(size=len(t))
    spectrum = np.fft.rfft(white)
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), len(t))
    hum = sum(np.sin(2 * np.pi * 50 * k * t + k) / k for k in range(1, 20))
    click = np.zeros(len(t))
    click[len(t) // 3] = 0.9
    return {
        "hum": ("hum", hum + 0.005 * white),
        "mains": ("tone or hum", np.sin(2 * np.pi * 60 * t)),
        "tone": ("tone", np.sin(2 * np.pi * 1000 * t)),
        "sweep": ("tone", np.sin(2 * np.pi * (100 * t + 300 * t * t))),
        "dial tone": ("tone", np.sin(2 * np.pi * 425 * t) * (t % 0.8 < 0.6)),
        "white": ("steady noise", white),
        "pink": ("steady noise", pink),
        "brown": ("steady noise", np.cumsum(white)),
        "fading": ("steady noise", white * (0.1 + t)),
        "bursts": ("steady noise", white * (t % 1.0 < 0.7)),
        "dither": ("steady noise", rng.integers(-1, 2, len(t)) / 2.0**15),
        "click": ("a click", click),
        "click and dither": ("a click", click + rng.integers(-1, 2, len(t)) / 2.0**15),
        "clicks": ("clicks", np.where(np.arange(len(t)) % 8000 == 7, 0.9, 0.0)),
        "offset that jumps": ("clicks", np.floor(3 * t) % 5 - 2),
        "offset that grows": ("a constant", t),
        "offset that dies away": ("hum", np.exp(-t / seconds) + 1e-5 * white),
        "constant": ("a constant", np.full(len(t), 0.25)),
    }


@pytest.mark.parametrize("seconds", [2.0, 3.7, 70.0])
@pytest.mark.parametrize(("gain", "offset"), [(0.1, 0.0), (3e-4, 0.0), (0.1, 0.4)])
def test_what_is_no_speech(seconds: float, gain: float, offset: float) -> None:
    for name, (reason, samples) in sounds(seconds).items():
        scaled = (gain / np.abs(samples).max() * samples + offset).astype(np.float32)
        assert reason in no_speech(scaled), name


def test_synthetic_speech_passes(corpus_dir: Path) -> None:
    """And with noise at 10 dB, at a telephone's band, and cut to a second."""
    rng = np.random.default_rng(0)
    paths = [*Corpus.read(corpus_dir / "train").paths.values()]
    assert len(paths) > 10
    for path in paths:
        samples, _ = soundfile.read(path)
        noise = rng.normal(size=len(samples))
        noise *= samples.std() / noise.std() * 10 ** (-10 / 20)
        spectrum = np.fft.rfft(samples)
        band = np.abs(np.fft.rfftfreq(len(samples), 1 / RATE) - 1850) < 1550
        for changed in (samples, samples + noise, np.fft.irfft(spectrum * band), samples[:RATE]):
            assert no_speech(changed) == ""


def test_little_is_not_judged() -> None:
    for name, (_, samples) in sounds(0.3).items():
        assert no_speech(samples) == "", name


def test_the_bands_cover_the_spectrum() -> None:
    assert EDGES[0] == 2
    assert EDGES[-1] < 257
    assert np.all(np.diff(EDGES) >= 3)
