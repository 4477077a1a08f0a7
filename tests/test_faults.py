"""A few kills, full disks and hard networks; scripts under benchmarks/ do it at length."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
LIGHT = ["--only", "make-corpus", "enroll", "embed to .scp"]
ALONE = ["unshare", "-rm"]  # as root of itself, with file systems that nobody else sees


def table(command: list[str]) -> list[list[str]]:
    """The rows that a script prints; it must end well. In a process of its own, as it forks."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr[-3000:]
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line]
    return lines[2:]


@pytest.mark.slow
def test_killed_commands_end_as_undisturbed_ones() -> None:
    rows = table([sys.executable, str(BENCHMARKS / "interrupts.py"), "--kills=4", *LIGHT])
    assert [row[-1] for row in rows] == ["0", "0", "0"]
    assert all(int(row[2]) + int(row[3]) >= 4 for row in rows)


@pytest.mark.slow
def test_full_disks_cost_nothing_but_a_line(tmp_path: Path) -> None:
    mount = [*ALONE, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    script = [sys.executable, str(BENCHMARKS / "full_disk.py"), "--sizes=3", *LIGHT]
    rows = table([*ALONE, *script])
    assert [row[-1] for row in rows] == ["0", "0", "0"]
    assert all(row[4].startswith("refused") for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet18"])
def test_hard_weights_and_inputs_agree_with_keras(name: str) -> None:
    import random_networks

    for compute, kind, value in random_networks.checked(name, seed=0):
        if not isinstance(value, str):
            assert value >= random_networks.LEAST[compute], f"{compute}, {kind}"
