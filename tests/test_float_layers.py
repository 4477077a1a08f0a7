"""Kernels that quantize did not reach: most are reached now, and the others are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import some

import tfq_sv
from tfq_sv import cli
from tfq_sv.export import SpeakerEncoder, export_tflite
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.quantization import calibration
from tfq_sv.quantization.float_layers import float_layers
from tfq_sv.reports.complexity import layer_complexity

layers = keras.layers
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(2, 40, 16)).astype(np.float32)


def network(middle: Callable[[Any], Any]) -> keras.Model:
    """Something between a convolution and the embedding."""
    features = keras.Input((None, 16), name="features")
    x = middle(layers.Conv1D(16, 3, padding="same", name="conv")(features))
    x = layers.GlobalAveragePooling1D()(x) if x.shape.rank == 3 else x
    return keras.Model(features, layers.Dense(8, name="seg")(x), name="net")


def on_images(layer: Any) -> Callable[[Any], Any]:
    def middle(x: Any) -> Any:
        x = layer(layers.Reshape((-1, 16, 1))(x))
        return layers.GlobalAveragePooling2D()(x)

    return middle


def nested(x: Any) -> Any:
    inner = keras.Sequential(
        [keras.Input((None, 16)), layers.Dense(16, activation="relu", name="dense")], name="block"
    )
    return layers.Add()([inner(x), inner(inner(x))])


REACHED: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "TimeDistributed": (
        layers.TimeDistributed(layers.Dense(12, activation="relu"), name="td"),
        {"td"},
    ),
    "SeparableConv1D": (
        layers.SeparableConv1D(
            12, 5, 2, "same", depth_multiplier=2, activation="relu", name="sep",
            bias_initializer="normal",
        ),
        {"sep.depthwise", "sep.pointwise"},
    ),
    "SeparableConv2D": (
        on_images(layers.SeparableConv2D(6, 3, padding="same", use_bias=False, name="sep")),
        {"sep.depthwise", "sep.pointwise"},
    ),
    "DepthwiseConv1D": (
        layers.DepthwiseConv1D(5, padding="same", name="deep", bias_initializer="normal"),
        {"deep"},
    ),
    "Conv1DTranspose": (
        layers.Conv1DTranspose(12, 4, 2, "same", name="up", bias_initializer="normal"),
        {"up"},
    ),
    "Conv2DTranspose": (
        on_images(layers.Conv2DTranspose(5, 3, 2, "same", use_bias=False, name="up")),
        {"up"},
    ),
    "nested": (nested, {"block.dense"}),
}  # fmt: skip
NAMED = {
    "GRU": layers.GRU(24, return_sequences=True, name="odd"),
    "LSTM": layers.LSTM(24, name="odd"),
    "Bidirectional": layers.Bidirectional(layers.LSTM(24), name="odd"),
    "EinsumDense": layers.EinsumDense("abc,cd->abd", (None, 24), name="odd"),
    "causal": layers.SeparableConv1D(24, 5, padding="causal", name="odd"),
}


def attention(x: Any) -> Any:
    return layers.MultiHeadAttention(4, 8, name="odd")(x, x)


@pytest.mark.parametrize("kind", some(REACHED, "nested", "DepthwiseConv1D"))
def test_kernels_are_reached(kind: str, tmp_path: Path) -> None:
    """The quantized network computes with decoded kernels, and so does its file."""
    middle, names = REACHED[kind]
    model = network(middle)
    plain = plain_layers(model)
    np.testing.assert_allclose(plain(FEATURES), model(FEATURES), atol=1e-5)
    recipe = tfq_sv.QuantizationRecipe.uniform(model, bits=3)
    assert recipe.layers.keys() == {"conv", "seg", *names}
    assert not float_layers(tfq_sv.quantize(model, recipe, calibrate=False))
    small = tfq_sv.quantize(model, recipe, calibrate=False)
    tfq_sv.calibrate(small, progress=False)
    by_hand = keras.models.clone_model(plain)
    by_hand.set_weights(plain.get_weights())
    for name, book in tfq_sv.codebooks(small).items():
        layer = by_hand.get_layer(name)
        layer.set_weights([book.decode(), *small.get_layer(f"quant_{name}").layer.get_weights()])
    expected = by_hand(FEATURES).numpy()
    np.testing.assert_allclose(small(FEATURES), expected, atol=1e-4)
    assert layer_complexity(model).keys() == recipe.layers.keys()
    for compute in ("float32", "int8"):
        report = export_tflite(small, tmp_path / "a.tflite", "features", compute=compute)
        assert report.layers.keys() == recipe.layers.keys()
        assert not report.floats
        predicted = FileSize.of(model, "features", compute).total(recipe)
        assert report.bytes == pytest.approx(predicted, rel=0.5)
        for fast in (True, False):
            found = SpeakerEncoder(tmp_path / "a.tflite", fast=fast).embed(FEATURES[0])
            error = np.linalg.norm(found - expected[0]) / np.linalg.norm(expected[0])
            assert error < (1e-3 if compute == "float32" else 0.05)


@pytest.mark.parametrize("kind", some([*NAMED, "MultiHeadAttention"], "EinsumDense"))
def test_the_rest_is_named_with_its_share(
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "_NOISE_FRAMES", 20)  # a recurrent layer takes a step for each
    model = network(NAMED.get(kind, attention))
    (name,), (odd,) = (
        float_layers(model).keys() - {"conv", "seg"},
        [x for name, x in float_layers(model).items() if name == "odd"],
    )
    weights = [x for x in model.get_layer("odd").get_weights() if x.ndim > 1]
    assert name == "odd"
    assert odd.share == pytest.approx(
        sum(np.size(x) for x in weights) / model.count_params(), abs=0.02
    )
    said = rf"odd \({'SeparableConv1D' if kind == 'causal' else kind}.*{100 * odd.share:.3g} %"
    with pytest.warns(UserWarning, match=said):
        small = tfq_sv.quantize(
            model, tfq_sv.QuantizationRecipe.uniform(model, bits=1), calibrate=False
        )
    assert list(float_layers(small)) == ["odd"]
    assert float_layers(small)["odd"].share == odd.share
    model.save(tmp_path / "net.keras")
    commands = [
        ["info", f"--model={tmp_path}/net.keras"],
        ["quantize", f"--model={tmp_path}/net.keras", "--bits=1", f"--out={tmp_path}/1.keras"],
        ["info", f"--model={tmp_path}/1.keras"],
        ["export", f"--model={tmp_path}/1.keras", "--input=features", f"--out={tmp_path}/1.tflite"],
    ]
    for command in commands:
        assert cli.main(command) == 0
        output = capsys.readouterr().out
        assert f"{100 * odd.share:.3g} % of the weights" in output, command
        assert "odd (" in output
    network_file = tmp_path / "1.tflite"
    assert SpeakerEncoder(network_file).embed(FEATURES[0]).shape == (8,)


def test_nothing_to_quantize_says_what_there_is() -> None:
    model = keras.Sequential([keras.Input((None, 16)), layers.GRU(8)])
    with pytest.raises(tfq_sv.errors.InputError, match="dense layer to quantize; it has GRU"):
        tfq_sv.QuantizationRecipe.uniform(model)
