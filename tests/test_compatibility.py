"""Files of earlier versions: they load, and answer what they answered when they were written.

In tests/data, `first` is of the first version that could export (features in, one row of codes per
channel), `today` of the version that added this test (waveforms in). Each folder has a network of
three layers at 3 bits with negative gains: quantized.keras, file.tflite, and the embedding that
its own version gave for `waveform()`. Never replace them; add a folder where the format changes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tfq_sv.errors import InputError
from tfq_sv.export import SpeakerEncoder, read_about, seal

DATA = Path(__file__).parent / "data"
KEPT = ("first", "today")

LOAD = """
import json, sys
import numpy as np
from tfq_sv.evaluation.measurement import KerasEncoder
from tfq_sv.quantization.quantized_model import load_model
embedding = KerasEncoder(load_model(sys.argv[1])).embed(np.load(sys.argv[2]))
print(json.dumps([float(x) for x in embedding]))
"""


def waveform() -> npt.NDArray[np.float32]:
    """One second of noise, in 16-bit steps."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    return (np.round(noise * 32768) / 32768).astype(np.float32)


def expected(version: str) -> npt.NDArray[np.float32]:
    text = (DATA / version / "embedding.json").read_text()
    return np.array(json.loads(text), np.float32)


def distance(a: npt.ArrayLike, b: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("version", KEPT)
def test_files_of_earlier_versions_answer_as_they_did(version: str, fast: bool) -> None:
    encoder = SpeakerEncoder(DATA / version / "file.tflite", fast=fast)
    # Int8 compute: a last bit of a float can move an activation to the next int8.
    assert distance(encoder.embed(waveform()), expected(version)) < 0.03


@pytest.mark.parametrize("version", KEPT)
def test_metadata_of_earlier_versions_are_read(version: str) -> None:
    about = read_about(DATA / version / "file.tflite")
    assert about["format"] == 1
    assert about["input"] == {"first": "features", "today": "waveform"}[version]
    assert set(about["recipe"].values()) == {3}


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    """By its number, before anything parses it: the reader must be the newer one."""
    data = bytearray((DATA / "today" / "file.tflite").read_bytes())
    place = data.index(seal.MAGIC) + 16
    data[place : place + 4] = (2).to_bytes(4, "little")
    (tmp_path / "later.tflite").write_bytes(data)
    with pytest.raises(InputError, match="format 2"):
        SpeakerEncoder(tmp_path / "later.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("version", KEPT)
def test_saved_networks_of_earlier_versions_load(version: str, tmp_path: Path) -> None:
    """In a process of its own, where nothing but what loading imports has registered layers."""
    np.save(tmp_path / "waveform.npy", waveform())
    command = [sys.executable, "-c", LOAD, DATA / version / "quantized.keras"]
    done = subprocess.run(
        [*command, tmp_path / "waveform.npy"],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    embedding = json.loads(done.stdout.splitlines()[-1])
    assert distance(embedding, expected(version)) < 0.05  # the file computes in int8
