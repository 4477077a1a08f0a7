"""Signatures of a fixed length, by LiteRT's CompiledModel, which does not resize here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_resnet

import tfq_sv
from tfq_sv.errors import InputError
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.export import (
    SpeakerEncoder,
    encoder,
    export_tflite,
    fast_file,
    fixed_lengths,
    inflate,
    read_about,
    write_about,
)

NAMES = ["embed_2s", "embed_3s", "embed_6s"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network without and with fixed lengths."""
    folder, network = tmp_path_factory.mktemp("fixed"), tiny_resnet()
    recipe = tfq_sv.QuantizationRecipe.uniform(network, 3)
    small = tfq_sv.quantize(network, recipe, calibrate=False)
    export_tflite(small, folder / "free.tflite")
    export_tflite(small, folder / "fixed.tflite", fixed_lengths=True)
    with pytest.raises(InputError, match="fixed lengths are of waveforms"):
        export_tflite(small, folder / "x.tflite", "features", fixed_lengths=True)
    return folder


def speech(samples: int) -> np.ndarray:
    rng = np.random.default_rng(samples)
    loudness = np.repeat(rng.uniform(0.01, 1, samples // 160), 160)
    return np.float32(0.1 * rng.normal(size=samples) * loudness)


def compiled(data: bytes, signature: str, value: np.ndarray, kind: Any) -> np.ndarray:
    """What CompiledModel answers, without resizing anything."""
    module = pytest.importorskip("ai_edge_litert.compiled_model")
    with module.CompiledModel.from_buffer(data) as model:
        index = model.get_signature_index(signature)
        (entry,) = model.create_input_buffers(index)
        (output,) = model.create_output_buffers(index)
        entry.write(value)
        model.run_by_index(index, [entry], [output])
        shape = output.get_tensor_details()["shape"]
        assert output.get_tensor_details()["dtype"] == np.dtype(kind).name
        return np.array(output.read(int(np.prod(shape)), kind))


def test_compiled_model_runs_every_signature(files: Path) -> None:
    data = (files / "fixed.tflite").read_bytes()
    text = compiled(data, "about", np.zeros(1, np.int32), np.int8).tobytes()
    assert b'"fixed_lengths":{"embed_2s":32000,"embed_3s":48000,"embed_6s":96000}' in text
    inner = compiled(data, "inflate", np.zeros(1, np.int32), np.int8).tobytes()
    assert inner == inflate(files / "fixed.tflite")
    for name, samples in fixed_lengths.signatures(16000).items():
        waveform = speech(samples)
        for content, fast in ((data, False), (inner, True)):
            found = compiled(content, name, waveform[None], np.float32)
            wanted = SpeakerEncoder(files / "free.tflite", fast, check_speech=False)
            np.testing.assert_allclose(found, wanted.embed(waveform), rtol=1e-4, atol=1e-5)


def test_readers_see_no_difference(files: Path) -> None:
    free, fixed = files / "free.tflite", files / "fixed.tflite"
    about = read_about(fixed)
    assert list(about.pop("fixed_lengths")) == NAMES
    different = {x for x, value in read_about(free).items() if about[x] != value}
    assert different == {"inflated_sha256", "inflated_bytes"}
    for fast in (True, False):
        a, b = (SpeakerEncoder(x, fast, check_speech=False) for x in (free, fixed))
        np.testing.assert_array_equal(a.embed(speech(16000)), b.embed(speech(16000)))
    thresholds = {"eer": {"threshold": 0.5}}
    write_about(fixed, thresholds=thresholds)
    assert read_about(fixed)["thresholds"] == thresholds
    assert compiled(fixed.read_bytes(), "about", np.zeros(1, np.int32), np.int8).size


@pytest.mark.parametrize("form", ["int8", "float16", "static-int8"])
def test_fast_files_keep_them(form: str, files: Path) -> None:
    if form != "int8":
        pytest.importorskip("ai_edge_quantizer")
    minute = [speech(32000 + 160 * i) for i in range(5)] if form == "static-int8" else None
    data = fast_file(files / "fixed.tflite", form, minute)
    signatures = encoder.interpreter(data).get_signature_list()
    assert list(signatures) == ["embed", *NAMES, "about"]
    waveform = speech(32000)
    run = encoder.interpreter(data).get_signature_runner("embed")
    free = run(waveform=waveform[None])["embedding"][0]
    found = compiled(data, "embed_2s", waveform[None], np.float32)
    assert cosine(found, free) > 0.9999
