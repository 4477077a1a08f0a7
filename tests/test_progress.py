"""Progress bars, seen and unseen."""

from pathlib import Path

import pytest
import tf_keras as keras

import tfq_sv
from tfq_sv.export import export_tflite
from tfq_sv.progress import counted, tick


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
