"""File sizes of full-size networks at each bit width: `python benchmarks/file_sizes.py`.

The weights are random: a file's size depends on the network and the bits alone, but for a few
bytes. Prints a Markdown table. Takes some minutes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import tf_keras as keras

import tfq_sv
from tfq_sv.export import export_float32, export_tflite


def main(networks: list[str], bits: list[int]) -> None:
    print("| network | float32 .tflite, MB | " + " | ".join(f"{b} bit" for b in bits) + " |")
    print("|---" * (2 + len(bits)) + "|")
    for name in networks:
        keras.utils.set_random_seed(0)
        network = tfq_sv.models.build(name)
        with tempfile.TemporaryDirectory() as folder:
            whole = export_float32(network, Path(folder) / "float32.tflite")
            cells = []
            for width in bits:
                recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=width)
                small = tfq_sv.quantize(network, recipe)
                size = export_tflite(small, Path(folder) / "small.tflite").bytes
                cells.append(f"{size / 1e6:.2f} ({whole / size:.1f}x)")
        print(f"| {name} | {whole / 1e6:.2f} | " + " | ".join(cells) + " |")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=["ResNet34", "ResNet50", "DF_ResNet56"])
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4, 3, 2, 1])
    arguments = parser.parse_args()
    main(arguments.networks, arguments.bits)
