"""What is surely no speech: clicks, tones, hum and noise. NumPy alone; explainable rules.

The rule, which `SpeechCheck.kt` and `speech_check.js` follow too, by the cases of
tests/data/speech_check.json (all logarithms are decibels, 10 log10):

1. Frames of 512 samples at 16 kHz, every 256 (32 ms, every 16 ms), each less the line that fits it
   best, so that an offset that drifts or jumps is no sound. A frame is active if its mean square is
   within 30 dB of the loudest frame's. A recording of less than 0.5 s is not judged; one whose
   least and greatest sample differ by 2^-15 or less is a constant.
2. **Click**: the active frames last 0.04 s at most (frames times 16 ms). **Clicks**: so does each
   run of them.
3. Power spectra of the active frames, Hann window, bins 2 to 256.
   **Tone**: the strongest bin with two neighbours on each side holds, in the median frame, 99 % of
   the power: a whistle, a dial tone, mains hum, a sweep.
   **Clicks** too: the spectral flatness (geometric by arithmetic mean over bins) of the median
   frame is above 0.8; noise has 0.56, speech 0.3 at most.
4. From 1 s of active frames on, **steady**: power in 17 bands (`EDGES`, bins) is averaged over 4
   neighbouring active frames, and taken as a share of the frame's whole, in dB, at least -50. Over
   those groups (in steps of 4), the standard deviation in each band, root mean square over the
   bands, is below 2 dB: the spectrum never changes, as in hum, fans, white and pink noise,
   whatever the level does.

Speech has 9 dB there, 3.4 dB under white or pink noise of its own power (medians). Music, barking
or a crowd pass: this finds muted and broken inputs, and says nothing about what is spoken.
`benchmarks/speech_check.py` counts false alarms on any corpus.
"""

import numpy as np
import numpy.typing as npt

from tfq_sv.windows import CONSTANT

RATE = 16000
FRAME, STEP = 512, 256
EDGES = (2, 5, 8, 11, 14, 18, 23, 29, 36, 45, 56, 70, 87, 108, 134, 167, 208)
"""Where the bands begin; the last bin is the end of all."""

_ACTIVE_DB = 30.0
_LEAST_SECONDS = 0.5
_CLICK_SECONDS = 0.04
_TONE = 0.99
_CLICKS = 0.8
_STEADY_SECONDS = 1.0
_STEADY_DB = 2.0
_GROUP = 4
_FLOOR_DB = -50.0
# 120 dB below the peak, what float32 and a slow curve leave of a frame that is a line.
_ROUNDING = FRAME * 2.0**-40
_PULSES = "clicks: short pulses and nothing else"
# A minute is enough to judge by.
_MOST_FRAMES = 60 * RATE // STEP


def no_speech(samples: npt.NDArray[np.floating]) -> str:
    """Returns why a recording is no speech, in words; empty where nothing says so.

    Args:
        samples: (N,) at 16 kHz, of any level above a step of 16 bits.

    >>> no_speech(np.sin(np.arange(16000) * 0.02))
    'a tone or hum: 100 % of the power lies at one frequency'
    >>> no_speech(np.random.default_rng(0).normal(size=32000))[:34]
    'steady noise or hum: the spectrum '
    """
    if len(samples) < max(FRAME, _LEAST_SECONDS * RATE):
        return ""
    frames = _frames(samples)
    power = np.einsum("nf,nf->n", frames, frames, dtype=np.float64)
    loudest = float(power.max())
    low, high = float(samples.min()), float(samples.max())
    rounding = _ROUNDING * max(abs(low), abs(high)) ** 2
    if not np.isfinite(loudest) or loudest <= rounding or high - low <= CONSTANT:
        return "a constant"
    chosen = power > loudest * 10 ** (-_ACTIVE_DB / 10)
    active = frames[chosen]
    seconds = len(active) * STEP / RATE
    if seconds <= _CLICK_SECONDS:
        return f"a click: all sound lies in {1000 * seconds:.0f} ms"
    if _longest_run(chosen) * STEP / RATE <= _CLICK_SECONDS:
        return _PULSES
    spectra = np.square(np.abs(np.fft.rfft(active * np.hanning(FRAME), axis=1)))[:, 2:]
    spectra = spectra[spectra.sum(axis=1) > 0]
    if not len(spectra):
        return "a constant"
    share = _strongest(spectra)
    if share > _TONE:
        return f"a tone or hum: {100 * share:.0f} % of the power lies at one frequency"
    if _flatness(spectra) > _CLICKS:
        return _PULSES
    change = spectral_change(spectra)
    if seconds >= _STEADY_SECONDS and change < _STEADY_DB:
        return (
            f"steady noise or hum: the spectrum changes by {change:.1f} dB; speech has "
            f"{_STEADY_DB} or more"
        )
    return ""


def spectral_change(spectra: npt.NDArray[np.float64]) -> float:
    """How much power moves between bands over time, dB; `spectra` is (frames, 255), bins from 2."""
    bands = np.add.reduceat(spectra, np.array(EDGES) - EDGES[0], axis=1)
    groups = len(bands) // _GROUP
    if not groups:
        return np.inf
    bands = bands[: groups * _GROUP].reshape(groups, _GROUP, -1).mean(axis=1)
    shares = 10 * np.log10(np.maximum(bands / bands.sum(axis=1, keepdims=True), 1e-12))
    return float(np.sqrt(np.maximum(shares, _FLOOR_DB).var(axis=0).mean()))


def _longest_run(chosen: npt.NDArray[np.bool_]) -> int:
    """How many frames in a row are chosen, at most."""
    ends = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    return int((ends[1::2] - ends[::2]).max(initial=0))


def _frames(samples: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    count = (len(samples) - FRAME) // STEP + 1
    first = max(0, (count - _MOST_FRAMES) // 2)  # the middle of a long one
    part = samples[first * STEP : (first + min(count, _MOST_FRAMES) - 1) * STEP + FRAME]
    frames = np.lib.stride_tricks.sliding_window_view(part.astype(np.float64), FRAME)[::STEP]
    time = np.arange(FRAME) - (FRAME - 1) / 2
    centred = frames - frames.mean(axis=1, keepdims=True)
    slopes = centred @ time / (time @ time)
    return np.asarray(centred - slopes[:, None] * time)


def _strongest(spectra: npt.NDArray[np.float64]) -> float:
    """The median frame's share of power in its strongest bin and two on each side."""
    best = spectra.argmax(axis=1)
    sums = np.cumsum(np.pad(spectra, ((0, 0), (1, 0))), axis=1)
    rows = np.arange(len(spectra))
    last = np.minimum(best + 3, spectra.shape[1])
    near = sums[rows, last] - sums[rows, np.maximum(best - 2, 0)]
    return float(np.median(near / sums[:, -1]))


def _flatness(spectra: npt.NDArray[np.float64]) -> float:
    mean = spectra.mean(axis=1)
    logs = np.log(np.maximum(spectra, 1e-12 * mean[:, None])).mean(axis=1)
    return float(np.median(np.exp(logs) / mean))
