"""BatchNorms that no convolution is right in front of: what others take over, and what stays."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import randomize, slow

import tfq_sv
from tfq_sv import models
from tfq_sv.codebook import Codebook, snap
from tfq_sv.export import SpeakerEncoder, convert, export_tflite, flatbuffer
from tfq_sv.quantization.folding import described, folded, positive_gains, unfolded
from tfq_sv.quantization.recipe import QuantizationRecipe

layers = keras.layers
FAMILIES = {"ECAPA_TDNN_GLOB_c512": 16, "ECAPA_TDNN_SpeechBrain": 16}


def norm(name: str, rng: Any, negative: bool = False, **options: Any) -> Any:
    """A BatchNorm with random statistics."""
    layer = layers.BatchNormalization(name=name, **options)

    def apply(x: Any) -> Any:
        y = layer(x)
        size = y.shape[-1]
        gains = rng.uniform(0.5, 2, size) * np.where(np.arange(size) == 1, -1 if negative else 1, 1)
        mean, shift = rng.normal(size=(2, size))
        given = [gains] * layer.scale + [shift] * layer.center
        layer.set_weights([*given, mean, rng.uniform(0.5, 2, size)])
        return y

    return apply


def random_network(seed: int) -> keras.Model:
    """Convolutions, ReLUs, BatchNorms, sums and concatenations, drawn at random."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    x = inputs = layers.Input((None, 8))
    x = layers.Reshape((1, -1, 8))(x)
    for number in range(5):
        size, padding = int(rng.choice([1, 3])), str(rng.choice(["same", "valid"]))
        bias = bool(rng.random() < 0.8)
        activation = "relu" if rng.random() < 0.3 else None
        y = layers.Conv2D(
            8, (1, size), padding=padding, use_bias=bias, activation=activation,
            bias_initializer="normal", name=f"conv{number}",
        )(x)  # fmt: skip
        if activation is None and rng.random() < 0.8:
            y = layers.ReLU()(y)
        options = {"center": bool(rng.random() < 0.8), "scale": bool(rng.random() < 0.8)}
        y = norm(f"bn{number}", rng, negative=rng.random() < 0.3, **options)(y)
        joined = rng.choice(["none", "add", "concatenate"]) if y.shape[2] == x.shape[2] else "none"
        if joined != "none" and (padding == "same" or size == 1):
            y = layers.Add()([x, y]) if joined == "add" and x.shape[-1] == 8 else y
            y = layers.Concatenate()([x, y]) if joined == "concatenate" else y
        x = y
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4)(norm("last", rng)(x)))


@pytest.mark.parametrize("seed", [*range(4), *slow(*range(4, 12))])
def test_function_stays(seed: int) -> None:
    model = random_network(seed)
    features = np.random.default_rng(seed).normal(size=(2, 23, 8)).astype(np.float32)
    before, weights = model(features).numpy(), model.get_weights()
    with folded(model):
        after = model(features).numpy()
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_random_networks_have_all_cases() -> None:
    stays = [stay for seed in range(12) for stay in unfolded(random_network(seed)).values()]
    assert {(stay.gains, stay.shift) for stay in stays} == {
        (gains, shift) for gains in (False, True) for shift in (False, True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_ecapa(name: str) -> None:
    model = models.build(name, feat_dim=16, channels=FAMILIES[name], embed_dim=8)
    randomize(model)
    stay = unfolded(model)
    assert [x.gains for layer, x in stay.items() if "layer1" in layer or "res2" in layer].count(
        False
    ) > 3
    features = np.random.default_rng(0).normal(size=(2, 40, 16)).astype(np.float32)
    before = model(features).numpy()
    with folded(model):
        after = model(features).numpy()
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())


def small(padding: str, size: int, negative: bool = False) -> keras.Model:
    rng = np.random.default_rng(0)
    inputs = layers.Input((None, 4))
    x = layers.ReLU(name="relu")(layers.Conv1D(6, 1, name="first")(inputs))
    x = norm("bn", rng, negative)(x)
    x = layers.Conv1D(4, size, padding=padding, name="second")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))


def test_padding_leaves_the_shift_alone() -> None:
    stay = unfolded(small("same", 3))["bn"]
    assert (stay.gains, stay.shift, stay.before, stay.after) == (False, True, "first", ())
    assert stay.bytes == 4 * 6


@pytest.mark.parametrize(("padding", "size"), [("valid", 3), ("same", 1)])
def test_without_padding_all_goes(padding: str, size: int) -> None:
    stay = unfolded(small(padding, size))["bn"]
    assert (stay.before, stay.after, stay.bytes) == ("first", ("second",), 0)
    assert not described({"bn": stay})


def test_negative_gains_stay() -> None:
    stay = unfolded(small("valid", 3, negative=True))["bn"]
    assert (stay.gains, stay.shift, stay.bytes) == (True, False, 4 * 6)


def test_shift_before_a_dense_layer_stays_with_its_gains() -> None:
    inputs = layers.Input((8,))
    x = layers.ReLU()(layers.Dense(6)(inputs))
    x = norm("bn", np.random.default_rng(0))(x)
    stay = unfolded(keras.Model(inputs, layers.Dense(4)(x)))["bn"]
    assert (stay.gains, stay.shift) == (True, True)


@pytest.mark.slow
def test_campplus_keeps_them() -> None:
    stay = unfolded(models.build("CAMPPlus", channels=4))
    assert all(x.gains and x.shift for x in stay.values())
    assert described(stay).startswith("BatchNorms that no kernel can take up: 55, ")


@pytest.mark.slow
def test_file_multiplies_no_more(tmp_path: Path) -> None:
    model = models.build("ECAPA_TDNN_c512", feat_dim=16, channels=16, embed_dim=8)
    randomize(model)
    rng, books = np.random.default_rng(0), {}
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.abs(layer.gamma.numpy()) + 0.1)
        if isinstance(layer, layers.Conv2D):
            codes = rng.integers(0, 16, layer.kernel.shape).astype(np.uint8)
            books[layer.name] = Codebook(snap(np.sort(rng.normal(0, 0.1, 16))), codes)
            layer.kernel.assign(books[layer.name].decode())
    built = convert.build(model, books, "features", compute="float32")
    (tmp_path / "a.tflite").write_bytes(built.data)
    file = flatbuffer.read(built.data)
    graph = file.subgraphs[0]
    factors = [
        flatbuffer.values(file, graph.tensors[operator.inputs[1]])
        for operator in graph.operators
        if flatbuffer.op_name(file, operator) == "MUL"
    ]
    constant = [values for values in factors if values is not None]
    stay = [x for x in unfolded(model).values() if x.gains]
    assert len(constant) == len(stay) == 1  # of the pooled statistics
    features = rng.normal(size=(50, 16)).astype(np.float32)
    wanted = model(features[None]).numpy()[0]
    for fast in (False, True):
        found = SpeakerEncoder(tmp_path / "a.tflite", fast=fast).embed(features)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def signed_network(seed: int = 0) -> keras.Model:
    """Every kind of layer that a BatchNorm can be folded into; a third of the gains negative."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    shared = layers.Conv2D(6, (1, 3), padding="same", name="shared")

    def signed(x: Any) -> Any:
        layer = layers.BatchNormalization(name=f"bn_{x.name.split('/')[0]}_{len(norms)}")
        norms.append(layer)
        y, n = layer(x), x.shape[-1]
        gains = rng.uniform(0.5, 2, n) * np.where(rng.random(n) < 0.3, -1, 1)
        gains[0] *= -np.sign(gains[0])
        layer.set_weights([gains, *rng.normal(size=(2, n)), rng.uniform(0.5, 2, n)])
        return y

    norms: list[Any] = []
    x = inputs = layers.Input((None, 8))
    x = layers.Reshape((1, -1, 8))(x)
    x = layers.ReLU()(signed(layers.Conv2D(6, (1, 3), bias_initializer="normal", name="conv")(x)))
    x = signed(layers.DepthwiseConv2D((1, 3), depth_multiplier=2, use_bias=False, name="depth")(x))
    x = signed(layers.Conv2DTranspose(6, (1, 3), bias_initializer="normal", name="transposed")(x))
    x = signed(shared(signed(shared(layers.ReLU()(x)))))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, signed(layers.Dense(4, bias_initializer="normal", name="seg")(x)))


def test_gains_become_positive_and_the_function_stays() -> None:
    model = signed_network()
    features = np.random.default_rng(1).normal(size=(2, 23, 8)).astype(np.float32)
    before = model(features).numpy()
    own = {name: model.get_layer(name).get_weights() for name in ("shared", "transposed")}
    positive_gains(model)
    np.testing.assert_array_equal(model(features).numpy(), before)
    norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    signed = [norm.name for norm in norms if (norm.gamma.numpy() < 0).any()]
    assert signed == ["bn_transposed_2", "bn_shared_3", "bn_shared_4"]
    for name, weights in own.items():
        for one, other in zip(weights, model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", ["rounded", "calibrated"])
def test_files_of_negative_gains_compute_the_same(form: str, tmp_path: Path) -> None:
    """Rounding keeps them, and the file has a MUL for each of these layers; calibration does not.

    As many as keep theirs: a shared layer and a transposed one.
    """
    model = signed_network()
    recipe = QuantizationRecipe.uniform(model, bits=4)
    small = tfq_sv.quantize(model, recipe, calibrate=form == "calibrated")
    export_tflite(small, tmp_path / "a.tflite", "features", compute="float32")
    features = np.random.default_rng(1).normal(size=(23, 8)).astype(np.float32)
    expected = small(features[None]).numpy()[0]
    for fast in (False, True):
        found = SpeakerEncoder(tmp_path / "a.tflite", fast=fast, check_speech=False).embed(features)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    graph = flatbuffer.read((tmp_path / "a.tflite").read_bytes())
    kernels = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}
    ops = [flatbuffer.op_name(graph, op) for op in graph.subgraphs[0].operators]
    turned = [one for one, other in itertools.pairwise(ops) if one in kernels and other == "MUL"]
    assert len(turned) == (6 if form == "rounded" else 3), ops
