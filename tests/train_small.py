"""Trains a small network in a process of its own, for tests of devices and of sudden deaths.

    python train_small.py '{"corpus": ..., "devices": 1 or 2, "die_at": ..., "options": [{...}]}'

trains once for each of the options: prints the loss of every step, and the weights' fingerprint.
With TF_CONFIG, it is one of several workers. TF_USE_LEGACY_KERAS=1 must be set.
"""

import hashlib
import json
import os
import signal
import sys
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv import training
from tfq_sv.data.corpus import Corpus
from tfq_sv.models import FrontEnd, pool
from tfq_sv.models.layers import conv, embedding, norm
from tfq_sv.training import devices, loop, step
from tfq_sv.training.augment import Augmenter


def small() -> keras.Model:
    features = keras.Input((None, 80), name="features")
    x = norm(conv(FrontEnd()(features), "conv1", 4, 3, 2), "bn1", relu=True)
    x = norm(conv(x, "conv2", 8, 3, 2), "bn2", relu=True)
    return keras.Model(features, embedding(pool(x, "TSTP"), 8, False), name="small")


def main(job: dict[str, Any]) -> None:
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * job.get("devices", 1),
    )
    strategy = devices.find_strategy()
    if job.get("devices", 1) > 1:
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    loop.CHECKPOINT_EVERY = 4
    loop.LOG_EVERY = 1
    real = step.TrainingStep.__call__

    def noted(self: Any, number: int, batch: Any) -> dict[str, float]:
        if number == job.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        values = real(self, number, batch)
        print(json.dumps({"step": number, **values}), flush=True)
        return values

    step.TrainingStep.__call__ = noted  # type: ignore[method-assign]
    for options in job["options"]:
        train(job, options, strategy)


def train(job: dict[str, Any], options: dict[str, Any], strategy: tf.distribute.Strategy) -> None:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = small()
    training.train(
        model,
        Corpus.read(job["corpus"]),
        training.TrainingOptions(**options),
        augmenter=Augmenter(speeds=(1.0, 0.9, 1.1)),
        checkpoint_dir=job.get("state"),
        progress=False,
    )
    weights = b"".join(w.tobytes() for w in model.get_weights())
    print(json.dumps({"weights": hashlib.sha256(weights).hexdigest()}), flush=True)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except devices.LOST:
        sys.exit(3)
