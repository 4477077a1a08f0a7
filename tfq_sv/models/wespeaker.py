"""WeSpeaker checkpoints (PyTorch) as Keras models of the same answers.

Strict: every tensor of the checkpoint must find its place, and every place its tensor.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.features import WESPEAKER, FbankOptions
from tfq_sv.models import df_resnet, resnet
from tfq_sv.models.checkpoint import CONFIG, Checkpoint, read_checkpoint
from tfq_sv.models.registry import NAMES, build
from tfq_sv.progress import tqdm

VERIFY_FRAMES = (97, 198, 200, 301)
"""Lengths that `verify` tries: odd and even, so that every stride meets both."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreement:
    """How a Keras model's answers compare with PyTorch's for one input.

    Attributes:
        frames: length of the input.
        difference: greatest absolute difference of any coefficient of the embedding.
        cosine: least cosine between the embeddings.
    """

    frames: int
    difference: float
    cosine: float


def load_wespeaker(path: str | os.PathLike[str], model_name: str | None = None) -> keras.Model:
    """Loads a WeSpeaker checkpoint as a Keras model that gives the same embeddings.

    Args:
        path: a model folder (avg_model.pt and config.yaml, as WeSpeaker publishes them; or an
            experiment folder that holds them as models/avg_model.pt), or a file of weights, with
            config.yaml beside it or not.
        model_name: one of `tfq_sv.models.NAMES`; from config.yaml, or else from the keys, if None.

    Returns:
        features (B, T, feat_dim) -> embedding (B, embed_dim). It carries the front end that
        config.yaml states. With two embedding layers, the second one's output, as WeSpeaker
        uses it.

    Raises:
        InputError: PyTorch is missing; the file is missing, damaged, or holds anything but
            tensors (nothing in it is ever run); an architecture, pooling or front end that is
            not supported; a key too many or too few; a tensor of the wrong shape, or with NaN.

    >>> model = load_wespeaker("voxceleb_resnet34_LM")  # doctest: +SKIP
    >>> model.name, model.output_shape  # doctest: +SKIP
    ('ResNet34', (None, 256))
    """
    checkpoint = read_checkpoint(path)
    for note in checkpoint.notes:
        _log.warning("%s: %s", checkpoint.path, note)
    return to_keras(checkpoint, model_name)


def to_keras(checkpoint: Checkpoint, model_name: str | None = None) -> keras.Model:
    """Builds the network that a checkpoint is of, and fills it; see `load_wespeaker`."""
    model = build(**_architecture(checkpoint, model_name))
    left = dict(checkpoint.state)
    missing = []
    for layer in model.layers:
        values = []
        for key, axes, weight in zip(*_places(layer), layer.weights, strict=True):
            if key not in left:
                missing.append(key)
                continue
            value = left.pop(key)
            wanted = tuple(np.array(weight.shape)[np.argsort(axes)]) if axes else weight.shape
            # Attention layers are convolutions of width one in PyTorch.
            found = value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value
            if found.shape != tuple(wanted):
                assumed = f"; without {CONFIG}, 80 mel bins and the usual pooling are assumed"
                raise InputError(
                    f"{checkpoint.path}: {key} has the shape {value.shape}, {model.name} expects "
                    f"{tuple(map(int, wanted))}{'' if checkpoint.config else assumed}"
                )
            values.append(found.transpose(axes) if axes else found)
        if len(values) == len(layer.weights):
            layer.set_weights(values)
    if missing:
        raise InputError(f"{checkpoint.path} lacks {_some(missing)} of {model.name}")
    if left:
        raise InputError(f"{checkpoint.path} holds {_some(list(left))}, unknown to {model.name}")
    return model


def verify(
    checkpoint: Checkpoint,
    model: keras.Model,
    frames: Sequence[int] = VERIFY_FRAMES,
    *,
    progress: bool = False,
) -> list[Agreement]:
    """Compares a Keras model with an independent PyTorch form of the network.

    Args:
        checkpoint: where the PyTorch form takes its weights from.
        model: what was made of it, possibly saved and loaded since.
        frames: lengths of the inputs, normal noise (2, T, feat_dim) of fixed seeds.
        progress: show a bar.

    Returns:
        One agreement a length.
    """
    import torch

    from tfq_sv.models import torch_reference

    state = {key: torch.from_numpy(value) for key, value in checkpoint.state.items()}
    pooling = _pooling(checkpoint)
    found = []
    for length in tqdm(frames, desc="verifying", unit="length", disable=not progress):
        noise = np.random.default_rng(length).normal(size=(2, length, model.input_shape[-1]))
        features = noise.astype(np.float32)
        expected = torch_reference.embed(
            state, torch.from_numpy(features), pooling=pooling, epsilon=checkpoint.epsilon
        ).numpy()
        answer = model(features, training=False).numpy()
        norms = np.linalg.norm(answer, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = float(np.min(np.sum(answer * expected, axis=1) / norms))
        found.append(Agreement(length, float(np.max(np.abs(answer - expected))), cosine))
    return found


def _architecture(checkpoint: Checkpoint, model_name: str | None) -> dict[str, Any]:
    """Returns the arguments for `build`."""
    state, config = checkpoint.state, checkpoint.config
    name = model_name or config.get("model")
    if name is not None and name not in NAMES:
        raise InputError(
            f"{checkpoint.path} is a {name}, which is not supported; supported are "
            f"{', '.join(NAMES)}"
        )
    found = _network(checkpoint)
    if name and found and name != found:
        raise InputError(f"{checkpoint.path} is said to be {name}, but its keys are {found}'s")
    name = name or found
    if name is None:
        raise InputError(f"{checkpoint.path} is of no known network; name it with model_name")
    stem = "conv1.weight" if name in resnet.DEPTHS else "downsample_layers.0.0.weight"
    for key in (stem, "seg_1.weight"):
        if key not in state or state[key].ndim < 2:
            raise InputError(f"{checkpoint.path} lacks {key} of {name}")
    arguments = _section(checkpoint, "model_args")
    known = ("feat_dim", "embed_dim", "pooling_func", "two_emb_layer")
    for argument in arguments:
        if argument not in known:
            raise InputError(
                f"{checkpoint.path}: model_args of {CONFIG} has {argument!r}, which is not "
                f"supported; known are {', '.join(known)}"
            )
    bins = arguments.get("feat_dim", 80)
    return {
        "name": name,
        "feat_dim": bins,
        "embed_dim": arguments.get("embed_dim", state["seg_1.weight"].shape[0]),
        "pooling": _pooling(checkpoint),
        # The default changed over WeSpeaker's versions, so a silent configuration says nothing.
        "two_emb_layer": arguments.get("two_emb_layer", "seg_2.weight" in state),
        "channels": state[stem].shape[0],
        "fbank": _front_end(checkpoint, bins),
        "pooling_epsilon": checkpoint.epsilon,
    }


def _network(checkpoint: Checkpoint) -> str | None:
    """Returns the network's name by its keys; None if none fits."""
    state = checkpoint.state
    if any(key.startswith("front.") for key in state):
        raise InputError(
            f"{checkpoint.path} is a SimAM ResNet (keys front.*), which is not supported"
        )

    def blocks(stage: str) -> int:
        return len({key.split(".")[-3] for key in state if _is_block(key, stage)})

    depths = tuple(blocks(f"layer{i}") for i in range(1, 5))
    if any(depths):
        shape = (depths, "layer1.0.conv3.weight" in state)
        return next((name for name, known in resnet.DEPTHS.items() if known == shape), None)
    depths = tuple(blocks(f"stages.{i}") for i in range(4))
    gemini = "downsample_layers.4.0.weight" in state
    for name, known in df_resnet.DEPTHS.items():
        if known == depths and name.startswith("Gemini") == gemini:
            return name
    if not any(depths):
        raise InputError(
            f"{checkpoint.path} is neither a ResNet nor a DF-ResNet: it holds {_some(list(state))}"
        )
    return None


def _is_block(key: str, stage: str) -> bool:
    return key.startswith(f"{stage}.") and key.endswith(".conv1.weight")


def _pooling(checkpoint: Checkpoint) -> str:
    usual = "ASTP" if "pool.linear1.weight" in checkpoint.state else "TSTP"
    return str(_section(checkpoint, "model_args").get("pooling_func", usual))


def _front_end(checkpoint: Checkpoint, bins: int) -> FbankOptions:
    """Reads the front end: `dataset_args`, or `feature_args` of the first versions."""
    dataset = _section(checkpoint, "dataset_args")
    frontend = dataset.get("frontend", "fbank")

    def refuse(what: str, expected: str) -> InputError:
        return InputError(f"{checkpoint.path}: {CONFIG} asks for {what}; only {expected} is read")

    if frontend != "fbank":
        raise refuse(f"the front end {frontend!r}", "'fbank'")
    cmvn = _section(checkpoint, "cmvn_args", dataset)
    if cmvn.get("norm_var", False):
        raise refuse("normalised variance", "mean normalisation")
    rate = dataset.get("resample_rate", 16000)
    if rate != WESPEAKER.sample_rate:
        raise refuse(f"{rate} Hz", f"{WESPEAKER.sample_rate} Hz")
    settings = {
        # `raw_wav`, `num_frms` and `feat_dim` say how to train; the rest is the front end.
        **_section(checkpoint, "feature_args"),
        **_section(checkpoint, "fbank_args", dataset),
    }
    for ignored in ("raw_wav", "num_frms", "feat_dim", "dither"):
        settings.pop(ignored, None)
    found = settings.pop("num_mel_bins", bins)
    if found != bins:
        raise refuse(f"{found} mel bins for a network of feat_dim {bins}", "equal numbers")
    per_ms = WESPEAKER.sample_rate / 1000
    length, shift = settings.pop("frame_length", 25), settings.pop("frame_shift", 10)
    if settings:
        name, value = next(iter(settings.items()))
        raise refuse(f"{name} {value!r}", "num_mel_bins, frame_length, frame_shift or dither")
    return replace(
        WESPEAKER,
        num_bins=bins,
        frame_length=round(length * per_ms),
        frame_shift=round(shift * per_ms),
        subtract_mean=bool(dataset.get("cmvn", True) and cmvn.get("norm_mean", True)),
    )


def _section(
    checkpoint: Checkpoint, name: str, parent: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    section = (checkpoint.config if parent is None else parent).get(name) or {}
    if not isinstance(section, dict):
        raise InputError(f"{checkpoint.path}: {name} in {CONFIG} should hold settings by name")
    return dict(section)


def _places(layer: keras.layers.Layer) -> tuple[list[str], list[tuple[int, ...] | None]]:
    """Returns the keys of a layer's weights, and how each one's axes are turned."""
    kinds = keras.layers
    leaves: dict[str, tuple[int, ...] | None] = {}
    if isinstance(layer, kinds.BatchNormalization):
        leaves = dict.fromkeys(
            ["weight", "bias", "running_mean", "running_var"][-len(layer.weights) :]
        )
    elif isinstance(layer, kinds.DepthwiseConv2D):
        leaves = {"weight": (2, 3, 0, 1)}
    elif isinstance(layer, kinds.Conv2D):
        leaves = {"weight": (2, 3, 1, 0)}
    elif isinstance(layer, kinds.Dense):
        leaves = {"weight": (1, 0), "bias": None}
    return [f"{layer.name}.{leaf}" for leaf in leaves], list(leaves.values())


def _some(keys: list[str]) -> str:
    return keys[0] + (f" and {len(keys) - 1} more keys" if len(keys) > 1 else "")
