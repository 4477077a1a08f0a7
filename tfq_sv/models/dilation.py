"""Dilated convolutions as the one operation that they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras


@contextmanager
def native_dilation(model: keras.Model) -> Iterator[None]:
    """Within, dilated Conv2D layers trace to dilated convolutions.

    TensorFlow takes each apart otherwise: it deals the frames out into batches, of a size that is
    computed at run time, convolves these, and puts them together again. That trains everywhere; in
    a file it is a dozen operators per layer, and a shape that delegates refuse.

    Args:
        model: a functional model, quantized or not.
    """
    layers = [getattr(layer, "layer", layer) for layer in model.layers]
    dilated = [layer for layer in layers if _is_dilated(layer)]
    try:
        for layer in dilated:
            layer.convolution_op = _native(layer)
        yield
    finally:
        for layer in dilated:
            del layer.convolution_op


def traced(
    function: Callable[..., Any], model: keras.Model, *, autograph: bool = True
) -> Callable[..., Any]:
    """`tf.function`, whose graphs are of any length unless a model in them has dilated layers.

    TensorFlow (2.21, on CPUs) computes several dilated convolutions wrongly where the graph leaves
    the number of frames open: its optimizer confuses the sizes that it deals frames out by. With
    such layers, each length gets a graph of its own, also where a gradient rules out
    `native_dilation`.
    """
    flexible = not has_dilation(model)
    made: Callable[..., Any] = tf.function(function, reduce_retracing=flexible, autograph=autograph)
    return made


def has_dilation(model: keras.Model) -> bool:
    """Whether any layer is dilated, those of layers and of models within included."""
    return any(_dilation(layer) > 1 for layer in model.submodules)


def all_native(model: keras.Model) -> bool:
    """Whether `native_dilation` reaches every dilated layer."""
    layers = [getattr(layer, "layer", layer) for layer in model.layers]
    native = {id(layer) for layer in layers if _is_dilated(layer)}
    return all(id(layer) in native for layer in model.submodules if _dilation(layer) > 1)


def _dilation(layer: Any) -> int:
    return int(np.max(getattr(layer, "dilation_rate", 1)))


def _is_dilated(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.data_format == "channels_last"
        and _dilation(layer) > 1
    )


def _native(layer: keras.layers.Conv2D) -> Callable[..., Any]:
    settings = {
        "strides": layer.strides,
        "padding": layer.padding.upper(),
        "dilations": layer.dilation_rate,
    }

    def convolution_op(inputs: Any, kernel: Any) -> Any:
        return tf.nn.conv2d(inputs, kernel, **settings)

    return convolution_op
