"""The front end as a part of the graph: waveform in, log mel features out, on built-in ops.

The same as `tfq_sv.features`, in a form that stays small in a file and runs at any length. No shape
is computed at run time: delegates refuse whatever comes after a tensor of such a shape.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv import features
from tfq_sv.export import speechbrain_frontend
from tfq_sv.features import FbankOptions

_MIN_SECONDS = 0.2  # less speech says next to nothing about a voice
_BLOCK = 40  # samples at most; long blocks make few slices, short ones a small kernel


def constants(options: FbankOptions) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the tables that `log_mel` takes, by name: float32.

    A filter is a triangle from its neighbours' centres to its own: 1 - distance, in steps from
    centre to centre. Of each FFT bin's place the whole steps and the fraction are kept apart,
    because the last bits of a small weight show in the log.

    >>> sum(table.nbytes for table in constants(features.WESPEAKER).values())
    3976
    """
    if options.kind == "speechbrain":
        return speechbrain_frontend.constants(options)
    nyquist, bins = options.sample_rate / 2, options.fft_length // 2 + 1
    low, high = features.mel([options.low_freq, options.high_freq])
    step = (high - low) / (options.num_bins + 1)
    places = (features.mel(np.linspace(0, nyquist, bins)) - low) / step - 1
    places[-1] = -2  # Kaldi leaves out the Nyquist bin.
    whole = np.floor(places)
    tables = {
        "window": features.window(options) * options.sample_scale,
        "bin_steps": whole[:, None],
        "bin_fractions": (places - whole)[:, None],
        "filter_steps": np.arange(options.num_bins),
    }
    return {name: table.astype(np.float32) for name, table in tables.items()}


def min_samples(options: FbankOptions) -> int:
    """Returns how many samples a file with the front end inside must be given: 0.2 s.

    >>> min_samples(features.WESPEAKER)
    3200
    """
    return max(round(_MIN_SECONDS * options.sample_rate), options.frame_length)


def log_mel(waveform: Any, options: FbankOptions, tables: Mapping[str, Any]) -> Any:
    """Computes features in TensorFlow.

    Args:
        waveform: float32 (1, N), samples in [-1, 1], N at least min_samples(options).
        options: the front end.
        tables: what `constants` returns. They come as arguments because the converter would
            multiply constants out, to 82 KB of filters for instance.

    Returns:
        float32 (1, T, num_bins).

    >>> import tensorflow as tf
    >>> options = features.WESPEAKER
    >>> log_mel(tf.random.normal([1, 16000]), options, constants(options)).shape
    TensorShape([1, 98, 80])
    """
    import tensorflow as tf

    frames = _frames(waveform, options)
    if options.kind == "speechbrain":
        return speechbrain_frontend.log_mel(frames, options, tables)
    frames -= tf.reduce_mean(frames, axis=-1, keepdims=True)
    previous = tf.concat([frames[:, :1], frames[:, :-1]], axis=-1)
    frames = (frames - options.preemphasis * previous) * tables["window"]
    frames = tf.reshape(frames, [-1, 1, options.frame_length])
    spectra = tf.abs(tf.signal.rfft2d(frames, [1, options.fft_length]))
    power = tf.square(tf.reshape(spectra, [-1, spectra.shape[-1]]))
    distances = tf.abs(tables["bin_steps"] - tables["filter_steps"] + tables["bin_fractions"])
    energies = tf.math.log(tf.maximum(power @ tf.nn.relu(1.0 - distances), features.FLOOR))
    if options.subtract_mean:
        energies -= tf.reduce_mean(energies, axis=0, keepdims=True)
    return tf.reshape(energies, [1, -1, options.num_bins])


def _frames(waveform: Any, options: FbankOptions) -> Any:
    """Cuts (1, N) into frames (T, frame_length), by ops whose parameters are constant.

    First into blocks, by a convolution whose kernel is the identity: it drops what does not fill a
    block. A frame is a run of blocks, and the first blocks of all frames are a slice, and so on.
    """
    import tensorflow as tf

    length, shift = options.frame_length, options.frame_shift
    if options.kind == "speechbrain":
        waveform = tf.pad(waveform, [[0, 0], [length // 2, length // 2]])
    elif not options.snip_edges:
        start = shift // 2 - length // 2
        # Just enough after the end for the last frame.
        after = length - shift + shift // 2 + start
        waveform = tf.pad(waveform, [[0, 0], [-start, after]], "SYMMETRIC")
    common = int(np.gcd(length, shift))
    block = max(size for size in range(1, _BLOCK + 1) if common % size == 0)
    identity = np.eye(block, dtype=np.float32).reshape(1, block, 1, block)
    row = tf.reshape(waveform, [1, 1, -1, 1])
    blocks = tf.nn.conv2d(row, identity, [1, 1, block, 1], "VALID")
    blocks = tf.reshape(blocks, [-1, block])
    last = length // block - 1
    slices = [blocks[i : (i - last) or None : shift // block] for i in range(last + 1)]
    return tf.concat(slices, axis=-1)
