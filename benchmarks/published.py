"""A published network on real voices: what each width costs, measured in the TFLite interpreter.

    python benchmarks/published.py --network=campplus_cn_en_common.pt \
        --speech=librispeech --test=speechocean762/test --out=published

`--speech` is unlabelled speech, of which at most `--minutes` are used; `--test` has a trials.txt.
Rows "distilled" are calibrated, then fine-tuned for `--steps` towards the float network's
embeddings of `--distill`, speech of other speakers than the test's, without their labels. Rows
"mixed2" have mixed bits, trellises among them, in the size of uniform 2 bits. Rows that are in
`--out` are not made again, if their settings are the same. Cosines are of the embeddings
with those of the float network; EERs are of raw cosines, their intervals and those of the
differences to FP32 by a bootstrap over speakers.
"""

import argparse
import hashlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import settings

import tfq_sv
from tfq_sv.cli.common import load_network
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.extraction import Cache
from tfq_sv.evaluation.measurement import Evaluation, evaluate
from tfq_sv.experiments.network_comparison import WaveformFile
from tfq_sv.export.convert import export_tflite
from tfq_sv.export.encoder import SpeakerEncoder
from tfq_sv.export.float32 import export_float32
from tfq_sv.files import atomic
from tfq_sv.metrics import eer_interval
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.mixed_precision.probes import ProbeOptions
from tfq_sv.reports.table import markdown
from tfq_sv.training.fine_tuning import FineTuningOptions

FLOAT = "FP32"
ROWS = (
    *("8:round", "8:noise", "4:round", "4:noise", "4:speech", "3:speech", "2:speech"),
    *("trellis4:speech", "trellis2:noise", "trellis2:speech", "trellis1:speech"),
    *("4:distilled", "3:distilled", "2:distilled", "trellis2:distilled"),
)
HEADING = ("codes", "calibrated", "MB", "cosine", "EER %", "95 %", "to FP32", "95 %", "s")


def main(options: argparse.Namespace) -> None:
    """Makes the rows that are missing, and prints all."""
    network, test = load_network(options.network), Corpus.read(options.test)
    trials = Trials.read(Path(options.test) / "trials.txt", test)
    base, embeddings = measure(options, FLOAT, network, test, trials)
    rows = []
    for name in options.rows.split(","):
        found, own = measure(options, name, network, test, trials)
        whose = trials.speakers(test)
        low, high = eer_interval(found["scores"], trials.labels, whose, minus=base["scores"])
        cosine = np.mean([np.dot(unit(own[key]), unit(embeddings[key])) for key in embeddings])
        codes, how = name.split(":")
        rows.append(
            (
                codes,
                how,
                f"{found['bytes'] / 1e6:.2f}",
                f"{cosine:.4f}",
                f"{100 * found['eer']:.2f}",
                "{:.2f} to {:.2f}".format(*(100 * np.array(found["interval"]))),
                f"{found['eer'] / base['eer'] - 1:+.1%}",
                f"{100 * low:+.2f} to {100 * high:+.2f} points",
                f"{found['seconds']:.0f}",
            )
        )
        print(rows[-1], flush=True)
    print(f"\n{len(trials):,} trials of {options.test}; speech for calibration: {options.speech}, ")
    if options.distill:
        rate, corpora = f"{options.learning_rate:g}", ", ".join(options.distill)
        print(f"distilled: {options.steps} steps on {corpora}, learning rate {rate}; ", end="")
    print(f"{options.minutes:g} min. FP32: {base['bytes'] / 1e6:.2f} MB, EER", end=" ")
    print(
        "{:.2f} % ({:.2f} to {:.2f})\n".format(*(100 * np.array([base["eer"], *base["interval"]])))
    )
    print("\n".join(markdown(HEADING, rows)))


def measure(
    options: argparse.Namespace, name: str, network: Any, test: Corpus, trials: Trials
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a row's figures and embeddings, kept or made."""
    folder = Path(options.out) / name.replace(":", "-")
    names = ["network", "test"]
    names += ["speech", "minutes"] * (name != FLOAT)
    names += ["distill", "steps", "learning_rate"] * name.endswith("distilled")
    settings.keep(folder / "settings.json", {x: getattr(options, x) for x in names})
    file, results = folder / "model.tflite", folder / "results.json"
    start = time.perf_counter()
    if not file.exists() and name == FLOAT:
        export_float32(network, file)
    elif not file.exists():
        export_tflite(quantized(options, name, network), file)
    if not results.exists():
        with atomic(results) as temporary:
            temporary.write_text(json.dumps({"seconds": time.perf_counter() - start}))
    encoder = WaveformFile(file) if name == FLOAT else SpeakerEncoder(file, check_speech=False)
    cache = Cache(folder / "embeddings", hashlib.sha256(file.read_bytes()).hexdigest())
    result: Evaluation = evaluate(encoder, test, trials, cache=cache, progress=name)
    assert result.extraction is not None
    found = {
        "seconds": json.loads(results.read_text())["seconds"],
        "bytes": file.stat().st_size,
        "eer": result.eer,
        "interval": result.interval,
        "scores": result.scores,
    }
    return found, result.extraction.embeddings


def quantized(options: argparse.Namespace, name: str, network: Any) -> Any:
    """A row's network: its codes, and what it is calibrated with."""
    codes, how = name.split(":")
    if codes.startswith("trellis"):
        recipe = tfq_sv.QuantizationRecipe.trellis(network, float(codes.removeprefix("trellis")))
    elif codes.startswith("mixed"):
        recipe = mixed(options, int(codes.removeprefix("mixed")), network)
    else:
        recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=int(codes))
    if how in ("round", "noise"):
        return tfq_sv.quantize(network, recipe, calibrate=how == "noise", progress=True)
    stream = batches(Corpus.read(options.speech, unlabelled=True), batch_size=10, seconds=3.0)
    minutes = itertools.islice(stream, round(60 * options.minutes / 30))
    small = tfq_sv.quantize(network, recipe, calibrate=minutes, progress=True)
    if how == "distilled":
        corpus = Corpus.joined([Corpus.read(x, unlabelled=True) for x in options.distill])
        rate = options.learning_rate
        tuning = FineTuningOptions(steps=options.steps, learning_rate=rate, precision="bf16")
        speech = batches(corpus, batch_size=16, seconds=1.5)
        tfq_sv.finetune(small, speech, teacher=network, options=tuning)
    return small


def mixed(options: argparse.Namespace, bits: int, network: Any) -> tfq_sv.QuantizationRecipe:
    """A recipe for the predicted size of so many bits, chosen as by `tfq-sv search --trellis`."""
    speech = batches(Corpus.read(options.speech, unlabelled=True), batch_size=16)
    probes, cache = ProbeOptions(max_probes=32), Path(options.out) / "fisher.json"
    traces = tfq_sv.fisher_traces(network, speech, options=probes, cache=cache)
    sizes = FileSize.of(network)
    size = sizes.total(tfq_sv.QuantizationRecipe.uniform(network, bits))
    return tfq_sv.allocate_bits(network, traces, target_bytes=size, trellis=True, sizes=sizes)


def unit(vector: Any) -> Any:
    """Of length one."""
    return vector / np.linalg.norm(vector)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ("network", "speech", "test"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--out", default="published")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--distill", action="append", default=[], help="one or several corpora")
    parser.add_argument("--steps", type=int, default=500, help="of distillation")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="of distillation")
    parser.add_argument("--rows", default=",".join(ROWS), help="widths, and what they see")
    main(parser.parse_args())
