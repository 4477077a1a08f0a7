"""Progress bars, seen and unseen."""

import os
import re
from pathlib import Path

import pytest
import tf_keras as keras

import tfq_sv
from tfq_sv import cli, progress
from tfq_sv.export import export_tflite
from tfq_sv.progress import counted, logged, tick, tqdm


@pytest.mark.slow
def test_a_layer_a_tick(
    network: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tfq_sv.QuantizationRecipe.uniform(network, 1)
    count = len(recipe.layers)
    quantized = tfq_sv.quantize(network, recipe, progress=True, calibrate=False)
    assert f"codebooks: 100%|██████████| {count}/{count} [" in capsys.readouterr().err
    export_tflite(quantized, tmp_path / "small.tflite", progress=True)
    assert "export: 100%|██████████| 4/4 [" in capsys.readouterr().err
    tfq_sv.quantize(network, recipe, calibrate=False)
    export_tflite(quantized, tmp_path / "small.tflite")
    assert "%|" not in capsys.readouterr().err


def test_one_variable_turns_them_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tick()  # of nothing
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with counted(1):
        tick()
    assert not capsys.readouterr().err
    monkeypatch.delenv("TQDM_DISABLE")
    with counted(1):
        tick()
    assert "1/1" in capsys.readouterr().err


def test_a_log_gets_a_line_every_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(), tqdm(total=3, desc="short"):
        pass
    assert not capsys.readouterr().err  # it took less
    monkeypatch.setattr(progress, "_EACH", 0.0)
    with logged(), tqdm(total=3, desc="work", unit="utt") as bar:
        bar.set_postfix(loss="0.5", refresh=False)
        bar.update(2)
        bar.update()
    said = capsys.readouterr().err
    assert "\r" not in said
    assert re.search(r"^work: 67 %, 2/3 \[00:00<00:00, .*utt/s, loss=0\.5\]$", said, re.MULTILINE)
    assert "work: 100 %, 3/3" in said.splitlines()[-1]


@pytest.mark.parametrize("quiet", ["", "--quiet", "TQDM_DISABLE"])
def test_commands_write_lines_where_no_terminal_is(
    quiet: str,
    corpus_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "_EACH", 0.0)
    command = ["embed", "--model=resnet18-real.tflite", f"--corpus={corpus_dir / 'test'}"]
    command.append(f"--out={tmp_path / 'embeddings'}")
    if quiet == "--quiet":
        command.append(quiet)
    elif quiet:
        monkeypatch.setenv(quiet, "1")
    assert cli.main(command) == 0
    said = capsys.readouterr().err
    assert "\r" not in said
    assert ("embedding: 100 %" in said) == (not quiet)
    assert os.environ.get("TQDM_DISABLE") == ("1" if quiet == "TQDM_DISABLE" else None)
