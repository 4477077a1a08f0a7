"""Fast files: what they compute, in which types, and what reads them."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfq_sv import cli
from tfq_sv.errors import InputError
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.export import SpeakerEncoder, encoder, fast, fast_file, flatbuffer, inflate, read_about
from tfq_sv.export.flatbuffer import FLOAT32, INT8

PACKED = Path(__file__).parent / "data" / "today" / "file.tflite"
FLOAT16 = flatbuffer.schema.TensorType.FLOAT16


def speech(seed: int, seconds: float = 2) -> np.ndarray:
    """Noise whose loudness changes, as speech's does."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(rng.uniform(0.01, 1, round(100 * seconds)), 160)
    return np.float32(0.1 * rng.normal(size=loudness.size) * loudness)


def embedding(data: bytes, waveform: np.ndarray) -> np.ndarray:
    run = encoder.interpreter(data).get_signature_runner("embed")
    return run(waveform=waveform[None])["embedding"][0]


def written(tmp_path: Path, form: str) -> Path:
    minute = [speech(seed) for seed in range(10)] if form == "static-int8" else None
    path = tmp_path / f"{form}.tflite"
    path.write_bytes(fast_file(PACKED, form, minute))
    return path


def test_int8_is_what_the_signature_returns(tmp_path: Path) -> None:
    path = written(tmp_path, "int8")
    about = read_about(path)
    assert about.pop("form") == "int8"
    assert about == read_about(PACKED)
    assert about["inflated_sha256"] == hashlib.sha256(inflate(PACKED)).hexdigest()
    for way in (True, False):
        np.testing.assert_array_equal(
            SpeakerEncoder(path, fast=way, check_speech=False).embed(speech(1)),
            embedding(inflate(PACKED), speech(1)),
        )


def test_plain_weights_are_the_decoded_ones() -> None:
    """Of the ops that read int8, the float twins differ by the activations' rounding alone."""
    floats = fast.plain(inflate(PACKED))
    model = flatbuffer.read(floats)
    assert not any(tensor.type == INT8 for tensor in model.subgraphs[0].tensors)
    names = {tensor.name.split(b"/")[0] for tensor in model.subgraphs[0].tensors if tensor.name}
    assert names == {b"waveform", b"frontend", b"network"}
    for seed, seconds in ((1, 1), (2, 3)):
        x = speech(seed, seconds)
        assert cosine(embedding(floats, x), embedding(inflate(PACKED), x)) > 0.9999


@pytest.mark.parametrize(("form", "least"), [("float16", 0.9999), ("static-int8", 0.99)])
def test_other_forms(form: str, least: float, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    path = written(tmp_path, form)
    about, packed = read_about(path), read_about(PACKED)
    assert about["form"] == form
    assert about["inflated_sha256"] != packed["inflated_sha256"]  # it embeds otherwise
    network = SpeakerEncoder(path, check_speech=False)
    wanted = SpeakerEncoder(PACKED, check_speech=False)
    for seed, seconds in ((100, 1), (101, 2), (102, 5)):
        x = speech(seed, seconds)
        assert cosine(network.embed(x), wanted.embed(x)) > least
    model = flatbuffer.read(path.read_bytes())
    subgraph = model.subgraphs[0]
    kinds: dict[str, set[Any]] = {}
    for operator in subgraph.operators:
        name = flatbuffer.op_name(model, operator)
        kinds.setdefault(name, set()).add(subgraph.tensors[operator.outputs[0]].type)
    assert kinds["LOG"] == {FLOAT32}  # the front end
    assert subgraph.tensors[subgraph.outputs[0]].type == FLOAT32
    if form == "float16":
        constants = [t for t in subgraph.tensors if flatbuffer.buffer_bytes(model, t.buffer)]
        assert sum(tensor.type == FLOAT16 for tensor in constants) == len(packed["recipe"])
    else:
        assert INT8 in kinds["CONV_2D"] | kinds["FULLY_CONNECTED"]


def test_evaluate_reads_them(tmp_path: Path, corpus_dir: Path) -> None:
    path = written(tmp_path, "int8")
    line = ["evaluate", f"--model={path}", f"--corpus={corpus_dir / 'test'}", "--store"]
    assert cli.main(line) == 0
    about = read_about(path)
    assert about["thresholds"]["eer"]["threshold"] is not None
    assert about["form"] == "int8"


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form, minute, message in [
        ("int4", None, "form must be one of int8, static-int8, float16"),
        ("static-int8", None, "needs speech"),
        ("float16", [speech(0)], "takes no speech"),
    ]:
        with pytest.raises(InputError, match=message):
            fast_file(PACKED, form, minute)
    path = written(tmp_path, "int8")
    for act in (inflate, fast_file):
        with pytest.raises(InputError, match="is inflated already, to int8; give the packed file"):
            act(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        SpeakerEncoder(path)
    path.write_bytes(inflate(PACKED))
    with pytest.raises(InputError, match="nor has what the inflate signature returns"):
        SpeakerEncoder(path)
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(InputError, match=r"ai-edge-quantizer makes this form.*pip install ai-edge"):
        fast_file(PACKED, "float16")


def test_no_speech_at_all() -> None:
    pytest.importorskip("ai_edge_quantizer")
    with pytest.raises(InputError, match="no speech to calibrate on"):
        fast_file(PACKED, "static-int8", [])
