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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tfq_sv
from tfq_sv.cli.common import load_network
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.export import export_tflite
from tfq_sv.reports.table import markdown


def main(name: str, speech: str, bits: int) -> None:
    """Prints the table."""
    stream = batches(Corpus.read(speech, unlabelled=True), batch_size=10, seconds=3.0)
    minute = list(itertools.islice(stream, 2))
    ways = {"rounding": False, "calibrated without speech": True, "calibrated to a minute": minute}
    rows = []
    with step("load", rows):
        network = load_network(name)
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits)
    for way, calibrate in ways.items():
        with step(f"quantize, {way}", rows):
            small = tfq_sv.quantize(network, recipe, calibrate=calibrate)
    with tempfile.TemporaryDirectory() as folder, step("export", rows):
        export_tflite(small, Path(folder) / "a.tflite")
    print("\n".join(markdown((f"{Path(name).stem}, {bits} bits", "s"), rows)))


@contextmanager
def step(name: str, rows: list[tuple[str, str]]) -> Iterator[None]:
    """Adds a row with the seconds that the block takes."""
    start = time.perf_counter()
    yield
    rows.append((name, f"{time.perf_counter() - start:.1f}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="float network")
    parser.add_argument("--speech", required=True, help="a corpus; a minute of it is used")
    parser.add_argument("--bits", type=int, default=4)
    arguments = parser.parse_args()
    main(arguments.network, arguments.speech, arguments.bits)
