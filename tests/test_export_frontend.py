"""The front end in the graph against Kaldi's own code and ours, on the interpreter."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from test_features import PRESETS, SIGNALS, kaldi, speech

from tfq_sv import features, models
from tfq_sv.errors import InputError
from tfq_sv.export import flatbuffer, float32, frontend
from tfq_sv.features import FbankOptions

SECONDS = [0.2, 0.21, 0.25, 0.333, 1, 2.4, 3.0001, 60]


def transposing(options: FbankOptions) -> keras.Model:
    """A network that only turns its features around: what it gives is the front end's output."""
    entry = keras.Input((None, options.num_bins))
    return keras.Model(entry, models.FrontEnd(options)(entry))


def run(data: bytes, waveform: Any) -> Any:
    interpreter = Interpreter(model_content=data)
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], [1, len(waveform)])
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], waveform[None].astype(np.float32))
    interpreter.invoke()
    return interpreter.get_tensor(output["index"])[0, :, :, 0].T


@pytest.fixture(scope="module", params=PRESETS)
def preset(request: pytest.FixtureRequest) -> tuple[FbankOptions, bytes]:
    options = PRESETS[request.param]
    return options, float32.convert(transposing(options), "waveform")


@pytest.mark.parametrize("name", ["noise", "speech", "clipped", "silence"])
def test_equals_kaldi(preset: tuple[FbankOptions, bytes], name: str) -> None:
    options, data = preset
    waveform = SIGNALS[name].astype(np.float32)
    np.testing.assert_allclose(run(data, waveform), kaldi(waveform, options), atol=1e-3)


@pytest.mark.parametrize("seconds", SECONDS)
def test_one_conversion_serves_all_lengths(
    preset: tuple[FbankOptions, bytes], seconds: float
) -> None:
    options, data = preset
    waveform = speech(int(16000 * seconds)).astype(np.float32)
    np.testing.assert_allclose(run(data, waveform), features.fbank(waveform, options), atol=1e-3)


def test_other_frames_and_filters() -> None:
    options = FbankOptions(frame_length=320, frame_shift=128, num_bins=40, low_freq=60)
    data = float32.convert(transposing(options), "waveform")
    waveform = SIGNALS["noise"].astype(np.float32)
    np.testing.assert_allclose(run(data, waveform), features.fbank(waveform, options), atol=1e-3)


def test_is_small_and_computes_no_shape(preset: tuple[FbankOptions, bytes]) -> None:
    options, data = preset
    assert len(data) - len(float32.convert(transposing(options), "features")) < 20_000
    parsed = flatbuffer.read(data)
    names = {flatbuffer.op_name(parsed, op) for op in parsed.subgraphs[0].operators}
    assert "SHAPE" not in names
    assert not any(code.customCode for code in parsed.operatorCodes)


@pytest.mark.parametrize("options", PRESETS.values(), ids=PRESETS)
def test_tables_make_the_filters(options: FbankOptions) -> None:
    tables = frontend.constants(options)
    distances = tables["bin_steps"] - tables["filter_steps"] + tables["bin_fractions"]
    filters = np.maximum(0, 1 - np.abs(distances))
    np.testing.assert_allclose(filters, features.mel_matrix(options), atol=1e-6)


def test_an_image_network_cannot_take_a_waveform() -> None:
    entry = keras.Input((None, 80, 3))
    model = keras.Model(entry, tf.reduce_mean(entry, [1, 2]))
    with pytest.raises(InputError, match='input="features"'):
        float32.convert(model, "waveform")
