"""Whether a recording is good enough to enroll: enough speech, its level, clipping. NumPy alone.

ENROLMENT.md has the rules; `Quality.kt` and `quality.js` keep the same ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfq_sv.data.speech_check import FRAME, RATE, STEP, no_speech

LEAST_SECONDS = 1.0
LEAST_LEVEL = -50.0
MOST_CLIPPED = 0.01
_ACTIVE_DB = 30.0
_CLIPPED = 0.99


@dataclass(frozen=True)
class Quality:
    """What a recording is like.

    Attributes:
        seconds: net speech, the frames within 30 dB of the loudest.
        level: mean power of those frames, dB below full scale (a full-scale square wave has 0).
        clipped: share of all samples that reach 99 % of full scale.
    """

    seconds: float
    level: float
    clipped: float


def measure(samples: npt.NDArray[np.floating]) -> Quality:
    """Measures a recording (N,) at 16 kHz; see the rules.

    >>> found = measure(0.5 * np.sin(np.arange(16512) * 0.02))
    >>> round(found.seconds, 3), round(found.level, 1), found.clipped
    (1.008, -9.0, 0.0)
    """
    values = np.asarray(samples, np.float64)
    clipped = float(np.mean(np.abs(values) >= _CLIPPED)) if values.size else 0.0
    if values.size < FRAME:
        return Quality(0.0, -np.inf, clipped)
    frames = np.lib.stride_tricks.sliding_window_view(values - values.mean(), FRAME)[::STEP]
    power = np.einsum("nf,nf->n", frames, frames) / FRAME
    loudest = power.max()
    if loudest <= 0:
        return Quality(0.0, -np.inf, clipped)
    active = power[power > loudest * 10 ** (-_ACTIVE_DB / 10)]
    return Quality(len(active) * STEP / RATE, 10 * float(np.log10(active.mean())), clipped)


def problem(samples: npt.NDArray[np.floating]) -> str:
    """Returns why a recording (N,) at 16 kHz should not be enrolled; empty where nothing says so.

    >>> problem(np.random.default_rng(0).normal(0, 0.1, 12000))
    '0.7 s of speech; at least 1 s is needed'
    """
    reason = no_speech(samples)
    if reason:
        return f"perhaps no speech: {reason}"
    quality = measure(samples)
    if quality.seconds < LEAST_SECONDS:
        return f"{quality.seconds:.1f} s of speech; at least {LEAST_SECONDS:g} s is needed"
    if quality.level < LEAST_LEVEL:
        return f"too quiet: {quality.level:.0f} dB; at least {LEAST_LEVEL:g} dB of full scale"
    if quality.clipped > MOST_CLIPPED:
        share = f"{100 * quality.clipped:.1f} % of the samples"
        return f"clipped: {share} are at full scale; at most {100 * MOST_CLIPPED:g} %"
    return ""
