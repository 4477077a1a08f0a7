"""What happens to speech on its way: codecs, noise, rooms, little of it, wrong levels."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tfq_sv.data.audio import SAMPLE_RATE, BadAudioError
from tfq_sv.data.codecs import CODECS

Samples = npt.NDArray[np.float32]
Change = Callable[[Samples, np.random.Generator], Samples]

REVERBERATION = 0.6
"""Seconds in which the synthetic room's echo decays by 60 dB: a living room's."""

OVERDRIVE = 12.0
"""dB by which the peak exceeds full scale before it is clipped."""


@dataclass(frozen=True)
class Condition:
    """One of them.

    Attributes:
        name: for tables.
        change: samples at 16 kHz (N,) and a generator -> samples.
    """

    name: str
    change: Change

    def __call__(self, samples: Samples, seed: int = 0) -> Samples:
        """Samples at 16 kHz in [-1, 1], (N,), changed: the same for the same samples and seed.

        Raises:
            BadAudioError: shorter than the seconds asked for.

        >>> second = next(condition for condition in CONDITIONS if condition.name == "1 s")
        >>> second(np.zeros(32000, np.float32)).shape
        (16000,)
        """
        samples = np.ascontiguousarray(samples, np.float32)
        rng = np.random.default_rng([seed, zlib.crc32(samples.tobytes())])
        return self.change(samples, rng)


def loudest(waveform: Samples, samples: int) -> Samples:
    """The part (samples,) of a waveform (N,) that has most energy; the first of equal ones.

    Raises:
        BadAudioError: it is shorter.

    >>> loudest(np.array([0.0, 0.1, 0.5, 0.4, 0.0], np.float32), 2)
    array([0.5, 0.4], dtype=float32)
    """
    if len(waveform) < samples:
        raise BadAudioError("too short", f"{len(waveform)} samples; {samples} are asked for")
    energy = np.append(0.0, np.cumsum(np.square(waveform, dtype=np.float64)))
    start = int(np.argmax(energy[samples:] - energy[: len(energy) - samples]))
    return waveform[start : start + samples]


def add_noise(samples: Samples, noise: Samples, snr: float) -> Samples:
    """Adds a noise of the same length at a signal-to-noise ratio, in dB over the chunk.

    What would leave [-1, 1] is scaled down as a whole. A silent chunk or noise changes nothing.

    >>> speech, noise = np.ones(4, np.float32) / 2, np.float32([1, -1, 1, -1])
    >>> print((add_noise(speech, noise, 20.0) - speech).round(3))
    [ 0.05 -0.05  0.05 -0.05]
    """
    power, noise_power = (float(np.mean(np.square(x), dtype=np.float64)) for x in (samples, noise))
    if not power or not noise_power:
        return samples
    gain = math.sqrt(power / noise_power) * 10 ** (-snr / 20)
    return _within(samples + np.float32(gain) * noise)


def add_reverberation(samples: Samples, rir: Samples) -> Samples:
    """Convolves with a room impulse response, scaled to energy 1; the length stays.

    >>> print(add_reverberation(np.float32([0.5, 0, 0]), np.float32([3, 4])).round(3))
    [0.3 0.4 0. ]
    """
    from scipy import signal  # which the runtime does without

    energy = float(np.sum(np.square(rir), dtype=np.float64))
    if not energy:
        return samples
    wet = signal.fftconvolve(samples, rir / np.float32(math.sqrt(energy)))[: len(samples)]
    return _within(wet.astype(np.float32))


def pink_noise(size: int, rng: np.random.Generator) -> Samples:
    """Noise (size,) of equal power in every octave from 50 Hz on, as rooms and streets have it."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum /= np.sqrt(np.maximum(frequency, 50.0))
    return np.fft.irfft(spectrum, size).astype(np.float32)


def synthetic_room(seconds: float, rng: np.random.Generator) -> Samples:
    """An impulse response: the direct sound, then noise of the same energy that decays by 60 dB.

    >>> rir = synthetic_room(0.5, np.random.default_rng(0))
    >>> rir.shape, round(float(np.sum(rir[1:] ** 2)), 3)
    ((8000,), 1.0)
    """
    decay = 10.0 ** (-3 * np.arange(round(seconds * SAMPLE_RATE)) / (seconds * SAMPLE_RATE))
    tail = rng.standard_normal(len(decay)) * decay
    tail[0] = 0
    tail /= np.linalg.norm(tail)
    tail[0] = 1
    return tail.astype(np.float32)


def _noise(samples: Samples, rng: np.random.Generator, snr: float) -> Samples:
    return add_noise(samples, pink_noise(len(samples), rng), snr)


def _room(samples: Samples, rng: np.random.Generator) -> Samples:
    return add_reverberation(samples, synthetic_room(REVERBERATION, rng))


def _quiet(samples: Samples, rng: np.random.Generator) -> Samples:
    """30 dB less, of 16 bits: what is lost is lost to rounding."""
    return (np.round(samples * np.float32(10**-1.5) * 32768) / 32768).astype(np.float32)


def _clipped(samples: Samples, rng: np.random.Generator) -> Samples:
    peak = float(np.abs(samples).max()) or 1.0
    return np.clip(samples * np.float32(10 ** (OVERDRIVE / 20) / peak), -1, 1)


def _coded(samples: Samples, rng: np.random.Generator, name: str) -> Samples:
    return CODECS[name](samples)


def _short(samples: Samples, rng: np.random.Generator, seconds: float) -> Samples:
    return loudest(samples, round(seconds * SAMPLE_RATE))


def _within(samples: Samples) -> Samples:
    peak = float(np.abs(samples).max())
    return samples / np.float32(peak) if peak > 1 else samples


CONDITIONS = (
    *(Condition(name, partial(_coded, name=name)) for name in CODECS),
    *(Condition(f"noise {snr} dB", partial(_noise, snr=float(snr))) for snr in (20, 10, 0)),
    Condition(f"reverberation {REVERBERATION:g} s", _room),
    *(
        Condition(f"{seconds} s", partial(_short, seconds=float(seconds)))
        for seconds in (1, 2, 3, 6)
    ),
    Condition("level -30 dB", _quiet),
    Condition("clipping", _clipped),
)
"""Those that `tfq-sv evaluate --conditions` measures. Noise is pink; of a recording of some seconds
the loudest are taken."""
