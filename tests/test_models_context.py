"""Context over segments, and dilated convolutions, against plain loops and stock operations."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

from tfq_sv import models
from tfq_sv.evaluation.measurement import KerasEncoder
from tfq_sv.export import export_float32
from tfq_sv.features import fbank
from tfq_sv.models.context import MatMul, Segments
from tfq_sv.models.dilation import all_native, has_dilation, native_dilation, traced
from tfq_sv.models.sequence import frame_conv


@pytest.mark.parametrize("frames", [1, 7, 99, 100, 101, 250, 1000])
def test_segments(frames: int) -> None:
    x = np.random.default_rng(frames).normal(size=(2, 1, frames, 3)).astype(np.float32)
    context, spread = Segments(100)(x)
    spread_context = MatMul()((spread, MatMul()((context, x)))).numpy()
    for frame in range(frames):
        start = frame // 100 * 100
        expected = x.mean(axis=2) + x[:, :, start : start + 100].mean(axis=2)
        np.testing.assert_allclose(spread_context[:, :, frame], expected, atol=1e-5)


def test_segments_cost_no_shape_at_run_time(tmp_path: Path) -> None:
    entry = keras.Input((1, None, 4))
    context, spread = Segments(3)(entry)
    y = MatMul()((spread, MatMul()((context, entry))))
    y = frame_conv(y, "dilated", 5, 3, dilation=2)
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(y))
    export_float32(model, tmp_path / "a.tflite", input="features")
    interpreter = Interpreter(str(tmp_path / "a.tflite"))
    names = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert "CONV_2D" in names
    assert not names & {"SHAPE", "SPACE_TO_BATCH_ND", "FILL", "RANGE", "PACK", "BROADCAST_TO"}


def test_native_dilation_computes_the_same_and_ends() -> None:
    entry = keras.Input((1, None, 4))
    model = keras.Model(entry, frame_conv(entry, "dilated", 5, 3, dilation=2))
    x = np.random.default_rng(0).normal(size=(2, 1, 31, 4)).astype(np.float32)

    def traced() -> tuple[set[str], np.ndarray]:
        function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec(x.shape))
        return {op.type for op in function.graph.get_operations()}, function(x).numpy()

    with native_dilation(model):
        kinds, inside = traced()
    assert "SpaceToBatchND" not in kinds
    kinds, outside = traced()
    assert "SpaceToBatchND" in kinds
    np.testing.assert_allclose(inside, outside, atol=1e-5)


def test_dilated_layers_compute_the_same_at_any_length() -> None:
    """TensorFlow's optimizer confuses the sizes of such graphs where their length is open."""
    network = models.build("ECAPA_TDNN_c512", channels=16)
    encoder, rng = KerasEncoder(network), np.random.default_rng(0)
    for length in (16000, 8000, 24160):
        waveform = (0.1 * rng.normal(size=length)).astype(np.float32)
        expected = network(fbank(waveform)[None])[0]
        np.testing.assert_allclose(encoder.embed(waveform), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("native", [True, False])
def test_traces_of_dilated_layers_keep_their_length(native: bool) -> None:
    entry = keras.Input((None, 4))
    kind = keras.layers.Conv2D if native else keras.layers.DepthwiseConv2D
    size = {"filters": 4} if native else {}
    y = keras.layers.Reshape((1, -1, 4))(entry)
    y = kind(kernel_size=(1, 3), dilation_rate=(1, 2), **size)(y)
    model = keras.Model(entry, y)
    assert has_dilation(model)
    assert all_native(model) == native
    lengths = set()
    step = traced(lambda x: lengths.add(x.shape[1]) or model(x), model)
    for length in (10, 11, 12, 11):
        step(np.zeros((1, length, 4), np.float32))
    assert lengths == {10, 11, 12}
