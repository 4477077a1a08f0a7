"""Noises and rooms for `tfq-sv train --musan=noises --rirs=rooms` where MUSAN cannot be had.

    python benchmarks/noises.py --corpus=corpus/train --noises=noises --rooms=rooms

`noises` is laid out as MUSAN is: noise/ (pink, its level wandering), speech/ (recordings of the
corpus) and music/ (chords of decaying harmonics), 60 files of each kind; `rooms` holds 60 impulse
responses that decay by 60 dB in 0.2 to 0.9 s. The same seed makes the same files.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

from tfq_sv.data.audio import SAMPLE_RATE, read
from tfq_sv.data.conditions import Samples, pink_noise, synthetic_room
from tfq_sv.data.corpus import Corpus

COUNT = 60
SECONDS = 10
PEAK = 0.5


def main(options: argparse.Namespace) -> None:
    """Writes both folders."""
    rng = np.random.default_rng(options.seed)
    for index in range(COUNT):
        write(options.noises / "noise" / f"{index}.flac", noise(rng))
        write(options.noises / "music" / f"{index}.flac", music(rng))
        write(options.rooms / f"{index}.flac", synthetic_room(rng.uniform(0.2, 0.9), rng))
    talks = sorted(Corpus.read(options.corpus).paths.items())
    for index in rng.permutation(len(talks))[:COUNT]:
        write(options.noises / "speech" / f"{index}.flac", read(talks[index][1]).samples)
    print(f"wrote {options.noises} and {options.rooms}")


def noise(rng: np.random.Generator) -> Samples:
    """Pink noise whose level takes a new value, within 20 dB, each half second."""
    size = SECONDS * SAMPLE_RATE
    levels = rng.uniform(-20, 0, 2 * SECONDS + 1)
    wander = np.interp(np.linspace(0, len(levels) - 1, size), np.arange(len(levels)), levels)
    return (pink_noise(size, rng) * 10 ** (wander / 20)).astype(np.float32)


def music(rng: np.random.Generator) -> Samples:
    """Chords of three tones of eight harmonics, which die away; one every 0.2 to 0.8 s."""
    size = SECONDS * SAMPLE_RATE
    samples = np.zeros(size)
    harmonics = np.arange(1, 9)[:, np.newaxis]
    start = 0
    while start < size:
        time = np.arange(min(size - start, 2 * SAMPLE_RATE)) / SAMPLE_RATE
        for tone in 110 * 2 ** (rng.integers(0, 36, 3) / 12):
            waves = np.sin(2 * np.pi * tone * harmonics * time) / harmonics
            samples[start : start + len(time)] += waves.sum(axis=0) * np.exp(-3 * time)
        start += round(rng.uniform(0.2, 0.8) * SAMPLE_RATE)
    return samples.astype(np.float32)


def write(path: Path, samples: Samples) -> None:
    """Writes a FLAC of half the full scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples * (PEAK / np.abs(samples).max()), SAMPLE_RATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, help="whose recordings are the babble")
    parser.add_argument("--noises", type=Path, required=True)
    parser.add_argument("--rooms", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
