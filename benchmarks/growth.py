"""How the time of quantizing, calibrating, reopening, exporting and loading grows with the layers.

    python benchmarks/growth.py

Narrow networks, so that layers count and not their weights. Seconds of the processor on one thread,
which other work on the machine changes little; the least of `--rounds`. A time is linear in the
layers if its cost per kernel does not grow: the table has that too, relative to the first
network's.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import numpy as np
from file_sizes import randomize

import tfq_sv
from tfq_sv.export import SpeakerEncoder, export_tflite
from tfq_sv.quantization.quantizers import quantizable
from tfq_sv.reports.table import markdown

NETWORKS = ["ResNet34", "DF_ResNet110", "ResNet221", "ResNet293"]  # 37, 113, 225, 297 kernels
CHANNELS = 8
STEPS = ("quantize", "calibrate", "reopen", "export", "first embedding", "the same, inflated")


def main(networks: list[str], bits: int, rounds: int) -> None:
    """Prints the seconds, and those per kernel."""
    found = {}
    measure(tfq_sv.models.build("ResNet18", channels=CHANNELS), bits)  # loads what loads late
    for name in networks:
        network = tfq_sv.models.build(name, channels=CHANNELS, embed_dim=64)
        randomize(network)
        kernels = len(quantizable(network))
        times = [measure(network, bits) for _ in range(rounds)]
        found[name] = kernels, {step: min(one[step] for one in times) for step in STEPS}
        print(name, kernels, {step: round(t, 2) for step, t in found[name][1].items()}, flush=True)
    print()
    first, base = next(iter(found.values()))
    rows = []
    for name, (kernels, seconds) in found.items():
        cells = [
            f"{seconds[step]:.2f} ({seconds[step] / kernels / (base[step] / first):.2f})"
            for step in STEPS
        ]
        rows.append((name, str(kernels), *cells))
    print("\n".join(markdown(("network", "kernels", *STEPS), rows)))
    print("\nseconds (per kernel, relative to the first)")


def measure(network: Any, bits: int) -> dict[str, float]:
    """Seconds of the processor for each step."""
    with tempfile.TemporaryDirectory() as folder:
        path, keras_file = Path(folder) / "a.tflite", f"{folder}/a.keras"
        os.environ["XDG_CACHE_HOME"] = folder  # so that nothing is inflated already
        recipe = tfq_sv.QuantizationRecipe.uniform(network, bits)
        quantized, quantizing = timed(lambda: tfq_sv.quantize(network, recipe, calibrate=False))
        _, calibrating = timed(lambda: tfq_sv.calibrate(quantized, progress=False))
        quantized.save(keras_file)
        quantized, reopening = timed(lambda: tfq_sv.load_model(keras_file))
        _, exporting = timed(lambda: export_tflite(quantized, path, "features"))
        features = np.zeros((200, 80), np.float32)
        _, small = timed(lambda: SpeakerEncoder(path, fast=False).embed(features))
        _, inflated = timed(lambda: SpeakerEncoder(path).embed(features))
    seconds = (quantizing, calibrating, reopening, exporting, small, inflated)
    return dict(zip(STEPS, seconds, strict=True))


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds that it took of the processor."""
    start = time.process_time()
    found = run()
    return found, time.process_time() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.networks, arguments.bits, arguments.rounds)
