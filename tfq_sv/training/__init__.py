"""Training of FP32 networks: the loss, the schedules, the loop."""

from tfq_sv.training.loop import TrainingOptions, train
from tfq_sv.training.losses import AAMSoftmax

__all__ = ["AAMSoftmax", "TrainingOptions", "train"]
