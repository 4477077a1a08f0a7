import kaldi_native_fbank
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from tfq_sv.errors import InputError
from tfq_sv.features import (
    SHERPA,
    THREE_D_SPEAKER,
    WESPEAKER,
    FbankOptions,
    fbank,
    fbank_tensor,
)

PRESETS = {"wespeaker": WESPEAKER, "3dspeaker": THREE_D_SPEAKER, "sherpa": SHERPA}
RNG = np.random.default_rng(0)


def speech(samples: int) -> np.ndarray:
    """Glottal pulses of a gliding pitch through formants, in syllables, with some breath."""
    time = np.arange(samples) / 16000
    phase = np.cumsum(110 + 30 * np.sin(2 * np.pi * 1.3 * time)) / 16000
    source = np.diff(np.floor(phase), prepend=0) + RNG.normal(0, 0.01, samples)
    for formant, width in [(600, 80), (1200, 120), (2600, 200)]:
        radius = np.exp(-np.pi * width / 16000)
        poles = [1, -2 * radius * np.cos(2 * np.pi * formant / 16000), radius**2]
        source = scipy.signal.lfilter([1], poles, source)
    return 0.3 * source / np.abs(source).max() * np.clip(2 * np.sin(2 * np.pi * 2 * time), 0, 1)


SIGNALS = {
    "noise": RNG.normal(0, 0.1, 24000),
    "tone": 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000),
    "speech": speech(24123),
    "clipped": np.clip(RNG.normal(0, 3, 8000), -1, 1),
    "one frame": RNG.normal(0, 0.1, 400),
    "silence": np.zeros(4000),
}


def kaldi(waveform: np.ndarray, options: FbankOptions) -> np.ndarray:
    settings = kaldi_native_fbank.FbankOptions()
    settings.frame_opts.dither = 0
    settings.frame_opts.window_type = options.window
    settings.frame_opts.snip_edges = options.snip_edges
    settings.mel_opts.num_bins = options.num_bins
    settings.mel_opts.low_freq = options.low_freq
    settings.mel_opts.high_freq = options.high_freq
    settings.energy_floor = 0
    computer = kaldi_native_fbank.OnlineFbank(settings)
    computer.accept_waveform(options.sample_rate, (waveform * options.sample_scale).tolist())
    computer.input_finished()
    frames = np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    return frames - frames.mean(axis=0) if options.subtract_mean else frames


@pytest.mark.parametrize("options", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("name", SIGNALS)
def test_both_forms_equal_kaldi(name: str, options: FbankOptions) -> None:
    waveform = SIGNALS[name].astype(np.float32)
    expected = kaldi(waveform, options)
    computed = fbank(waveform, options)
    assert computed.dtype == np.float32
    assert computed.shape == expected.shape == (options.num_frames(waveform.size), 80)
    # A pure tone leaves bins near the floor, where float32 spectra are mostly rounding.
    tolerance = 2e-2 if name == "tone" else 1e-3
    np.testing.assert_allclose(computed, expected, atol=tolerance)
    tensor = fbank_tensor(tf.constant(waveform[None]), options)
    np.testing.assert_allclose(tensor[0], expected, atol=tolerance)


@pytest.mark.parametrize("samples", [80, 81, 119, 121, 239, 240, 241, 399, 561])
def test_very_short_signals_are_mirrored_as_kaldi_does(samples: int) -> None:
    waveform = RNG.normal(0, 0.1, samples).astype(np.float32)
    expected = kaldi(waveform, SHERPA)
    np.testing.assert_allclose(fbank(waveform, SHERPA), expected, atol=1e-3)
    np.testing.assert_allclose(fbank_tensor(waveform[None], SHERPA)[0], expected, atol=1e-3)


@pytest.mark.parametrize("options", PRESETS.values(), ids=PRESETS)
def test_the_shortest_signal_has_one_frame(options: FbankOptions) -> None:
    assert options.num_frames(options.min_samples) == 1
    assert options.num_frames(options.min_samples - 1) == 0


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(399), "399 samples are too few for a frame; it takes 400"),
        (np.zeros((2, 800)), "one dimension"),
        (np.full(800, np.nan), "NaN"),
        (np.full(800, -1e30), r"samples reach 1e\+30; they must be in \[-1, 1\]"),
    ],
)
def test_bad_waveforms_are_refused(waveform: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fbank(waveform)


def test_unknown_window() -> None:
    with pytest.raises(InputError, match="not 'hann'"):
        FbankOptions(window="hann")
