"""A tree of very many files in bounded memory; benchmarks/many_files.py measures every command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE, FILES, LARGEST = 16000, 25_000, 6000
PROGRAM = """
import sys
import numpy as np
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import evaluate


class Levels:  # the cheapest thing that hears a difference
    def embed(self, waveform):
        return np.square(waveform[: len(waveform) // 64 * 64]).reshape(64, -1).mean(1) ** 0.5


corpus = Corpus.read(sys.argv[1])
trials = Trials.all_pairs(corpus, limit=600)
found = evaluate(Levels(), corpus, trials)
# getrusage's peak would be that of the process that started this one.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(corpus.paths), len(found.trials), peak)
"""


def write(root: Path, files: int, largest: int) -> None:
    """Speakers of 20 files each, and one of many."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(100):
        soundfile.write(root / "a.wav", rng.normal(0, 0.1, RATE // 4), RATE, subtype="ULAW")
        contents.append((root / "a.wav").read_bytes())
    (root / "a.wav").unlink()
    for number in range(files):
        speaker = 0 if number < largest else 1 + number // 20
        file = root / f"id{speaker:05d}" / f"{number:06d}.wav"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(contents[number % len(contents)])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's count")
def test_memory_is_that_of_names(tmp_path: Path) -> None:
    """Neither pairs, 18 million of one speaker alone, nor recordings are held."""
    peaks = []
    for files, largest in ((300, 100), (FILES, LARGEST)):
        root = tmp_path / str(files)
        root.mkdir()
        write(root, files, largest)
        command = [sys.executable, "-c", PROGRAM, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        counted, trials, peak = (int(word) for word in done.stdout.split())
        assert (counted, trials) == (files, 1200)
        peaks.append(peak / 1024)
    assert peaks[1] < peaks[0] + 30, peaks
