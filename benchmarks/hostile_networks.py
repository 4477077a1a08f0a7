"""Networks, what belongs to them, and hostile inputs made of those: see `hostile`."""

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
from hostile import Reader, Rng, change_json, flip

_HYPERPARAMS = b"""n_mels: 80
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [1024, 1024, 1024, 1024, 3072]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    groups: [1, 1, 1, 1, 1]
    attention_channels: 128
    lin_neurons: 8
"""
_CONFIGURATION = {
    "framework": "pytorch",
    "model": {
        "type": "ResNet18",
        "model_config": {"sample_rate": 16000, "fbank_dim": 16, "emb_size": 8},
    },
}


def change_keras(content: bytes, rng: Rng) -> bytes:
    """A .keras file with another configuration, other weights, or other bytes."""
    if rng.random() < 0.3:
        return flip(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = "config.json" if rng.random() < 0.6 else "model.weights.h5"
    members[name] = (change_json if name == "config.json" else flip)(members[name], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, part in members.items():
            file.writestr(name, part)
    return buffer.getvalue()


def change_pt(content: bytes, rng: Rng) -> bytes:
    """A checkpoint with another pickle or other numbers, their checksums right; or other bytes."""
    if not zipfile.is_zipfile(io.BytesIO(content)) or rng.random() < 0.2:
        return flip(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = rng.choice([name for name in members if name.endswith("data.pkl") or rng.random() < 0.1])
    members[str(name)] = flip(members[str(name)], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member, part in members.items():
            file.writestr(member, part)
    return buffer.getvalue()


def change_h5(content: bytes, rng: Rng) -> bytes:
    """An .h5 file with another configuration, or other bytes."""
    if rng.random() < 0.5:
        return flip(content, rng)
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        config = change_json(str(file.attrs["model_config"]).encode(), rng)
        file.attrs["model_config"] = config.decode("utf-8", "replace").replace("\0", "?")
    return buffer.getvalue()


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """A file of float32 tensors."""
    header, at = {}, 0
    for key, value in tensors.items():
        offsets = [at, at := at + value.nbytes]
        header[key] = {"dtype": "F32", "shape": value.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    parts = [value.astype("<f4").tobytes() for value in tensors.values()]
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _kept(build: Callable[..., Any]) -> Callable[..., Any]:
    """Builds the first networks once each: most files are of one, and building takes longest."""
    made: dict[str, Any] = {}

    def kept(**arguments: Any) -> Any:
        key = repr(arguments)
        found = made.get(key) or build(**arguments)
        if len(made) < 4:
            made[key] = found
        return found

    return kept


def networks(folder: Path) -> dict[str, Reader]:
    """Networks and what belongs to them. Imports TensorFlow and PyTorch."""
    import tf_keras as keras
    import torch
    import yaml

    import tfq_sv
    from tfq_sv.cli import train
    from tfq_sv.cli.config import apply_config
    from tfq_sv.export import SpeakerEncoder, about, export_tflite
    from tfq_sv.models import importer, load_wespeaker
    from tfq_sv.quantization import QuantizationRecipe

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from checkpoints import save, state_like

    kept = _kept(importer.build)
    entry = x = keras.Input((None, 80), name="features")
    x = keras.layers.ReLU()(keras.layers.Conv1D(8, 3, name="conv")(x))
    x = keras.layers.Dense(4, name="seg")(keras.layers.GlobalAveragePooling1D()(x))
    network = keras.Model(entry, x, name="net")
    recipe = QuantizationRecipe.uniform(network, bits=2)
    small = tfq_sv.quantize(network, recipe, calibrate=False)
    for path in ("net.keras", "net.h5", "small.keras", "small.h5", "saved"):
        (small if path.startswith("small") else network).save(folder / path)
    export_tflite(small, folder / "x.tflite", input="features")
    recipe.to_json(folder / "recipe.json")
    # A ResNet for 3D-Speaker's as well: a CAM++ takes seconds to build.
    build = tfq_sv.models.build
    of_resnet = state_like(build("ResNet18", channels=4, feat_dim=16, embed_dim=8))
    of_ecapa = state_like(build("ECAPA_TDNN_SpeechBrain", channels=16, embed_dim=8))
    for configuration in ("config.yaml", "configuration.json", "hyperparams.yaml"):
        state = of_ecapa if configuration == "hyperparams.yaml" else of_resnet
        save(folder / configuration / "avg_model.pt", state)
    tensors = {key: torch.from_numpy(value) for key, value in of_resnet.items()}
    torch.save({"model": tensors}, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").write_bytes(safetensors(of_resnet))
    config = {
        "model": "ResNet18",
        "model_args": {"feat_dim": 16, "embed_dim": 8, "pooling_func": "TSTP"},
        "dataset_args": {"fbank_args": {"num_mel_bins": 16, "frame_length": 25}, "cmvn": True},
    }
    settings = b"steps: 10\nlearning_rate: 1e-3\nnetwork: ResNet18\n"

    def good(*names: str) -> list[tuple[str, bytes]]:
        return [(Path(name).name, (folder / name).read_bytes()) for name in names]

    def flags(path: Path) -> None:
        from tfq_sv.cli import parse

        parse(train.FLAGS, "train", [])
        apply_config(train.FLAGS, str(path))

    def saved_model(path: Path) -> None:
        if not (path.parent / "saved" / "variables").exists():
            (path.parent / "saved").mkdir(exist_ok=True)
            (path.parent / "saved" / "variables").symlink_to(folder / "saved" / "variables")
        path.rename(path.parent / "saved" / "keras_metadata.pb")
        tfq_sv.load_model(path.parent / "saved")

    def checkpoint(path: Path) -> None:
        if path.suffix in (".yaml", ".json"):
            (path.parent / "avg_model.pt").symlink_to(folder / path.name / "avg_model.pt")
            path = path.parent
        else:
            (path.parent / "config.yaml").write_text(json.dumps(config))
        with mock.patch.object(importer, "build", kept):
            load_wespeaker(path)

    metadata = json.dumps(SpeakerEncoder(folder / "x.tflite", fast=False).about).encode()
    return {
        ".keras": Reader(tfq_sv.load_model, good("net.keras", "small.keras"), change_keras),
        ".h5": Reader(tfq_sv.load_model, good("net.h5", "small.h5"), change_h5),
        "SavedModel's metadata": Reader(
            saved_model, [("keras_metadata.pb", (folder / "saved/keras_metadata.pb").read_bytes())]
        ),
        "checkpoint .pt": Reader(checkpoint, good("config.yaml/avg_model.pt", "old.pt"), change_pt),
        "config.yaml": Reader(
            checkpoint, [("config.yaml", json.dumps(config).encode())], change_json
        ),
        "config.yaml, bytes": Reader(
            checkpoint, [("config.yaml", yaml.safe_dump(config).encode())]
        ),
        "hyperparams.yaml": Reader(checkpoint, [("hyperparams.yaml", _HYPERPARAMS)]),
        "configuration.json": Reader(
            checkpoint, [("configuration.json", json.dumps(_CONFIGURATION).encode())], change_json
        ),
        "checkpoint .safetensors": Reader(checkpoint, good("model.safetensors")),
        "training recipe": Reader(flags, [("recipe.yaml", settings)]),
        "recipe .json": Reader(QuantizationRecipe.from_json, good("recipe.json"), change_json),
        ".tflite": Reader(lambda path: SpeakerEncoder(path, fast=False), good("x.tflite")),
        "metadata": Reader(
            lambda path: about.parse(path.read_bytes()), [("about.json", metadata)], change_json
        ),
    }
