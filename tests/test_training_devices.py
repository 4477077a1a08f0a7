"""Several devices, several workers, and sudden deaths, each run in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from workers import THREADS, cluster

from tfq_sv.errors import InputError
from tfq_sv.training.devices import Shares, is_chief

SCRIPT = Path(__file__).parent / "train_small.py"
OPTIONS = {
    "num_epochs": 4,
    "num_avg": 2,
    "batch_size": 4,
    "seconds": 0.5,
    "optimizer": "SGD",
    "learning_rate": 0.05,
    "final_lr": 0.01,
    "warm_up_epoch": 1,
    "weight_decay": 1e-3,
    "increase_start_epoch": 2,
    "fix_start_epoch": 3,
}


class Run:
    """A process that trains."""

    def __init__(self, job: dict[str, Any], config: dict[str, Any] | None = None) -> None:
        environment = {
            **os.environ,
            **THREADS,
            "TF_USE_LEGACY_KERAS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        if config:
            environment["TF_CONFIG"] = json.dumps(config)
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(job)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ends(self, code: int = 0) -> list[dict[str, Any]]:
        """What it printed."""
        out, err = self.process.communicate(timeout=300)
        assert self.process.returncode == code, err
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def workers(job: dict[str, Any], **second: Any) -> tuple[Run, Run]:
    """Two workers; `second` changes the second one's job."""
    first, other = cluster()
    return Run(job, first), Run({**job, **second}, other)


def curve(printed: list[dict[str, Any]]) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in printed if "step" in row}


@pytest.fixture(scope="module")
def job(corpus_dir: Path) -> dict[str, Any]:
    return {"corpus": str(corpus_dir / "train"), "options": OPTIONS}


@pytest.fixture(scope="module")
def alone(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One device, never interrupted: 4 epochs of 4 steps."""
    printed = Run(job).ends()
    assert len(curve(printed)) == 16
    return printed


@pytest.fixture(scope="module")
def together(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Two workers, never interrupted."""
    first, second = workers(job)
    printed = first.ends()
    assert second.ends() == printed
    return printed


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(
    job: dict[str, Any], alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Killed between two checkpoints, then amid the epochs that are averaged."""
    state = {**job, "state": str(tmp_path)}
    before = Run({**state, "die_at": 6}).ends(-9)
    between = Run({**state, "die_at": 15}).ends(-9)
    after = Run(state).ends()
    assert [min(curve(part)) for part in (before, between, after)] == [0, 4, 12]
    assert {**curve(before), **curve(between), **curve(after)} == curve(alone)
    assert after[-1] == alone[-1]  # the weights


@pytest.mark.slow
def test_two_devices_train_as_one_does(job: dict[str, Any], alone: list[dict[str, Any]]) -> None:
    both = Run({**job, "devices": 2}).ends()
    assert curve(both) == pytest.approx(curve(alone), rel=1e-4)
    options = {**OPTIONS, "sync_batch_norm": False}
    apart = Run({**job, "devices": 2, "options": options}).ends()
    assert curve(apart) != pytest.approx(curve(alone), rel=1e-4)  # statistics of half a batch


@pytest.mark.slow
def test_two_workers_train_as_one_does(
    alone: list[dict[str, Any]], together: list[dict[str, Any]]
) -> None:
    assert curve(together) == pytest.approx(curve(alone), rel=1e-4)


@pytest.mark.slow
def test_a_worker_that_dies_and_comes_back(
    job: dict[str, Any], together: list[dict[str, Any]], tmp_path: Path
) -> None:
    state = {**job, "state": str(tmp_path)}
    first, second = workers(state, die_at=6)
    second.ends(-9)
    before = curve(first.ends(3))  # it notices
    first, second = workers(state)
    after = first.ends()
    assert second.ends() == after
    assert min(curve(after)) == 4
    assert {**before, **curve(after)} == curve(together)
    assert after[-1] == together[-1]


@pytest.mark.slow
def test_workers_that_find_different_states_say_so(job: dict[str, Any], tmp_path: Path) -> None:
    Run({**job, "state": str(tmp_path), "die_at": 6}).ends(-9)
    first, second = workers({**job, "state": str(tmp_path)}, state=str(tmp_path / "other"))
    for run in (first, second):
        _, err = run.process.communicate(timeout=300)
        assert run.process.returncode == 1
        assert "must be one that all workers see" in err


def test_shares() -> None:
    strategy = tf.distribute.get_strategy()
    assert is_chief(strategy)
    assert Shares(strategy, 6).rows == slice(0, 6)

    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(InputError, match="batch_size 8 cannot be shared evenly by 3 devices"):
        Shares(Three(), 8)
