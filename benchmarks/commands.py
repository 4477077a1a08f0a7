"""Commands that write files, on three layers and six speakers, in forks of a process.

The process has imported all that takes long, so each fork takes about as long as its work does.
`interrupts.py` kills them, `full_disk.py` gives them too little room.
"""

import hashlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tfq_sv import cli


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
        grows=("e.txt",),  # is empty while the other is replaced
    ),
    "embed to .scp": Task(
        "embed --model={inputs}/net.keras --corpus={inputs}/corpus/test --out=k.scp",
        given=("k.ark", "k.scp"),
        grows=("k.scp",),
    ),
    "evaluate --embeddings": Task(
        "evaluate --model={inputs}/net.keras --corpus={inputs}/corpus/test --embeddings=kept "
        "--scores_out=scores",
        grows=("kept/*.scp",),  # as above
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
        "--test_utterances=4 --workers=1",
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


class Run:
    """A fork of this process."""

    def __init__(self, pid: int, log: Path) -> None:
        self._pid, self.log = pid, log
        self._code: int | None = None

    def ends(self, must: bool = True) -> int:
        """Its exit code, which must be 0 if `must`."""
        code = self.code(wait=True)
        if must and code:
            raise SystemExit(f"exit code {code}: {self.log.read_text()[-2000:]}")
        return code or 0

    def code(self, wait: bool = False) -> int | None:
        """Its exit code; None if it has not ended."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, 0 if wait else os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def killed(self, after: float | None = None) -> bool:
        """Kills it after so many seconds, or waits until it does so itself; False if it ended.

        Its workers, if it has any, are left to themselves, as they would be.
        """
        until = time.perf_counter() + (after or 0)
        while after is not None and time.perf_counter() < until:
            if self.code() is not None:
                return False
            time.sleep(0.005)
        if after is not None:
            os.kill(self._pid, signal.SIGKILL)
        return self.ends(must=False) == -signal.SIGKILL


def begun(task: Task, inputs: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in task.given:
        shutil.copy2(inputs / name, folder / name)
    return folder


def start(
    task: Task,
    inputs: Path,
    folder: Path,
    watched: Callable[[], Callable[[], object]] | None = None,
    log: Path | None = None,
) -> Run:
    """Starts a command in a folder.

    Args:
        task: the command.
        inputs: what `make_inputs` made.
        folder: where it runs, see `begun`.
        watched: is called in the fork before the command, and what it returns after it.
        log: where its output goes; beside the folder if None.
    """

    def command() -> int:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        ended = watched() if watched else None
        code = cli.main(task.arguments.format(inputs=inputs).split())
        if ended:
            ended()
        return code

    return forked(command, log or folder.with_suffix(".log"))


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


def halves(
    now: Mapping[str, str],
    before: Mapping[str, str],
    after: Mapping[str, str],
    grows: tuple[str, ...],
) -> list[str]:
    """Files that are neither the old nor the new one, or lost."""
    return [f"{name} is lost" for name in before if name not in now] + [
        f"{name} is neither the old nor the new one"
        for name, content in now.items()
        if content not in (before.get(name), after.get(name))
        and not any(fnmatch(name, pattern) for pattern in grows)
    ]


def forked(work: Callable[[], int | None], log: Path) -> Run:
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


def tasks(only: Collection[str] = ()) -> Iterator[tuple[str, Task, Path, Path]]:
    """Yields each command's name, itself, the folder of its inputs, and a folder to run it in."""
    import_all()
    with tempfile.TemporaryDirectory() as place:
        inputs = Path(place, "inputs")
        inputs.mkdir()
        forked(lambda: make_inputs(inputs), inputs / "log.txt").ends()
        for name, task in TASKS.items():
            if not only or name in only:
                yield name, task, inputs, Path(place)


def import_all() -> None:
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
