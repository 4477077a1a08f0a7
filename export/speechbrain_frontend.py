"""SpeechBrain's front end as a part of the graph; see `frontend`.

RFFT2D takes powers of two alone, and a matrix of a DFT over 400 samples would be 640 KB. With the
sample n = c p + q and the frequency k = j + r m, the DFT of r c samples is one of r over p, a turn
of each by its j and q, and one of c over q (Cooley and Tukey, 1965): three tables of 8 KB.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv import features, speechbrain_features
from tfq_sv.features import RADIX, FbankOptions

Tables = dict[str, npt.NDArray[np.float32]]


def constants(options: FbankOptions) -> Tables:
    """Returns the tables that `log_mel` takes, by name: float32."""
    rows, columns = 2 * RADIX, options.frame_length // (2 * RADIX)
    kept = columns // 2 + 1  # steps of `rows` frequencies up to Nyquist's
    first = _turns(np.outer(np.arange(rows), np.arange(rows)) / rows)
    twist = _turns(np.outer(np.arange(rows), np.arange(columns)) / options.frame_length)
    second = _turns(np.outer(np.arange(columns), np.arange(kept)) / columns)
    centres, widths = speechbrain_features.triangles(options)
    step = options.sample_rate / options.frame_length
    # Frequencies above Nyquist's are the mirror image of others: no filter may see them.
    places = np.arange(kept)[:, None] * rows + np.arange(rows)
    hertz = np.where(places > options.frame_length // 2, -1e9, places * step).reshape(-1, 1)
    tables = {
        "window": features.window(options) * options.sample_scale,
        "first_real": first.real,
        "first_imag": first.imag,
        "twist_real": twist.real,
        "twist_imag": twist.imag,
        "second_real": second.real,
        "second_imag": second.imag,
        "hertz": hertz,
        "centres": centres,
        "widths": widths,
    }
    return {name: table.astype(np.float32) for name, table in tables.items()}


def _turns(share: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    return np.exp(-2j * np.pi * share)


def log_mel(frames: Any, options: FbankOptions, tables: Mapping[str, Any]) -> Any:
    """Computes features of frames in TensorFlow: (T, frame_length) -> (1, T, num_bins)."""
    import tensorflow as tf

    rows = 2 * RADIX
    x = tf.reshape(frames * tables["window"], [-1, rows, options.frame_length // rows])
    real, imag = tables["first_real"] @ x, tables["first_imag"] @ x  # symmetric: (T, j, q)
    turn = tables["twist_real"], tables["twist_imag"]
    real, imag = real * turn[0] - imag * turn[1], real * turn[1] + imag * turn[0]
    turn = tables["second_real"], tables["second_imag"]
    power = tf.square(real @ turn[0] - imag @ turn[1]) + tf.square(real @ turn[1] + imag @ turn[0])
    power = tf.reshape(tf.transpose(power, [0, 2, 1]), [-1, int(tables["hertz"].shape[0])])
    distances = tf.abs(tables["hertz"] - tables["centres"]) / tables["widths"]
    energies = power @ tf.nn.relu(1.0 - distances)
    energies = speechbrain_features.decibels(energies, options)
    return tf.reshape(energies, [1, -1, options.num_bins])
