"""Trains the tables of `tfq_sv.quantization.trellis` and writes them to tfq_sv/assets/trellis.npz.

    python benchmarks/trellis_table.py

The weights are drawn from Student's t with 8 degrees of freedom, which is between a Gaussian and
the kernels of published networks. As in k-means: encode all, move each entry to the mean of the
weights that it serves, and again. About two minutes.
"""

from pathlib import Path

import numpy as np

import tfq_sv
from tfq_sv.codebook import GRID_LEVELS
from tfq_sv.quantization import trellis

DEGREES, CHANNELS, INPUTS, ROUNDS = 8, 32, 8192, 25
FORMS = {0.5: (1, 2), 1: (1, 1), 2: (2, 1), 4: (4, 1)}  # bits: (bits per code, weights per code)
PEAK = {0.5: 5.0, 1: 5.0, 2: 5.0, 4: 6.0}  # in deviations: what lies beyond is rare


def train(weights: np.ndarray, bits: float) -> np.ndarray:
    """Returns a float table (2**(k + 8), v)."""
    step, values = FORMS[bits]
    entries, cells = 2 ** (step + 8), 8 // step
    rng = np.random.default_rng(1)
    table = rng.permutation(
        np.quantile(weights, np.linspace(0.5 / entries, 1 - 0.5 / entries, entries))
    )
    table = np.stack([rng.permutation(table) for _ in range(values)], axis=1)
    targets = weights.reshape(len(weights), -1, cells, values)
    for _ in range(ROUNDS):
        words = trellis.words(trellis.encode(weights, table)).astype(np.int64)
        windows = words[:, :, None] >> step * np.arange(cells) & entries - 1
        counts = np.bincount(windows.ravel(), minlength=entries)
        for value in range(values):
            sums = np.bincount(windows.ravel(), targets[..., value].ravel(), minlength=entries)
            table[:, value] = np.where(counts, sums / np.maximum(counts, 1), table[:, value])
    return table


def decibels(weights: np.ndarray, rounded: np.ndarray) -> float:
    """Returns signal over noise."""
    return float(10 * np.log10(np.sum(weights**2) / np.sum((weights - rounded) ** 2)))


def main() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_t(DEGREES, (CHANNELS, INPUTS))
    weights /= weights.std()
    content = {}
    for bits in FORMS:
        table = train(weights, bits)
        unit = GRID_LEVELS / min(np.abs(table).max(), PEAK[bits])
        levels = np.clip(np.rint(table * unit), -GRID_LEVELS, GRID_LEVELS).astype(np.int8)
        decoded = trellis.decode(trellis.encode(weights, table), table)
        rounded = trellis.decode(trellis.encode(weights * unit, levels), levels) / unit
        print(
            f"{bits} bits: {decibels(weights, decoded):.2f} dB, "
            f"on the int8 grid {decibels(weights, rounded):.2f} dB; {unit:.1f} levels per unit",
            flush=True,
        )
        content[f"levels_{bits}"], content[f"deviation_{bits}"] = levels, np.float32(unit)
    np.savez(Path(tfq_sv.__file__).parent / "assets" / "trellis.npz", **content)


if __name__ == "__main__":
    main()
