"""Checkpoints that anybody can make again: weights seeded by each key."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras
import torch

DATA = Path(__file__).parent / "data" / "wespeaker"
State = dict[str, np.ndarray]
Range = tuple[float, float]
CALM: Range = (0.1, 0.4)
LOUD: Range = (0.8, 1.6)
"""Scales of BatchNorms: deep chains answer nearly alike to everything if they are small."""


def golden_state(name: str) -> State:
    """The state dict that the golden answers in tests/data belong to."""
    layout = json.loads((DATA / f"{name}.json").read_text())
    return seeded(layout) if "ResNet" in name else seeded(layout, LOUD)


def golden_features(frames: int) -> np.ndarray:
    """The input that `y<frames>` in the golden answers belongs to, (2, T, 80)."""
    return np.random.default_rng(frames).normal(0.0, 1.0, (2, frames, 80)).astype(np.float32)


def seeded(layout: dict[str, list[int]], scales: Range = CALM) -> State:
    """Fills a layout, key -> shape in PyTorch's order."""
    state = {}
    for key, shape in layout.items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        leaf = key.rsplit(".", 1)[-1]
        if leaf == "num_batches_tracked":
            value = np.zeros(shape)
        elif leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
            low, high = (0.5, 1.5) if leaf == "running_var" else scales
            value = rng.uniform(low, high, shape)
        elif leaf in ("running_mean", "bias"):
            value = rng.normal(0.0, 0.1, shape)
        else:
            value = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        state[key] = value.astype(np.float32)
    return state


def state_like(model: keras.Model, scales: Range = CALM) -> State:
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
            sizes = [height, width]
            if name == "linear" or ".3.linear" in name:  # dense layers of ECAPA-TDNN
                sizes = []
            elif layer.input_shape[1] == 1:  # a sequence
                sizes = [width]
            layout[f"{name}.weight"] = [outputs, inputs, *sizes]
            if layer.use_bias:
                layout[f"{name}.bias"] = [outputs]
        elif isinstance(layer, kinds.Dense):
            inputs, outputs = layer.kernel.shape
            frame_wise = [1] if name.startswith(("pool.", "xvector.")) else []
            layout[f"{name}.weight"] = [outputs, inputs, *frame_wise]
            if layer.use_bias:
                layout[f"{name}.bias"] = [outputs]
    return seeded(layout, scales)


def save(path: Path, state: State, wrap: Any = lambda tensors: tensors) -> Path:
    """Writes a state dict as PyTorch does, wrapped as `wrap` says."""
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(wrap(tensors), path)
    return path
