"""How long a network takes to load, quantize and export, on an idle machine.

    python benchmarks/seconds.py campplus.keras --speech=librispeech

Seconds of the clock, each step once and in this order, in one process that has imported TensorFlow.
The three ways of quantizing start from the float network each.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tfq_sv
from tfq_sv.cli.common import load_network
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.export import export_tflite
from tfq_sv.reports.table import markdown


def main(name: str, speech: str, bits: int) -> None:
    """Prints the table."""
    network, loading = timed(lambda: load_network(name))
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits)
    stream = batches(Corpus.read(speech, unlabelled=True), batch_size=10, seconds=3.0)
    minute = list(itertools.islice(stream, 2))
    rows = [("load", loading)]
    ways = {"rounding": False, "calibrated without speech": True, "calibrated to a minute": minute}
    for way, calibrate in ways.items():
        small, seconds = timed(lambda c=calibrate: tfq_sv.quantize(network, recipe, calibrate=c))
        rows.append((f"quantize, {way}", seconds))
    with tempfile.TemporaryDirectory() as folder:
        _, exporting = timed(lambda: export_tflite(small, Path(folder) / "a.tflite"))
    rows.append(("export", exporting))
    cells = [(step, f"{seconds:.1f}") for step, seconds in rows]
    print("\n".join(markdown((f"{Path(name).stem}, {bits} bits", "s"), cells)))


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and how long it took."""
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="float network")
    parser.add_argument("--speech", required=True, help="a corpus; a minute of it is used")
    parser.add_argument("--bits", type=int, default=4)
    arguments = parser.parse_args()
    main(arguments.network, arguments.speech, arguments.bits)
