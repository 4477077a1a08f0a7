"""Whether the same commands give the same bytes: `python benchmarks/determinism.py`.

Trains, searches, quantizes, fine-tunes and exports three times, in processes of their own with
other hash seeds, the third with two threads instead of one. The first two must leave the same
recipes, codebooks and `.tflite` files byte for byte; the EER of every file, run with one and two
threads too, must be the same to 0.01 points.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

POINTS = 0.01


def main(
    network: str, target_mb: float, test_speakers: int, threads: tuple[int, ...] = (1, 1, 2)
) -> bool:
    """Returns whether bytes and error rates were the same."""
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        size = ("--speakers=6", f"--test_speakers={test_speakers}", "--utterances=4", "--workers=1")
        _tfq_sv("make-corpus", f"--out={place}/corpus", *size)
        for number, count in enumerate(threads):
            folder = Path(place, str(number))
            folder.mkdir()
            environment = {
                **os.environ,
                **dict.fromkeys(
                    ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
                    str(count),
                ),
                "PYTHONHASHSEED": str(number + 1),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
            command = [sys.executable, __file__, f"--network={network}", f"--worker={folder}"]
            command.append(f"--target_mb={target_mb}")
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    print("| file | same bytes | same with 2 threads | EER %, all ways |\n|---|---|---|---|")
    fine = True
    for name, found in runs[0]["bytes"].items():
        same, *also = (run["bytes"][name] == found for run in runs[1:])
        rates = [rate for run in runs for rate in run["rates"].get(name, ())]
        shown = f"{min(rates):.3f} to {max(rates):.3f}" if rates else ""
        print(f"| {name} | {'yes' if same else 'no'} | {'yes' if all(also) else 'no'} | {shown} |")
        fine &= same and (not rates or max(rates) - min(rates) <= POINTS)
    return fine


def work(network: str, target_mb: float, folder: Path) -> dict[str, Any]:
    """Runs the commands in a folder beside the corpus."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)
    train, test = "../corpus/train", "../corpus/test"
    speech = (f"--corpus={train}", "--batch_size=4", "--seconds=1")
    _tfq_sv("train", f"--init={network}", "--out=float.keras", "--steps=4", *speech)
    model = "--model=float.keras"
    _tfq_sv("search", model, f"--target_mb={target_mb}", "--out=recipe.json", "--probes=4", *speech)
    _tfq_sv("quantize", model, "--bits=2", f"--calibrate={train}", "--out=2.keras")
    _tfq_sv("quantize", model, "--bits=2", "--trellis", "--out=trellis.keras")
    tuned = ("--teacher=float.keras", "--steps=4", "--out=tuned.keras")
    _tfq_sv("finetune", "--model=2.keras", *tuned, *speech)
    _tfq_sv("finetune", model, "--recipe=recipe.json", "--steps=3", "--out=staged.keras", *speech)
    rates: dict[str, list[float]] = {}
    for name in ("2", "trellis", "tuned", "staged"):
        _tfq_sv("export", f"--model={name}.keras", f"--out={name}.tflite")
        rates[f"{name}.tflite"] = list(_rates(f"{name}.tflite", test))
    found = {path: _digest(Path(path)) for path in ("recipe.json", *rates)}
    return {"bytes": found | {"codebooks": _codebooks("tuned.keras")}, "rates": rates}


def _rates(path: str, folder: str) -> Any:
    """EER in % with one and two threads of LiteRT."""
    from tfq_sv.data.corpus import Corpus
    from tfq_sv.data.trials import Trials
    from tfq_sv.evaluation.measurement import evaluate
    from tfq_sv.export import SpeakerEncoder

    corpus = Corpus.read(folder)
    trials = Trials.read(f"{folder}/trials.txt", corpus)
    for threads in (1, 2):
        encoder = SpeakerEncoder(path, num_threads=threads, check_speech=False)
        yield 100 * evaluate(encoder, corpus, trials).eer


def _codebooks(path: str) -> str:
    from tfq_sv import codebooks
    from tfq_sv.quantization.quantized_model import load_model

    found = hashlib.sha256()
    for name, book in codebooks(load_model(path)).items():
        found.update(name.encode() + book.decode().tobytes())
    return found.hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tfq_sv(*arguments: str) -> None:
    from tfq_sv import cli

    if cli.main([*arguments, "--quiet"]):
        raise SystemExit(f"tfq-sv {' '.join(arguments)} failed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", required=True, help="a float network")
    parser.add_argument("--target_mb", type=float, required=True, help="of the search")
    parser.add_argument("--test_speakers", type=int, default=40)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments.network, arguments.target_mb, arguments.worker)))
        sys.exit()
    sys.exit(not main(arguments.network, arguments.target_mb, arguments.test_speakers))
