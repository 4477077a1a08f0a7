"""WeSpeaker checkpoints that anybody can make again: weights seeded by each key."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras
import torch

DATA = Path(__file__).parent / "data" / "wespeaker"
State = dict[str, np.ndarray]


def golden_state(name: str) -> State:
    """The state dict that the golden answers in tests/data belong to."""
    return seeded(json.loads((DATA / f"{name}.json").read_text()))


def golden_features(frames: int) -> np.ndarray:
    """The input that `y<frames>` in the golden answers belongs to, (2, T, 80)."""
    return np.random.default_rng(frames).normal(0.0, 1.0, (2, frames, 80)).astype(np.float32)


def seeded(layout: dict[str, list[int]]) -> State:
    """Fills a layout, key -> shape in PyTorch's order."""
    state = {}
    for key, shape in layout.items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        leaf = key.rsplit(".", 1)[-1]
        if leaf == "num_batches_tracked":
            value = np.zeros(shape)
        elif leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
            low, high = (0.5, 1.5) if leaf == "running_var" else (0.1, 0.4)
            value = rng.uniform(low, high, shape)
        elif leaf in ("running_mean", "bias"):
            value = rng.normal(0.0, 0.1, shape)
        else:
            value = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        state[key] = value.astype(np.float32)
    return state


def state_like(model: keras.Model) -> State:
    """A state dict for a network of any size, by its layers' names and kernel shapes."""
    layout: dict[str, list[int]] = {}
    kinds = keras.layers
    for layer in model.layers:
        name = layer.name
        if isinstance(layer, kinds.BatchNormalization):
            affine = ["weight", "bias"] if layer.scale else []
            for leaf in [*affine, "running_mean", "running_var"]:
                layout[f"{name}.{leaf}"] = [int(layer.moving_mean.shape[0])]
        elif isinstance(layer, kinds.DepthwiseConv2D):
            height, width, channels, _ = layer.depthwise_kernel.shape
            layout[f"{name}.weight"] = [channels, 1, height, width]
        elif isinstance(layer, kinds.Conv2D):
            height, width, inputs, outputs = layer.kernel.shape
            layout[f"{name}.weight"] = [outputs, inputs, height, width]
        elif isinstance(layer, kinds.Dense):
            inputs, outputs = layer.kernel.shape
            frame_wise = [1] if name.startswith("pool.") else []
            layout[f"{name}.weight"] = [outputs, inputs, *frame_wise]
            layout[f"{name}.bias"] = [outputs]
    return seeded(layout)


def save(path: Path, state: State, wrap: Any = lambda tensors: tensors) -> Path:
    """Writes a state dict as PyTorch does, wrapped as `wrap` says."""
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(wrap(tensors), path)
    return path
