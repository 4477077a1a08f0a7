"""Augmentation on small trees of the shape that MUSAN and RIRS_NOISES have."""

from pathlib import Path

import numpy as np
import pytest
from conftest import RATE, TONES, tone, write
from hypothesis import given
from hypothesis import strategies as st

from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.training import augment
from tfq_sv.training.augment import Augmenter


@given(
    snr=st.floats(-20, 40), level=st.floats(1e-3, 0.3), other=st.floats(1e-3, 1), seed=st.integers()
)
def test_noise_has_the_snr_asked_for(snr: float, level: float, other: float, seed: int) -> None:
    rng = np.random.default_rng(abs(seed))
    speech, noise = (rng.normal(0, x, 4000).astype(np.float32) for x in (level, other))
    mixed = augment.add_noise(speech, noise, snr)
    # Scaled down as a whole or not, what is not speech is the noise; solve for both gains.
    (a, b), *_ = np.linalg.lstsq(
        np.stack([speech, noise], 1).astype(float), mixed.astype(float), rcond=None
    )
    measured = 10 * np.log10(np.mean((a * speech) ** 2) / np.mean((b * noise) ** 2))
    assert measured == pytest.approx(snr, abs=0.05)
    assert np.abs(mixed).max() <= 1.000001
    if np.abs(mixed).max() < 0.999:
        assert a == pytest.approx(1, abs=1e-3)


def test_silence_stays_silence() -> None:
    silence, noise = np.zeros(100, np.float32), np.ones(100, np.float32)
    assert not augment.add_noise(silence, noise, 0.0).any()
    np.testing.assert_array_equal(augment.add_noise(noise, silence, 0.0), noise)
    np.testing.assert_array_equal(augment.add_reverberation(noise, silence), noise)


@given(size=st.integers(1, 400), rir_size=st.integers(1, 600), seed=st.integers(0, 1000))
def test_reverberation_is_a_convolution(size: int, rir_size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech, rir = (rng.normal(0, 0.01, n).astype(np.float32) for n in (size, rir_size))
    wet = augment.add_reverberation(speech, rir)
    expected = np.convolve(speech, rir / np.linalg.norm(rir))[:size]
    np.testing.assert_allclose(wet, expected, atol=1e-6)
    louder = augment.add_reverberation(speech, 100 * rir)  # the response's level does not matter
    np.testing.assert_allclose(louder, wet, atol=1e-6)


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_changes_pitch_and_length(speed: float) -> None:
    changed = augment.change_speed(tone(1000).astype(np.float32), speed)
    assert changed.dtype == np.float32
    assert len(changed) == np.ceil(RATE / speed)
    spectrum = np.abs(np.fft.rfft(changed[: RATE // 2]))
    assert np.argmax(spectrum) * 2 == pytest.approx(1000 * speed, abs=2)


def test_the_shares_and_ranges_are_the_recipes(
    musan: Path, rirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, float]] = []
    real = augment.add_noise

    def noted(samples: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
        peak = np.argmax(np.abs(np.fft.rfft(noise))) * RATE / len(noise)
        kind = min(TONES, key=lambda kind: abs(TONES[kind] - peak))
        drawn.append((kind, snr))
        return real(samples, noise, snr)

    monkeypatch.setattr(augment, "add_noise", noted)
    for root in (musan, musan.parent):
        assert {kind: len(x) for kind, x in augment.find_noises(root).items()} == {
            "noise": 2, "speech": 2, "music": 3
        }  # fmt: skip
    found = augment.find_rirs(rirs)
    assert found == augment.find_rirs(rirs.parent)
    assert len(found) == 6
    assert all("simulated_rirs" in str(path) for path in found)
    augmenter = Augmenter(augment.find_noises(musan), found)
    speech = np.random.default_rng(1).normal(0, 0.05, 8000).astype(np.float32)
    changed = sum(
        augmenter(speech, 1.0, np.random.default_rng(i)) is not speech for i in range(1000)
    )
    assert 550 < changed < 650  # probability 0.6, binomial: 600 +- 15
    assert 250 < len(drawn) < 350  # half of them noise
    shares = {kind: sum(k == kind for k, _ in drawn) / len(drawn) for kind in TONES}
    assert shares == pytest.approx({"noise": 2 / 7, "speech": 2 / 7, "music": 3 / 7}, abs=0.1)
    for kind, (low, high) in augment.SNR.items():
        ratios = [snr for k, snr in drawn if k == kind]
        assert low <= min(ratios) < low + 2
        assert high - 2 < max(ratios) <= high


def test_babble_is_several_talkers(musan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = augment.read
    monkeypatch.setattr(
        augment, "read", lambda path, **rest: (read.append(path), real(path, **rest))[1]
    )
    noises = {"speech": augment.find_noises(musan)["speech"]}
    counts = set()
    for seed in range(60):
        read.clear()
        Augmenter(noises, probability=1.0)(
            np.ones(1600, np.float32) / 9, 1.0, np.random.default_rng(seed)
        )
        counts.add(len(read))
    assert counts == {3, 4, 5, 6, 7}


def test_plain_folders_of_short_responses(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "a.wav", np.r_[0.9, np.zeros(399)])  # a click, 25 ms
    rirs = augment.find_rirs(tmp_path / "mine")
    speech = np.random.default_rng(0).normal(0, 0.1, 800).astype(np.float32)
    augmenter = Augmenter(rirs=rirs, probability=1.0)
    np.testing.assert_allclose(augmenter(speech, 1.0, np.random.default_rng(0)), speech, atol=1e-6)
    assert not augmenter.skipped


def test_batches_with_augmentation_depend_on_epoch_and_utterance(
    musan: Path, rirs: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for key in ("ann/a.wav", "ann/b.wav", "bob/c.wav", "bob/d.wav"):
        write(tmp_path / "own" / key, rng.normal(0, 0.1, 12000))
    corpus = Corpus.read(tmp_path / "own")

    def take(start: int, count: int, rows: slice = slice(None)) -> list[tuple[np.ndarray, ...]]:
        augmenter = Augmenter(
            augment.find_noises(musan), augment.find_rirs(rirs), speeds=augment.SPEEDS
        )
        stream = batches(
            corpus, batch_size=4, seconds=0.3, start=start, augmentation=augmenter, rows=rows
        )
        return [next(stream) for _ in range(count)]

    whole = take(0, 12)
    for a, b in zip(whole[5], take(5, 1)[0], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole[2], take(2, 1, slice(2, 4))[0], strict=True):
        np.testing.assert_array_equal(a[2:], b)
    labels = np.concatenate([y for _, y in whole])
    assert set(labels) == set(range(6))  # two speakers, three speeds
    for _, y in whole:  # each epoch has each speaker twice, at any speed
        assert sorted(y % 2) == [0, 0, 1, 1]
    assert all(x.shape == (4, 4800) and x.dtype == np.float32 for x, _ in whole)


def test_bad_noises_are_skipped(musan: Path, rirs: Path) -> None:
    noises, responses = augment.find_noises(musan), augment.find_rirs(rirs)
    noises["noise"][0].write_text("no audio")
    responses[0].write_text("no audio")
    augmenter = Augmenter(noises, responses, probability=1.0)
    for seed in range(60):
        speech = np.ones(1600, np.float32) / 9
        assert np.isfinite(augmenter(speech, 1.0, np.random.default_rng(seed))).all()
    assert set(augmenter.skipped) == {str(noises["noise"][0]), str(responses[0])}
    for path in (*noises["noise"], *responses):
        path.write_text("no audio")
    only = Augmenter({"noise": noises["noise"]}, responses, probability=1.0)
    speech = np.ones(1600, np.float32) / 9
    for seed in range(4):
        np.testing.assert_array_equal(only(speech, 1.0, np.random.default_rng(seed)), speech)


def test_missing_and_empty_trees_are_errors(musan: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MUSAN folder .*none does not exist"):
        augment.find_noises(tmp_path / "none")
    with pytest.raises(InputError, match=r"RIR folder .*none does not exist"):
        augment.find_rirs(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no audio; room impulse"):
        augment.find_rirs(tmp_path / "empty")
    for file in (musan / "music").rglob("*.wav"):
        file.unlink()
    with pytest.raises(InputError, match="has no audio in music/; MUSAN has noise/"):
        augment.find_noises(musan)
    with pytest.raises(InputError, match="aug_prob must be from 0 to 1"):
        Augmenter(probability=6)
