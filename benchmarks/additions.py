"""Makes noise, babble, music and rooms to train with, where MUSAN and RIRS_NOISES are not at hand.

    python benchmarks/additions.py additions --speech=FOLDER

writes additions/musan/{noise,speech,music} and additions/rirs, which `tfq-sv train` reads with
--musan and --rirs: noise of random spectra and envelopes, recordings of FOLDER (babble is mixed
from them), chords, and impulse responses of random decay. The same arguments give the same files.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf
from scipy import signal

from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus

RATE, SECONDS = audio.SAMPLE_RATE, 6.0
SIZE = round(RATE * SECONDS)
Samples = npt.NDArray[np.float64]


def noise(rng: np.random.Generator) -> Samples:
    """A random slope and random peaks of the spectrum, swelling slowly or coming in bursts."""
    frequency = np.fft.rfftfreq(SIZE, 1 / RATE)
    level = (frequency + 50) ** -rng.uniform(0, 1.2)
    for _ in range(rng.integers(0, 4)):
        centre, width = rng.uniform(100, 6000), rng.uniform(20, 400)
        level *= 1 + rng.uniform(1, 20) * np.exp(-(((frequency - centre) / width) ** 2))
    hiss = np.fft.irfft(np.fft.rfft(rng.normal(size=SIZE)) * level, SIZE)
    return hiss * envelope(rng, per_second=rng.choice([0.5, 4.0]))


def music(rng: np.random.Generator) -> Samples:
    """Chords of decaying harmonics, one after the other."""
    out = np.zeros(SIZE)
    time = np.arange(RATE) / RATE
    for start in range(0, SIZE - RATE, round(RATE * rng.uniform(0.2, 0.7))):
        for pitch in 110 * 2 ** (rng.integers(0, 36, 3) / 12):
            for harmonic in range(1, 7):
                phase = rng.uniform(0, 2 * np.pi)
                tone = np.sin(2 * np.pi * pitch * harmonic * time + phase) / harmonic
                out[start : start + RATE] += tone * np.exp(-time * rng.uniform(2, 8))
    return out


def room(rng: np.random.Generator) -> Samples:
    """A direct sound, early reflections and an exponential tail of 0.1 to 0.8 s."""
    decay = rng.uniform(0.1, 0.8)
    time = np.arange(round(RATE * decay)) / RATE
    tail = rng.normal(size=time.size) * 10 ** (-3 * time / decay)
    tail[: RATE // 400] = 0
    tail *= np.sqrt(10 ** (-rng.uniform(0, 15) / 10) / np.sum(tail**2))
    tail = signal.lfilter([1 - (damping := rng.uniform(0, 0.6))], [1, -damping], tail)
    tail[0] = 1
    return tail


def envelope(rng: np.random.Generator, per_second: float) -> Samples:
    """A smooth positive curve that changes so many times per second."""
    knots = 10 ** rng.normal(0, 0.4, round(SECONDS * per_second) + 2)
    return np.interp(np.linspace(0, knots.size - 1, SIZE), np.arange(knots.size), knots)


def write(path: Path, samples: npt.NDArray[np.floating]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, 0.5 * samples / np.abs(samples).max(), RATE, subtype="PCM_16")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--speech", required=True, help="folder of speech, for babble")
    parser.add_argument("--files", type=int, default=60, help="of each kind")
    arguments = parser.parse_args()
    speech = list(Corpus.read(arguments.speech, unlabelled=True).paths.values())
    for number in range(arguments.files):
        for kind, make in (("musan/noise", noise), ("musan/music", music), ("rirs", room)):
            rng = np.random.default_rng([number, len(kind)])
            write(arguments.out / kind / f"{number:03d}.wav", make(rng))
        source = speech[number * len(speech) // arguments.files]
        write(arguments.out / f"musan/speech/{number:03d}.wav", audio.read(source).samples)


if __name__ == "__main__":
    main()
