"""Hostile files for every reader: `python benchmarks/fuzz.py --count=10000`.

Each reader gets mutated files, in a process of its own. For each there must be a result or one
InputError of one line: no other exception, no more than 5 s of processor time, no more than 1 GB
beyond what the process had, no crash. Prints a table, and keeps what broke something in `--out`.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import hostile
import hostile_networks

from tfq_sv.errors import InputError

SECONDS = 5  # of processor time
WAIT = 60  # seconds without any: blocked
MEMORY = 1 << 30
GROUPS = {
    "sounds": hostile.sounds,
    "lists": hostile.lists,
    "networks": hostile_networks.networks,
}


def main(count: int, only: list[str], out: Path, seed: int = 0) -> bool:
    """Returns whether all went well."""
    print(f"{count:,} files for each reader, seed {seed}\n")
    print("| reader | files | read | refused | other exception | > 5 s | > 1 GB | crash |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    fine = True
    with tempfile.TemporaryDirectory() as place:
        for group, make in GROUPS.items():
            folder = Path(place, group)
            folder.mkdir()
            for name in make(folder):
                if only and name not in only:
                    continue
                said = fuzz(group, name, count, seed, out)
                kinds = ("read", "refused", "exception", "slow", "memory", "crash")
                print(f"| {name} | {said.total():,} |", end="")
                print("".join(f" {said[kind]:,} |" for kind in kinds), flush=True)
                fine &= said.total() == said["read"] + said["refused"]
    return fine


def fuzz(group: str, name: str, count: int, seed: int, out: Path) -> Counter[str]:
    """How many of a reader's inputs ended how."""
    said: Counter[str] = Counter()
    done = 0
    while done < count:
        command = [sys.executable, __file__, "--worker", group, name, str(seed), str(done)]
        with subprocess.Popen([*command, str(count)], stdout=subprocess.PIPE) as worker:
            done = _watch(worker, done, said, out, name)
    return said


def _watch(
    worker: subprocess.Popen[bytes], done: int, said: Counter[str], out: Path, name: str
) -> int:
    """Counts what a worker says, until it ends; returns the number of the next input."""
    import os
    import select

    assert worker.stdout
    begun, used, since, rest = False, 0.0, time.monotonic(), b""
    while True:
        ready, _, _ = select.select([worker.stdout], [], [], 0.5)
        if ready:
            part = os.read(worker.stdout.fileno(), 1 << 16)
            if not part:
                break
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                kind, _, more = line.decode("utf-8", "replace").partition(" ")
                if kind not in ("begin", "end"):
                    said[kind] += 1
                    _keep(out, name, done, kind, more)
                    done += 1
                begun = kind != "end"  # then it only tidies up
            used, since = _processor_seconds(worker.pid), time.monotonic()
        elif begun:
            slow = _processor_seconds(worker.pid) - used > SECONDS + 1
            if slow or time.monotonic() - since > WAIT:
                worker.kill()
                said["slow"] += 1
                _keep(out, name, done, "slow", "killed")
                return done + 1
    if worker.wait():
        said["crash"] += 1
        _keep(out, name, done, "crash", f"exit status {worker.returncode}")
        return done + 1
    return done


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100


def _keep(out: Path, name: str, number: int, kind: str, more: str) -> None:
    if kind not in ("read", "refused"):
        out.mkdir(parents=True, exist_ok=True)
        with (out / "findings.txt").open("a") as file:
            file.write(f"{name}\t{number}\t{kind}\t{more}\n")


def work(group: str, name: str, seed: int, start: int, stop: int) -> None:
    """Reads some inputs, and says of each on standard output how it ended."""
    import os

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for descriptor in (1, 2):  # libraries write there as they like
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    with tempfile.TemporaryDirectory() as place:
        good = Path(place, "good")
        good.mkdir()
        reader = GROUPS[group](good)[name]
        try_one(reader, Path(place, "warm"), [0, 0])  # imports, and the memory they take
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        answers.write("begin\n")
        for number in range(start, stop):
            folder = Path(place, str(number))
            began = time.process_time()
            kind, more = try_one(reader, folder, [seed, zlib.crc32(name.encode()), number])
            if time.process_time() - began > SECONDS:
                kind, more = "slow", f"{time.process_time() - began:.1f} s"
            answers.write(f"{kind} {more[:300]!a}\n")
        answers.write("end\n")


def try_one(reader: hostile.Reader, folder: Path, seed: list[int]) -> tuple[str, str]:
    """How a reader takes one hostile input: (kind, what it said)."""
    folder.mkdir(parents=True)
    name, content = reader.hostile(seed)
    (folder / name).write_bytes(content)
    try:
        reader.read(folder / name)
    except InputError as error:
        lines = str(error).splitlines()
        return ("refused" if len(lines) == 1 else "exception", str(error))
    except MemoryError as error:
        return "memory", repr(error)
    except BaseException as error:
        at = error.__traceback__
        while at and at.tb_next:
            at = at.tb_next
        place = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else ""
        return "exception", f"{type(error).__name__}: {error} at {place}"
    return "read", ""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        group, name, *numbers = sys.argv[2:]
        work(group, name, *map(int, numbers))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=[], help="names of readers")
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(not main(arguments.count, arguments.only, arguments.out, arguments.seed))
