"""Quantization-aware fine-tuning: the latent weights train, the codebooks follow, then freeze."""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.models import front_end, network_input
from tfq_sv.quantization import quantizers
from tfq_sv.training import schedules
from tfq_sv.training.loop import run
from tfq_sv.training.losses import cosine_distillation


@dataclass(frozen=True)
class FineTuningOptions:
    """Settings of a run.

    Attributes:
        steps: optimizer steps.
        learning_rate: peak of the schedule (Adam).
        follow_every: steps from one move of the codebooks to the next.
        lloyd_steps: Lloyd steps a move.
        freeze: share of the steps, at the end, in which codebooks stay as they are.
    """

    steps: int = 150
    learning_rate: float = 5e-4
    follow_every: int = 10
    lloyd_steps: int = 3
    freeze: float = 0.3

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "follow_every", "lloyd_steps"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.freeze <= 1:
            raise InputError(f"freeze must be a share from 0 to 1, not {self.freeze}")


def finetune(
    model: keras.Model,
    dataset: Iterable[Any],
    *,
    teacher: keras.Model,
    options: FineTuningOptions | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> float:
    """Trains a quantized model in place until its embeddings point where the teacher's do.

    No speaker label is needed: the FP32 network that was quantized is the teacher. Gradients pass
    straight through to the latent weights; every few steps the codebooks follow them by Lloyd's
    steps (Liu, Wang, Qian, arXiv 2406.05359), and stay fixed for the last part.

    Args:
        model: what `tfq_sv.quantize` returned.
        dataset: batches of waveforms or features, see `models.network_input`. Begun again when
            it ends.
        teacher: the FP32 network, of the same features and embedding size.
        options: settings; the defaults if None.
        checkpoint_dir: where the state is kept every 100 steps, and resumed from.
        progress: show a bar.

    Returns:
        The mean loss (1 - cosine) of the last 100 steps.

    Raises:
        InputError: nothing is quantized, an empty dataset, networks that do not fit together, or
            a loss that is not finite.
    """
    options = options or FineTuningOptions()
    books = quantizers(model)
    if not books:
        raise InputError(f"{model.name} is not quantized; call tfq_sv.quantize first")
    if model.output_shape != teacher.output_shape or model.input_shape != teacher.input_shape:
        raise InputError(
            f"the teacher maps {teacher.input_shape} to {teacher.output_shape}, the model "
            f"{model.input_shape} to {model.output_shape}; they must be alike"
        )
    fbank = front_end(model)
    optimizer = keras.optimizers.Adam(schedules.cosine(options.learning_rate, options.steps))
    variables = model.trainable_variables
    optimizer.build(variables)
    last_move = int(options.steps * (1 - options.freeze))

    @tf.function(reduce_retracing=True)
    def step(features: tf.Tensor) -> tf.Tensor:
        wanted = teacher(features, training=False)
        with tf.GradientTape() as tape:
            loss = cosine_distillation(model(features, training=True), wanted)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def advance(number: int, batch: Any) -> float:
        if number and number % options.follow_every == 0 and number < last_move:
            for quantizer in books.values():
                quantizer.follow(options.lloyd_steps)
        return float(step(network_input(batch, fbank)))

    state = tf.train.Checkpoint(model=model, optimizer=optimizer)
    bits = {name: quantizer.bits for name, quantizer in books.items()}
    return run(
        advance,
        lambda start: _endless(dataset, start),
        options.steps,
        state,
        checkpoint_dir,
        {"network": model.name, "bits": bits, **asdict(options)},
        "fine-tuning" if progress else None,
    )


def _endless(dataset: Iterable[Any], start: int) -> Iterator[Any]:
    def again() -> Iterator[Any]:
        while True:
            empty = True
            for batch in dataset:
                empty = False
                yield batch
            if empty:
                raise InputError("the dataset for fine-tuning gave no batch")

    return itertools.islice(again(), start, None)
