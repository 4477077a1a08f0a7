"""Training of FP32 networks: the loss, the schedules, the loop. TensorFlow comes when needed."""

import importlib
from typing import Any

_HOME = {
    "AAMSoftmax": "losses",
    "Augmenter": "augment",
    "TrainingOptions": "options",
    "train": "loop",
}

__all__ = ["AAMSoftmax", "Augmenter", "TrainingOptions", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"tfq_sv.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tfq_sv.training' has no attribute {name!r}")
