"""What runtimes make of one file: how far their embeddings are from the installed LiteRT's.

    python benchmarks/old_runtimes.py --model=model.keras --corpus=corpus/test --train=corpus/train

The files are the converter's own and ours, calibrated to a minute of training speech, with features
input. Each is run as the installed LiteRT does by default, which is what the others are compared
with, in it without XNNPACK, and in older runtimes, which are installed into a temporary folder.
Differences are lengths, relative to the embedding's: the mean over utterances, and the greatest.
What `inflate` returns is compared byte by byte.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from parity import loaded, quantized

from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.experiments import baselines
from tfq_sv.export import convert, encoder
from tfq_sv.features import fbank
from tfq_sv.models import front_end
from tfq_sv.reports.table import Table

OLD = {
    "tflite-runtime==2.14.0": "tflite_runtime.interpreter",
    "ai-edge-litert==1.2.0": "ai_edge_litert.interpreter",
}
SAMPLES = 32240  # 200 frames
INFLATE = " inflate"

# In a process of its own: an old runtime wants an old NumPy.
PROGRAM = """
import importlib, json, sys
import numpy as np
module, paths, features, out, delegates = json.loads(sys.argv[1])
runtime = importlib.import_module(module)
resolver = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
options = {} if delegates else {"experimental_op_resolver_type": resolver}
found = {}
for path in paths:
    try:
        interpreter = runtime.Interpreter(model_path=path, **options)
    except ValueError:  # an op that is newer than the runtime
        continue
    place, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    embeddings = []
    for each in np.load(features):
        interpreter.resize_tensor_input(place["index"], each[None].shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place["index"], each[None])
        interpreter.invoke()
        embeddings.append(interpreter.get_tensor(answer["index"])[0])
    found[path] = embeddings
    if "inflate" in interpreter.get_signature_list():
        inflate = interpreter.get_signature_runner("inflate")
        found[path + " inflate"] = inflate(request=np.zeros(1, np.int32))["tflite"]
np.savez(out, **found)
"""


def main(arguments: argparse.Namespace) -> None:
    network = loaded(arguments.model)
    corpus = Corpus.read(arguments.corpus)
    utterances = list(corpus.paths.values())[:: max(1, len(corpus.paths) // arguments.utterances)]
    waveforms = [np.resize(audio.read(path).samples, SAMPLES) for path in utterances]
    speech = [fbank(np.float32(samples), front_end(network)) for samples in waveforms]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = made(network, arguments, folder, speech)
        np.save(folder / "features.npy", speech)
        new = f"LiteRT {version('ai-edge-litert')}"
        module = "ai_edge_litert.interpreter"
        expected = embeddings(files, folder, module)
        others = {f"{new}, no XNNPACK": embeddings(files, folder, module, delegates=False)}
        for requirement, old in OLD.items():
            place = folder / requirement
            pip = [sys.executable, "-m", "pip", "install", "-qq", "--target", str(place)]
            subprocess.run([*pip, requirement, "numpy<2"], check=True, stderr=subprocess.DEVNULL)
            others[requirement.replace("==", " ")] = embeddings(files, folder, old, place)
    rows = [
        [name, *(distances(found.get(name), expected[name]) for found in others.values())]
        for name in files
    ]
    print(f"{len(speech)} utterances of 2 s: mean, greatest distance from {new}, %")
    print(Table(["file", *others], rows))
    inflating = [key for key in expected if key.endswith(INFLATE)]
    alike = [
        np.array_equal(found[key], expected[key])
        for key in inflating
        for found in others.values()
        if key in found
    ]
    print(f"\n{len(inflating)} files inflated: {sum(alike)} of {len(alike)} times the same bytes")


def made(
    network: Any, arguments: argparse.Namespace, folder: Path, speech: list[Any]
) -> dict[str, Path]:
    """Writes the files: name -> path."""
    forms = baselines.converter_forms(network, folder, speech)
    files = {name: forms[name] for name in ("float32", "dynamic-range int8")}
    wanted = [(bits, False) for bits in arguments.bits]
    wanted += [(bits, True) for bits in arguments.trellis]
    for bits, trellis in wanted:
        model = quantized(arguments.model, bits, arguments.train, trellis)
        code = f"{bits:g} bit{' trellis' * trellis}"
        for compute in ("float32", "int8"):
            packed = folder / f"{code}-{compute}.tflite"
            convert.export_tflite(model, packed, "features", compute=compute)
            inner = folder / f"{code}-{compute}-inflated.tflite"
            inner.write_bytes(encoder.inflate(packed))
            files[f"{code}, {compute} compute, embed"] = packed
            files[f"{code}, {compute} compute, inflated"] = inner
    return files


def embeddings(
    files: dict[str, Path], folder: Path, module: str, place: Path | None = None, *,
    delegates: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Returns what a runtime makes of all utterances: name -> (N, embed_dim), of what it loads."""
    out = folder / "embeddings.npz"
    paths = [str(path) for path in files.values()]
    request = json.dumps([module, paths, str(folder / "features.npy"), str(out), delegates])
    environment = {**os.environ, "PYTHONPATH": str(place)} if place else None
    isolated = ["-S"] if place else []  # or the installed NumPy comes first
    command = [sys.executable, *isolated, "-c", PROGRAM, request]
    subprocess.run(command, env=environment, check=True)
    with np.load(out) as found:
        return {
            name + kind: found[f"{path}{kind}"]
            for name, path in files.items()
            for kind in ("", INFLATE)
            if f"{path}{kind}" in found
        }


def distances(found: Any, expected: Any) -> str:
    """Returns the mean and the greatest distance, relative, in percent."""
    if found is None:
        return "does not load"
    relative = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return f"{100 * np.mean(relative):.4f}, {100 * np.max(relative):.4f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="trained, not quantized: .keras, or a name")
    parser.add_argument("--corpus", required=True, help="test speech")
    parser.add_argument("--train", required=True, help="training speech, for calibration")
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4, 1])
    parser.add_argument("--trellis", type=float, nargs="*", default=[4, 0.5])
    parser.add_argument("--utterances", type=int, default=20)
    main(parser.parse_args())
