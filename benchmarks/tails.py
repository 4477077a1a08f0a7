"""How heavy the tails of a network's kernels are, as published and equalized.

    python benchmarks/tails.py campplus_cn_en_common.pt

Prints the median and the greatest kurtosis of its kernels; a Gaussian has 3. The last line is of
scales that are free for each input and each output of each kernel, which no network can have.
"""

import argparse
import os
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
from scipy.stats import kurtosis

from tfq_sv.cli.common import load_network
from tfq_sv.quantization.equalization import equalize
from tfq_sv.quantization.patches import grouped
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable


def main(path: str) -> None:
    """Prints three lines."""
    network = load_network(path)

    def kernels() -> list[Any]:
        layers = quantizable(network).values()
        return [grouped(getattr(x, str(kernel_attribute(x))).numpy(), x) for x in layers]

    free = [balanced(kernel) for kernel in kernels()]
    show("as published", kernels())
    equalize(network)
    show("equalized", kernels())
    show("with free scales", free)


def balanced(kernel: Any) -> Any:
    """The kernel (G, K, O) with inputs and outputs of one power, by Sinkhorn and Knopp's steps."""
    kernel = kernel.astype(np.float64)
    for _ in range(100):
        for axis in (1, 2):
            kernel = kernel / np.sqrt(np.mean(kernel**2, axis, keepdims=True) + 1e-30)
    return kernel


def show(name: str, kernels: list[Any]) -> None:
    """Prints a line."""
    found = [kurtosis(kernel, axis=None, fisher=False) for kernel in kernels]
    print(f"{name:16}  median {np.median(found):4.1f}  greatest {np.max(found):5.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="what `tfq-sv import` takes")
    main(parser.parse_args().network)
