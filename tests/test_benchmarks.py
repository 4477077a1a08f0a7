"""The scripts that make the tables in docs/benchmarks.md, on the smallest of what they can do."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_files_are_within_their_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DF-ResNets have the most layers for their weights, and 3 bits the most ops a layer."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    assert importlib.import_module("file_sizes").main(["DF_ResNet56"], [3])
    said = capsys.readouterr().out
    assert "| DF_ResNet56 | 3 bit, negative gains |" in said
