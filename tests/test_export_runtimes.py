"""The same files in the oldest runtimes that they are meant for, beside the newest.

Installs these into pytest's cache on first use.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import randomize, shallow

import tfq_sv
from tfq_sv.export import SpeakerEncoder, convert
from tfq_sv.quantization import quantized_model

RUNTIMES = {
    "tflite-runtime==2.14.0": "tflite_runtime.interpreter",
    "ai-edge-litert==1.2.0": "ai_edge_litert.interpreter",
}
KEPT = {"first": "features", "today": "waveform"}  # version -> input; test_compatibility says more
# name -> channels, bits: all ways of packing in one network, depthwise kernels in the other
NETWORKS = {"ResNet18": (16, (8, 4, 3, 1)), "DF_ResNet56": (8, (4, 3))}

# In a process with nothing but the old runtime and its NumPy.
PROGRAM = """
import hashlib, importlib, json, pathlib, sys
import numpy as np
Interpreter = importlib.import_module(sys.argv[1]).Interpreter
folder, request = pathlib.Path(sys.argv[2]), np.zeros(1, np.int32)
for path in sorted(folder.glob("*.tflite")):
    packed = Interpreter(model_path=str(path))
    about = json.loads(packed.get_signature_runner("about")(request=request)["json"].tobytes())
    inner = packed.get_signature_runner("inflate")(request=request)["tflite"].tobytes()
    assert hashlib.sha256(inner).hexdigest() == about["inflated_sha256"], path
    speech = np.load(folder / (about["input"] + ".npy"))
    found = [
        interpreter.get_signature_runner("embed")(**{about["input"]: speech})["embedding"][0]
        for interpreter in (packed, Interpreter(model_content=inner))
    ]
    np.save(path.with_suffix(".npy"), found)
    if path.name.startswith("first"):
        continue  # files of the first format glue recordings together
    for interpreter in (packed, Interpreter(model_content=inner)):
        try:  # two recordings must never become one
            two = np.concatenate([speech, speech])
            interpreter.get_signature_runner("embed")(**{about["input"]: two})
        except (RuntimeError, ValueError):
            continue
        raise AssertionError(f"{path} took two recordings")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of small networks with negative gains, those of earlier versions, and their input."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    np.save(folder / "features.npy", rng.normal(0, 1, (1, 61, 80)).astype(np.float32))
    np.save(folder / "waveform.npy", rng.normal(0, 0.1, (1, 16000)).astype(np.float32))
    for name, (channels, widths) in NETWORKS.items():
        with pytest.MonkeyPatch.context() as patch:
            shallow(patch)
            network = randomize(tfq_sv.models.build(name, embed_dim=32, channels=channels))
        for bits in widths:
            recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=bits)
            quantized = tfq_sv.quantize(network, recipe, calibrate=False)
            books = quantized_model.codebooks(quantized)
            plain = quantized_model.dequantize(quantized)
            # The front end's ops do not hang on the bits: either compute sees both inputs.
            inputs = ("features", "waveform") if bits in (8, 3) else ("waveform", "features")
            for compute, input in zip(("int8", "float32"), inputs, strict=True):
                built = convert.build(plain, books, input, compute=compute)
                (folder / f"{name}-{bits}-{compute}-{input}.tflite").write_bytes(built.data)
    for version, input in KEPT.items():
        kept = Path(__file__).parent / "data" / version / "file.tflite"
        shutil.copy(kept, folder / f"{version}-int8-{input}.tflite")
    return folder


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A runtime's module, and the folder it is installed in."""
    place = request.config.cache.mkdir("runtimes") / request.param
    if not (place / "numpy").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place)]
        done = subprocess.run([*pip, request.param, "numpy<2"], capture_output=True, text=True)
        assert done.returncode == 0, f"pip cannot install {request.param}: {done.stderr[-300:]}"
    return RUNTIMES[request.param], place


@pytest.mark.slow
def test_old_runtimes_agree_with_the_newest(runtime: tuple[str, Path], folder: Path) -> None:
    """To 1e-3 where nothing is rounded to int8; LiteRT, of the same features, there too.

    Elsewhere a last bit of a float, summed in another order, can move an activation to the next
    int8; what comes of it is as large as the noise of int8 compute itself.
    """
    module, place = runtime
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, "-S", "-c", PROGRAM, module, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = {}
    for path in folder.glob("*.tflite"):
        _, compute, entry = path.stem.rsplit("-", 2)
        speech = np.load(folder / f"{entry}.npy")[0]
        for fast, got in zip((False, True), np.load(path.with_suffix(".npy")), strict=True):
            expected = SpeakerEncoder(path, fast=fast).embed(speech)
            error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
            exact = compute == "float32" or (entry == "features" and "litert" in module)
            if not error < (1e-3 if exact else 0.03):
                errors[f"{path.stem}, {'inflate' if fast else 'embed'}"] = float(error)
    assert not errors, json.dumps(errors, indent=1)
