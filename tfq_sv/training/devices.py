"""Several devices or machines, through tf.distribute: who computes which rows of a batch.

Every worker draws the same batches and reads its own rows of them, so a run's course depends on the
batch, not on how many devices share it.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfq_sv.errors import InputError

LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
"""What TensorFlow raises when another worker went away."""


def find_strategy() -> tf.distribute.Strategy:
    """Returns how this process trains; to be called before TensorFlow computes anything.

    With TF_CONFIG in the environment, together with the workers it names; else on all GPUs of
    this machine if there are several; else on one device.

    Raises:
        InputError: TF_CONFIG is not what it should be.
    """
    config = os.environ.get("TF_CONFIG")
    if config:
        try:
            found = json.loads(config)
            _ = found["cluster"]["worker"], found["task"]["type"], int(found["task"]["index"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                'TF_CONFIG must be {"cluster": {"worker": ["host:port", ...]}, '
                f'"task": {{"type": "worker", "index": 0}}}}, not {config}'
            ) from None
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files and prints."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_id == 0 and not resolver.cluster_spec().as_dict().get("chief")
    )


class BatchSharding:
    """How the devices of a strategy share batches.

    Args:
        strategy: the devices.
        batch_size: rows of a batch, over all devices.

    Attributes:
        per_replica: rows per device.
        rows: those that this process computes.

    Raises:
        InputError: the batch cannot be shared evenly.

    >>> BatchSharding(tf.distribute.get_strategy(), 32).rows
    slice(0, 32, None)
    """

    def __init__(self, strategy: tf.distribute.Strategy, batch_size: int) -> None:
        replicas = strategy.num_replicas_in_sync
        if batch_size % replicas:
            raise InputError(
                f"batch_size {batch_size} cannot be shared evenly by {replicas} devices"
            )
        self.strategy, self.per_replica = strategy, batch_size // replicas
        numbers = _local(strategy, lambda number: tf.constant(number))
        own = [int(number) for number in strategy.experimental_local_results(numbers)]
        self.rows = slice(min(own) * self.per_replica, (max(own) + 1) * self.per_replica)

    def shard(self, *arrays: npt.NDArray[Any]) -> tuple[Any, ...]:
        """Gives each device of this process its part of the process's rows."""

        def part(array: npt.NDArray[Any], number: int) -> tf.Tensor:
            first = number * self.per_replica - self.rows.start
            return tf.constant(array[first : first + self.per_replica])

        return tuple(_local(self.strategy, partial(part, array)) for array in arrays)


def per_replica(strategy: tf.distribute.Strategy, values: Sequence[Any]) -> Any:
    """Distributes values: replica k receives values[k] as a tensor."""
    return _local(strategy, lambda number: tf.constant(values[number]))


def gather(strategy: tf.distribute.Strategy, values: Any) -> npt.NDArray[np.float64]:
    """Returns each device's vector, of all devices: float64 (devices, length)."""
    if strategy.num_replicas_in_sync == 1:
        return np.asarray(values, np.float64)[None]
    count = strategy.num_replicas_in_sync

    def placed(row: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        place = tf.one_hot(context.replica_id_in_sync_group, count, dtype=tf.float64)
        return place[:, None] * tf.cast(row, tf.float64)

    @tf.function  # `strategy.gather` fails for values outside of a function on several workers
    def summed(rows: Any) -> tf.Tensor:
        sums = strategy.run(placed, (rows,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    return summed(values).numpy()


def broadcast_weights(strategy: tf.distribute.Strategy, model: keras.Model) -> None:
    """Gives the model of every worker the first one's weights.

    What each has computed by itself may differ in a last bit, and codes by a whole centroid.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    weights = model.get_weights()
    flat = np.concatenate([weight.ravel() for weight in weights])

    def only_first(values: tf.Tensor) -> tf.Tensor:
        first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
        return tf.where(first, values, tf.zeros_like(values))

    @tf.function  # as in `gather`
    def summed(values: Any) -> tf.Tensor:
        return strategy.reduce(
            tf.distribute.ReduceOp.SUM, strategy.run(only_first, (values,)), axis=None
        )

    found = summed(_local(strategy, lambda _: tf.constant(flat))).numpy()
    ends = np.cumsum([weight.size for weight in weights])[:-1]
    parts = zip(np.split(found, ends), weights, strict=True)
    model.set_weights([part.reshape(weight.shape) for part, weight in parts])


def _local(strategy: tf.distribute.Strategy, value: Callable[[int], tf.Tensor]) -> Any:
    """A value of its own for each device of this process, by the device's number."""
    if strategy.num_replicas_in_sync == 1:
        return value(0)
    return strategy.experimental_distribute_values_from_function(
        lambda context: value(context.replica_id_in_sync_group)
    )


@contextmanager
def synchronized(model: keras.Model) -> Iterator[None]:
    """Makes BatchNorm take the statistics of all devices' rows, while the block runs."""
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    fused = [layer.fused for layer in layers]
    for layer in layers:
        layer.fused, layer.synchronized = False, True
    try:
        yield
    finally:
        for layer, before in zip(layers, fused, strict=True):
            layer.fused, layer.synchronized = before, False
