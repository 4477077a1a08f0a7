"""SpeechBrain's filter banks: `features.fbank` for options of the kind "speechbrain".

As `speechbrain.lobes.features.Fbank` computes them, with the mean of the sentence subtracted:

- frames centred on multiples of the shift, with zeros before and after the signal;
- a periodic Hamming window, and the power of an FFT that is as long as the frame;
- triangles in Hz around centres at equal steps of mel = 2595 log10(1 + Hz / 700); both sides of a
  triangle are as wide as its left one;
- 10 log10 of at least 1e-10, then at least the utterance's largest value less 80 dB.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tfq_sv.features import FbankOptions

LEAST_POWER = 1e-10
TOP_DB = 80.0
DB_PER_NEPER = 10.0 / float(np.log(10.0))
"""10 log10(x) = DB_PER_NEPER ln(x)."""

Floats = npt.NDArray[np.float32]


def fbank(samples: Floats, options: "FbankOptions") -> Floats:
    """Computes features of one signal: float32 (N,) -> (T, num_bins)."""
    half = options.frame_length // 2
    padded = np.pad(samples * np.float32(options.sample_scale), half)
    frames = np.lib.stride_tricks.sliding_window_view(padded, options.frame_length)
    frames = frames[:: options.frame_shift] * window(options)
    power = np.abs(np.fft.rfft(frames)).astype(np.float32) ** 2
    energies = np.log(np.maximum(power @ mel_matrix(options), np.float32(LEAST_POWER)))
    energies = np.float32(DB_PER_NEPER) * energies
    energies = np.maximum(energies, energies.max() - np.float32(TOP_DB))
    return energies - energies.mean(axis=0) if options.subtract_mean else energies


def fbank_tensor(waveforms: Any, options: "FbankOptions") -> Any:
    """The same in TensorFlow, for batches: float32 (B, N) -> (B, T, num_bins)."""
    import tensorflow as tf

    half = options.frame_length // 2
    padded = tf.pad(waveforms * options.sample_scale, [[0, 0], [half, half]])
    frames = tf.signal.frame(padded, options.frame_length, options.frame_shift) * window(options)
    power = tf.square(tf.abs(tf.signal.rfft(frames)))
    return decibels(power @ mel_matrix(options), options)


def decibels(energies: Any, options: "FbankOptions") -> Any:
    """Mel energies in TensorFlow -> features, the last two axes being (T, num_bins)."""
    import tensorflow as tf

    energies = DB_PER_NEPER * tf.math.log(tf.maximum(energies, LEAST_POWER))
    loudest = tf.reduce_max(energies, axis=[-2, -1], keepdims=True)
    energies = tf.maximum(energies, loudest - TOP_DB)
    if options.subtract_mean:
        energies -= tf.reduce_mean(energies, axis=-2, keepdims=True)
    return energies


def triangles(options: "FbankOptions") -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns the filters' centres and the widths of their sides, both in Hz: (num_bins,)."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (options.low_freq, options.high_freq))
    edges = 700 * (10 ** (np.linspace(low, high, options.num_bins + 2) / 2595) - 1)
    return edges[1:-1], np.diff(edges)[:-1]


@lru_cache
def mel_matrix(options: "FbankOptions") -> Floats:
    """Returns the filters: float32 (fft_length // 2 + 1, num_bins)."""
    centres, widths = triangles(options)
    places = np.linspace(0, options.sample_rate / 2, options.fft_length // 2 + 1)[:, None]
    return np.maximum(0.0, 1 - np.abs(places - centres) / widths).astype(np.float32)


@lru_cache
def window(options: "FbankOptions") -> Floats:
    """Returns what a frame is multiplied with: float32 (frame_length,)."""
    turns = np.arange(options.frame_length) / options.frame_length
    return (0.54 - 0.46 * np.cos(2 * np.pi * turns)).astype(np.float32)
