"""Data augmentation as the field does it: speed, noise, music, babble, reverberation and codecs.

Settings follow WeSpeaker's VoxCeleb recipe and, for babble, Kaldi's; the codecs are those that
`tfq-sv evaluate --conditions` measures.
"""

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfq_sv.data import audio
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import read
from tfq_sv.data.codecs import CODECS
from tfq_sv.data.conditions import Samples, add_noise, add_reverberation
from tfq_sv.data.decoding import SUFFIXES
from tfq_sv.errors import InputError

SPEEDS = (1.0, 0.9, 1.1)
SNR = {"noise": (0.0, 15.0), "speech": (10.0, 30.0), "music": (5.0, 15.0)}
"""MUSAN's folders, and the range of signal-to-noise ratios in dB."""
TALKERS = (3, 7)
"""Fewest and most voices that speak at once, as in Kaldi's recipes."""


@dataclass(frozen=True)
class Augmenter:
    """Changes chunks at random; calling it does what `data.chunks.batches` asks for.

    Half of the changed chunks are reverberated, the other half get noise, music or babble, in
    proportion to the files there are; with one kind of tree alone, all get that. Codecs come last,
    whatever came before, as they do in a call.

    Attributes:
        noises: kind of MUSAN -> its files.
        rirs: room impulse responses.
        probability: of a chunk to get noise or reverberation.
        speeds: of which each utterance gets one; speeds but the first make further speakers.
        skipped: noises and responses that turned out bad, and why.
        codec_probability: of a chunk to be coded and decoded, by any of `CODECS` alike.
    """

    noises: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    rirs: Sequence[Path] = ()
    probability: float = 0.6
    speeds: tuple[float, ...] = (1.0,)
    skipped: MutableMapping[str, BadAudioError] = field(default_factory=dict)
    codec_probability: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"aug_prob must be from 0 to 1, not {self.probability}")
        if not 0 <= self.codec_probability <= 1:
            raise InputError(f"codec_prob must be from 0 to 1, not {self.codec_probability}")

    def summary(self) -> dict[str, Any]:
        """What a run is known by: the number of files of each kind, and the settings."""
        counts = {kind: len(self.noises.get(kind, ())) for kind in SNR}
        return {
            **counts,
            "rirs": len(self.rirs),
            "aug_prob": self.probability,
            "speeds": list(self.speeds),
            # Where there is none, as runs of before were known.
            **({"codec_prob": self.codec_probability} if self.codec_probability else {}),
        }

    def __call__(self, samples: Samples, speed: float, rng: np.random.Generator) -> Samples:
        """Samples (N,) -> (N / speed,), rounded up."""
        samples = self._mixed(change_speed(samples, speed), rng)
        if not self.codec_probability or rng.random() >= self.codec_probability:
            return samples
        return list(CODECS.values())[int(rng.integers(len(CODECS)))](samples)

    def _mixed(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """With noise or reverberation, or neither."""
        if rng.random() >= self.probability:
            return samples
        files = [(kind, path) for kind in self.noises for path in self.noises[kind]]
        reverberate = rng.random() < 0.5 if files and self.rirs else bool(self.rirs)
        if reverberate:
            rir = self._draw(self.rirs, rng, lambda path: audio.read(path, seconds=10.0).samples)
            return samples if rir is None else add_reverberation(samples, rir)
        if not files:
            return samples
        kind, _ = files[int(rng.integers(len(files)))]
        noise = self._noise(kind, len(samples), rng)
        return add_noise(samples, noise, rng.uniform(*SNR[kind]))

    def _noise(self, kind: str, size: int, rng: np.random.Generator) -> Samples:
        voices = int(rng.integers(TALKERS[0], TALKERS[1] + 1)) if kind == "speech" else 1
        mixture = np.zeros(size, np.float32)
        for _ in range(voices):
            load = partial(read, seconds=size / audio.SAMPLE_RATE, place=rng.random())
            part = self._draw(self.noises[kind], rng, load)
            if part is not None and part.any():
                mixture += part / np.sqrt(np.mean(np.square(part)))
        return mixture

    def _draw(
        self, files: Sequence[Path], rng: np.random.Generator, load: Callable[[Path], Samples]
    ) -> Samples | None:
        """Loads a file drawn at random, or the next one that can be read; None if none can."""
        first = int(rng.integers(len(files)))
        for attempt in range(len(files)):
            path = files[(first + attempt) % len(files)]
            try:
                return load(path)
            except BadAudioError as error:
                self.skipped[str(path)] = error.without_traceback()
        return None


def change_speed(samples: Samples, speed: float) -> Samples:
    """Plays faster or slower, pitch included, as sox's `speed` does: (N,) -> (N / speed,).

    >>> change_speed(np.zeros(900, np.float32), 0.9).shape
    (1000,)
    """
    if speed == 1:
        return samples
    from scipy import signal  # takes two seconds, which `train --help` need not wait

    ratio = 1 / Fraction(speed).limit_denominator(1000)
    return signal.resample_poly(samples, ratio.numerator, ratio.denominator).astype(np.float32)


def find_noises(musan: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Finds MUSAN's files: the folder that holds noise/, speech/ and music/, or the one above it.

    Raises:
        InputError: it is not there, or lacks one of the three.
    """
    root = _tree(musan, "MUSAN")
    if (root / "musan").is_dir():
        root = root / "musan"
    found = {kind: _audio_files(root / kind) for kind in SNR}
    lacking = [kind for kind, files in found.items() if not files]
    if lacking:
        raise InputError(
            f"{root} has no audio in {', '.join(f'{kind}/' for kind in lacking)}; MUSAN has "
            f"{', '.join(f'{kind}/' for kind in SNR)}"
        )
    return found


def find_rirs(rirs: str | os.PathLike[str]) -> list[Path]:
    """Finds room impulse responses: RIRS_NOISES, of which the simulated ones, or any folder.

    Raises:
        InputError: it is not there, or holds no audio.
    """
    root = _tree(rirs, "RIR")
    simulated = (root / "simulated_rirs", root / "RIRS_NOISES" / "simulated_rirs")
    root = next((folder for folder in simulated if folder.is_dir()), root)
    found = _audio_files(root)
    if not found:
        raise InputError(f"{root} holds no audio; room impulse responses are expected there")
    return found


def _tree(path: str | os.PathLike[str], what: str) -> Path:
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{what} folder {root} does not exist")
    return root


def _audio_files(root: Path) -> list[Path]:
    return sorted(x for x in root.rglob("*") if x.suffix.lower() in SUFFIXES)
