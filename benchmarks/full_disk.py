"""Commands on full disks and in read-only folders: `unshare -rm python benchmarks/full_disk.py`.

`unshare` lets it mount small file systems (tmpfs) that nobody else sees. Each command runs on disks
with room for from none to nearly all of what it writes, and on one that may not be written. There
must be one clear line and exit code 1, no traceback, and every file as it was before or as an
undisturbed run leaves it. With room again, the same command must leave what an undisturbed run
leaves.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import commands

LARGE = 256 << 20
CACHE = "cache/"  # of inflated files: what cannot be written there costs time, no more


@dataclass
class Found:
    """How often a command ended with one line, or without room needed; and what was wrong."""

    wrong: list[str]
    refused: int = 0
    done: int = 0
    read_only: str = ""


def main(sizes: int, only: list[str]) -> bool:
    """Returns whether all went well."""
    print(f"{sizes} sizes of disks per command\n")
    print("| command | kB written at most | one line | enough room | read-only | wrong |")
    print("|---|---|---|---|---|---|", flush=True)
    fine = True
    for name, task, inputs, place in commands.tasks(only):
        peak, found = tried(task, inputs, place, sizes)
        print(f"| `{name}` | {peak // 1000:,} | {found.refused} | {found.done}", end="")
        print(f" | {found.read_only} | {len(found.wrong)} |", flush=True)
        for line in found.wrong:
            print(f"{name}: {line}", file=sys.stderr, flush=True)
        fine &= not found.wrong
    return fine


def tried(task: commands.Task, inputs: Path, place: Path, sizes: int) -> tuple[int, Found]:
    """The most bytes that the command has written at once, and what happened."""
    disk, found = place / "disk", Found([])
    disk.mkdir(exist_ok=True)
    _mount(disk, f"size={LARGE}")
    folder = commands.begun(task, inputs, disk / "run")
    before, base = commands.contents(folder), _used(disk)
    run, peak = _start(task, inputs, folder), base
    while run.code() is None:
        peak = max(peak, _used(disk))
        time.sleep(0.001)
    run.ends()
    after = commands.contents(folder)
    _mount(disk, "remount,ro")
    subprocess.run(["umount", "-l", disk], check=True)
    for number in range(sizes):
        # The last has room for all but a page.
        size = base + (peak - base) * number // max(1, sizes - 1) - 4096 * (number == sizes - 1)
        size = max(size, base, 4096)
        _mount(disk, f"size={size}")
        folder = commands.begun(task, inputs, disk / "run")
        run = _start(task, inputs, folder)
        code = run.ends(must=False)
        what = f"{size - base:,} bytes of room"
        found.wrong += [f"{what}: {line}" for line in _said(run, code, "No space left")]
        found.refused, found.done = found.refused + bool(code), found.done + (not code)
        now = commands.contents(folder)
        halves = commands.halves(now, before, after, task.grows)
        found.wrong += [f"{what}: {line}" for line in halves]
        _mount(disk, f"remount,size={LARGE}")
        run = _start(task, inputs, folder)
        if run.ends(must=False):
            found.wrong.append(f"{what}, then enough: {run.log.read_text()[-300:]}")
        elif commands.contents(folder) != after:
            found.wrong.append(f"{what}, then enough: another result")
        subprocess.run(["umount", "-l", disk], check=True)
    _read_only(task, inputs, disk, found, before, after)
    return peak - base, found


def _read_only(
    task: commands.Task,
    inputs: Path,
    disk: Path,
    found: Found,
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    _mount(disk, f"size={LARGE}")
    folder = commands.begun(task, inputs, disk / "run")
    _mount(disk, "remount,ro")
    run = _start(task, inputs, folder)
    began = time.perf_counter()
    code = run.ends(must=False)
    said = _said(run, code, "no right to write|Read-only")
    needed = any(name not in before and not name.startswith(CACHE) for name in after)
    if not code and (needed or before != after):
        said.append("exit code 0")
    found.read_only = f"refused in {time.perf_counter() - began:.1f} s" if code else "done"
    found.wrong += [f"read-only: {line}" for line in said]
    if commands.contents(folder) != before:
        found.wrong.append("read-only: changed")
    subprocess.run(["umount", "-l", disk], check=True)


def _start(task: commands.Task, inputs: Path, folder: Path) -> commands.Run:
    """Starts a command whose output goes to another disk."""
    return commands.start(task, inputs, folder, log=folder.parents[1] / "log.txt")


def _said(run: commands.Run, code: int, reason: str) -> list[str]:
    """What is wrong with what a command said."""
    text = run.log.read_text()
    run.log.write_text("")
    lines = re.findall(r"^tfq-sv [a-z-]+: .*", text, re.MULTILINE)
    wrong = ["a traceback: " + text[-600:]] if "Traceback" in text else []
    if code and len(lines) != 1:
        wrong.append(f"exit code {code} with {len(lines)} lines: {text[-300:]}")
    elif code and not re.search(reason, lines[0]):
        wrong.append(f"unclear: {lines[0]}")
    return wrong


def _used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=[], help="names of commands")
    arguments = parser.parse_args()
    sys.exit(not main(arguments.sizes, arguments.only))
