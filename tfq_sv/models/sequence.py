"""Sequences of frames: images of height one, (B, 1, T, C), so that Conv2D serves them too.

Conv1D would wrap each convolution of a file into two reshapes; a deep narrow network has hundreds.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras

layers = keras.layers


@keras.utils.register_keras_serializable("tfq_sv")
class FrameRow(keras.layers.Layer):
    """Image (B, F, T, C) -> sequence (B, 1, T, C F), flattened as PyTorch does: index c * F + f.

    >>> FrameRow()(tf.zeros([2, 10, 200, 32])).shape
    TensorShape([2, 1, 200, 320])
    """

    def call(self, image: tf.Tensor) -> tf.Tensor:
        """Transposes and flattens."""
        batch, frequency, frames, channels = image.shape
        sequence = tf.transpose(image, [0, 2, 3, 1])
        width = channels * frequency
        if batch is not None:  # constant but for time, as delegates want it
            return tf.reshape(sequence, [batch, 1, -1, width])
        frames = tf.shape(image)[2] if frames is None else frames
        return tf.reshape(sequence, [-1, 1, frames, width])


def frame_conv(
    x: Any,
    name: str,
    filters: int,
    size: int = 1,
    *,
    strides: int = 1,
    dilation: int = 1,
    bias: bool = False,
    padding: str = "same",
) -> Any:
    """A convolution over time, zeros on both ends as PyTorch pads them, or none: "valid"."""
    if strides > 1:
        # `same` would pad even lengths more on one side.
        x = layers.ZeroPadding2D((0, size // 2), name=f"{name}.pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        (1, size),
        (1, strides),
        padding,
        dilation_rate=(1, dilation),
        use_bias=bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)
