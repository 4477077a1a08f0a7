"""Trellis codes in networks: recipes, quantizers, saved models, calibration, files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from conftest import slow

import tfq_sv
from tfq_sv.errors import InputError
from tfq_sv.export import SpeakerEncoder, export_tflite
from tfq_sv.quantization import trellis, trellis_feedback
from tfq_sv.quantization.quantized_model import quantizers_of, recipe_of
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe
from tfq_sv.quantization.trellis_quantizer import Trellis, decoded

layers = keras.layers
RNG = np.random.default_rng(0)


@pytest.fixture
def network() -> Any:
    keras.utils.set_random_seed(0)
    features = layers.Input((None, 16))
    x = layers.Conv1D(20, 5, padding="same", use_bias=False, name="first")(features)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv1D(32, 4, use_bias=False, name="second")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv1D(32, 3, groups=2, name="grouped")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(features, layers.Dense(32, name="seg")(x))


def features(batch: int = 2) -> np.ndarray:
    return RNG.normal(size=(batch, 40, 16)).astype(np.float32)


def test_layers_that_do_not_gain_have_k_means(network: Any, tmp_path: Path) -> None:
    recipe = QuantizationRecipe.trellis(network, bits=0.5)
    kinds = {name: (entry.kind, entry.bits) for name, entry in recipe.layers.items()}
    assert kinds == {
        "first": ("trellis", 0.5),
        "second": ("trellis", 0.5),
        "grouped": ("kmeans", 1),
        "seg": ("trellis", 0.5),
    }
    recipe.to_json(tmp_path / "recipe.json")
    assert QuantizationRecipe.from_json(tmp_path / "recipe.json") == recipe
    assert recipe_of(tfq_sv.quantize(network, recipe, calibrate=False)) == recipe


def test_a_recipe_for_a_layer_that_cannot_is_refused(network: Any) -> None:
    with pytest.raises(InputError, match="layer grouped: 2-bit trellis codes are for plain"):
        tfq_sv.quantize(
            network, QuantizationRecipe({"grouped": LayerRecipe("trellis", 2)}), calibrate=False
        )


@pytest.mark.parametrize("bits", trellis.WIDTHS)
def test_tensorflow_decodes_alike(bits: float) -> None:
    codes = RNG.integers(0, 256, (5, 6)).astype(np.uint8)
    np.testing.assert_array_equal(
        decoded(codes, bits).numpy(), trellis.decode(codes, trellis.table(bits))
    )


@pytest.mark.parametrize("bits", [2, *slow(0.5)])
def test_quantized_saved_dequantized_and_exported_are_one_network(
    network: Any, bits: float, tmp_path: Path
) -> None:
    model = tfq_sv.quantize(network, QuantizationRecipe.trellis(network, bits), calibrate=False)
    tfq_sv.calibrate(model, progress=False)
    x = features()
    expected = model(x).numpy()
    model.save(tmp_path / "model.keras")
    loaded = tfq_sv.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x).numpy(), expected)
    assert all(quantizer.calibrated for quantizer in quantizers_of(loaded).values())
    np.testing.assert_allclose(tfq_sv.dequantize(loaded)(x).numpy(), expected, atol=1e-5)
    export_tflite(loaded, tmp_path / "model.tflite", "features", compute="float32")
    encoder = SpeakerEncoder(tmp_path / "model.tflite")
    np.testing.assert_allclose(encoder.embed(x[0]), expected[0], atol=1e-4)
    assert encoder.about["recipe"]["second"] == f"trellis_{bits:g}"


def test_gradients_pass_and_codes_follow(network: Any) -> None:
    model = tfq_sv.quantize(network, QuantizationRecipe.trellis(network, bits=2), calibrate=False)
    quantizer = quantizers_of(model)["second"]
    before = quantizer.codebook()
    quantizer.update(steps=1)
    changed = np.mean(quantizer.codes.numpy() != before.codes)
    assert changed < 0.05  # weights that stay keep their codes, nearly all
    quantizer.latent.assign(-quantizer.latent)
    quantizer.update(steps=1)
    error = quantizer.latent.numpy() - quantizer.codebook().decode()
    assert np.sum(error**2) < 0.15 * np.sum(quantizer.latent.numpy() ** 2)


@pytest.mark.parametrize("bits", [1, 2])
def test_encoding_again_keeps_what_calibration_chose(network: Any, bits: int) -> None:
    """So fine-tuning starts from calibrated codes, and weights that hardly moved keep theirs."""
    small = tfq_sv.quantize(network, QuantizationRecipe.trellis(network, bits), calibrate=False)
    tfq_sv.calibrate(small, [features(8)], progress=False)
    for quantizer in quantizers_of(small).values():
        if isinstance(quantizer, Trellis):
            before = quantizer.codebook().decode()
            quantizer.update(1)
            np.testing.assert_array_equal(quantizer.codebook().decode(), before)
            move = 0.001 * np.std(before) * RNG.normal(size=before.shape)
            quantizer.latent.assign(quantizer.latent.numpy() + move)
            quantizer.update(1)
            assert np.mean(quantizer.codebook().decode() != before) < 0.02


def test_people_who_call_tfmot_themselves() -> None:
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    config = tfq_sv.TrellisQuantizeConfig(bits=2)
    model = keras.Sequential([annotate(layers.Dense(32), config)])
    model.build([None, 16])
    quantized = tfmot.quantization.keras.quantize_apply(model, tfq_sv.WeightOnlyScheme())
    assert next(iter(tfq_sv.codebooks(quantized).values())).bits == 2


@pytest.mark.parametrize("bits", trellis.WIDTHS)
def test_feedback_lowers_the_output_error(bits: float) -> None:
    inputs = RNG.normal(size=(400, 24)) @ RNG.normal(size=(24, 64))
    kernel, gram = RNG.normal(size=(64, 32)), inputs.T @ inputs / 400

    def error(codes: np.ndarray, scales: np.ndarray) -> float:
        rounded = (trellis.decode(codes, trellis.table(bits)) * scales).T
        return float(np.sum((inputs @ (kernel - rounded)) ** 2))

    plain = error(*trellis.fit(kernel.T, bits))
    assert error(*trellis_feedback.reconstruct(kernel, gram, bits)) < 0.7 * plain


def test_feedback_without_correlation_is_plain_encoding() -> None:
    kernel = RNG.normal(size=(32, 20))
    codes, _ = trellis_feedback.reconstruct(kernel, np.eye(32), bits=2)
    _, scales = trellis.fit(kernel.T, bits=2)
    np.testing.assert_array_equal(codes, trellis.encode(kernel.T / scales, trellis.table(2)))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2])
def test_the_size_is_known_before_the_export(bits: float, tmp_path: Path) -> None:
    network = tfq_sv.models.build("ResNet18", channels=16, embed_dim=64)
    recipe = QuantizationRecipe.trellis(network, bits)
    report = export_tflite(
        tfq_sv.quantize(network, recipe, calibrate=False),
        tmp_path / "model.tflite",
        input="features",
    )
    predicted = tfq_sv.predict_bytes(network, recipe, input="features")
    assert abs(report.bytes - predicted) < 0.01 * report.bytes
