"""Published checkpoints (PyTorch) as Keras models of the same answers.

Strict: every tensor of the checkpoint must find its place, and every place its tensor.
"""

import logging
import os

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.models.architecture import architecture, first_few
from tfq_sv.models.checkpoint import CONFIG, Checkpoint, read_checkpoint
from tfq_sv.models.registry import build

_log = logging.getLogger(__name__)
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def load_checkpoint(path: str | os.PathLike[str], model_name: str | None = None) -> keras.Model:
    """Loads a checkpoint as a Keras model that gives the same embeddings.

    WeSpeaker's, 3D-Speaker's and SpeechBrain's are told apart by what they hold.

    Args:
        path: a model folder (avg_model.pt and config.yaml, as WeSpeaker publishes them; or an
            experiment folder that holds them as models/avg_model.pt; 3D-Speaker's, with
            configuration.json; SpeechBrain's, embedding_model.ckpt and hyperparams.yaml), or a
            file of weights, with its configuration beside it or not.
        model_name: one of `tfq_sv.models.NAMES`; from the configuration, or else from the keys,
            if None.

    Returns:
        features (B, T, feat_dim) -> embedding (B, embed_dim). It carries the front end that the
        network was trained with. With two embedding layers, the second one's output, as WeSpeaker
        uses it.

    Raises:
        InputError: the file is missing, damaged, or holds no tensors (nothing in it is ever
            run); an architecture, pooling or front end that is not supported; a key too many or
            too few; a tensor of the wrong shape, or with NaN.

    >>> model = load_checkpoint("voxceleb_resnet34_LM")  # doctest: +SKIP
    >>> model.name, model.output_shape  # doctest: +SKIP
    ('ResNet34', (None, 256))
    """
    checkpoint = read_checkpoint(path)
    for note in checkpoint.notes:
        _log.warning("%s: %s", checkpoint.path, note)
    return to_keras(checkpoint, model_name)


load_wespeaker = load_checkpoint
"""The name of `load_checkpoint` while it read WeSpeaker's checkpoints alone."""


def to_keras(checkpoint: Checkpoint, model_name: str | None = None) -> keras.Model:
    """Builds the network that a checkpoint is of, and fills it; see `load_checkpoint`."""
    model = build(**architecture(checkpoint, model_name))
    unused = dict(checkpoint.state)
    missing, layers, values = [], [], []
    for layer in model.layers:
        tensors = []
        for key, weight in zip(_keys(layer), layer.weights, strict=True):
            if key not in unused:
                missing.append(key)
                continue
            value = unused.pop(key)
            turned = _turned(layer, value)
            if turned.shape != tuple(weight.shape):
                assumed = f"; without {CONFIG}, 80 mel bins and the usual pooling are assumed"
                raise InputError(
                    f"{checkpoint.path}: {key} has the shape {value.shape}, {model.name} expects "
                    f"{_shape(layer, value, weight)}{'' if checkpoint.config else assumed}"
                )
            tensors.append(turned)
        if len(tensors) == len(layer.weights):
            layers.extend(layer.weights)
            values.extend(tensors)
    if missing:
        raise InputError(f"{checkpoint.path} lacks {first_few(missing)} of {model.name}")
    if unused:
        raise InputError(
            f"{checkpoint.path} holds {first_few(list(unused))}, unknown to {model.name}"
        )
    keras.backend.batch_set_value(list(zip(layers, values, strict=True)))
    return model


def _keys(layer: keras.layers.Layer) -> list[str]:
    """Returns the checkpoint's keys for a layer's weights, in their order."""
    count = len(layer.weights)
    if isinstance(layer, keras.layers.BatchNormalization):
        leaves = _BATCH_NORM[-count:]
    else:
        leaves = _BATCH_NORM[:count]
    return [f"{layer.name}.{leaf}" for leaf in leaves]


def _axes(layer: keras.layers.Layer) -> tuple[int, ...] | None:
    """How a kernel's axes are turned, from PyTorch's to Keras's; None if there is no kernel."""
    kinds = keras.layers
    if isinstance(layer, kinds.DepthwiseConv2D):
        return (2, 3, 0, 1)
    if isinstance(layer, kinds.Conv2D):
        return (2, 3, 1, 0)
    return (1, 0) if isinstance(layer, kinds.Dense) else None


def _turned(layer: keras.layers.Layer, value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns a tensor of PyTorch as Keras holds it."""
    axes = _axes(layer)
    if axes is None or value.ndim < 2:
        return value
    # Dense layers are often convolutions of width one in PyTorch or the other way round, and
    # sequences are images of height one here.
    while value.ndim > len(axes) and value.shape[-1] == 1:
        value = value[..., 0]
    height = (1,) * (len(axes) - value.ndim)
    value = value.reshape(*value.shape[:2], *height, *value.shape[2:])
    return value.transpose(axes) if value.ndim == len(axes) else value


def _shape(
    layer: keras.layers.Layer, value: npt.NDArray[np.float32], weight: keras.backend.variable
) -> tuple[int, ...]:
    """The shape that PyTorch's tensor should have, for a message."""
    axes = _axes(layer)
    shape = np.array(weight.shape)
    if axes is not None and len(axes) == len(shape):
        shape = shape[np.argsort(axes)]
        if 2 <= value.ndim < len(axes):  # without height, and without time
            shape = shape[[0, 1, *range(len(axes) - value.ndim + 2, len(axes))]]
    return tuple(map(int, shape))
