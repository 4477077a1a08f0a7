"""Codecs and the other conditions that speech is measured and trained under."""

import itertools

import numpy as np
import pytest
from conftest import RATE
from scipy import signal

from tfq_sv.data import codecs
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.codecs import AMR, CODECS
from tfq_sv.data.conditions import CONDITIONS, add_noise, loudest, pink_noise, synthetic_room
from tfq_sv.training.augment import Augmenter


def voice(size: int, seed: int = 0) -> np.ndarray:
    """Harmonics below 3 kHz, with a swell: what every codec keeps."""
    rng = np.random.default_rng(seed)
    time = np.arange(size) / RATE
    parts = [np.sin(6.2832 * 140 * k * time + rng.uniform(0, 6)) / k for k in range(1, 20)]
    swell = 0.55 + 0.45 * np.sin(6.2832 * 3 * time)
    return (0.15 * np.sum(parts, axis=0) * swell).astype(np.float32)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [400, 3200, 32001])
def test_codecs_keep_length_and_time(name: str, size: int) -> None:
    before = voice(size)
    after = CODECS[name](before)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    assert np.isfinite(after).all()
    if size > 16000 and name != AMR:
        middle = before[8000:24000]
        lags = [float(middle @ after[8000 + lag : 24000 + lag]) for lag in range(-400, 401)]
        assert abs(int(np.argmax(lags)) - 400) <= 4
        assert np.corrcoef(middle, after[8000:24000])[0, 1] > 0.8
    np.testing.assert_array_equal(CODECS[name](before), after)


@pytest.mark.skipif(AMR not in CODECS, reason="needs PyAV below 19")
def test_amr_is_in_time() -> None:
    """Above 400 Hz: below, its filters turn the phase. The pitch rises, so that one lag fits."""
    size = 32000
    pitch = np.linspace(120, 220, size)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    before = (0.05 * np.sum([np.cos(k * phase) for k in range(1, 15)], axis=0)).astype(np.float32)
    band = signal.butter(4, 400, "highpass", fs=RATE, output="sos")
    high, after = (signal.sosfiltfilt(band, x) for x in (before, CODECS[AMR](before)))
    middle = high[8000:24000]
    lags = [float(middle @ after[8000 + lag : 24000 + lag]) for lag in range(-400, 401)]
    assert abs(int(np.argmax(lags)) - 400) <= 2
    assert np.corrcoef(middle, after[8000:24000])[0, 1] > 0.9


def test_without_pyav_there_is_no_amr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "find_spec", lambda name: None)
    assert not codecs._amr()


@pytest.mark.parametrize(
    "name", [name for name in ("G.711 a-law", "G.711 mu-law", "GSM 6.10", AMR) if name in CODECS]
)
def test_telephones_lose_what_is_above_4_khz(name: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    power = np.abs(np.fft.rfft(CODECS[name](noise))) ** 2
    assert power[10000:].mean() < 1e-4 * power[1000:6000].mean()


def test_mu_law_is_its_formula() -> None:
    """Companding by the continuous curve in 256 steps; G.711 has that curve in straight pieces."""
    low = voice(32000)
    mu, coded = 255.0, CODECS["G.711 mu-law"](low)
    companded = np.sign(low) * np.log1p(mu * np.abs(low)) / np.log1p(mu)
    steps = np.round(companded * 127) / 127
    expected = np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(mu)) / mu
    ours, theirs = (float(np.mean((x - low)[800:-800] ** 2)) for x in (coded, expected))
    assert ours == pytest.approx(theirs, rel=0.5)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_conditions_repeat(condition) -> None:
    before = voice(7 * RATE)
    kept = before.copy()
    after = condition(before)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(condition(before), after)
    assert after.dtype == np.float32
    assert np.abs(after).max() <= 1
    if condition.name.endswith(" s") and condition.name[0].isdigit():
        assert len(after) == RATE * int(condition.name[:-2])
        with pytest.raises(BadAudioError, match="are asked for"):
            condition(before[: RATE // 2])
    else:
        assert len(after) == len(before)
    changed = not np.array_equal(condition(before, seed=1), after)
    assert changed == condition.name.startswith(("noise", "reverberation"))


def test_what_conditions_do() -> None:
    at = {condition.name: condition for condition in CONDITIONS}
    before = voice(2 * RATE)
    for snr in (20, 10, 0):
        after = at[f"noise {snr} dB"](before)
        (gain,), (rest,), *_ = np.linalg.lstsq(before[:, None], after, rcond=None)
        assert 10 * np.log10(gain**2 * np.sum(before**2) / rest) == pytest.approx(snr, abs=0.3)
    quiet = at["level -30 dB"](before)
    assert 20 * np.log10(np.std(before) / np.std(quiet)) == pytest.approx(30, abs=0.1)
    np.testing.assert_array_equal(quiet * 32768, np.round(quiet * 32768))
    assert 0.01 < np.mean(np.abs(at["clipping"](before)) == 1) < 0.5


def test_pink_noise_has_equal_power_in_every_octave() -> None:
    power = np.abs(np.fft.rfft(pink_noise(1 << 18, np.random.default_rng(0)))) ** 2
    edges = np.round(np.array([125, 250, 500, 1000, 2000, 4000, 8000]) * (1 << 18) / RATE).astype(
        int
    )
    octaves = [power[a:b].sum() for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(octaves, np.mean(octaves), rtol=0.1)


def test_a_room_decays_by_60_db_in_its_time() -> None:
    tail = synthetic_room(0.5, np.random.default_rng(0))[1:].astype(float)
    left = np.cumsum(tail[::-1] ** 2)[::-1]
    decibels = 10 * np.log10(left[:6000] / left[0])  # of Schroeder's integral
    slope = np.polyfit(np.arange(6000) / RATE, decibels, 1)[0]
    assert slope == pytest.approx(-120, rel=0.1)


def test_loudest_and_noise_are_those_of_training() -> None:
    """One function each: what networks train on is what they are measured under."""
    from tfq_sv.cli import threshold
    from tfq_sv.training import augment

    assert augment.add_noise is add_noise
    assert threshold.loudest is loudest


def test_training_draws_every_codec() -> None:
    chunk = voice(8000)
    coded = {name: codec(chunk).tobytes() for name, codec in CODECS.items()}
    always = Augmenter(codec_probability=1.0)
    drawn = [always(chunk, 1.0, np.random.default_rng(seed)).tobytes() for seed in range(60)]
    assert {*drawn} == {*coded.values()}
    half = Augmenter(codec_probability=0.5)
    same = [
        half(chunk, 1.0, np.random.default_rng(seed)).tobytes() == chunk.tobytes()
        for seed in range(200)
    ]
    assert 0.35 < np.mean(same) < 0.65
    assert "codec_prob" in half.summary()
    assert "codec_prob" not in Augmenter().summary()
