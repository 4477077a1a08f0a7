"""Poolings: an image (B, F, T, C) of any length to one vector, as WeSpeaker computes them.

Statistics are flattened as (C, F), index c * F + f, to agree with PyTorch's channels-first layout.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.errors import InputError

_FLOOR = 1e-20


@keras.utils.register_keras_serializable("tfq_sv")
class StatisticsPooling(keras.layers.Layer):
    """Mean, standard deviation over time, or both: (B, F, T, C) -> (B, n C F).

    The variance is the unbiased one (divided by T - 1), as torch.var computes it.

    Args:
        mean: give the means.
        deviation: give sqrt(variance + epsilon).
        epsilon: added to the variance; 0 is allowed.

    >>> StatisticsPooling()(tf.zeros([2, 10, 25, 256])).shape
    TensorShape([2, 5120])
    """

    def __init__(
        self, mean: bool = True, deviation: bool = True, epsilon: float = 1e-7, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mean, self.deviation, self.epsilon = mean, deviation, epsilon

    def call(self, image: tf.Tensor) -> tf.Tensor:
        """Pools in float32, whatever the compute type."""
        image = tf.cast(image, tf.float32)
        mean = tf.reduce_mean(image, axis=2, keepdims=True)
        statistics = [mean] if self.mean else []
        if self.deviation:
            # One frame has no deviation: 0 there, where torch.var gives NaN.
            freedom = tf.maximum(tf.cast(tf.shape(image)[2], tf.float32) - 1.0, 1.0)
            squares = tf.reduce_sum(tf.square(image - mean), axis=2, keepdims=True)
            # Without epsilon, a constant channel's root has no slope to train by: a floor that
            # no answer shows gives it none.
            variance = squares / freedom + self.epsilon
            variance = variance if self.epsilon else tf.maximum(variance, _FLOOR)
            statistics.append(tf.sqrt(variance))
        return tf.concat([_flatten(s) for s in statistics], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "deviation": self.deviation,
            "epsilon": self.epsilon,
        }


@keras.utils.register_keras_serializable("tfq_sv")
class FrameSequence(keras.layers.Layer):
    """Image (B, F, T, C) -> sequence (B, T, C F), for attention over frames."""

    def call(self, image: tf.Tensor) -> tf.Tensor:
        """Transposes and flattens."""
        frequency, channels = image.shape[1], image.shape[3]
        sequence = tf.transpose(image, [0, 2, 3, 1])
        if image.shape[0] is not None:  # constant but for time, as delegates want it
            return tf.reshape(sequence, [image.shape[0], -1, channels * frequency])
        return tf.reshape(sequence, [-1, tf.shape(image)[2], channels * frequency])


@keras.utils.register_keras_serializable("tfq_sv")
class AttentiveStatistics(keras.layers.Layer):
    """Sequence (B, T, D) and attention logits (B, T, D) -> weighted mean and deviation (B, 2 D).

    Args:
        epsilon: the least variance under the root.
    """

    def __init__(self, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Pools in float32, whatever the compute type."""
        sequence, logits = (tf.cast(x, tf.float32) for x in inputs)
        weights = tf.nn.softmax(logits, axis=1)
        mean = tf.reduce_sum(weights * sequence, axis=1)
        variance = tf.reduce_sum(weights * tf.square(sequence), axis=1) - tf.square(mean)
        return tf.concat([mean, tf.sqrt(tf.maximum(variance, self.epsilon))], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration."""
        return {**super().get_config(), "epsilon": self.epsilon}


POOLINGS = ("TSTP", "TAP", "TSDP", "ASTP")


def pool(image: tf.Tensor, pooling: str, epsilon: float = 1e-7) -> tf.Tensor:
    """Adds the pooling of WeSpeaker's name to a functional graph.

    TSTP: mean and deviation over time; TAP: the mean; TSDP: the deviation; ASTP: both, weighted by
    attention over frames (two dense layers, `pool.linear1` and `pool.linear2`). `epsilon` is added
    to the variance, and under attention bounds it from below.

    Raises:
        InputError: an unknown name.
    """
    if pooling in ("TSTP", "TAP", "TSDP"):
        mean, deviation = pooling != "TSDP", pooling != "TAP"
        return StatisticsPooling(mean, deviation, epsilon, name="pool")(image)
    if pooling == "ASTP":
        sequence = FrameSequence(name="pool.frames")(image)
        hidden = keras.layers.Dense(128, activation="tanh", name="pool.linear1")(sequence)
        logits = keras.layers.Dense(sequence.shape[-1], name="pool.linear2")(hidden)
        return AttentiveStatistics(epsilon, name="pool")((sequence, logits))
    raise InputError(f"unknown pooling {pooling!r}; known are {', '.join(POOLINGS)}")


def _flatten(statistic: tf.Tensor) -> tf.Tensor:
    _, frequency, _, channels = statistic.shape
    return tf.reshape(tf.transpose(statistic, [0, 3, 1, 2]), [-1, channels * frequency])
