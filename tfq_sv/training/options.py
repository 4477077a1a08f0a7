"""The settings of a training run. No TensorFlow."""

from dataclasses import dataclass

from tfq_sv.errors import InputError

OPTIMIZERS = ("Adam", "AdamW", "SGD")
PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a run, in WeSpeaker's names where it has them.

    A run is counted in steps or in epochs, and its schedules follow from that. In steps, it is a
    short one: cosine learning rate, and a margin that rises linearly in the middle. In epochs, it
    is WeSpeaker's: the learning rate falls exponentially after a linear warm-up, and the margin
    rises exponentially between two epochs, which are counted from 1.

    Attributes:
        steps: optimizer steps, unless `num_epochs` is given.
        batch_size: chunks per step, over all devices.
        seconds: length of a chunk.
        learning_rate: peak of the schedule.
        margin: final margin of the AAM-softmax.
        seed: of data order, augmentation and dither.
        num_epochs: passes over the corpus; None: the run is counted in steps.
        num_avg: the last so many epochs, whose weights are averaged; 1: the last alone.
        optimizer: one of OPTIMIZERS.
        momentum: SGD's, in Nesterov's form.
        weight_decay: of every weight; SGD adds it to the gradient, AdamW takes it off the weights,
            both as PyTorch does.
        scale: of the AAM-softmax.
        final_lr: learning rate at the end of the last epoch.
        warm_up_epoch: epochs of warm-up, from 0.
        base_batch_size: the batch that the learning rates are meant for: they are multiplied by
            batch_size / base_batch_size. None: they are taken as they stand.
        initial_margin: until `increase_start_epoch`.
        increase_start_epoch: when the margin begins to rise.
        fix_start_epoch: when it is `margin`.
        precision: of the trunk: "fp32", "fp16" with loss scaling, or "bf16"; weights are float32
            and so are pooling, embedding and loss.
        aam_weight: of the AAM-softmax where there is a teacher, whose loss is 1 - cosine; 0: no
            speaker is told apart. Without a teacher the AAM-softmax is all there is.
        sync_batch_norm: on several devices, BatchNorm takes the statistics of the whole batch, so
            that the devices' number changes nothing; else each device takes its own.
    """

    steps: int = 1500
    batch_size: int = 32
    seconds: float = 2.0
    learning_rate: float = 3e-3
    margin: float = 0.2
    seed: int = 0
    num_epochs: int | None = None
    num_avg: int = 1
    optimizer: str = "Adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    scale: float = 32.0
    final_lr: float = 5e-5
    warm_up_epoch: int = 6
    base_batch_size: int | None = None
    initial_margin: float = 0.0
    increase_start_epoch: int = 20
    fix_start_epoch: int = 40
    precision: str = "fp32"
    aam_weight: float = 0.0
    sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        positive = ["steps", "batch_size", "seconds", "learning_rate", "final_lr", "scale"]
        positive += ["num_avg", "increase_start_epoch"]
        positive += [x for x in ("num_epochs", "base_batch_size") if getattr(self, x) is not None]
        for name in positive:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        for name in (
            "margin",
            "initial_margin",
            "weight_decay",
            "warm_up_epoch",
            "seed",
            "aam_weight",
        ):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, as {getattr(self, name)} is")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be from 0 to below 1, not {self.momentum}")
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        if self.weight_decay and self.optimizer == "Adam":
            raise InputError("weight_decay needs the optimizer AdamW or SGD, not Adam")
        if self.num_avg > (self.num_epochs or 1):
            raise InputError(
                f"num_avg is {self.num_avg}, but there are {self.num_epochs or 'no'} epochs"
            )
        if self.fix_start_epoch < self.increase_start_epoch:
            raise InputError(
                f"fix_start_epoch {self.fix_start_epoch} is before increase_start_epoch "
                f"{self.increase_start_epoch}"
            )

    @property
    def lr_scale(self) -> float:
        """What learning rates are multiplied with."""
        return self.batch_size / self.base_batch_size if self.base_batch_size else 1.0
