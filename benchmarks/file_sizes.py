"""File sizes of full-size networks at each bit width: `python benchmarks/file_sizes.py`.

Prints a Markdown table, with the bound that the project sets itself for features input and all
signatures: codes + float32 codebooks + one float32 scale and one float32 bias an output channel +
2.5 KB a quantized layer for everything else. Codes and BatchNorms are random: a file's size depends
on the network and the bits alone, but for a few bytes. With ai-edge-quantizer installed, its int4
file is a row too. Takes some seconds per file.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

import tfq_sv
from tfq_sv.codebook import Codebook, snap
from tfq_sv.export import convert, export_float32, fast

NETWORKS = ["ResNet34", "ResNet50", "DF_ResNet56", "DF_ResNet110"]
HEADER = ["network", "file", "bytes", "smaller", "bound", "holds", "front end adds"]


def main(networks: list[str], bits: list[int]) -> bool:
    """Prints the table; returns whether every file is within its bound."""
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|")
    holds = True
    for name in networks:
        network = tfq_sv.models.build(name)
        randomize(network)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "float32.tflite"
            whole = export_float32(network, path, "features")
            row(name, "float32", f"{whole:,}")
            if int4 := ai_edge_int4(path):
                row(name, "ai-edge-quantizer int4", f"{int4:,}", f"{whole / int4:.2f}x")
        for width in bits:
            books = random_codes(network, width)
            size, most = len(convert.build(network, books, "features").data), bound(network, books)
            cells = [f"{size:,}", f"{whole / size:.2f}x", f"{most:,}"]
            holds = holds and size <= most
            cells.append("yes" if size <= most else "NO")
            cells.append(f"{len(convert.build(network, books).data) - size:,}")
            row(name, f"{width} bit", *cells)
    return holds


def row(*cells: str) -> None:
    padded = [*cells, *[""] * (len(HEADER) - len(cells))]
    print("| " + " | ".join(padded) + " |", flush=True)


def randomize(network: keras.Model) -> None:
    """Gives BatchNorms statistics and gains as trained ones have; quantized, all are positive."""
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            gains = rng.uniform(0.5, 1, n)
            shift, mean, variance = *rng.normal(0, 0.1, (2, n)), rng.uniform(0.5, 1.5, n)
            layer.set_weights([*([gains, shift] if layer.scale else []), mean, variance])


def random_codes(network: keras.Model, bits: int) -> dict[str, Codebook]:
    """Makes every kernel random codes into one codebook; gives them to the network too."""
    rng, books = np.random.default_rng(0), {}
    for layer in network.layers:
        kernel = getattr(layer, "depthwise_kernel", getattr(layer, "kernel", None))
        if kernel is not None:
            centroids = snap(np.sort(rng.normal(0, 0.05, 2**bits)))
            codes = rng.integers(0, 2**bits, kernel.shape).astype(np.uint8)
            books[layer.name] = Codebook(centroids, codes)
            kernel.assign(books[layer.name].decode())
    return books


def bound(network: keras.Model, books: Mapping[str, Codebook]) -> int:
    total = 0
    for layer, book in books.items():
        channels = network.get_layer(layer).output_shape[-1]
        total += -(-book.codes.size * book.bits // 8) + 4 * 2**book.bits + 8 * channels + 2500
    return total


def ai_edge_int4(path: Path) -> int | None:
    """Bytes of ai-edge-quantizer's int4 weights, dynamic activations; None if not installed."""
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError:
        return None
    named = bytearray(fast.plain(path.read_bytes()))  # it wants a name for every tensor
    made: Any = quantizer.Quantizer(named, recipe.dynamic_wi4_afp32()).quantize()
    return len(made.quantized_model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4, 3, 2, 1])
    arguments = parser.parse_args()
    sys.exit(not main(arguments.networks, arguments.bits))
