"""Kills commands at random moments: `python benchmarks/interrupts.py --kills=50`.

Each command first runs undisturbed. Then it is killed (SIGKILL) at random moments, and started
again where it was killed, until every fifth start is left to end. Half of the moments are random
times, half the instants before a random one of the files it writes, renames or removes. After each
kill, no file may be there that is neither what it was before the command nor what an undisturbed
run leaves; after each end, all files must be those of the undisturbed run, bit for bit (of networks
and archives: every value, as such files hold the time they were written at).
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import numpy as np

PER_END = 5  # starts, of which the last is not killed
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}


def main(kills: int, only: list[str], seed: int = 0) -> bool:
    """Returns whether every file was as it should be."""
    print(f"{kills} kills per command, seed {seed}\n")
    print("| command | s undisturbed | killed at times | killed at files | ends | wrong |")
    print("|---|---|---|---|---|---|", flush=True)
    fine = True
    for name, task, inputs, place in commands.tasks(only):
        found = tried(task, inputs, place / name.replace(" ", "-"), kills, seed)
        print(f"| `{name}` | {found.seconds:.1f} | {found.at_times} | {found.at_files}", end="")
        print(f" | {found.ends} | {len(found.wrong)} |", flush=True)
        for line in found.wrong:
            print(f"{name}: {line}", file=sys.stderr, flush=True)
        fine &= not found.wrong
    return fine


@dataclass
class Found:
    """What happened to a command: seconds undisturbed, kills, ends, and what was wrong."""

    seconds: float
    wrong: list[str]
    at_times: int = 0
    at_files: int = 0
    ends: int = 0


def tried(task: commands.Task, inputs: Path, place: Path, kills: int, seed: int = 0) -> Found:
    """Kills a command so often, and compares what it leaves."""
    place.mkdir()
    before = commands.contents(commands.begun(task, inputs, place / "before"))
    undisturbed = commands.begun(task, inputs, place / "undisturbed")
    began = time.perf_counter()
    _start(task, inputs, undisturbed, None, place / "changes").ends()
    found = Found(time.perf_counter() - began, [])
    changes, after = int((place / "changes").read_text()), commands.contents(undisturbed)
    rng = np.random.default_rng(seed)
    folder, number = commands.begun(task, inputs, place / "0"), 0
    while found.at_times + found.at_files < kills or number % PER_END:
        number += 1
        if number % PER_END == 0:  # is left alone
            run = commands.start(task, inputs, folder)
            killed = False
        elif number % 2:
            run = _start(task, inputs, folder, int(rng.integers(changes)))
            killed = run.killed()
            found.at_files += killed
        else:
            run = commands.start(task, inputs, folder)
            killed = run.killed(after=rng.uniform(0, found.seconds))
            found.at_times += killed
        if killed:
            found.wrong += commands.halves(commands.contents(folder), before, after, task.grows)
            continue
        code, found.ends = run.ends(must=False), found.ends + 1
        if code:
            found.wrong.append(f"exit code {code}: {run.log.read_text()[-500:]}")
        now = commands.contents(folder)
        names = sorted(name for name in {*now, *after} if now.get(name) != after.get(name))
        found.wrong += [f"after the end: {name}" for name in names]
        folder = commands.begun(task, inputs, place / str(number))
    return found


def _start(
    task: commands.Task, inputs: Path, folder: Path, die_at: int | None, count: Path | None = None
) -> commands.Run:
    """Starts a command that dies before its `die_at`-th change, or counts its changes."""
    return commands.start(task, inputs, folder, lambda: _watch(str(folder), die_at, count))


def _watch(folder: str, die_at: int | None, count: Path | None) -> Callable[[], object]:
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
    return lambda: count and count.write_text(str(seen))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="*", default=[], help="names of commands")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(not main(arguments.kills, arguments.only, arguments.seed))
