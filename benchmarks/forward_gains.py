"""What it would cost to fold a BatchNorm's gains into the kernel after its ReLU.

    python benchmarks/forward_gains.py --network=campplus.keras

CAM++ has BatchNorm, ReLU, convolution. Positive gains pass the ReLU and could be a factor of the
kernel's inputs, before it is quantized; the file would hold one vector of floats less for each.
Printed is the error of codes by k-means, relative to the kernel with its gains: with the gains
apart, as files have them, and inside.
"""

import argparse
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np

from tfq_sv import codebook
from tfq_sv.cli.common import load_network
from tfq_sv.quantization.folding import scale_and_shift, unfolded


def main(path: str, bits: int) -> None:
    """Prints the errors, and the bytes of the gains."""
    network = load_network(path)
    apart, inside, tails, size, negative = [], [], [], 0, 0
    for name in unfolded(network):
        follower = network.get_layer(name).outbound_nodes[0].layer.outbound_nodes[0].layer
        if not name.endswith("nonlinear1.batchnorm"):
            continue
        gains, _ = scale_and_shift(network.get_layer(name))
        kernel = follower.kernel.numpy().astype(np.float64)[0, 0]
        whole = kernel * gains[:, None]
        norm = np.linalg.norm(whole)
        apart.append(np.linalg.norm((coded(kernel, bits) - kernel) * gains[:, None]) / norm)
        inside.append(np.linalg.norm(coded(whole, bits) - whole) / norm)
        tails.append((kurtosis(kernel), kurtosis(whole)))
        size, negative = size + 4 * len(gains), negative + int((gains < 0).sum())
    ratio = np.array(inside) / np.array(apart)
    print(f"{len(apart)} kernels, {bits} bits; gains: {size:,} bytes, {negative} negative")
    print(f"relative error, median: apart {np.median(apart):.4f}, inside {np.median(inside):.4f}")
    print(f"ratio: median {np.median(ratio):.3f}; inside is worse in {(ratio > 1).sum()} kernels")
    print("kurtosis, median: apart {:.1f}, inside {:.1f}".format(*np.median(tails, axis=0)))


def coded(kernel: np.ndarray, bits: int) -> np.ndarray:
    """The kernel by the nearest of the centroids that k-means finds."""
    centroids = codebook.fit(kernel.astype(np.float32), bits)
    return np.asarray(centroids[codebook.assign(kernel.astype(np.float32), centroids)], np.float64)


def kurtosis(values: np.ndarray) -> float:
    """The fourth moment over the squared second."""
    centred = values - values.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", required=True, help="CAM++")
    parser.add_argument("--bits", type=int, default=4)
    arguments = parser.parse_args()
    main(arguments.network, arguments.bits)
