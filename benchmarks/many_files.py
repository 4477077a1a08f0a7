"""How much memory each command takes on a folder of very many short files, and how long.

The files are noise of a quarter of a second, mu-law at 16 kHz (4 KB each), in folders of speakers.
`--rows` chooses commands. `--model=tiny` is a network of three layers and 256 dimensions, where
memory is the question. `embed` is to embed every file: most of its folder is filled with random
embeddings beforehand, which it reads and counts, to resume as after an interruption.

example:
  python benchmarks/many_files.py --files=200000 --speakers=2000 --rows=evaluate
  python benchmarks/many_files.py --files=1000000 --speakers=10000
  python benchmarks/many_files.py --files=1000000 --speakers=10000 --model=tiny \
      --rows=threshold,embed,"evaluate --embeddings","evaluate --embeddings --cohort"
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

SECONDS, DIFFERENT, DIMENSIONS, NEW = 0.25, 1000, 256, 20_000
SHORT = ("--steps=2", "--batch_size=8", "--seconds=0.2", "--num_workers=1")
PAIRS = (
    "import sys; from tfq_sv.data.corpus import Corpus; from tfq_sv.data.trials import Trials;"
    "Trials.all_pairs(Corpus.read(sys.argv[1]))"
)


def commands(model: str, corpus: str, out: Path) -> dict[str, list[str]]:
    """Returns the command lines by name, each for the whole folder."""
    small, quantized = f"{out}/small.tflite", f"{out}/small.keras"
    kept = [f"--model={small}", f"--corpus={corpus}", f"--embeddings={out}/embedded"]
    cli = {
        "quantize": [f"--model={model}", f"--calibrate={corpus}", "--bits=4", f"--out={quantized}"],
        "export": [f"--model={quantized}", f"--out={small}"],
        "train": [f"--corpus={corpus}", f"--out={out}/new.keras", *SHORT],
        "finetune": [
            *(f"--model={quantized}", f"--teacher={model}", f"--corpus={corpus}"),
            *(f"--out={out}/tuned.keras", *SHORT[:3]),
        ],
        "search": [
            *(f"--model={model}", f"--corpus={corpus}", "--target_mb=0.5"),
            f"--out={out}/recipe.json",
        ],
        "evaluate": [f"--model={small}", f"--corpus={corpus}"],
        "threshold": [f"--model={small}", f"--corpus={corpus}"],
        "embed": [f"--model={small}", f"--corpus={corpus}", f"--out={out}/embedded"],
        "evaluate --embeddings": kept,
        "evaluate --embeddings --cohort": [*kept, f"--cohort={corpus}", "--as_norm"],
        "compare": [
            *(f"--models={model}", f"--train={corpus}", f"--test={corpus}", "--bits=4"),
            *("--minutes=0.1", f"--out={out}/compared"),
        ],
        "reproduce": [
            *(f"--model={model}", f"--train={corpus}", f"--test={corpus}", *SHORT[1:3]),
            *("--steps=1", "--probes=1", f"--trials={out}/list.txt", f"--out={out}/reproduced"),
        ],
    }
    python = [sys.executable, "-m", "tfq_sv"]
    lines = {name: [*python, name.split()[0], *flags] for name, flags in cli.items()}
    return {"corpus and pairs": [sys.executable, "-c", PAIRS, corpus], **lines}


def write(root: Path, files: int, speakers: int) -> None:
    """Writes the tree: root/id00001/000001.wav and so on."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 16000 * 60)
    length = round(SECONDS * 16000)
    originals = []
    for number in range(files):
        file = root / f"id{number % speakers:05d}" / f"{number:07d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number < DIFFERENT:
            start = int(rng.integers(len(noise) - length))
            soundfile.write(file, noise[start : start + length], 16000, subtype="ULAW")
            originals.append(file.read_bytes())
        else:
            file.write_bytes(originals[number % DIFFERENT])


def write_trials(path: Path, speakers: int, trials: int = 400) -> None:
    """Writes as many trials of one speaker as of two, a recording of each speaker's first two."""
    with path.open("w") as file:
        for number in range(trials):
            first, same = number // 2 % speakers, number % 2
            other = first if same else (first + 1) % speakers
            name = f"id{other:05d}/{other + speakers:07d}.wav"
            file.write(f"{same} id{first:05d}/{first:07d}.wav {name}\n")


def write_tiny(path: str) -> None:
    """Writes the network of three layers."""
    import tf_keras as keras

    from tfq_sv.models import FrontEnd, pool
    from tfq_sv.models.layers import conv, embedding, norm

    features = keras.Input((None, 80), name="features")
    x = norm(conv(FrontEnd()(features), "conv1", 4, 3, 2), "bn1", relu=True)
    x = norm(conv(x, "conv2", 8, 3, 2), "bn2", relu=True)
    keras.Model(features, embedding(pool(x, "TSTP"), DIMENSIONS, False), name="tiny").save(path)


def fill(folder: Path, file: str, corpus: str, most: int) -> None:
    """Keeps random embeddings of all files but `most`, as an interrupted `embed` has."""
    from tfq_sv.cli.common import fingerprint, open_encoder
    from tfq_sv.data import audio
    from tfq_sv.data.corpus import Corpus
    from tfq_sv.evaluation.embeddings import Embeddings
    from tfq_sv.evaluation.extraction import PART, Cache

    encoder = open_encoder(file)
    size = len(encoder.embed(np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)))
    cache, rng = Cache(folder, fingerprint(file, encoder)), np.random.default_rng(0)
    paths = Corpus.read(corpus).paths
    keys = itertools.islice(paths, len(paths) - most)
    while part := list(itertools.islice(keys, PART)):
        stamps = {key: audio.stamp(paths[key]) for key in part}
        cache.write(Embeddings(part, rng.normal(size=(len(part), size))), stamps)


def peak(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns seconds and its peak memory in MB."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr);"
        "sys.exit(done.returncode)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began, int(done.stderr.splitlines()[-1]) * 1024 / 1e6


def main() -> None:
    """Prints a line per command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--speakers", type=int, default=2000)
    parser.add_argument("--model", default="resnet18-small")
    parser.add_argument("--rows", help="commands, with a comma between; all of them by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as out:
        write(Path(corpus), arguments.files, arguments.speakers)
        size = f"{arguments.files:,} files of {arguments.speakers:,} speakers"
        model = arguments.model
        if model == "tiny":
            model = f"{out}/tiny.keras"
            write_tiny(model)
        write_trials(Path(out) / "list.txt", arguments.speakers)
        lines = commands(model, corpus, Path(out))
        rows = arguments.rows.split(",") if arguments.rows else list(lines)
        needed = ("quantize", "export") if set(rows) - {"corpus and pairs", "train"} else ()
        for name in dict.fromkeys((*(x for x in needed if x not in rows), *rows)):
            if name == "embed":
                most = min(NEW, arguments.files)
                fill(Path(out) / "embedded", f"{out}/small.tflite", corpus, most)
            seconds, memory = peak(lines[name])
            print(f"{size}, {name}: {seconds:.1f} s, {memory:.0f} MB at most", flush=True)


if __name__ == "__main__":
    main()
