"""What rounding costs: k-means codebooks and trellis codes, in dB of signal over noise.

    python benchmarks/trellis_distortion.py --checkpoint campplus_cn_en_common.pt

Each kernel of a PyTorch checkpoint (--checkpoint), and random ones of Gaussian and Student's t
weights, rounded without calibration. A kernel's noise is relative to its own power; the mean over
kernels is weighted by their sizes. "Bound" is a Gaussian's rate-distortion function, which no code
for such weights exceeds.
"""

import argparse

import numpy as np

from tfq_sv import codebook
from tfq_sv.quantization import trellis
from tfq_sv.reports.table import Table


def kernels(checkpoint: str) -> list[np.ndarray]:
    """Returns a checkpoint's kernels as (channels, inputs), whose inputs fill bytes."""
    import torch

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    found = []
    for weights in state.values():
        if weights.ndim >= 2 and weights[0].numel() % trellis.block(0.5) == 0:
            taps_first = np.moveaxis(weights.float().numpy(), 1, -1)
            found.append(taps_first.reshape(len(weights), -1))
    return found


def random_kernels(degrees: float) -> list[np.ndarray]:
    """Returns kernels of Student's t weights; of Gaussian ones, if the degrees are infinite."""
    rng = np.random.default_rng(0)
    draw = (
        rng.normal(size=(8, 128, 512))
        if np.isinf(degrees)
        else rng.standard_t(degrees, (8, 128, 512))
    )
    return list(draw)


def noise(kernel: np.ndarray, bits: float, method: str) -> float:
    """Returns a rounded kernel's noise, relative to its power."""
    if method == "trellis":
        codes, scales = trellis.fit(kernel, bits)
        rounded = trellis.decode(codes, trellis.table(bits)) * scales
    else:
        per_channel = method == "k-means, channel scales"
        power = np.mean(kernel**2, axis=1, keepdims=True) if per_channel else np.float64(1)
        scales = np.sqrt(np.where(power > 0, power, 1))
        centroids = codebook.fit_on_grid(kernel / scales, int(bits))
        rounded = centroids[codebook.assign(kernel / scales, centroids)] * scales
    return float(np.sum((kernel - rounded) ** 2) / np.sum(kernel**2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", help="PyTorch state dictionary")
    parser.add_argument("--bits", type=float, nargs="+", default=[0.5, 1, 2, 4])
    arguments = parser.parse_args()
    sources = {"Gaussian": random_kernels(np.inf), "Student's t, 5 degrees": random_kernels(5)}
    if arguments.checkpoint:
        sources[arguments.checkpoint.rpartition("/")[2]] = kernels(arguments.checkpoint)
    for name, matrices in sources.items():
        sizes = np.array([matrix.size for matrix in matrices])
        rows = []
        for bits in arguments.bits:
            row = [f"{bits:g}"]
            for method in ("k-means", "k-means, channel scales", "trellis"):
                if bits < 1 and method != "trellis":
                    row += ["-", "-"]
                    continue
                found = np.array([noise(matrix, bits, method) for matrix in matrices])
                mean = np.sum(found * sizes) / np.sum(sizes)
                row += [f"{-10 * np.log10(mean):.2f}", f"{-10 * np.log10(found.max()):.2f}"]
            rows.append([*row, f"{20 * bits * np.log10(2):.2f}"])
        print(
            f"{name}: {len(matrices)} kernels, {sizes.sum():,} weights; dB, mean and worst kernel"
        )
        heads = ["k-means", "worst", "channel scales", "worst", "trellis", "worst"]
        print(Table(["bits", *heads, "bound"], rows), flush=True)


if __name__ == "__main__":
    main()
