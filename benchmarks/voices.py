"""More voices from few: copies of recordings whose pitch and formants are moved.

    python benchmarks/voices.py --corpus=train --corpus=librispeech --out=voices

A network that learns towards a teacher's embeddings (`tfq-sv train --teacher`) needs many voices
but no labels: the teacher embeds changed voices as well as real ones. Each recording gives
`--copies` stretches of at most 5 s: played faster or slower, which moves pitch and formants, then
with the formants alone moved (vocal tract length perturbation, Jaitly and Hinton, 2013, on the
spectrum's envelope). The same seed makes the same files.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import soundfile

from tfq_sv.data.audio import SAMPLE_RATE, read
from tfq_sv.data.conditions import Samples
from tfq_sv.data.corpus import Corpus

SECONDS = 5
LARGEST = 1.2
FRAME = 1024
ENVELOPE = 32


def main(options: argparse.Namespace) -> None:
    """Writes a folder per recording, since each copy is a voice of its own."""
    corpora = [Corpus.read(folder, unlabelled=True) for folder in options.corpus]
    recordings = [item for corpus in corpora for item in sorted(corpus.paths.items())]
    tasks = [
        (
            path,
            options.out / f"{key.replace('/', '-')}-{copy}" / "1.flac",
            [options.seed, row, copy],
        )
        for row, (key, path) in enumerate(recordings)
        for copy in range(options.copies)
    ]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write, *zip(*tasks, strict=True), chunksize=16))
    print(f"wrote {len(tasks):,} recordings to {options.out}")


def write(source: Path, path: Path, seed: list[int]) -> None:
    """Writes one changed voice."""
    rng = np.random.default_rng(seed)
    samples = read(source).samples
    speed, formants = LARGEST ** rng.uniform(-1, 1, 2)
    size = min(len(samples), round(SECONDS * speed * SAMPLE_RATE))
    start = rng.integers(len(samples) - size + 1)
    # Played `speed` times as fast: resampled, and still called 16 kHz.
    played = librosa.resample(samples[start : start + size], orig_sr=speed, target_sr=1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(formants_moved(played, formants), -1, 1), SAMPLE_RATE)


def formants_moved(samples: Samples, factor: float) -> Samples:
    """Multiplies the frequencies of the spectrum's envelope; pitch stays.

    The envelope is the magnitude of the first cepstral coefficients alone.
    """
    spectrum = librosa.stft(samples, n_fft=FRAME)
    magnitude = np.log(np.abs(spectrum) + 1e-4)
    cepstrum = np.fft.irfft(magnitude, axis=0)
    cepstrum[ENVELOPE:-ENVELOPE] = 0
    envelope = np.fft.rfft(cepstrum, axis=0).real
    bins = np.arange(len(envelope))
    moved = np.stack([np.interp(bins / factor, bins, column) for column in envelope.T], axis=1)
    moved = librosa.istft(spectrum * np.exp(moved - envelope), n_fft=FRAME, length=len(samples))
    loudness = np.sqrt(np.mean(samples**2) / max(np.mean(moved**2), 1e-12))
    return (moved * loudness).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", action="append", required=True, help="one or several")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=4, help="of each recording")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
