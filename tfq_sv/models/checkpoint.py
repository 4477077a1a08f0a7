"""Checkpoint files: tensors by key, and the configuration beside them.

Keys and configurations are those of wenet-e2e/wespeaker, of pyannote's copies of it (`resnet.`
before every key), of Golden Gemini's own files (`embedding` for `seg_1`), and of 3D-Speaker.

Needs PyTorch and PyYAML (`pip install 'tfq-sv[torch]'`). Nothing that a file holds is ever run.
"""

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.files import existing

CONFIG = "config.yaml"
THREE_D_SPEAKER_CONFIG = "configuration.json"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "model.", "resnet.")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is on disk, under WeSpeaker's own keys, or 3D-Speaker's.

    Attributes:
        path: the file of the weights.
        state: key -> float32 array, in PyTorch's layout; counters and training head left out.
        dropped: keys of the training head, which no embedding needs.
        config: what config.yaml says, or 3D-Speaker's configuration.json in WeSpeaker's words;
            empty without one.
        epsilon: what the pooling adds to its variance.
        origin: who trained it: "WeSpeaker" or "3D-Speaker".
    """

    path: Path
    state: Mapping[str, npt.NDArray[np.float32]]
    dropped: tuple[str, ...]
    config: Mapping[str, Any]
    epsilon: float
    origin: str = "WeSpeaker"

    @property
    def notes(self) -> list[str]:
        """What an import leaves out or takes for granted, a sentence each."""
        notes = []
        if self.dropped:
            notes.append(f"dropped the training head: {', '.join(self.dropped)}")
        if not self.config:
            notes.append(f"no {CONFIG} beside it: {self.origin}'s usual front end is assumed")
        return notes


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: a folder or a file, see `load_checkpoint`.

    Raises:
        InputError: PyTorch is missing; the file is missing, damaged, or holds anything but
            tensors; a tensor that is not floating point, or with NaN.
    """
    weights, config = _locate(Path(path))
    tensors = _unwrapped(weights, _torch_load(weights))
    state: dict[str, npt.NDArray[np.float32]] = {}
    dropped, epsilon = [], 1e-7
    for key, tensor in tensors.items():
        name = key
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name.endswith("num_batches_tracked"):
            continue
        if name.startswith("projection."):
            dropped.append(key)
            continue
        if name.startswith("embedding."):
            name, epsilon = name.replace("embedding.", "seg_1."), 1e-10
        if name in state:
            raise InputError(f"{weights} holds {name} twice, the second time as {key}")
        if not tensor.is_floating_point():
            raise InputError(f"{weights}: {key} is {tensor.dtype}; expected floating point")
        state[name] = tensor.detach().float().numpy()
        if not np.isfinite(state[name]).all():
            raise InputError(f"{weights}: {key} holds NaN or infinite values")
    origin = _origin(state, config, trained=bool(dropped))
    if origin == "3D-Speaker":
        epsilon = 0.0
    return Checkpoint(weights, state, tuple(dropped), config, epsilon, origin)


def _origin(state: Mapping[str, Any], config: Mapping[str, Any], trained: bool) -> str:
    """Says whose a checkpoint is; WeSpeaker and 3D-Speaker share CAM++'s keys.

    Without configuration, WeSpeaker's has 512 dimensions or a training head, as a rule; those of
    3D-Speaker's widely copied file are 192.
    """
    if config:
        return str(config.get("origin", "WeSpeaker"))
    end = state.get("xvector.dense.linear.weight")
    return "3D-Speaker" if end is not None and len(end) == 192 and not trained else "WeSpeaker"


def _locate(path: Path) -> tuple[Path, dict[str, Any]]:
    """Finds the file of weights, and reads the configuration that belongs to it."""
    weights = path
    if path.is_dir():
        places = [path / "avg_model.pt", path / "models" / "avg_model.pt"]
        found = [place for place in places if place.is_file()] or sorted(
            file for file in path.iterdir() if file.suffix in SUFFIXES
        )
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise InputError(f"{path} should hold avg_model.pt or a single .pt file; found {names}")
        weights = found[0]
    existing(weights, "checkpoint")
    # An experiment keeps its weights in models/, and config.yaml beside that folder.
    upper = [weights.parent.parent] if weights.parent.name == "models" else []
    for folder in [weights.parent, *upper]:
        if (folder / CONFIG).is_file():
            return weights, _read_config(folder / CONFIG)
    if (weights.parent / THREE_D_SPEAKER_CONFIG).is_file():
        return weights, _three_d_speaker(weights.parent / THREE_D_SPEAKER_CONFIG)
    return weights, {}


def _read_config(file: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise InputError(f"{file} is not a WeSpeaker configuration: it names no `model`")
    return config


def _three_d_speaker(file: Path) -> dict[str, Any]:
    """Reads what ModelScope publishes with 3D-Speaker's networks, in WeSpeaker's words."""
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        kind, settings = str(model["type"]), dict(model["model_config"])
    except (ValueError, KeyError, TypeError):
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


def _torch_load(file: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(f"reading {file} needs PyTorch: pip install 'tfq-sv[torch]'") from None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error) and "Unsupported class" not in str(error):
            raise InputError(f"{file} is not a PyTorch checkpoint, or is damaged") from None
        raise InputError(
            f"{file} holds more than tensors, which could run code and is not read; save the bare "
            "weights where you trust the file: torch.save(model.state_dict(), path)"
        ) from None
    # What its zip and tar readers raise on other files and on damaged ones, it does not wrap.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} is not a PyTorch checkpoint, or is damaged ({reason})") from None


def _unwrapped(file: Path, content: Any) -> dict[str, Any]:
    import torch

    for wrapper in _WRAPPERS * 2:  # as {"model": {"state_dict": ...}} too
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if isinstance(content, dict) and content:
        odd = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
        if not odd:
            return dict(content)
        what = f"{odd[0]!r} is no tensor"
    else:
        what = f"it holds {type(content).__name__}"
    raise InputError(
        f"{file} is not a state dict ({what}); expected key -> tensor, bare or under "
        f"{' or '.join(map(repr, _WRAPPERS))}"
    )
