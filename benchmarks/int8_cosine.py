"""What int8 compute changes of a network's embeddings, on real speech.

    python benchmarks/int8_cosine.py --models=ecapa.keras --speech=librispeech

Each network is rounded to --bits and exported twice, with `compute="int8"` and `compute="float32"`.
Prints the mean and the least cosine between their embeddings, both inflated and by `embed`.
Where the mean is below 0.999, `tfq_sv.export.layer_noise` names the layers that lose most.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np

import tfq_sv
from tfq_sv.cli.common import load_network
from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.export import SpeakerEncoder, export_tflite
from tfq_sv.reports.table import markdown

LEAST = 0.999


def main(options: argparse.Namespace) -> None:
    """Prints the table."""
    paths = sorted(Corpus.read(options.speech).paths.values())
    chosen = paths[:: max(1, len(paths) // options.recordings)]
    speech = [audio.read(path).samples for path in chosen]
    rows = []
    for path in options.models:
        network = load_network(path)
        for bits in options.bits:
            recipe = tfq_sv.QuantizationRecipe.uniform(network, bits)
            quantized = tfq_sv.quantize(network, recipe, calibrate=False)
            for fast in (False, True):
                found = {
                    compute: embeddings(quantized, compute, fast, speech)
                    for compute in ("float32", "int8")
                }
                cosines = (found["float32"] * found["int8"]).sum(axis=1)
                form = "inflate" if fast else "embed"
                mean, least = f"{cosines.mean():.6f}", f"{cosines.min():.6f}"
                holds = "yes" if cosines.mean() >= LEAST else "NO"
                rows.append((Path(path).stem, str(bits), form, mean, least, holds))
                print(rows[-1], flush=True)
    heading = ("network", "bits", "signature", "mean cosine", "least", f"mean at least {LEAST}")
    print(f"\n{len(speech)} recordings of {Path(options.speech).name}\n")
    print("\n".join(markdown(heading, rows)))


def embeddings(quantized: object, compute: str, fast: bool, speech: list[np.ndarray]) -> np.ndarray:
    """Embeddings by the exported file, of length 1: (recordings, embed_dim)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tflite"
        export_tflite(quantized, path, compute=compute)
        encoder = SpeakerEncoder(path, fast=fast, check_speech=False)
        found = np.stack([encoder.embed(samples) for samples in speech])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", required=True, help="float networks")
    parser.add_argument("--speech", required=True, help="folder of speech")
    parser.add_argument("--recordings", type=int, default=40, help="at most about so many")
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4])
    main(parser.parse_args())
