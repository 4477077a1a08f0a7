"""What a layer's kernel is multiplied with, and the kernel as a matrix to match."""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfq_sv.quantization.quantizers import DEPTHWISE

Array = npt.NDArray[np.float64]

_ROWS_PER_INPUT = 64
"""Positions of a layer's input that are looked at, for each input of its kernel."""
_MOST_INPUTS, _PIECE = 4608, 1024
"""Inputs of a dense kernel that is taken whole, and of its pieces where it is not."""


def grouped(kernel: npt.NDArray[Any], layer: Any) -> npt.NDArray[Any]:
    """Returns a layer's kernel as (groups, inputs, outputs); inputs are taps, then channels.

    Plain layers have one group, a depthwise convolution has one for each channel.
    """
    if isinstance(layer, DEPTHWISE):
        groups, inputs = kernel.shape[-2], prod(kernel.shape[:-2])
    else:
        groups, inputs = getattr(layer, "groups", 1), prod(kernel.shape[:-1])
    return kernel.reshape(inputs, groups, -1).transpose(1, 0, 2)


def in_pieces(kernel: npt.NDArray[Any], layer: Any) -> npt.NDArray[Any]:
    """Returns a kernel as `grouped` does, but a dense one with very many inputs in pieces.

    The second moments of 20,480 inputs would take 3 GB, several times. Such a layer is taken as a
    sum of smaller ones, a group each, as if their inputs said nothing about each other.
    """
    groups = grouped(kernel, layer)
    inputs = groups.shape[1]
    if inputs <= _MOST_INPUTS or not isinstance(layer, keras.layers.Dense):
        return groups
    pieces = next(n for n in range(inputs // _PIECE, inputs + 1) if not inputs % n)
    return groups.reshape(pieces, inputs // pieces, -1)


def ungrouped(values: npt.NDArray[Any], layer: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Returns what `grouped` or `in_pieces` gave, in the kernel's shape again."""
    if isinstance(layer, keras.layers.Dense):
        return values.reshape(shape)
    return values.transpose(1, 0, 2).reshape(shape)


def taps(layer: Any) -> int:
    """Returns at how many positions a layer's kernel looks at once: 9 for a 3x3 convolution."""
    return prod(getattr(layer, "kernel_size", ()))


def second_moments(
    layer: Any, inputs: tf.Tensor, wanted: tf.Tensor, groups: int, size: int
) -> tuple[Array, Array]:
    """Returns E[x x^T] and E[x (y - x)^T] over some positions, (groups, size, size) each.

    Args:
        layer: whose kernel it is.
        inputs: what comes into it, x.
        wanted: the same of another network, y.
        groups: of `grouped`.
        size: inputs of a group.
    """
    gram, cross, rows = np.zeros((groups, size, size)), np.zeros((groups, size, size)), 0
    most = -(-_ROWS_PER_INPUT * size // len(inputs))
    rng = np.random.default_rng(0)
    for pair in zip(inputs, wanted, strict=True):
        patches = [_patches(layer, item[None]) for item in pair]
        chosen = rng.permutation(len(patches[0]))[:most]
        x, y = (
            # A row holds taps, then channels; a group has its own share of the channels.
            tf.gather(rows_of_one, chosen)
            .numpy()
            .reshape(len(chosen), taps(layer), groups, -1)
            .transpose(2, 0, 1, 3)
            .reshape(groups, len(chosen), size)
            for rows_of_one in patches
        )
        with np.errstate(all="ignore"):  # the caller checks that all is finite
            gram += x.transpose(0, 2, 1) @ x
            cross += x.transpose(0, 2, 1) @ (y - x)
        rows += len(chosen)
    return gram / rows, cross / rows


def _patches(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """What a kernel is multiplied with, a row per position: (positions, taps * channels)."""
    if isinstance(layer, keras.layers.Dense) or prod(layer.kernel_size + layer.strides) == 1:
        return tf.reshape(inputs, (-1, inputs.shape[-1]))
    size, strides, rates = layer.kernel_size, layer.strides, layer.dilation_rate
    padding = layer.padding.upper()
    if isinstance(layer, keras.layers.Conv1D | keras.layers.DepthwiseConv1D):
        if padding == "CAUSAL":
            inputs = tf.pad(inputs, [[0, 0], [rates[0] * (size[0] - 1), 0], [0, 0]])
            padding = "VALID"
        inputs = inputs[:, :, None]
        size, strides, rates = (*size, 1), (*strides, 1), (*rates, 1)
    patches = tf.image.extract_patches(
        inputs, [1, *size, 1], [1, *strides, 1], [1, *rates, 1], padding
    )
    return tf.reshape(patches, (-1, patches.shape[-1]))
