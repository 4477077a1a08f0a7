"""What changes over the steps of a training run."""

import tf_keras as keras


def cosine(learning_rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warm-up over the first twentieth of the steps, then half a cosine down to a hundredth."""
    warmup = max(1, steps // 20)
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
