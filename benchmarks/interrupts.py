"""Kills commands at random moments: `python benchmarks/interrupts.py --kills=50`.

Each command first runs undisturbed. Then it is killed (SIGKILL) at random moments, and started
again where it was killed, until every fifth start is left to end. Half of the moments are random
times, half the instants before a random one of the files it writes, renames or removes. After each
kill, no file may be there that is neither what it was before the command nor what an undisturbed
run leaves; after each end, all files must be those of the undisturbed run, bit for bit (of networks
and archives: every value, as such files hold the time they were written at).

The commands run on three layers and six speakers, in forks of a process that has imported all.
"""

import argparse
import hashlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from tfq_sv import cli

PER_END = 5  # starts, of which the last is not killed
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}


@dataclass(frozen=True)
class Task:
    """A command.

    Attributes:
        arguments: its own; `{inputs}` is the folder of what it needs.
        given: files of the inputs that the command changes, copied to where it runs.
        grows: files that hold what is done so far.
    """

    arguments: str
    given: tuple[str, ...] = ()
    grows: tuple[str, ...] = ()


TRAINING = "--corpus={inputs}/corpus/train --steps=8 --batch_size=4 --seconds=0.3"
STATE = ("*.state/*",)
TASKS = {
    "make-corpus": Task(
        "make-corpus --out=corpus --speakers=3 --test_speakers=2 --utterances=3 "
        "--test_utterances=2 --workers=1"
    ),
    "make-corpus, 2 processes": Task(
        "make-corpus --out=corpus --speakers=3 --test_speakers=3 --utterances=2 "
        "--test_utterances=2 --workers=2"
    ),
    "train": Task(f"train --init={{inputs}}/net.keras --out=m.keras {TRAINING}", grows=STATE),
    "finetune": Task(
        "finetune --model={inputs}/small.keras --teacher={inputs}/net.keras --out=m.keras "
        + TRAINING,
        grows=STATE,
    ),
    "finetune --recipe": Task(
        "finetune --model={inputs}/net.keras --recipe={inputs}/mixed.json --out=m.keras "
        + TRAINING.replace("8", "4"),
        grows=STATE,
    ),
    "search": Task(
        "search --model={inputs}/net.keras --target_mb=0.05 --corpus={inputs}/corpus/train "
        "--out=r.json --probes=6 --batch_size=2 --seconds=0.3 --bits=2,4",
        grows=("r.fisher.json",),
    ),
    "quantize": Task("quantize --model={inputs}/net.keras --bits=3 --out=q.keras --recipe_out=r"),
    "export": Task("export --model={inputs}/small.keras --out=q.tflite"),
    "embed, inflate cache": Task(
        "embed --model={inputs}/small.tflite --corpus={inputs}/corpus/test --out=e.npy",
        given=("e.npy", "e.txt"),
    ),
    "embed to .scp": Task(
        "embed --model={inputs}/net.keras --corpus={inputs}/corpus/test --out=k.scp",
        given=("k.ark", "k.scp"),
    ),
    "evaluate --embeddings": Task(
        "evaluate --model={inputs}/net.keras --corpus={inputs}/corpus/test --embeddings=kept "
        "--scores_out=scores"
    ),
    "evaluate --store": Task(
        "evaluate --model=small.tflite --corpus={inputs}/corpus/test --store",
        given=("small.tflite",),
    ),
    "enroll": Task(
        "enroll --model={inputs}/small.tflite --enrolled=s.json --speaker=bob --nocheck "
        "{inputs}/corpus/test/wav/id10002/s1/00001.wav",
        given=("s.json",),
    ),
}


def main(kills: int, only: list[str], seed: int = 0) -> bool:
    """Returns whether every file was as it should be."""
    _import_all()
    print(f"{kills} kills per command, seed {seed}\n")
    print("| command | s undisturbed | killed at times | killed at files | ends | wrong |")
    print("|---|---|---|---|---|---|", flush=True)
    fine = True
    with tempfile.TemporaryDirectory() as place:
        inputs = Path(place, "inputs")
        inputs.mkdir()
        _forked(lambda: make_inputs(inputs), inputs / "log.txt").ends()
        for name, task in TASKS.items():
            if only and name not in only:
                continue
            found = tried(task, inputs, Path(place, name.replace(" ", "-")), kills, seed)
            print(f"| `{name}` | {found.seconds:.1f} | {found.at_times} | {found.at_files}", end="")
            print(f" | {found.ends} | {len(found.wrong)} |", flush=True)
            for line in found.wrong:
                print(f"{name}: {line}", file=sys.stderr, flush=True)
            fine &= not found.wrong
    return fine


def make_inputs(folder: Path) -> None:
    """A corpus, networks and whatever else commands need; `old` things to be replaced."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from train_small import small

    from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe

    network = small()
    network.save(folder / "net.keras")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    widths = {"conv1": 4, "conv2": 2, "seg_1": 2}
    recipe = QuantizationRecipe({name: LayerRecipe("kmeans", b) for name, b in widths.items()})
    recipe.to_json(folder / "mixed.json")
    corpus, wav = f"{folder}/corpus", f"{folder}/corpus/test/wav/id10001/s1/00001.wav"
    for command in (
        f"make-corpus --out={corpus} --speakers=3 --test_speakers=3 --utterances=4 "
        "--test_utterances=3 --workers=1",
        f"quantize --model={folder}/net.keras --bits=2 --out={folder}/small.keras",
        f"export --model={folder}/small.keras --out={folder}/small.tflite",
        # Of other recordings, and in another order: what a mixture would be seen by.
        f"embed --model={folder}/net.keras --out={folder}/e.npy {wav}",
        f"embed --model={folder}/net.keras --corpus={corpus}/train --out={folder}/k.ark",
        f"enroll --model={folder}/small.tflite --enrolled={folder}/s.json --speaker=ann "
        f"--nocheck {wav}",
    ):
        if cli.main(command.split()):
            raise SystemExit(f"tfq-sv {command} failed")


@dataclass
class Found:
    """What happened to a command: seconds undisturbed, kills, ends, and what was wrong."""

    seconds: float
    wrong: list[str]
    at_times: int = 0
    at_files: int = 0
    ends: int = 0


def tried(task: Task, inputs: Path, place: Path, kills: int, seed: int = 0) -> Found:
    """Kills a command so often, and compares what it leaves."""
    place.mkdir()
    before = contents(_begun(task, inputs, place / "before"))
    undisturbed = _begun(task, inputs, place / "undisturbed")
    began = time.perf_counter()
    _start(task, inputs, undisturbed, count=place / "changes").ends()
    found = Found(time.perf_counter() - began, [])
    changes, after = int((place / "changes").read_text()), contents(undisturbed)
    rng = np.random.default_rng(seed)
    folder, number = _begun(task, inputs, place / "0"), 0
    while found.at_times + found.at_files < kills or number % PER_END:
        number += 1
        if number % PER_END == 0:  # is left alone
            run = _start(task, inputs, folder)
            killed = False
        elif number % 2:
            run = _start(task, inputs, folder, die_at=int(rng.integers(changes)))
            killed = run.killed()
            found.at_files += killed
        else:
            run = _start(task, inputs, folder)
            killed = run.killed(after=rng.uniform(0, found.seconds))
            found.at_times += killed
        if killed:
            found.wrong += _halves(contents(folder), before, after, task.grows)
            continue
        code, found.ends = run.ends(must=False), found.ends + 1
        if code:
            found.wrong.append(f"exit code {code}: {run.log.read_text()[-500:]}")
        now = contents(folder)
        names = sorted(name for name in {*now, *after} if now.get(name) != after.get(name))
        found.wrong += [f"after the end: {name}" for name in names]
        folder = _begun(task, inputs, place / str(number))
    return found


def _halves(
    now: Mapping[str, str], before: Mapping[str, str], after: Mapping[str, str], grows: Any
) -> list[str]:
    """Files that are neither the old nor the new one."""
    return [
        f"after a kill: {name}"
        for name, content in now.items()
        if content not in (before.get(name), after.get(name))
        and not any(fnmatch(name, pattern) for pattern in grows)
    ]


def contents(folder: Path) -> dict[str, str]:
    """What is in a folder, hidden files aside: {path: hash of the content}."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            with_values = zipfile.is_zipfile(path) and path.suffix in (".keras", ".npz")
            content = _values(path) if with_values else path.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def _values(path: Path) -> bytes:
    """The members of a .keras or an .npz, times of writing aside."""
    parts = []
    with zipfile.ZipFile(path) as file:
        for name in sorted(set(file.namelist()) - {"metadata.json"}):
            parts += [name.encode(), _arrays(file.read(name))]
    return b"\0".join(parts)


def _arrays(content: bytes) -> bytes:
    """The arrays of an HDF5 file, or anything else as it is."""
    import h5py

    if not content.startswith(b"\x89HDF"):
        return content
    parts: list[bytes] = []
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(
            lambda name, x: (
                parts.extend([name.encode(), x[()].tobytes()])
                if isinstance(x, h5py.Dataset)
                else None
            )
        )
    return b"\0".join(parts)


def _begun(task: Task, inputs: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in task.given:
        shutil.copy2(inputs / name, folder / name)
    return folder


class Run:
    """A fork of this process."""

    def __init__(self, pid: int, log: Path) -> None:
        self._pid, self.log = pid, log
        self._code: int | None = None

    def ends(self, must: bool = True) -> int:
        """Its exit code, which must be 0 if `must`."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if must and self._code:
            raise SystemExit(f"exit code {self._code}: {self.log.read_text()[-2000:]}")
        return self._code

    def killed(self, after: float | None = None) -> bool:
        """Kills it after so many seconds, or waits until it does so itself; False if it ended.

        Its workers, if it has any, are left to themselves, as they would be.
        """
        until = time.perf_counter() + (after or 0)
        while after is not None and time.perf_counter() < until:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                return False
            time.sleep(0.005)
        if after is not None:
            os.kill(self._pid, signal.SIGKILL)
        return self.ends(must=False) == -signal.SIGKILL


def _start(
    task: Task, inputs: Path, folder: Path, die_at: int | None = None, count: Path | None = None
) -> Run:
    """Starts a command in a folder; it dies before its `die_at`-th change there."""

    def command() -> int:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        changes = _watch(str(folder), die_at)
        code = cli.main(task.arguments.format(inputs=inputs).split())
        if count:
            count.write_text(str(changes()))
        return code

    return _forked(command, folder.with_suffix(".log"))


def _watch(folder: str, die_at: int | None) -> Callable[[], int]:
    """Counts the files that this process opens to write, renames or removes in a folder."""
    seen = 0

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if not (writes or event in CHANGES) or not isinstance(arguments[0], str | os.PathLike):
            return
        if os.path.abspath(os.fspath(arguments[0])).startswith(folder):  # noqa: PTH100
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(note)
    return lambda: seen


def _forked(work: Callable[[], int | None], log: Path) -> Run:
    """Does something in a fork, whose output goes to a file."""
    pid = os.fork()
    if pid:
        return Run(pid, log)
    code = 99
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        sys.stdout = sys.stderr = os.fdopen(os.dup(file), "w", buffering=1)
        code = work() or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
    raise AssertionError


def _import_all() -> None:
    """Imports what takes long, so that forks need not; and has them save often."""
    os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3", TQDM_DISABLE="1")
    import importlib

    for name in (*(command.replace("-", "_") for command in cli.COMMANDS), "common"):
        importlib.import_module(f"tfq_sv.cli.{name}")
    for module in ("export.convert", "quantization.calibration", "training.multi_stage",
                   "training.distillation", "reports.allocation", "mixed_precision.file_size",
                   "evaluation.extraction", "verification.speaker_verifier"):  # fmt: skip
        importlib.import_module(f"tfq_sv.{module}")
    from tfq_sv.evaluation import extraction
    from tfq_sv.training import loop

    loop.CHECKPOINT_EVERY = 2
    extraction.PART = 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="*", default=[], help="names of commands")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(not main(arguments.kills, arguments.only, arguments.seed))
