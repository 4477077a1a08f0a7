"""Several devices, several workers, and sudden deaths, each run in processes of their own."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from workers import PATIENCE, Run, cluster

from tfq_sv.errors import InputError
from tfq_sv.training.devices import BatchSharding, is_chief

SCRIPT = "train_small.py"
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


def workers(job: dict[str, Any], **second: Any) -> tuple[Run, Run]:
    """Two workers; `second` changes the second one's job."""
    first, other = cluster()
    return Run(SCRIPT, job, first), Run(SCRIPT, {**job, **second}, other)


def curve(printed: list[dict[str, Any]]) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in printed if "step" in row}


@pytest.fixture(scope="module")
def job(corpus_dir: Path) -> dict[str, Any]:
    return {"corpus": str(corpus_dir / "train"), "options": [OPTIONS]}


@pytest.fixture(scope="module")
def alone(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One device, never interrupted: 4 epochs of 4 steps."""
    printed = Run(SCRIPT, job).ends()
    assert len(curve(printed)) == 16
    return printed


@pytest.fixture(scope="module")
def together(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Two workers, never interrupted."""
    first, second = workers(job)
    printed = first.ends()
    assert second.ends() == printed
    return printed


Killed = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def killed(job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """The state of a run that was killed at step 6, and what it printed."""
    state = tmp_path_factory.mktemp("killed")
    return state, Run(SCRIPT, {**job, "state": str(state), "die_at": 6}).ends(-9)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(
    job: dict[str, Any], alone: list[dict[str, Any]], killed: Killed, tmp_path: Path
) -> None:
    """Killed between two checkpoints, then amid the epochs that are averaged."""
    state = {**job, "state": str(tmp_path)}
    shutil.copytree(killed[0], tmp_path, dirs_exist_ok=True)
    before = killed[1]
    between = Run(SCRIPT, {**state, "die_at": 15}).ends(-9)
    after = Run(SCRIPT, state).ends()
    assert [min(curve(part)) for part in (before, between, after)] == [0, 4, 12]
    assert {**curve(before), **curve(between), **curve(after)} == curve(alone)
    assert after[-1] == alone[-1]  # the weights


@pytest.mark.slow
def test_two_devices_train_as_one_does(job: dict[str, Any], alone: list[dict[str, Any]]) -> None:
    options = [OPTIONS, {**OPTIONS, "sync_batch_norm": False}]
    printed = Run(SCRIPT, {**job, "devices": 2, "options": options}).ends()
    both, apart = printed[:17], printed[17:]
    assert curve(both) == pytest.approx(curve(alone), rel=1e-4)
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
def test_workers_that_find_different_states_say_so(
    job: dict[str, Any], killed: Killed, tmp_path: Path
) -> None:
    first, second = workers({**job, "state": str(killed[0])}, state=str(tmp_path / "other"))
    for run in (first, second):
        _, err = run.process.communicate(timeout=PATIENCE)
        assert run.process.returncode == 1
        assert "must be one that all workers see" in err


LOSSES = ("distillation", "aam")
SENSITIVITIES = ("hessian", "distortion")  # Fisher traces run on devices as Hessian ones do
Printed = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def on_all() -> tuple[Printed, ...]:
    """What one device, two devices and two workers print of each task."""

    job = {"devices": [1], "tasks": [*LOSSES, *SENSITIVITIES]}
    first, second = [Run("tune_small.py", job, config) for config in cluster()]
    on_workers = first.ends()
    assert second.ends() == on_workers
    here = Run("tune_small.py", {**job, "devices": [1, 2]}).ends()
    alone, both = ([row for row in here if row["devices"] == count] for count in (1, 2))
    found = []
    for rows in (alone, both, on_workers):
        by_task: Printed = {}
        for row in rows:
            del row["devices"]
            by_task.setdefault(row.pop("task"), []).append(row)
        found.append(by_task)
    return tuple(found)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_fine_tuning_on_two_devices_and_two_workers(loss: str, on_all: tuple[Printed, ...]) -> None:
    alone, *others = (printed[loss] for printed in on_all)
    assert [list(row) for row in alone] == [["loss"]] * 5 + [["sum"]]
    for other in others:
        for row, wanted in zip(other, alone, strict=True):
            assert row == pytest.approx(wanted, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("measure", SENSITIVITIES)
def test_sensitivity_on_two_devices_and_two_workers(
    measure: str, on_all: tuple[Printed, ...]
) -> None:
    alone, *others = (printed[measure] for printed in on_all)  # an odd number of probes
    assert [list(row) for row in alone] == [["conv1"], ["conv2"], ["seg_1"]]
    for other in others:
        for row, wanted in zip(other, alone, strict=True):
            for layer, value in wanted.items():
                assert row[layer] == pytest.approx(value, rel=1e-4)


def test_rows_of_a_worker() -> None:
    strategy = tf.distribute.get_strategy()
    assert is_chief(strategy)
    assert BatchSharding(strategy, 6).rows == slice(0, 6)

    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(InputError, match="batch_size 8 cannot be shared evenly by 3 devices"):
        BatchSharding(Three(), 8)
