import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import randomize

import tfq_sv
from tfq_sv import models
from tfq_sv.errors import InputError
from tfq_sv.features import THREE_D_SPEAKER

WESPEAKER = Path(__file__).parent / "data" / "wespeaker"
LAYERS = keras.layers

# Trainable parameters at feat_dim 80, embed_dim 256, TSTP.
PARAMETERS = {
    "ResNet18": 4_105_440,
    "ResNet34": 6_634_336,
    "ResNet50": 11_131_360,
    "DF_ResNet56": 4_693_920,
    "DF_ResNet110": 7_177_632,
    "DF_ResNet179": 9_842_464,
    "DF_ResNet233": 12_326_176,
    "ResNet152": 19_814_880,
}


def checkpoint(name: str) -> dict[str, np.ndarray]:
    """Weights in WeSpeaker's layout that anybody can make again: seeded by each key."""
    state = {}
    for key, shape in json.loads((WESPEAKER / f"{name}.json").read_text()).items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        leaf = key.rsplit(".", 1)[-1]
        if leaf == "num_batches_tracked":
            continue
        if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
            low, high = (0.5, 1.5) if leaf == "running_var" else (0.1, 0.4)
            value = rng.uniform(low, high, shape)
        elif leaf in ("running_mean", "bias"):
            value = rng.normal(0.0, 0.1, shape)
        else:
            value = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        state[key] = value.astype(np.float32)
    return state


def fill(model: keras.Model, state: dict[str, np.ndarray]) -> None:
    """Puts a PyTorch state dict into a model of the same layer names; every key must be used."""
    left = dict(state)
    for layer in model.layers:
        name = layer.name
        if isinstance(layer, LAYERS.BatchNormalization):
            keys = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([left.pop(f"{name}.{key}") for key in keys])
        elif isinstance(layer, LAYERS.DepthwiseConv2D):
            layer.set_weights([left.pop(f"{name}.weight").transpose(2, 3, 0, 1)])
        elif isinstance(layer, LAYERS.Conv2D):
            layer.set_weights([left.pop(f"{name}.weight").transpose(2, 3, 1, 0)])
        elif isinstance(layer, LAYERS.Dense):
            layer.set_weights([left.pop(f"{name}.weight").T, left.pop(f"{name}.bias")])
    assert not left


def count(model: keras.Model) -> int:
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    assert count(models.build(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["ResNet18", "ResNet34", "Gemini_DF_ResNet60"])
def test_networks_equal_pytorch(name: str) -> None:
    """The answers were computed by WeSpeaker's own PyTorch networks on these weights."""
    model = models.build(name)
    fill(model, checkpoint(name))
    answers = np.load(WESPEAKER / f"{name}.npz")
    for frames in (198, 200, 301):
        features = np.random.default_rng(frames).normal(0.0, 1.0, (2, frames, 80))
        embedding = model(features.astype(np.float32)).numpy()
        np.testing.assert_allclose(embedding, answers[f"y{frames}"], atol=1e-5)


@pytest.mark.parametrize("form", ["model.keras", "model.h5", "saved_model"])
@pytest.mark.parametrize("name", ["ResNet18", "DF_ResNet56", "Gemini_DF_ResNet60"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saves_and_loads(name: str, form: str, tmp_path: Path) -> None:
    model = randomize(models.build(name, channels=4, embed_dim=8, fbank=THREE_D_SPEAKER))
    features = np.random.default_rng(0).normal(size=(1, 50, 80)).astype(np.float32)
    expected = model(features)
    model.save(tmp_path / form)
    loaded = tfq_sv.load_model(tmp_path / form)
    np.testing.assert_array_equal(loaded(features), expected)
    assert models.front_end(loaded) == THREE_D_SPEAKER


def test_loads_front_ends_saved_before_they_had_every_option() -> None:
    config = models.FrontEnd(THREE_D_SPEAKER).get_config()
    del config["fbank"]["snip_edges"]
    assert models.FrontEnd.from_config(config).fbank == THREE_D_SPEAKER


@pytest.mark.parametrize("pooling", models.POOLINGS)
def test_poolings(pooling: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 3, 7, 4)).astype(np.float32)
    entry = keras.Input((3, None, 4))
    model = keras.Model(entry, models.pool(entry, pooling))
    pooled = model(image).numpy()
    flat = image.transpose(0, 3, 1, 2).reshape(2, 12, 7)  # PyTorch's (B, C F, T)
    mean, deviation = flat.mean(axis=2), np.sqrt(flat.var(axis=2, ddof=1) + 1e-7)
    if pooling == "ASTP":
        first, second = (layer.get_weights() for layer in model.layers if layer.weights)
        hidden = np.tanh(flat.transpose(0, 2, 1) @ first[0] + first[1])
        logits = hidden @ second[0] + second[1]
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        mean = np.einsum("btd,bdt->bd", weights, flat)
        deviation = np.sqrt(np.einsum("btd,bdt->bd", weights, flat**2) - mean**2)
    expected: dict[str, Any] = {"TAP": [mean], "TSDP": [deviation]}
    parts = expected.get(pooling, [mean, deviation])
    np.testing.assert_allclose(pooled, np.concatenate(parts, axis=1), rtol=1e-4, atol=1e-5)


def test_one_frame_has_no_deviation_and_no_nan() -> None:
    image = np.ones((1, 2, 1, 3), np.float32)
    assert np.isfinite(models.pool(image, "TSTP")).all()


def test_two_embedding_layers() -> None:
    model = models.build("ResNet18", channels=4, embed_dim=8, two_emb_layer=True)
    assert {"seg_1", "seg_bn_1", "seg_2"} <= {layer.name for layer in model.layers}
    assert model.output_shape == (None, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ResNet35"}, "unknown network 'ResNet35'; known are ResNet18"),
        ({"name": "ResNet18", "pooling": "MAX"}, "unknown pooling 'MAX'"),
        ({"name": "ResNet18", "feat_dim": 81}, "multiple of 8, not 81"),
        ({"name": "Gemini_DF_ResNet60", "feat_dim": 72}, "multiple of 16, not 72"),
        ({"name": "ResNet18", "channels": 0}, "must be positive"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.build(**settings)
