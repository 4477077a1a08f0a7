"""Fine-tunes and measures a small network in a process of its own, for tests of devices.

    python tune_small.py '{"devices": [1, 2], "tasks": ["distillation", "aam", sensitivities]}'

prints, on so many devices one after the other and for one task after the other, the loss of every
step and the sum of all weights at the end, or the sensitivity of every layer, each with the task's
name and the number of devices. With TF_CONFIG, it is one of several workers.
TF_USE_LEGACY_KERAS=1 must be set.
"""

import functools
import json
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import tensorflow as tf
import tf_keras as keras
from train_small import small

import tfq_sv
from tfq_sv.mixed_precision.probes import ProbeOptions
from tfq_sv.mixed_precision.sensitivity import MEASURES
from tfq_sv.training import devices, fine_tuning
from tfq_sv.training.fine_tuning import FineTuningOptions, speaker_head


def main(job: dict[str, Any]) -> None:
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * max(job["devices"]),
    )
    for count in job["devices"]:
        strategy = devices.find_strategy()
        if count > 1:
            strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        for task in job["tasks"]:
            say = functools.partial(report, devices=count, task=task)
            run(task, strategy, say)


def report(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def run(task: str, strategy: tf.distribute.Strategy, say: Callable[..., None]) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    data = [
        (rng.normal(scale=0.1, size=(4, 4000)).astype(np.float32), np.arange(4)) for _ in range(3)
    ]
    (measure if task in MEASURES else tune)(task, data, strategy, say)


def measure(
    kind: str, data: list[Any], strategy: tf.distribute.Strategy, say: Callable[..., None]
) -> None:
    options = ProbeOptions(max_probes=3)
    found = MEASURES[kind](small(), data, options=options, strategy=strategy, progress=False)
    for layer, value in found.items():
        say(**{layer: value})


def tune(
    loss: str, data: list[Any], strategy: tf.distribute.Strategy, say: Callable[..., None]
) -> None:
    real = fine_tuning._Step.__call__

    def noted(self: Any, features: Any, labels: Any) -> float:
        value = real(self, features, labels)
        say(loss=value)
        return value

    network = small()
    model = tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.uniform(network, 2), calibrate=False)
    if not devices.is_chief(strategy):  # what it has computed differs in a last bit
        model.set_weights([weight * 1.000001 for weight in model.get_weights()])
    head = speaker_head(network, data, 4) if loss == "aam" else None
    with patch.object(fine_tuning._Step, "__call__", noted):
        tfq_sv.finetune(
            model,
            data,
            teacher=None if head else network,
            head=head,
            options=FineTuningOptions(steps=5, learning_rate=1e-2, update_every=2),
            strategy=strategy,
            progress=False,
        )
    weights = model.get_weights() + (head.get_weights() if head else [])
    say(sum=sum(float(np.abs(w).sum()) for w in weights))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
