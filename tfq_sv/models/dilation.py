"""Dilated convolutions as the one operation that they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


def _is_dilated(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.data_format == "channels_last"
        and any(rate > 1 for rate in layer.dilation_rate)
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
