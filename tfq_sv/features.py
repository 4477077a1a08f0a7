"""Filter banks (fbank), Kaldi's and SpeechBrain's: one definition, in NumPy and TensorFlow.

Kaldi's follow `torchaudio.compliance.kaldi.fbank`; WeSpeaker trains with them. Written by hand
because librosa's mel filters are triangles in Hz, Kaldi's are triangles in mel, and a network hears
the difference. SpeechBrain's are in `speechbrain_features`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfq_sv import speechbrain_features
from tfq_sv.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

FLOOR = 1.1920929e-07
"""What the log is taken of at least: Kaldi's choice, float32's epsilon."""

LOUDEST = 32768.0
"""What a sample may be at most: int16's scale does no harm, far louder ones overflow float32."""


@dataclass(frozen=True)
class FbankOptions:
    """What a front end computes; it travels with every network and file.

    Attributes:
        sample_rate: Hz.
        frame_length: samples per frame.
        frame_shift: samples from frame to frame.
        num_bins: mel filters.
        low_freq: lower edge of the first filter, Hz.
        high_freq: upper edge of the last filter, Hz.
        window: "hamming" or "povey".
        preemphasis: coefficient of the first difference.
        sample_scale: what samples in [-1, 1] are multiplied with.
        subtract_mean: subtract each bin's mean over the utterance.
        snip_edges: take only frames that fit wholly into the signal; else one for each shift, and
            what they lack at both ends is the signal mirrored.
        kind: "kaldi"; or "speechbrain", for which window, preemphasis and snip_edges say nothing:
            frames centred on their shifts with zeros around the signal, a periodic Hamming window,
            an FFT as long as the frame, triangles in Hz, dB down to 80 below the loudest.
    """

    sample_rate: int = 16000
    frame_length: int = 400
    frame_shift: int = 160
    num_bins: int = 80
    low_freq: float = 20.0
    high_freq: float = 8000.0
    window: str = "hamming"
    preemphasis: float = 0.97
    sample_scale: float = 32768.0
    subtract_mean: bool = True
    snip_edges: bool = True
    kind: str = "kaldi"

    def __post_init__(self) -> None:
        if self.window not in _WINDOWS:
            raise InputError(f"window must be one of {sorted(_WINDOWS)}, not {self.window!r}")
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {sorted(KINDS)}, not {self.kind!r}")
        if self.kind == "speechbrain" and self.frame_length % (2 * RADIX):
            raise InputError(
                f"frames of SpeechBrain's kind have a multiple of {2 * RADIX} samples, not "
                f"{self.frame_length}"
            )

    @property
    def fft_length(self) -> int:
        """The frame length, rounded up to a power of two in Kaldi's kind."""
        if self.kind == "speechbrain":
            return self.frame_length
        return 1 << (self.frame_length - 1).bit_length()

    @property
    def min_samples(self) -> int:
        """Samples of the shortest signal that has a frame."""
        if self.kind == "speechbrain":
            return 1
        return self.frame_length if self.snip_edges else (self.frame_shift + 1) // 2

    def num_frames(self, num_samples: int) -> int:
        """Frames of a signal of so many samples."""
        if self.kind == "speechbrain":
            return 1 + num_samples // self.frame_shift
        if self.snip_edges:
            return max(0, 1 + (num_samples - self.frame_length) // self.frame_shift)
        return (num_samples + self.frame_shift // 2) // self.frame_shift


KINDS = ("kaldi", "speechbrain")
RADIX = 8
"""What half a frame of SpeechBrain's kind must be a multiple of: the graph's DFT has two steps."""

_WINDOWS = {
    "hamming": lambda n: 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(n) / (n - 1)),
    "povey": lambda n: (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1))) ** 0.85,
}

WESPEAKER = FbankOptions()
THREE_D_SPEAKER = FbankOptions(window="povey", sample_scale=1.0)
SHERPA = FbankOptions(
    window="povey", high_freq=7600.0, sample_scale=1.0, subtract_mean=False, snip_edges=False
)
"""What sherpa-onnx computes unless a network's metadata says otherwise."""

SPEECHBRAIN = FbankOptions(
    kind="speechbrain", low_freq=0.0, preemphasis=0.0, sample_scale=1.0, snip_edges=False
)
"""What SpeechBrain's ECAPA-TDNN is trained with; see `speechbrain_features`."""


def fbank(
    waveform: npt.NDArray[np.floating], options: FbankOptions = WESPEAKER
) -> npt.NDArray[np.float32]:
    """Computes log mel filter bank energies. There is no dither: training adds its own noise.

    Args:
        waveform: (N,), samples in [-1, 1] at `options.sample_rate`.
        options: the front end.

    Returns:
        float32 (T, num_bins), T = options.num_frames(N).

    Raises:
        InputError: not one-dimensional, too short for a frame, not finite, or above `LOUDEST`.

    >>> fbank(np.sin(np.arange(16000) / 5).astype("float32")).shape
    (98, 80)
    """
    samples = np.asarray(waveform, np.float32)
    if samples.ndim != 1:
        raise InputError(f"a waveform has one dimension (N,), not the shape {samples.shape}")
    if samples.size < options.min_samples:
        raise InputError(
            f"{samples.size} samples are too few for a frame; it takes {options.min_samples}"
        )
    check_level(samples)
    if options.kind == "speechbrain":
        return speechbrain_features.fbank(samples, options)
    samples = samples * np.float32(options.sample_scale)
    if not options.snip_edges:
        samples = samples[_mirrored(np.arange(*_reach(samples.size, options)), samples.size)]
    frames = np.lib.stride_tricks.sliding_window_view(samples, options.frame_length)
    frames = frames[:: options.frame_shift]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - np.float32(options.preemphasis) * previous) * window(options)
    power = np.abs(np.fft.rfft(frames, options.fft_length)).astype(np.float32) ** 2
    energies = np.log(np.maximum(power @ mel_matrix(options), np.float32(FLOOR)))
    return energies - energies.mean(axis=0) if options.subtract_mean else energies


def check_level(samples: npt.NDArray[np.floating]) -> None:
    """Raises InputError if samples are NaN, infinite, or far too loud to be in [-1, 1]."""
    peak = np.abs(samples).max(initial=0)
    if not np.isfinite(peak):
        raise InputError("the waveform holds NaN or infinite samples")
    if peak > LOUDEST:
        raise InputError(f"the samples reach {peak:g}; they must be in [-1, 1]")


def fbank_tensor(waveforms: "tf.Tensor", options: FbankOptions = WESPEAKER) -> Any:
    """The same in TensorFlow, for batches: float32 (B, N) -> (B, T, num_bins).

    >>> import tensorflow as tf
    >>> fbank_tensor(tf.random.normal([2, 16000])).shape
    TensorShape([2, 98, 80])
    """
    import tensorflow as tf

    if options.kind == "speechbrain":
        return speechbrain_features.fbank_tensor(waveforms, options)
    samples = waveforms * options.sample_scale
    if not options.snip_edges:
        size = tf.shape(samples)[-1]
        samples = tf.gather(samples, _mirrored(tf.range(*_reach(size, options)), size), axis=-1)
    frames = tf.signal.frame(samples, options.frame_length, options.frame_shift)
    frames -= tf.reduce_mean(frames, axis=-1, keepdims=True)
    previous = tf.concat([frames[..., :1], frames[..., :-1]], axis=-1)
    frames = (frames - options.preemphasis * previous) * window(options)
    power = tf.square(tf.abs(tf.signal.rfft(frames, [options.fft_length])))
    energies = tf.math.log(tf.maximum(power @ mel_matrix(options), FLOOR))
    if options.subtract_mean:
        energies -= tf.reduce_mean(energies, axis=-2, keepdims=True)
    return energies


def mel(hertz: npt.ArrayLike) -> Any:
    """Kaldi's mel scale: 1127 ln(1 + f / 700)."""
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


@lru_cache
def mel_matrix(options: FbankOptions) -> npt.NDArray[np.float32]:
    """Returns the filters, triangles in mel: float32 (fft_length // 2 + 1, num_bins)."""
    if options.kind == "speechbrain":
        return speechbrain_features.mel_matrix(options)
    low, high = mel(options.low_freq), mel(options.high_freq)
    edges = np.linspace(low, high, options.num_bins + 2)
    bins = mel(np.arange(options.fft_length // 2 + 1) * options.sample_rate / options.fft_length)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[-1] = 0.0  # Kaldi leaves out the Nyquist bin.
    return filters.astype(np.float32)


def _reach(size: Any, options: FbankOptions) -> tuple[Any, Any]:
    """Where frames centred on their shifts begin and end: the first is before the signal does."""
    start = options.frame_shift // 2 - options.frame_length // 2
    last = (options.num_frames(size) - 1) * options.frame_shift
    return start, start + last + options.frame_length


def _mirrored(positions: Any, size: Any) -> Any:
    """Maps positions outside [0, size) into it, by reflection at both ends as often as need be.

    Plain arithmetic, which NumPy's arrays and TensorFlow's share.
    """
    there_and_back = 2 * size - 1
    return (there_and_back - abs(2 * (positions % (2 * size)) - there_and_back)) // 2


@lru_cache
def window(options: FbankOptions) -> npt.NDArray[np.float32]:
    """Returns what a frame is multiplied with: float32 (frame_length,)."""
    if options.kind == "speechbrain":
        return speechbrain_features.window(options)
    return _WINDOWS[options.window](options.frame_length).astype(np.float32)
