"""The same commands give the same bytes; benchmarks/determinism.py does it with two threads too."""

import sys
from pathlib import Path

import pytest
from train_small import small

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import determinism


@pytest.mark.slow
def test_the_same_commands_give_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small().save(tmp_path / "small.keras")
    assert determinism.main(str(tmp_path / "small.keras"), 0.05, 2, threads=(1, 1))
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line][1:]
    assert len(rows) == 6
    assert {row[1] for row in rows} == {"yes"}
