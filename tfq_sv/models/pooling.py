"""Poolings: an image (B, F, T, C) of any length to one vector, as WeSpeaker computes them.

Statistics are flattened as (C, F), index c * F + f, to agree with PyTorch's channels-first layout.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.models.sequence import frame_conv

_FLOOR = 1e-20
_ATTENTION = 128  # width of the attention's hidden layer


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
        mean, deviation = _moments(image, self.epsilon)
        statistics = [mean] * self.mean + [deviation] * self.deviation
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
class GlobalContext(keras.layers.Layer):
    """Sequence (..., T, D) -> (..., T, 3 D): each frame, and all frames' mean and deviation.

    Args:
        epsilon: added to the variance, an unbiased one.
        biased: whether the variance is divided by T instead of T - 1; `epsilon` bounds it from
            below then.

    >>> GlobalContext()(tf.zeros([2, 1, 50, 8])).shape
    TensorShape([2, 1, 50, 24])
    """

    def __init__(self, epsilon: float = 1e-7, biased: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.biased = epsilon, biased

    def call(self, sequence: tf.Tensor) -> tf.Tensor:
        """Finds the statistics in float32; the answer has the compute type."""
        wide = tf.cast(sequence, tf.float32)
        mean, deviation = _moments(wide, self.epsilon, self.biased)
        # Sums with zeros, because a shape to broadcast to would be computed at run time.
        zeros = tf.zeros_like(wide)
        seen = tf.concat([wide, zeros + mean, zeros + deviation], axis=-1)
        return tf.cast(seen, sequence.dtype)

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration."""
        return {**super().get_config(), "epsilon": self.epsilon, "biased": self.biased}


@keras.utils.register_keras_serializable("tfq_sv")
class AttentiveStatistics(keras.layers.Layer):
    """Sequence and attention logits (B, T, D) -> weighted mean and deviation (B, 2 D).

    Or images of height one, (B, 1, T, D).

    Args:
        epsilon: the least variance under the root.
    """

    def __init__(self, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Pools in float32, whatever the compute type."""
        sequence, logits = (tf.cast(x, tf.float32) for x in inputs)
        weights = tf.nn.softmax(logits, axis=-2)
        axes = list(range(1, len(sequence.shape) - 1))
        mean = tf.reduce_sum(weights * sequence, axis=axes)
        variance = tf.reduce_sum(weights * tf.square(sequence), axis=axes) - tf.square(mean)
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
        hidden = keras.layers.Dense(_ATTENTION, activation="tanh", name="pool.linear1")(sequence)
        logits = keras.layers.Dense(sequence.shape[-1], name="pool.linear2")(hidden)
        return AttentiveStatistics(epsilon, name="pool")((sequence, logits))
    raise InputError(f"unknown pooling {pooling!r}; known are {', '.join(POOLINGS)}")


def pool_frames(
    sequence: tf.Tensor, pooling: str, epsilon: float = 1e-7, *, global_context: bool = False
) -> tf.Tensor:
    """The same for a sequence, (B, 1, T, C); attention is by convolutions there.

    Args:
        sequence: frames, an image of height one.
        pooling: as `pool` takes it.
        epsilon: as `pool` takes it.
        global_context: whether attention sees all frames' mean and deviation too.
    """
    if pooling != "ASTP":
        return pool(sequence, pooling, epsilon)
    seen = GlobalContext(name="pool.context")(sequence) if global_context else sequence
    hidden = frame_conv(seen, "pool.linear1", _ATTENTION, bias=True)
    hidden = keras.layers.Activation("tanh", name="pool.tanh")(hidden)
    logits = frame_conv(hidden, "pool.linear2", sequence.shape[-1], bias=True)
    return AttentiveStatistics(epsilon, name="pool")((sequence, logits))


def _moments(x: tf.Tensor, epsilon: float, biased: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and sqrt(variance + epsilon) over time: (..., T, C) -> (..., 1, C)."""
    mean = tf.reduce_mean(x, axis=-2, keepdims=True)
    if biased:
        variance = tf.reduce_mean(tf.square(x - mean), axis=-2, keepdims=True)
        return mean, tf.sqrt(tf.maximum(variance, epsilon))
    # One frame has no deviation: 0 there, where torch.var gives NaN.
    freedom = tf.maximum(tf.cast(tf.shape(x)[-2], tf.float32) - 1.0, 1.0)
    squares = tf.reduce_sum(tf.square(x - mean), axis=-2, keepdims=True)
    variance = squares / freedom + epsilon
    # Without epsilon, a constant channel's root has no slope to train by: a floor that no answer
    # shows gives it none.
    return mean, tf.sqrt(variance if epsilon else tf.maximum(variance, _FLOOR))


def _flatten(statistic: tf.Tensor) -> tf.Tensor:
    _, frequency, _, channels = statistic.shape
    return tf.reshape(tf.transpose(statistic, [0, 3, 1, 2]), [-1, channels * frequency])
