"""Gradients of narrow networks that do not crash in TensorFlow's oneDNN."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
import tf_keras as keras

_NARROW = 16


@contextmanager
def avoided(model: keras.Model) -> Iterator[None]:
    """While gradients are taken, narrow convolutions of one point skip what they stride over first.

    On x86, TensorFlow 2.21's oneDNN writes beyond its memory in the filter gradient of a strided
    1x1 convolution of fewer than 16 channels. Slicing and then convolving is the same sum. The
    layers themselves stay as they are.

    Args:
        model: the network that the gradient goes through; also inside `tf.function`.

    >>> layer = keras.layers.Conv2D(2, 1, strides=2, input_shape=(3, 5, 4))
    >>> model = keras.Sequential([layer])
    >>> x = tf.ones([1, 3, 5, 4])
    >>> with avoided(model):
    ...     inside = model(x)
    >>> bool(tf.reduce_all(inside == model(x)))
    True
    """
    layers = [layer for layer in model.submodules if _crashes(layer)]
    for layer in layers:
        # Not by setattr: Keras would keep it.
        vars(layer)["convolution_op"] = _sliced(layer.strides)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("convolution_op", None)


def _crashes(layer: tf.Module) -> bool:
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D)
    return (
        type(layer) in kinds
        and set(layer.kernel_size) == {1}
        and max(layer.strides) > 1
        and layer.data_format == "channels_last"
        and layer.kernel.shape[-2] < _NARROW
    )


def _sliced(strides: tuple[int, ...]) -> Any:
    places = (slice(None), *(slice(None, None, stride) for stride in strides))
    return lambda inputs, kernel: tf.nn.convolution(inputs[places], kernel, padding="VALID")
