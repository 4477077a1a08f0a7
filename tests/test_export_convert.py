"""Every claim about a written file, proved on the interpreter that people run it with."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import randomize, shallow, slow
from learned_scale import with_learned_scales

import tfq_sv
from tfq_sv import codebook, models
from tfq_sv.codebook import Codebook
from tfq_sv.errors import InputError
from tfq_sv.export import (
    SpeakerEncoder,
    convert,
    export_tflite,
    filters,
    flatbuffer,
    float32,
    inflate,
)
from tfq_sv.features import FbankOptions, fbank
from tfq_sv.quantization import quantized_model

layers = keras.layers
FEAT_DIM = 16
RNG = np.random.default_rng(0)
MIXED = [1, 3, 5, 8, 4, 2]
FRONT_END_OPS = {
    *("SUB", "ABS", "STRIDED_SLICE", "RFFT2D", "COMPLEX_ABS", "SQUARE", "BATCH_MATMUL"),
    *("MAXIMUM", "LOG"),
}
ONE_RECORDING_OPS = {"TRANSPOSE", "SQUEEZE", "EXPAND_DIMS"}
OPS = {  # what a file may use beside the network's own ops
    *("CAST", "GATHER", "RESHAPE", "ADD", "MUL", "SLICE", "TRANSPOSE", "DEQUANTIZE"),
    *("SPLIT_V", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "PAD", "MEAN"),
}


def norm(negative: bool) -> Any:
    """Makes BatchNorm layers that are not the identity; some gammas negative, two next to none."""

    def apply(x: Any) -> Any:
        layer = layers.BatchNormalization()
        y = layer(x)
        size = y.shape[-1]
        gamma = RNG.uniform(0.5, 1.5, size) * (RNG.choice([1, 1, -1], size) if negative else 1)
        gamma[1:3] = 0, 3e-42
        layer.set_weights([gamma, *RNG.normal(size=(2, size)) * 0.2, RNG.uniform(0.5, 2, size)])
        return y

    return apply


def image_network(negative: bool = True) -> Any:
    """Strided, 1x1, depthwise and residual convolutions, and a dense layer with a bias."""
    bn = norm(negative)
    features = layers.Input((None, FEAT_DIM))
    x = layers.Reshape((FEAT_DIM, -1, 1))(layers.Permute((2, 1))(features))
    x = layers.ReLU()(bn(layers.Conv2D(7, 3, padding="same", use_bias=False, name="stem")(x)))
    y = layers.ZeroPadding2D(1)(x)
    y = layers.ReLU()(bn(layers.Conv2D(9, 3, strides=2, use_bias=False, name="down")(y)))
    y = bn(layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(y))
    z = bn(layers.Conv2D(9, 1, strides=2, use_bias=False, name="shortcut")(x))
    x = layers.ReLU()(layers.Add()([y, z]))
    x = layers.Conv2D(10, 3, padding="same", name="bare")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(features, layers.Dense(12, bias_initializer="normal", name="seg")(x))


def frame_network() -> Any:
    """A network of Conv1D and of Dense layers on frames; one layer is used twice."""
    bn = norm(negative=True)
    features = layers.Input((None, FEAT_DIM))
    shared = layers.Conv1D(FEAT_DIM, 5, padding="same", use_bias=False, name="shared")
    x = layers.ReLU()(bn(shared(features)))
    x = layers.Add()([bn(shared(x)), x])
    x = bn(layers.Dense(9, name="frames")(x))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(features, layers.Dense(12, name="seg")(x))


def quantized(model: Any, bits: list[int]) -> dict[str, Codebook]:
    """Replaces the model's kernels by decoded codebooks; returns these."""
    books: dict[str, Codebook] = {}
    for layer in model.layers:
        kernel = getattr(layer, "depthwise_kernel", getattr(layer, "kernel", None))
        if kernel is not None:
            weights = kernel.numpy()
            centroids = codebook.snap(codebook.fit(weights, bits[len(books) % len(bits)]))
            books[layer.name] = Codebook(centroids, codebook.assign(weights, centroids))
            kernel.assign(books[layer.name].decode())
    return books


def op_names(parsed: Any) -> set[str]:
    return {
        flatbuffer.op_name(parsed, operator)
        for subgraph in parsed.subgraphs
        for operator in subgraph.operators
    }


def features(frames: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(frames, FEAT_DIM)).astype(np.float32)


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check(path: Path, model: Any, books: dict[str, Codebook], compute: str) -> None:
    built = convert.build(model, books, "features", compute=compute)
    path.write_bytes(built.data)
    inner = inflate(path)
    for fast in (False, True):
        encoder = SpeakerEncoder(path, fast=fast)
        assert encoder.about["inflated_sha256"] == hashlib.sha256(inner).hexdigest()
        assert encoder.about["inflated_bytes"] == len(inner) == built.inflated_bytes
        for frames in (24, 37, 10):
            x = features(frames)
            expected = model(x[None], training=False).numpy()[0]
            if compute == "float32":
                np.testing.assert_allclose(encoder.embed(x), expected, atol=1e-4, rtol=1e-4)
            else:
                assert cosine(encoder.embed(x), expected) > 0.999


@pytest.mark.parametrize(
    "bits",
    [MIXED, *(pytest.param([b], marks=pytest.mark.slow) for b in range(1, 9))],
    ids=str,
)
def test_both_signatures_equal_keras_at_all_bits(tmp_path: Path, bits: list[int]) -> None:
    model = image_network()
    check(tmp_path / "a.tflite", model, quantized(model, bits), "float32")


@pytest.mark.parametrize("negative", [False, True])
def test_int8_compute_is_close_to_keras(tmp_path: Path, negative: bool) -> None:
    model = image_network(negative)
    check(tmp_path / "a.tflite", model, quantized(model, MIXED), "int8")


@pytest.mark.parametrize("compute", ["int8", "float32"])
def test_networks_of_frames_and_shared_layers(tmp_path: Path, compute: str) -> None:
    model = frame_network()
    check(tmp_path / "a.tflite", model, quantized(model, MIXED), compute)


def test_layers_without_a_codebook_stay_float(tmp_path: Path) -> None:
    model = image_network()
    books = quantized(model, [4])
    del books["stem"], books["seg"]
    check(tmp_path / "a.tflite", model, books, "float32")


def test_a_file_that_takes_waveforms(tmp_path: Path) -> None:
    model, path = image_network(), tmp_path / "a.tflite"
    books = quantized(model, MIXED)
    built = convert.build(model, books, compute="float32")
    path.write_bytes(built.data)
    assert len(built.data) - len(convert.build(model, books, "features").data) < 40_000
    parsed = flatbuffer.read(built.data)
    assert op_names(parsed) <= OPS | FRONT_END_OPS | ONE_RECORDING_OPS
    for fast in (False, True):
        encoder = SpeakerEncoder(path, fast=fast)
        about = encoder.about
        entry = about["input"], about["sample_rate"], about["min_samples"]
        assert entry == ("waveform", 16000, 3200)
        assert FbankOptions(**about["frontend"]) == models.front_end(model)
        for samples in (3200, 17777, 16000):
            waveform = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
            expected = model(fbank(waveform, models.front_end(model))[None]).numpy()[0]
            np.testing.assert_allclose(encoder.embed(waveform), expected, atol=1e-3, rtol=1e-3)
        with pytest.raises(InputError, match=r"samples reach 4e\+30"):
            encoder.embed(np.full(9000, 4e30))
        with pytest.raises(InputError, match=r"3199 samples are too few; .* 3200 \(0\.2 s\)"):
            encoder.embed(waveform[:3199])
        with pytest.raises(InputError, match="the front end is in the file"):
            encoder.embed(features(30))


def test_inflated_filters_are_the_levels() -> None:
    model = image_network()
    books = quantized(model, MIXED)
    network, found = convert.float_network(float32.convert(model, "features"), books, "features")
    inner, places = convert.inflated(network, found, set(books))
    parsed = flatbuffer.read(inner)
    held = {}
    for tensor in parsed.subgraphs[0].tensors:
        if tensor.type == flatbuffer.INT8:
            content = flatbuffer.buffer_bytes(parsed, tensor.buffer)
            held[content] = tuple(tensor.quantization.scale), list(tensor.shape)
    assert {match.layer for match in found.values()} == set(books)
    for match in found.values():
        scales, shape = held[match.levels().tobytes()]
        assert shape == list(match.shape)
        along = [-1 if axis == match.axis else 1 for axis in range(len(match.shape))]
        decoded = match.levels() * match.scales().reshape(along)
        laid_out = filters._layout(
            match.book.decode(), match.axis, len(match.shape), match.transposed
        )
        folded = laid_out * match.gains.reshape(along)
        np.testing.assert_allclose(decoded, folded, rtol=1e-5, atol=1e-27)
        assert set(scales) <= set(match.scales())
    starts = [start for start, _ in flatbuffer.buffer_spans(inner) if start]
    assert all(start % 16 == 0 for start in starts)
    assert set(places) <= set(starts)


Mixed = tuple[Any, dict[str, Codebook], bytes]


@pytest.fixture(scope="module")
def mixed() -> Mixed:
    model = image_network()
    books = quantized(model, MIXED)
    return model, books, convert.build(model, books, "features").data


def test_file_has_stock_ops_alone(mixed: Mixed) -> None:
    parsed = flatbuffer.read(mixed[2])
    assert op_names(parsed) <= OPS | ONE_RECORDING_OPS
    assert not any(code.customCode for code in parsed.operatorCodes)
    assert [s.signatureKey for s in parsed.signatureDefs] == [b"embed", b"inflate", b"about"]


@pytest.mark.parametrize("bits", [1, 4])
def test_a_layer_complexity_little_beside_its_codes(bits: int) -> None:
    model = image_network(negative=False)
    books = quantized(model, [bits])
    codes = sum(book.codes.size * bits / 8 for book in books.values())
    channels = 7 + 9 + 9 + 9 + 10 + 12
    shared = 2048 + 1024  # the table of codes in a byte, at most, and the metadata
    size = len(convert.build(model, books, "features").data)
    assert size < codes + (2**bits + 2500) * len(books) + 8 * channels + shared


def test_a_negative_gain_costs_an_op_and_a_vector() -> None:
    """Calibration leaves none; rounding and training may."""
    model = image_network(negative=True)
    books = quantized(model, [4])
    sizes = [len(convert.build(model, books, "features").data)]
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.abs(layer.gamma))
    sizes.append(len(convert.build(model, books, "features").data))
    assert 0 < sizes[0] - sizes[1] < 4 * (300 + 2 * 4 * 9)  # of four layers; both signatures


def test_ops_are_of_versions_that_tflite_2_14_has(
    mixed: Mixed,
) -> None:
    limits = {"GATHER": 2, "FULLY_CONNECTED": 9, "CONV_2D": 5, "DEQUANTIZE": 5, "SLICE": 2}
    for code in (parsed := flatbuffer.read(mixed[2])).operatorCodes:
        assert code.deprecatedBuiltinCode == min(code.builtinCode, 127)
    for subgraph in parsed.subgraphs:
        for operator in subgraph.operators:
            name = flatbuffer.op_name(parsed, operator)
            assert parsed.operatorCodes[operator.opcodeIndex].version <= limits.get(name, 2), name


def test_scales_are_stored_once(mixed: Mixed) -> None:
    model, books, data = mixed
    _, found = convert.float_network(float32.convert(model, "features"), books, "features")
    scales = found.values()
    wide = [match.scales().tobytes() for match in scales if match.shape[match.axis] == 9]
    assert [data.count(content) for content in wide] == [1] * len(wide)


def test_equal_models_give_equal_bytes(mixed: Mixed) -> None:
    model, books, data = mixed
    assert convert.build(model, books, "features").data == data


def test_a_layer_that_left_no_trace_is_named(
    mixed: Mixed,
) -> None:
    stray = Codebook(np.float32([-1, 1]), np.ones((3, 3, 7, 9), np.uint8))
    with pytest.raises(InputError, match="'elsewhere'"):
        convert.build(mixed[0], {**mixed[1], "elsewhere": stray}, "features")


def test_refuses_options_that_are_not_there(mixed: Mixed, tmp_path: Path) -> None:
    model, books, _ = mixed
    with pytest.raises(InputError, match="compute"):
        convert.build(model, books, "features", compute="float16")
    with pytest.raises(InputError, match="quantize"):
        convert.build(model, {})
    with pytest.raises(InputError, match='"waveform" or "features", not \'audio\''):
        convert.build(model, books, "audio")


def test_export_writes_what_quantize_made(tmp_path: Path) -> None:
    model = image_network()
    network = tfq_sv.quantize(
        model, tfq_sv.QuantizationRecipe.uniform(model, bits=4), calibrate=False
    )
    path = tmp_path / "new" / "speaker.tflite"
    report = export_tflite(network, path, "features", about={"trials": "made"})
    assert report.bytes == path.stat().st_size
    assert report.layers["down"] == convert.LayerReport(4, 567, 284 + 16)
    encoder, x = SpeakerEncoder(path), features(30)
    assert (encoder.about["trials"], encoder.about["recipe"]["seg"]) == ("made", 4)
    assert cosine(encoder.embed(x), network(x[None], training=False).numpy()[0]) > 0.999
    with pytest.raises(InputError, match="overwrite"):
        export_tflite(network, path, overwrite=False)


@pytest.mark.parametrize("shape", [(16,), (32000,)])
def test_what_takes_neither_features_nor_waveforms_is_refused(
    shape: tuple[int], tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input(shape), keras.layers.Dense(4)])
    recipe = tfq_sv.QuantizationRecipe.uniform(model, bits=2)
    network = tfq_sv.quantize(model, recipe, calibrate=False)
    with pytest.raises(InputError, match=r"expected features \(None, None, mel bins\)"):
        export_tflite(network, tmp_path / "x.tflite")


FAMILY = {
    "ResNet50": {"two_emb_layer": True},  # bottlenecks
    "DF_ResNet56": {"pooling": "ASTP"},
    "Gemini_DF_ResNet60": {"pooling": "TAP"},
    "ResNet18": {"pooling": "TSDP"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_every_kind_of_network_in_the_family(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three bits, which are two planes and have gammas of both signs in each layer.

    One block a stage has every kind of layer; full depth is test_benchmarks' part.
    """
    shallow(monkeypatch)
    keras.utils.set_random_seed(0)
    model = models.build(name, feat_dim=32, embed_dim=12, channels=8, **FAMILY[name])
    network = tfq_sv.quantize(
        randomize(model), tfq_sv.QuantizationRecipe.uniform(model, bits=3), calibrate=False
    )
    books, plain = quantized_model.codebooks(network), quantized_model.dequantize(network)
    x = np.random.default_rng(0).normal(size=(61, 32)).astype(np.float32)
    expected = network(x[None], training=False).numpy()[0]
    for compute in ("float32", "int8"):
        built = convert.build(plain, books, "features", compute=compute)
        (tmp_path / "a.tflite").write_bytes(built.data)
        for fast in (False, True):
            found = SpeakerEncoder(tmp_path / "a.tflite", fast=fast).embed(x)
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            assert error < (1e-4 if compute == "float32" else 0.05), (compute, fast)


@pytest.mark.parametrize("kind", ["adaptive", *slow("static", "learned scale")])
def test_binary_networks(kind: str, tmp_path: Path) -> None:
    model = image_network()
    if kind == "learned scale":
        network = with_learned_scales(model)
    else:
        network = tfq_sv.quantize(
            model, tfq_sv.QuantizationRecipe.binary(model, kind), calibrate=False
        )
    export_tflite(network, tmp_path / "a.tflite", "features", compute="float32")
    x = features(30)
    expected = network(x[None], training=False).numpy()[0]
    for fast in (False, True):
        encoder = SpeakerEncoder(tmp_path / "a.tflite", fast=fast)
        np.testing.assert_allclose(encoder.embed(x), expected, rtol=1e-3, atol=1e-4)
    recipe = "static_binary" if kind == "static" else "adaptive_binary"
    assert set(encoder.about["recipe"].values()) == {recipe}
