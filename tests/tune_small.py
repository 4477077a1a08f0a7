"""Fine-tunes and measures a small network in a process of its own, for tests of devices.

    python tune_small.py '{"devices": 1 or 2, "tasks": ["distillation", "aam", sensitivities]}'

prints, for one task after the other, the loss of every step and the sum of all weights at the end,
or the sensitivity of every layer, each with the task's name. With TF_CONFIG, it is one
of several workers. TF_USE_LEGACY_KERAS=1 must be set.
"""

import json
import sys
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
        [tf.config.LogicalDeviceConfiguration()] * job["devices"],
    )
    strategy = devices.find_strategy()
    if job["devices"] > 1:
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for task in job["tasks"]:
        run(task, strategy)


def run(task: str, strategy: tf.distribute.Strategy) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    data = [
        (rng.normal(scale=0.1, size=(4, 8000)).astype(np.float32), np.arange(4)) for _ in range(3)
    ]
    (measure if task in MEASURES else tune)(task, data, strategy)


def measure(kind: str, data: list[Any], strategy: tf.distribute.Strategy) -> None:
    options = ProbeOptions(max_probes=3)
    found = MEASURES[kind](small(), data, options=options, strategy=strategy, progress=False)
    for layer, value in found.items():
        print(json.dumps({"task": kind, layer: value}), flush=True)


def tune(loss: str, data: list[Any], strategy: tf.distribute.Strategy) -> None:
    real = fine_tuning._Step.__call__

    def noted(self: Any, features: Any, labels: Any) -> float:
        value = real(self, features, labels)
        print(json.dumps({"task": loss, "loss": value}), flush=True)
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
            options=FineTuningOptions(steps=9, learning_rate=1e-2, update_every=2),
            strategy=strategy,
            progress=False,
        )
    weights = model.get_weights() + (head.get_weights() if head else [])
    total = sum(float(np.abs(w).sum()) for w in weights)
    print(json.dumps({"task": loss, "sum": total}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
