"""How long `tfq-sv evaluate` takes on a folder of very many short files, and in how much memory.

The files are noise of a quarter of a second, mu-law at 16 kHz (4 KB each), in folders of speakers.

example:
  python benchmarks/many_files.py --files=200000 --speakers=2000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

SECONDS = 0.25


def write(root: Path, files: int, speakers: int) -> None:
    """Writes the tree: root/id00001/000001.wav and so on."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 16000 * 60)
    length = round(SECONDS * 16000)
    for number in range(files):
        folder = root / f"id{number % speakers:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        start = int(rng.integers(len(noise) - length))
        soundfile.write(
            folder / f"{number:06d}.wav", noise[start : start + length], 16000, subtype="ULAW"
        )


def peak(command: list[str]) -> tuple[float, float, str]:
    """Runs a command; returns seconds, its peak memory in MB, and its last lines."""
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
    return (
        time.perf_counter() - began,
        int(done.stderr.splitlines()[-1]) * 1024 / 1e6,
        done.stdout,
    )


def main() -> None:
    """Prints a line for reading the corpus alone, and one for the whole command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--speakers", type=int, default=2000)
    parser.add_argument("--model", default="resnet18-small")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.files, arguments.speakers)
        size = f"{arguments.files:,} files of {arguments.speakers:,} speakers"
        code = (
            "import sys; from tfq_sv.data.corpus import Corpus;"
            "from tfq_sv.data.trials import Trials; Trials.all_pairs(Corpus.read(sys.argv[1]))"
        )
        for name, command in (
            ("corpus and pairs", [sys.executable, "-c", code, folder]),
            ("evaluate", [sys.executable, "-m", "tfq_sv", "evaluate",
                          f"--model={arguments.model}", f"--corpus={folder}"]),
        ):  # fmt: skip
            seconds, memory, printed = peak(command)
            print(f"{size}, {name}: {seconds:.1f} s, {memory:.0f} MB at most")
        print(printed)


if __name__ == "__main__":
    main()
