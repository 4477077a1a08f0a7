"""The training loop: AAM-softmax on random chunks, with checkpoints that a later run resumes."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from tfq_sv.data.chunks import Batch, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.features import fbank_tensor
from tfq_sv.files import atomic
from tfq_sv.models import front_end
from tfq_sv.training import schedules
from tfq_sv.training.losses import AAMSoftmax

CHECKPOINT_EVERY = 100
"""Steps from one checkpoint to the next."""


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a run.

    Attributes:
        steps: optimizer steps.
        batch_size: chunks a step.
        seconds: length of a chunk.
        learning_rate: peak of the schedule (Adam).
        margin: final margin of the AAM-softmax.
        seed: of data order and dither.
    """

    steps: int = 1500
    batch_size: int = 32
    seconds: float = 2.0
    learning_rate: float = 3e-3
    margin: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "seconds", "learning_rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")


def train(
    model: keras.Model,
    corpus: Corpus,
    options: TrainingOptions | None = None,
    *,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> float:
    """Trains a network in place to tell a corpus's speakers apart.

    Args:
        model: features -> embedding.
        corpus: at least two speakers.
        options: settings; the defaults if None.
        checkpoint_dir: where the state is kept every 100 steps. A run that finds a state there
            goes on from it and ends as it would have without the break.
        progress: show a bar.

    Returns:
        The mean loss of the last 100 steps.

    Raises:
        InputError: fewer than two speakers, or a loss that is not finite.
    """
    options = options or TrainingOptions()
    speakers = len(corpus.speaker_ids)
    if speakers < 2:
        raise InputError(f"{corpus.root} has {speakers} speaker; training needs at least two")
    fbank, head = front_end(model), AAMSoftmax(speakers)
    head.build(model.output_shape)
    optimizer = keras.optimizers.Adam(schedules.cosine(options.learning_rate, options.steps))
    variables = [*model.trainable_variables, *head.trainable_variables]
    optimizer.build(variables)

    @tf.function
    def step(number: tf.Tensor, waveforms: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        # Kaldi's dither, one step of 16-bit samples; a resumed run draws the same.
        noise = tf.random.stateless_normal(tf.shape(waveforms), [options.seed, number])
        features = fbank_tensor(waveforms + noise / 2**15, fbank)
        with tf.GradientTape() as tape:
            loss, _ = head(model(features, training=True), labels)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def advance(number: int, batch: Batch) -> float:
        head.margin.assign(schedules.margin(number, options.steps, options.margin))
        return float(step(tf.constant(number), tf.constant(batch[0]), tf.constant(batch[1])))

    def feed(start: int) -> Iterator[Batch]:
        return batches(
            corpus,
            batch_size=options.batch_size,
            seconds=options.seconds,
            seed=options.seed,
            start=start,
        )

    state = tf.train.Checkpoint(model=model, head=head, optimizer=optimizer)
    settings = {"network": model.name, "parameters": model.count_params(), "speakers": speakers}
    return run(
        advance,
        feed,
        options.steps,
        state,
        checkpoint_dir,
        {**settings, **asdict(options)},
        "training" if progress else None,
    )


def run(
    advance: Callable[[int, Any], float],
    feed: Callable[[int], Iterator[Any]],
    steps: int,
    state: tf.train.Checkpoint,
    checkpoint_dir: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    bar: str | None,
) -> float:
    """Calls `advance(number, batch)` for every step, keeping and resuming `state`.

    Args:
        advance: makes one step and returns its loss.
        feed: gives the batches from a step on.
        steps: how many steps in all.
        state: what has to be kept.
        checkpoint_dir: where; nowhere if None.
        settings: what the run is; a state of another run is not resumed. Values for JSON.
        bar: name of the progress bar; none if None.

    Returns:
        The mean loss of the last 100 steps.

    Raises:
        InputError: the loss is NaN or infinite, or the folder holds the state of another run.
    """
    number = tf.Variable(0, dtype=tf.int64)
    state.number = number
    manager = None
    if checkpoint_dir is not None:
        _claim(Path(checkpoint_dir), settings)
        manager = tf.train.CheckpointManager(state, str(Path(checkpoint_dir)), max_to_keep=1)
        if manager.latest_checkpoint:
            state.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    start = int(number)
    losses: deque[float] = deque(maxlen=100)
    stream = feed(start)
    with tqdm(total=steps, initial=start, desc=bar, unit="step", disable=bar is None) as shown:
        for step in range(start, steps):
            loss = advance(step, next(stream))
            if not np.isfinite(loss):
                raise InputError(
                    f"the loss became {loss} at step {step}; try a lower learning rate"
                )
            losses.append(loss)
            shown.set_postfix(loss=f"{np.mean(losses):.3f}", refresh=False)
            shown.update()
            number.assign(step + 1)
            if manager is not None and ((step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps):
                manager.save()
    return float(np.mean(losses)) if losses else float("nan")


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Marks a state folder as this run's; raises InputError if it is another's."""
    label = folder / "settings.json"
    if label.exists():
        found = json.loads(label.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if found.get(name) != value:
                raise InputError(
                    f"{folder} holds an unfinished run with {name} {found.get(name)}, not {value}; "
                    "finish it with its own settings, or delete that folder"
                )
        return
    with atomic(label) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
