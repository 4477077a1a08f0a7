import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from conftest import randomize, shallow, slow, some

import tfq_sv
from tfq_sv import models
from tfq_sv.errors import InputError
from tfq_sv.export import export_float32
from tfq_sv.features import THREE_D_SPEAKER, WESPEAKER
from tfq_sv.models.frontend import network_input
from tfq_sv.reports.complexity import layer_complexity

# Trainable parameters at feat_dim 80, embed_dim 256, TSTP. WeSpeaker's README and runtime pages
# publish, in millions: 6.63, 11.13, 15.89, 19.81, 23.79, 28.62 from ResNet34 on, Gemini114 6.53.
PARAMETERS = {
    "ResNet18": 4_105_440,
    "ResNet34": 6_634_336,
    "ResNet50": 11_131_360,
    "ResNet101": 15_892_448,
    "ResNet152": 19_814_880,
    "ResNet221": 23_792_224,
    "ResNet293": 28_626_016,
    "DF_ResNet56": 4_693_920,
    "DF_ResNet110": 7_177_632,
    "DF_ResNet179": 9_842_464,
    "DF_ResNet233": 12_326_176,
    "Gemini_DF_ResNet60": 4_047_840,
    "Gemini_DF_ResNet114": 6_531_552,
    "Gemini_DF_ResNet183": 9_196_384,
    "Gemini_DF_ResNet237": 11_680_096,
}
# At their usual sizes; 3D-Speaker publishes 7.18 million for CAM++.
OTHERS = {
    "CAMPPlus": 7_176_224,
    "ECAPA_TDNN_c512": 5_797_504,
    "ECAPA_TDNN_GLOB_c512": 6_190_720,
    "ECAPA_TDNN_c1024": 14_263_872,
    "ECAPA_TDNN_GLOB_c1024": 14_657_088,
    "ECAPA_TDNN_SpeechBrain": 20_767_552,
}
# Multiplications at 200 frames in G: all, and without the last layer. WeSpeaker publishes 4.55 for
# ResNet34 and 14.76 for ResNet152.
MULTIPLICATIONS = {
    "ResNet34": (4.528, 4.527),
    "ResNet152": (14.542, 14.537),
    "DF_ResNet56": (2.718, 2.716),
    "DF_ResNet233": (10.746, 10.745),
    "Gemini_DF_ResNet60": (2.793, 2.792),
}
SAVED = [
    "ResNet18",
    "ResNet50",
    "DF_ResNet56",
    "Gemini_DF_ResNet60",
    "CAMPPlus",
    "ECAPA_TDNN_GLOB_c512",
]
WIDTHS = {"ECAPA_TDNN_GLOB_c512": 16}  # of small networks; 4 elsewhere


def test_every_network_is_counted() -> None:
    assert {*PARAMETERS, *OTHERS} == set(models.NAMES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if re.search("ResNet[12].[0-9]|DF_|50|CAMPPlus|ECAPA", name)
        else name
        for name in (*PARAMETERS, *OTHERS)
    ],
)
def test_published_sizes(name: str) -> None:
    model = models.build(name)
    # One flat graph without code in it, which tfmot and every file format ask for.
    assert not any(isinstance(layer, keras.Model | keras.layers.Lambda) for layer in model.layers)
    assert not any("OpLambda" in type(layer).__name__ for layer in model.layers)
    weights = model.trainable_weights
    assert sum(int(np.prod(weight.shape)) for weight in weights) == {**PARAMETERS, **OTHERS}[name]
    if name in MULTIPLICATIONS:
        costs = layer_complexity(model)
        total = sum(cost.macs for cost in costs.values())
        found = (total / 1e9, (total - costs["seg_1"].macs) / 1e9)
        assert tuple(round(x, 3) for x in found) == MULTIPLICATIONS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ResNet34", "DF_ResNet56", "Gemini_DF_ResNet60", "CAMPPlus", "ECAPA_TDNN_GLOB_c512"]
)
def test_one_float_tflite_runs_at_any_length(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shallow(monkeypatch)
    model = randomize(models.build(name, channels=64 if name in WIDTHS else 8))
    export_float32(model, tmp_path / "float.tflite", input="features")
    interpreter = Interpreter(str(tmp_path / "float.tflite"))
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    for frames in (198, 301, 97, 777):
        features = np.random.default_rng(frames).normal(size=(1, frames, 80)).astype(np.float32)
        interpreter.resize_tensor_input(entry["index"], features.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], features)
        interpreter.invoke()
        expected = model(features).numpy()
        found = interpreter.get_tensor(end["index"])
        assert np.max(np.abs(found - expected)) < 1e-4 * np.max(np.abs(expected))


@pytest.mark.parametrize(
    "form",
    [
        "model.keras",
        *slow("model.h5", "saved_model"),
    ],
)
@pytest.mark.parametrize("name", some(SAVED, "ResNet18"))
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saves_and_loads(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shallow(monkeypatch)
    model = randomize(
        models.build(name, channels=WIDTHS.get(name, 4), embed_dim=8, fbank=THREE_D_SPEAKER)
    )
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


@pytest.mark.parametrize("shape", [(16000,), (), (0, 16000), (2, 10), (2, 50, 40)])
def test_batches_that_no_network_takes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"a batch has the shape \("):
        network_input(np.zeros(shape, np.float32), WESPEAKER)


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
        ({"name": "CAMPPlus", "feat_dim": 81}, "multiple of 8, not 81"),
        ({"name": "CAMPPlus", "pooling": "ASTP"}, "the pooling of CAMPPlus is TSTP, not ASTP"),
        ({"name": "CAMPPlus", "two_emb_layer": True}, "CAMPPlus has one embedding layer"),
        ({"name": "ECAPA_TDNN_c512", "channels": 20}, "a multiple of 8, not 20"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.build(**settings)
