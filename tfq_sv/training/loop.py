"""The training loop: AAM-softmax on random chunks, with checkpoints that a later run resumes."""

import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import Batch, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.models import front_end
from tfq_sv.progress import tqdm
from tfq_sv.training.augment import Augmenter
from tfq_sv.training.averaging import WeightAverage
from tfq_sv.training.devices import Shares, is_chief, synchronized
from tfq_sv.training.losses import AAMSoftmax
from tfq_sv.training.options import TrainingOptions
from tfq_sv.training.precision import in_precision
from tfq_sv.training.scalars import Scalars
from tfq_sv.training.step import TrainingStep

CHECKPOINT_EVERY = 100
"""Steps from one checkpoint to the next."""
LOG_EVERY = 10
"""Steps from one point of TensorBoard's curves to the next."""
_NUMBER = "number/.ATTRIBUTES/VARIABLE_VALUE"  # what checkpoints call `state.number`


def train(
    model: keras.Model,
    corpus: Corpus,
    options: TrainingOptions | None = None,
    *,
    augmenter: Augmenter | None = None,
    head: AAMSoftmax | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    left_out: MutableMapping[str, BadAudioError] | None = None,
    strict: bool = False,
    workers: int = 2,
    progress: bool = True,
) -> float:
    """Trains a network in place to tell a corpus's speakers apart.

    On several devices, build the model (and the head) under a strategy's scope: the devices share
    every batch.

    Args:
        model: features -> embedding.
        corpus: at least two speakers.
        options: settings; the defaults if None.
        augmenter: what is done to chunks; nothing if None.
        head: the classifier, trained in place; a new one if None.
        checkpoint_dir: where the state is kept every 100 steps. A run that finds a state there
            goes on from it and ends as it would have without the break. Several workers need one
            that all of them see.
        tensorboard: folder for the curves of loss, accuracy, margin and learning rate.
        left_out: gets the recordings that turned out bad, and why.
        strict: end at the first bad recording.
        workers: threads that read; they change nothing but the pace.
        progress: show a bar.

    Returns:
        The mean loss of the last 100 steps.

    Raises:
        InputError: fewer than two speakers, a head of too few classes, a batch that the devices
            cannot share, a loss that is not finite, or a bad recording if `strict`.
    """
    options = options or TrainingOptions()
    speakers = len(corpus.speaker_ids)
    if speakers < 2:
        raise InputError(f"{corpus.root} has {speakers} speaker; training needs at least two")
    classes = speakers * (len(augmenter.speeds) if augmenter else 1)
    strategy = model.distribute_strategy
    shares = Shares(strategy, options.batch_size)
    epoch = max(1, len(corpus.paths) // options.batch_size)
    with strategy.scope(), ExitStack() as stack:
        if head is None:
            head = AAMSoftmax(classes, options.scale)
            head.build(model.output_shape)
        if head.speakers < classes:
            raise InputError(f"the head has {head.speakers} classes; {classes} are needed")
        network = in_precision(model, options.precision)
        if options.sync_batch_norm and strategy.num_replicas_in_sync > 1:
            stack.enter_context(synchronized(network))
        step = TrainingStep(network, front_end(model), head, options, epoch, shares)
        state = tf.train.Checkpoint(model=network, head=head, optimizer=step.optimizer)
        average = None
        if options.num_avg > 1:
            average = WeightAverage([*network.weights, *head.trainable_variables])
            state.average = average
        scalars = stack.enter_context(Scalars(tensorboard if is_chief(strategy) else None))

        def advance(number: int, batch: Batch) -> float:
            values = step(number, batch)
            if number % LOG_EVERY == 0:
                scalars.write(number, **values)
            epochs, rest = divmod(step.steps - (number + 1), epoch)
            if average is not None and not rest and epochs < options.num_avg:
                average.add()
            return values["loss"]

        def feed(start: int) -> Iterator[Batch]:
            return batches(
                corpus,
                batch_size=options.batch_size,
                seconds=options.seconds,
                seed=options.seed,
                start=start,
                workers=workers,
                augmentation=augmenter,
                rows=shares.rows,
                left_out=left_out,
                strict=strict,
            )

        settings = {
            "network": model.name,
            "parameters": model.count_params(),
            "speakers": speakers,
            "classes": head.speakers,
            **(augmenter.summary() if augmenter else {}),
            **asdict(options),
        }
        bar = "training" if progress and is_chief(strategy) else None
        loss = run(advance, feed, step.steps, state, checkpoint_dir, settings, bar)
        if average is not None:
            average.apply()
        if network is not model:
            model.set_weights(network.get_weights())
    return loss


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

    Under a strategy of several workers, each calls this; the chief writes, and all read.

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
        InputError: the loss is NaN or infinite, the folder holds the state of another run, or
            workers found different states.
    """
    number = tf.Variable(0, dtype=tf.int64)
    state.number = number
    losses: deque[float] = deque(maxlen=100)
    with ExitStack() as stack:
        manager = None
        if checkpoint_dir is not None:
            manager = _resumed(Path(checkpoint_dir), state, settings, stack)
        start = int(tf.convert_to_tensor(number))
        stream = feed(start)
        shown = stack.enter_context(
            tqdm(total=steps, initial=start, desc=bar, unit="step", disable=bar is None)
        )
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


def _resumed(
    folder: Path, state: tf.train.Checkpoint, settings: Mapping[str, Any], stack: ExitStack
) -> tf.train.CheckpointManager:
    """Restores what a folder holds; returns what saves there."""
    chief = is_chief(tf.distribute.get_strategy())
    _claim(folder, settings, write=chief)
    latest = tf.train.latest_checkpoint(str(folder))
    _agree(int(tf.train.load_variable(latest, _NUMBER)) if latest else 0)
    if latest:
        state.restore(latest).assert_existing_objects_matched()
    # Saving sums up what devices hold, so all workers must; but only the chief's file is kept.
    kept = str(folder) if chief else stack.enter_context(tempfile.TemporaryDirectory())
    return tf.train.CheckpointManager(state, kept, max_to_keep=1)


def _agree(start: int) -> None:
    """Raises InputError if workers are to begin at different steps."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return
    everyone = tf.function(lambda: strategy.run(lambda: tf.constant(start)))
    total = int(strategy.reduce(tf.distribute.ReduceOp.SUM, everyone(), axis=None))
    if total != start * strategy.num_replicas_in_sync:
        raise InputError(
            f"this worker stands at step {start}, others do not; the state folder must be one that "
            "all workers see"
        )


def _claim(folder: Path, settings: Mapping[str, Any], *, write: bool) -> None:
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
    elif write:
        with atomic(label) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
