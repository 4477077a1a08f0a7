"""Whether files verify as their Keras networks do, at each bit width, by both signatures.

    python benchmarks/parity.py resnet18-small corpus/test --train=corpus/train --out=parity.json

For each bit width the network is quantized and calibrated to a minute of training speech, without
which few bits leave little of a network. Each line compares the file in the LiteRT interpreter with
that quantized network in Keras, on equal trials. What is measured is kept in --out as it comes: a
run that is called again resumes there.

The project asks, of float32 compute, Keras' EER to 0.01 points and scores to 1e-4; of int8 compute,
0.10 points and a mean cosine of 0.9995.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import settings

import tfq_sv
from tfq_sv import assets
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import KerasEncoder
from tfq_sv.export import export_tflite
from tfq_sv.export.validation import Parity, validate
from tfq_sv.files import atomic

COMPUTES = ("float32", "int8")
BATCHES = 3  # of 10 chunks of 2 s, for calibration
HEADER = [
    *("bits", "compute", "signature", "EER %, Keras", "EER %, .tflite", "difference, points"),
    *("95 %", "cosine, mean", "worst", "score change", "flips", "as asked"),
]


class Remembering:
    """An encoder that computes each embedding once."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._known: dict[bytes, Any] = {}

    def embed(self, waveform: Any) -> Any:
        key = waveform.tobytes()
        if key not in self._known:
            self._known[key] = self._encoder.embed(waveform)
        return self._known[key]


def main(arguments: argparse.Namespace) -> bool:
    corpus = Corpus.read(arguments.corpus)
    trials = Trials.read(arguments.trials or Path(arguments.corpus) / "trials.txt", corpus)
    out = Path(arguments.out)
    given = {
        name: str(getattr(arguments, name)) for name in ("network", "corpus", "trials", "train")
    }
    settings.keep(out.with_suffix(".settings.json"), given)
    rows: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    for bits in arguments.bits:
        missing = [
            c for c in COMPUTES if (bits, c) not in {(r["bits"], r["compute"]) for r in rows}
        ]
        if not missing:
            continue
        network = quantized(arguments.network, bits, arguments.train)
        reference = Remembering(KerasEncoder(network))
        for compute in missing:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "network.tflite"
                export_tflite(network, path, compute=compute)
                found = validate(path, reference, corpus, trials, progress=True)
            rows += [row(bits, compute, found.reference.eer, parity) for parity in found.parities]
            with atomic(out) as temporary:
                temporary.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{len(trials):,} trials, {len(trials.utterances):,} utterances\n")
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|")
    for found_row in rows:
        print("| " + " | ".join(cells(found_row)) + " |")
    return all(as_asked(found_row) for found_row in rows)


def loaded(path: str) -> Any:
    """A file's network, or one of those that are shipped."""
    return assets.load(path) if path in assets.NAMES else tfq_sv.load_model(path)


def quantized(path: str, bits: float, train: str, trellis: bool = False) -> Any:
    network = loaded(path)
    recipes = tfq_sv.QuantizationRecipe
    recipe = recipes.trellis(network, bits) if trellis else recipes.uniform(network, int(bits))
    speech = batches(Corpus.read(train), batch_size=10, seconds=2.0)
    return tfq_sv.quantize(network, recipe, calibrate=itertools.islice(speech, BATCHES))


def row(bits: int, compute: str, eer: float, parity: Parity) -> dict[str, Any]:
    return {
        "bits": bits,
        "compute": compute,
        "signature": parity.signature,
        "keras": eer,
        "eer": parity.result.eer,
        "interval": parity.difference,
        "cosine": float(np.mean(parity.cosines)),
        "worst": float(np.min(parity.cosines)),
        "score_change": parity.score_change,
        "flips": parity.flips,
    }


def cells(found: dict[str, Any]) -> list[str]:
    low, high = (100 * bound for bound in found["interval"])
    return [
        str(found["bits"]),
        found["compute"],
        found["signature"],
        f"{100 * found['keras']:.3f}",
        f"{100 * found['eer']:.3f}",
        f"{100 * (found['eer'] - found['keras']):+.3f}",
        f"[{low:+.3f}, {high:+.3f}]",
        f"{found['cosine']:.6f}",
        f"{found['worst']:.6f}",
        f"{found['score_change']:.1e}",
        str(found["flips"]),
        "yes" if as_asked(found) else "NO",
    ]


def as_asked(found: dict[str, Any]) -> bool:
    difference = abs(found["eer"] - found["keras"])
    if found["compute"] == "float32":
        return difference <= 1e-4 and found["score_change"] <= 1e-4
    return difference <= 1e-3 and found["cosine"] >= 0.9995


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="trained, not quantized (.keras, or a shipped name)")
    parser.add_argument("corpus", help="test speech with trials.txt")
    parser.add_argument("--trials", help="another trial list")
    parser.add_argument("--train", required=True, help="training speech, for calibration")
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4, 3, 2, 1])
    parser.add_argument("--out", default="parity.json", help="where results are kept")
    sys.exit(not main(parser.parse_args()))
