"""Averaging the weights of a run's last epochs, BatchNorm's statistics included."""

from collections.abc import Sequence

import tensorflow as tf


class WeightAverage(tf.Module):
    """A running sum of weights, which a checkpoint keeps.

    >>> weight = tf.Variable(1.0)
    >>> average = WeightAverage([weight])
    >>> for value in (1.0, 2.0, 6.0):
    ...     _ = weight.assign(value)
    ...     average.add()
    >>> average.apply()
    >>> float(weight)
    3.0
    """

    def __init__(self, weights: Sequence[tf.Variable]) -> None:
        super().__init__()
        self._weights = tuple(weights)
        self.totals = [tf.Variable(tf.zeros(w.shape), trainable=False) for w in weights]
        self.count = tf.Variable(0.0, trainable=False)

    def add(self) -> None:
        """Adds the weights as they are."""
        for total, weight in zip(self.totals, self._weights, strict=True):
            total.assign_add(tf.convert_to_tensor(weight))
        self.count.assign_add(1.0)

    def apply(self) -> None:
        """Sets the weights to their average."""
        for total, weight in zip(self.totals, self._weights, strict=True):
            weight.assign(tf.convert_to_tensor(total) / tf.convert_to_tensor(self.count))
