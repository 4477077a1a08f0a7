"""The same function before and after, and kernels that no longer depend on channels' scales."""

from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import shallow, some

from tfq_sv import models
from tfq_sv.quantization.equalization import equalize

layers = keras.layers
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet18": {"channels": 4},
    "ResNet50": {"channels": 4},
    "DF_ResNet56": {"channels": 4},
    "Gemini_DF_ResNet60": {"channels": 4},
    "CAMPPlus": {"channels": 4},
    "ECAPA_TDNN_GLOB_c512": {"channels": 16},
}


def randomize(model: keras.Model, rng: np.random.Generator) -> None:
    """Weights, gains and statistics as unlike each other as in trained networks."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                sizes = np.exp(rng.normal(0, 0.4, variable.shape))
                signed = variable.name.split("/")[-1].startswith(("beta", "gamma", "moving_mean"))
                variable.assign(sizes * rng.choice([-1, 1], variable.shape) if signed else sizes)


def features_of(model: keras.Model, rng: np.random.Generator) -> Any:
    return rng.normal(0, 1, (2, 60, *model.input_shape[2:])).astype(np.float32)


@pytest.mark.parametrize("name", some(NETWORKS, "ResNet18", "DF_ResNet56"))
def test_the_function_stays_and_kernels_become_even(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "ResNet18":  # which has its full depth
        shallow(monkeypatch)
    rng = np.random.default_rng(0)
    model = models.build(name, embed_dim=8, **NETWORKS[name])
    randomize(model, rng)
    features = features_of(model, rng)
    before = model(features).numpy()
    kernels = [np.array(w) for w in model.get_weights()]
    equalize(model)
    np.testing.assert_allclose(model(features), before, atol=2e-4 * np.abs(before).max())
    moved = [
        not np.allclose(one, other, rtol=0.01)
        for one, other in zip(kernels, model.get_weights(), strict=True)
    ]
    assert np.mean(moved) > 0.5


def test_how_a_network_was_scaled_is_forgotten() -> None:
    """Scaled by hand, a ReLU apart and around BatchNorm: both give the same kernels."""
    rng = np.random.default_rng(1)
    image = keras.Input((None, 6))
    x = layers.Conv1D(5, 3, name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.Conv1D(7, 1, activation="relu", name="second")(x)
    model = keras.Model(image, layers.Dense(3, name="third")(x))
    randomize(model, rng)
    features = rng.normal(0, 1, (2, 30, 6)).astype(np.float32)
    scaled = keras.models.clone_model(model)
    scaled.set_weights(model.get_weights())
    a, b, c = (np.exp(rng.normal(0, 0.6, n)).astype(np.float32) for n in (5, 5, 7))
    first, norm, second, third = (scaled.get_layer(n) for n in ("first", "norm", "second", "third"))
    first.set_weights([first.kernel * a, first.bias * a])
    gain = (
        norm.gamma
        * b
        * np.sqrt((norm.moving_variance * a**2 + 1e-3) / (norm.moving_variance + 1e-3))
        / a
    )
    norm.set_weights([gain, norm.beta * b, norm.moving_mean * a, norm.moving_variance * a**2])
    second.set_weights([second.kernel / b[:, None] * c, second.bias * c])
    third.set_weights([third.kernel / c[:, None], third.bias])
    np.testing.assert_allclose(scaled(features), model(features), rtol=1e-4, atol=1e-4)
    for network in (model, scaled):
        equalize(network)
    for name in ("first", "second", "third"):
        one, other = (n.get_layer(name).kernel.numpy() for n in (model, scaled))
        # One factor for all channels of a tensor is free: it scales a whole kernel.
        ratio = one / other
        np.testing.assert_allclose(ratio, np.full(ratio.shape, np.median(ratio)), rtol=0.02)


def test_channels_that_cannot_be_scaled_stay() -> None:
    """Sigmoids, clipped ReLUs, other layers: before and after them nothing is scaled."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a")(image)
    x = layers.ReLU(max_value=6)(x)
    x = layers.Conv2D(4, 3, activation="sigmoid", name="b")(x)
    gate = layers.Dense(4, activation="sigmoid", name="c")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 4))(gate)])
    x = layers.LayerNormalization()(x)
    model = keras.Model(image, layers.Dense(2, name="d")(layers.Flatten()(x)))
    before = model.get_weights()
    equalize(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_layer_that_is_called_again_has_one_scale() -> None:
    rng = np.random.default_rng(3)
    image = keras.Input((None, 4))
    shared = layers.Dense(4, activation="relu", name="shared")
    x = layers.Dense(4, name="in")(image)
    model = keras.Model(image, layers.Dense(2, name="out")(shared(shared(x))))
    features = rng.normal(0, 1, (2, 9, 4)).astype(np.float32)
    before = model(features).numpy()
    equalize(model)
    np.testing.assert_allclose(model(features), before, rtol=1e-4, atol=1e-5)


def test_dead_channels_are_left_in_peace() -> None:
    """No warning, nothing infinite: channels of zeros, and inputs that are always zero."""
    rng = np.random.default_rng(4)
    image = keras.Input((None, 4))
    x = layers.Dense(5, activation="relu", name="a")(image)
    model = keras.Model(image, layers.Dense(2, name="b")(x))
    kernel = model.get_layer("a").kernel.numpy().copy()
    kernel[:, 1] = 0
    kernel[:, 2] = -5
    model.get_layer("a").set_weights([kernel, np.float32([0, 0, -99, 0, 0])])
    features = np.abs(rng.normal(0, 1, (2, 9, 4))).astype(np.float32)
    before = model(features).numpy()
    with np.errstate(all="raise"):
        equalize(model)
    np.testing.assert_allclose(model(features), before, rtol=1e-4, atol=1e-5)
    assert all(np.isfinite(w).all() and np.abs(w).max() < 1e5 for w in model.get_weights())
