"""Context of frames: what is known of the whole utterance, and of the segment around a frame.

No shape is computed at run time and no length is built in: positions are sums of ones, and sums and
copies are products with matrices of the positions. So one file takes every length, and delegates
take the graph.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("tfq_sv")
class Segments(keras.layers.Layer):
    """Cuts a sequence (B, 1, T, C) into S segments; the last one is of what is left.

    Returns two matrices, both float32, which all layers of this length share:

    - (B, 1, S, T): times frames, the mean over the segment plus the mean over everything;
    - (B, 1, T, S): times segments, a copy of its segment for each frame.

    Args:
        length: frames of a segment.

    >>> context, spread = Segments(length=2)(tf.zeros([1, 1, 3, 8]))
    >>> (context[0, 0] * 6).numpy().round().astype(int).tolist()
    [[5, 5, 2], [2, 2, 8]]
    >>> spread[0, 0].numpy().astype(int).tolist()
    [[1, 0], [1, 0], [0, 1]]
    """

    def __init__(self, length: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = length

    def call(self, sequence: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes in float32: half precision cannot count far."""
        ones = tf.zeros_like(tf.cast(sequence[..., :1], tf.float32)) + 1.0  # (B, 1, T, 1)
        index = tf.floor((tf.cumsum(ones, axis=2) - 0.5) / self.length)
        # The first frames of all segments, by a stride: as many as there are segments.
        first = tf.transpose(index[:, :, :: self.length], [0, 1, 3, 2])  # (B, 1, 1, S)
        spread = tf.nn.relu(1.0 - tf.abs(index - first))
        counts = tf.reduce_sum(spread, axis=2, keepdims=True)
        everything = tf.reduce_sum(ones, axis=2, keepdims=True)
        context = tf.transpose(spread / counts + 1.0 / everything, [0, 1, 3, 2])
        return context, spread

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration."""
        return {**super().get_config(), "length": self.length}


@keras.utils.register_keras_serializable("tfq_sv")
class MatMul(keras.layers.Layer):
    """The product of two tensors of matrices: (..., I, J), (..., J, K) -> (..., I, K)."""

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Multiplies in the second one's type."""
        left, right = inputs
        return tf.matmul(tf.cast(left, right.dtype), right)
