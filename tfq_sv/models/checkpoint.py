"""Checkpoint files: tensors by key, and the configuration beside them.

Keys and configurations are those of wenet-e2e/wespeaker, of pyannote's copies of it, of Golden
Gemini's own files (`embedding` for `seg_1`), of 3D-Speaker, and of SpeechBrain, with whatever
prefix a wrapper put before every key (`resnet.`, `module.`, `model.encoder.`, ...).

Nothing that a file holds is ever run.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv import yaml_files
from tfq_sv.errors import InputError
from tfq_sv.files import require_file
from tfq_sv.models.checkpoint_files import average, read_tensors
from tfq_sv.models.speechbrain_files import HYPERPARAMS, WEIGHTS, read_hyperparams

CONFIG = "config.yaml"
THREE_D_SPEAKER_CONFIG = "configuration.json"
CONFIGS = (CONFIG, HYPERPARAMS, THREE_D_SPEAKER_CONFIG)
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".zip", ".onnx")
READ = SUFFIXES[:5]
"""Those of files that are read; the others are known, to say what to do."""
USUAL = ("avg_model.pt", "models/avg_model.pt", WEIGHTS, "pytorch_model.bin", "model.safetensors")
"""Where a folder has its weights, the first that is there."""

EPOCHS = 10
"""How many of an experiment's last epochs are averaged: WeSpeaker's recipes' number."""

_EPOCH = re.compile(
    r"(?:model|checkpoint|ckpt|epoch|net)(?:[-_=]?epoch)?[-_=]?(\d+)\.(?:pt|pth|ckpt)",
    re.IGNORECASE,
)
_FIRST_KERNELS = (
    "blocks.0.conv.conv.weight",
    "downsample_layers.0.0.weight",
    "xvector.tdnn.linear.weight",
    "layer1.conv.weight",
    "conv1.weight",
)
"""A key of each family that no block repeats: what is before it is before all of them."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is on disk, under the keys of its origin.

    Attributes:
        path: the file of the weights.
        state: key -> float32 array, in PyTorch's layout; counters and training head left out.
        dropped: keys of the training head, which no embedding needs.
        config: what config.yaml says, or 3D-Speaker's configuration.json or SpeechBrain's
            hyperparams.yaml in WeSpeaker's words; empty without one.
        epsilon: what the pooling adds to its variance.
        origin: whose it is: "WeSpeaker", "3D-Speaker" or "SpeechBrain".
        averaged: how many epochs `state` is the mean of; 1 where it was read as it is.
    """

    path: Path
    state: Mapping[str, npt.NDArray[np.float32]]
    dropped: tuple[str, ...]
    config: Mapping[str, Any]
    epsilon: float
    origin: str = "WeSpeaker"
    averaged: int = 1

    @property
    def notes(self) -> list[str]:
        """What an import leaves out or takes for granted, a sentence each."""
        notes = []
        if self.averaged > 1:
            notes.append(f"no avg_model.pt: the last {self.averaged} epochs are averaged")
        if self.dropped:
            count = len(self.dropped)
            listed = ", ".join(self.dropped[:6]) + (", ..." if count > 6 else "")
            notes.append(f"dropped {count} tensors that the embedding does not need: {listed}")
        if not self.config:
            notes.append(f"no {CONFIG} beside it: {self.origin}'s usual front end is assumed")
        return notes


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: a folder or a file, see `load_checkpoint`.

    Raises:
        InputError: the file is missing, damaged, or holds no tensors; a tensor that is not
            floating point, or with NaN.
    """
    weights, epochs, config = _locate(Path(path))
    tensors = average(epochs) if epochs else read_tensors(weights)
    prefix = _prefix(weights, tensors)
    state: dict[str, npt.NDArray[np.float32]] = {}
    dropped, epsilon = [], 1e-7
    for key, tensor in tensors.items():
        name = key.removeprefix(prefix)
        # What a wrapper keeps beside its network, losses for instance, is of no network.
        if name.startswith("projection.") or not key.startswith(prefix):
            dropped.append(key)
            continue
        if name.startswith("embedding."):
            name, epsilon = name.replace("embedding.", "seg_1."), 1e-10
        state[name] = tensor
    origin = _origin(state, config, trained=bool(dropped))
    epsilon = {"3D-Speaker": 0.0, "SpeechBrain": 1e-12}.get(origin, epsilon)
    averaged = max(1, len(epochs))
    return Checkpoint(weights, state, tuple(dropped), config, epsilon, origin, averaged)


def _prefix(file: Path, keys: Iterable[str]) -> str:
    """Returns what is before every key of the network: "" or "model.", for instance."""
    keys = list(keys)
    for kernel in _FIRST_KERNELS:
        prefixes = sorted(
            (key.removesuffix(kernel) for key in keys if f".{key}".endswith(f".{kernel}")),
            key=lambda prefix: prefix.count("."),
        )
        # Blocks, which are numbered, have such keys as well, one or more levels further down.
        prefixes = [
            prefix for prefix in prefixes if not prefix.rstrip(".").split(".")[-1].isdecimal()
        ]
        # Another network lies beside the first, a part of it below.
        prefixes = [x for x in prefixes if x == prefixes[0] or not x.startswith(prefixes[0])]
        if len(prefixes) > 1:
            raise InputError(
                f"{file} holds several networks ({', '.join(prefixes)}); save the state dict of one"
            )
        if prefixes:
            return prefixes[0].removesuffix("front.")  # of a SimAM ResNet
    return ""


def _origin(state: Mapping[str, Any], config: Mapping[str, Any], trained: bool) -> str:
    """Says whose a checkpoint is; WeSpeaker and 3D-Speaker share CAM++'s keys.

    Without configuration, WeSpeaker's has 512 dimensions or a training head, as a rule; those of
    3D-Speaker's widely copied file are 192.
    """
    if config:
        return str(config.get("origin", "WeSpeaker"))
    if "blocks.0.conv.conv.weight" in state:
        return "SpeechBrain"
    end = state.get("xvector.dense.linear.weight")
    return "3D-Speaker" if end is not None and len(end) == 192 and not trained else "WeSpeaker"


def _locate(path: Path) -> tuple[Path, list[Path], dict[str, Any]]:
    """Finds the file of weights, or else the epochs, and the configuration that belongs to it."""
    weights, epochs = path, list[Path]()
    if path.is_dir():
        found = [place for name in USUAL if (place := path / name).is_file()][:1]
        if not found:
            epochs = _epochs(path) or _epochs(path / "models")
            found = epochs[-1:]
        if not found:
            found = sorted(file for file in path.iterdir() if file.suffix in READ)
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise InputError(
                f"{path} should hold avg_model.pt, {WEIGHTS} or a single .pt file; found {names}"
            )
        weights = found[0]
    require_file(weights, "checkpoint")
    # An experiment keeps its weights in models/, and config.yaml beside that folder.
    upper = [weights.parent.parent] if weights.parent.resolve().name == "models" else []
    for folder in [weights.parent, *upper]:
        if (folder / CONFIG).is_file():
            return weights, epochs, _read_config(folder / CONFIG)
    if (weights.parent / HYPERPARAMS).is_file():
        return weights, epochs, read_hyperparams(weights.parent / HYPERPARAMS)
    if (weights.parent / THREE_D_SPEAKER_CONFIG).is_file():
        return weights, epochs, _three_d_speaker(weights.parent / THREE_D_SPEAKER_CONFIG)
    return weights, epochs, {}


def _epochs(folder: Path) -> list[Path]:
    """An experiment's last epochs, the newest last."""
    if not folder.is_dir():
        return []
    numbers = {
        file: int(found[1]) for file in folder.iterdir() if (found := _EPOCH.fullmatch(file.name))
    }
    return sorted(numbers, key=lambda file: numbers[file])[-EPOCHS:]


def _read_config(file: Path) -> dict[str, Any]:
    config = yaml_files.read(file)
    if isinstance(config, dict) and isinstance(config.get("model"), dict):
        return _pyannote(file, config["model"])
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise InputError(f"{file} is not a WeSpeaker configuration: it names no `model`")
    return config


def _pyannote(file: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what pyannote publishes with its copies of WeSpeaker's networks, in their words."""
    target = str(model.get("_target_", "nothing"))
    found = re.fullmatch(r"pyannote\.audio\.models\.embedding(?:\..*)?\.WeSpeaker(\w+)", target)
    if not found:
        raise InputError(
            f"{file}: _target_ is {target:.80}, which is not supported; of pyannote's networks, "
            "pyannote.audio.models.embedding.WeSpeakerResNet34 and the like are"
        )
    wrong = {
        "num_channels": model.get("num_channels", 1) not in (1, "1"),
        "window_type": model.get("window_type", "hamming") != "hamming",
        "use_energy": model.get("use_energy", False) not in (False, "false"),
        "fbank_centering_span": model.get("fbank_centering_span") is not None,
    }
    for name, refused in wrong.items():
        if refused:
            raise InputError(f"{file} asks for {name} {model[name]!r:.40}, which is not supported")
    names = ("num_mel_bins", "frame_length", "frame_shift")
    return {
        "model": found[1],
        "model_args": {"feat_dim": model.get("num_mel_bins", 80), "two_emb_layer": False},
        "dataset_args": {
            "resample_rate": model.get("sample_rate", 16000),
            "fbank_args": {name: model[name] for name in names if name in model},
        },
    }


def _three_d_speaker(file: Path) -> dict[str, Any]:
    """Reads what ModelScope publishes with 3D-Speaker's networks, in WeSpeaker's words."""
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        kind, settings = str(model["type"]), dict(model["model_config"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{file} is not 3D-Speaker's configuration: it should be JSON with model.type and "
            "model.model_config"
        ) from None
    arguments = {"feat_dim": settings.get("fbank_dim"), "embed_dim": settings.get("emb_size")}
    return {
        "origin": "3D-Speaker",
        "model": "CAMPPlus" if kind == "cam++-sv" else kind,
        "model_args": {name: value for name, value in arguments.items() if value is not None},
        "dataset_args": {"resample_rate": settings.get("sample_rate", 16000)},
    }
