"""What changes over the steps of a training run."""

from typing import Any

import tensorflow as tf
import tf_keras as keras


def cosine(learning_rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warm-up over the first twentieth of the steps, then half a cosine down to a hundredth.

    >>> [float(cosine(1.0, steps)(0)) for steps in (1, 19, 20)]
    [1.0, 1.0, 0.0]
    """
    warmup = steps // 20
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
        alpha=0.01,
    )


def margin(step: int, steps: int, final: float) -> float:
    """The AAM margin: 0 for 40 % of the steps, then linearly to `final` at 70 %.

    >>> [round(margin(step, 100, 0.2), 3) for step in (0, 40, 55, 70, 100)]
    [0.0, 0.0, 0.1, 0.2, 0.2]
    """
    return final * min(1.0, max(0.0, (step / steps - 0.4) / 0.3))


class WarmUpExponential(keras.optimizers.schedules.LearningRateSchedule):
    """Exponential decrease times a linear warm-up from 0: WeSpeaker's `ExponentialDecrease`.

    Args:
        initial: where the exponential begins, at step 0.
        final: where it ends, after the last step.
        steps: of the run.
        warm_up: steps of warm-up.

    >>> schedule = WarmUpExponential(0.1, 0.001, steps=100, warm_up=10)
    >>> [round(float(schedule(step)), 4) for step in (0, 5, 50, 100)]
    [0.0, 0.0397, 0.01, 0.001]
    """

    def __init__(self, initial: float, final: float, steps: int, warm_up: int) -> None:
        self.initial, self.final, self.steps, self.warm_up = initial, final, steps, warm_up

    def __call__(self, step: Any) -> tf.Tensor:
        """The learning rate of a step, a scalar."""
        now = tf.cast(step, tf.float32)
        rate = self.initial * (self.final / self.initial) ** (now / self.steps)
        return rate * tf.minimum(1.0, now / self.warm_up) if self.warm_up else rate

    def get_config(self) -> dict[str, Any]:
        """The schedule's arguments."""
        return dict(vars(self))


def exponential_margin(step: int, start: int, end: int, initial: float, final: float) -> float:
    """The AAM margin as WeSpeaker raises it, fast at first: `initial` until `start`, `final` from
    `end` on.

    >>> [round(exponential_margin(step, 20, 40, 0.0, 0.2), 3) for step in (20, 25, 30, 39, 40)]
    [0.0, 0.164, 0.194, 0.2, 0.2]
    """
    if step >= end:
        return final
    if step < start:
        return initial
    return initial + (final - initial) * (1 - 1e-3 ** ((step - start) / (end - start)))
