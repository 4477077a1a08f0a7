"""The training loop on random chunks: AAM-softmax, a teacher or both; a later run resumes it."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import Batch, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.stream import Endless
from tfq_sv.errors import InputError
from tfq_sv.models import front_end
from tfq_sv.models.entry import embedding_shape
from tfq_sv.progress import tqdm
from tfq_sv.run_folder import check_settings
from tfq_sv.training.augment import Augmenter
from tfq_sv.training.averaging import WeightAverage
from tfq_sv.training.devices import BatchSharding, is_chief, synchronized
from tfq_sv.training.distillation import (
    DistillationTargets,
    TeacherEmbeddings,
    last_norm_fixed,
)
from tfq_sv.training.interrupt import deferred
from tfq_sv.training.losses import AAMSoftmax
from tfq_sv.training.options import TrainingOptions
from tfq_sv.training.precision import in_precision
from tfq_sv.training.scalars import Scalars
from tfq_sv.training.step import TrainingStep

CHECKPOINT_EVERY = 100
"""Steps from one checkpoint to the next."""
MEAN_OVER = 100
"""Steps over which the loss is averaged that is shown and returned."""
LOG_EVERY = 10
"""Steps from one point of TensorBoard's curves to the next."""
_NUMBER = "number/.ATTRIBUTES/VARIABLE_VALUE"  # what checkpoints call `state.number`


@dataclass(frozen=True)
class TrainingResult:
    """How a training went.

    Attributes:
        loss: mean of the last 100 steps.
        skipped: recordings that could not be read -> why.
    """

    loss: float
    skipped: Mapping[str, BadAudioError]


def train(
    model: keras.Model,
    corpus: Corpus,
    options: TrainingOptions | None = None,
    *,
    augmenter: Augmenter | None = None,
    head: AAMSoftmax | None = None,
    teacher: TeacherEmbeddings | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    strict: bool = False,
    workers: int = 2,
    progress: bool = True,
) -> TrainingResult:
    """Trains a network in place to tell a corpus's speakers apart, or to embed as a teacher does.

    On several devices, build the model (and the head) under a strategy's scope: the devices share
    every batch.

    Args:
        model: features -> embedding.
        corpus: at least two speakers; with a teacher, what it has embedded, speakers known or not.
        options: settings; the defaults if None.
        augmenter: what is done to chunks; nothing if None.
        head: the classifier, trained in place; a new one if None and one is needed: without a
            teacher, or with `aam_weight`.
        teacher: what the student learns, embeddings at the augmenter's speeds; None: to tell the
            speakers apart. With a teacher, a last BatchNorm without scale keeps its statistics.
        checkpoint_dir: where the state is kept every 100 steps. A run that finds a state there
            resumes from it and ends as it would have without the break. Several workers need one
            that all of them see.
        tensorboard: folder for the curves of loss, accuracy, margin and learning rate.
        strict: end at the first bad recording.
        workers: threads that read; they change nothing but the pace.
        progress: show a bar.

    Returns:
        The loss, and the recordings that were skipped.

    Raises:
        InputError: fewer than two speakers to tell apart, a head of too few classes, a batch that
            the devices cannot share, a teacher's embeddings of other utterances or speeds, a loss
            that is not finite, a checkpoint_dir of another run or a damaged one, or a bad recording
            if `strict`.
    """
    options = options or TrainingOptions()
    speeds = augmenter.speeds if augmenter else (1.0,)
    classes = _classes(corpus, speeds, options, teacher)
    targets = (
        None
        if teacher is None
        else DistillationTargets(teacher, int(embedding_shape(model)[-1] or 0))
    )
    strategy = model.distribute_strategy
    sharding = BatchSharding(strategy, options.batch_size)
    epoch = max(1, len(corpus.paths) // options.batch_size)
    with strategy.scope(), ExitStack() as stack:
        head = _head_of(head, classes, options.scale, embedding_shape(model))
        network = in_precision(model, options.precision)
        if options.sync_batch_norm and strategy.num_replicas_in_sync > 1:
            stack.enter_context(synchronized(network))
        if teacher is not None:
            stack.enter_context(last_norm_fixed(network))
        step = TrainingStep(network, front_end(model), head, options, epoch, sharding)
        state = tf.train.Checkpoint(model=network, optimizer=step.optimizer)
        weights = list(network.weights)
        if head is not None:
            state.head = head
            weights += head.trainable_variables
        average = None
        if options.num_avg > 1:
            average = state.average = WeightAverage(weights)
        scalars = stack.enter_context(Scalars(tensorboard if is_chief(strategy) else None))

        def advance(number: int, batch: Batch) -> float:
            values = step(number, targets(batch) if targets else batch)
            if number % LOG_EVERY == 0:
                scalars.write(number, **values)
            epochs, rest = divmod(step.steps - (number + 1), epoch)
            if average is not None and not rest and epochs < options.num_avg:
                average.add()
            return values["loss"]

        stream = batches(
            corpus if teacher is None else teacher.numbered(),
            batch_size=options.batch_size,
            seconds=options.seconds,
            seed=options.seed,
            workers=workers,
            augmentation=augmenter,
            rows=sharding.rows,
            strict=strict,
        )

        settings = {
            "network": model.name,
            "parameters": model.count_params(),
            "speakers": len(corpus.speaker_ids),
            "classes": head.speakers if head else 0,
            "teacher": teacher.teacher if teacher else None,
            **(augmenter.summary() if augmenter else {}),
            **asdict(options),
        }
        bar = "training" if progress and is_chief(strategy) else None
        loss = run(advance, stream, step.steps, state, checkpoint_dir, settings, bar)
        if average is not None:
            average.apply()
        if network is not model:
            model.set_weights(network.get_weights())
    return TrainingResult(loss, stream.skipped)


def _classes(
    corpus: Corpus,
    speeds: tuple[float, ...],
    options: TrainingOptions,
    teacher: TeacherEmbeddings | None,
) -> int:
    """How many classes the head needs; 0 if no speaker is told apart. Checks what goes together."""
    if teacher is not None:
        if teacher.speeds != speeds:
            raise InputError(
                f"the teacher embedded speeds {teacher.speeds}, the augmenter makes {speeds}"
            )
        if teacher.corpus.paths.keys() != corpus.paths.keys():
            raise InputError(
                f"the teacher embedded {len(teacher.corpus.paths)} utterances, which are not the "
                f"{len(corpus.paths)} of {corpus.root}; train on teacher.corpus"
            )
        if not options.aam_weight:
            return 0
    speakers = len(corpus.speaker_ids)
    if speakers < 2:
        raise InputError(f"{corpus.root} has {speakers} speaker; training needs at least two")
    return speakers * len(speeds)


def _head_of(
    head: AAMSoftmax | None, classes: int, scale: float, embeddings: Any
) -> AAMSoftmax | None:
    """The classifier given or a new one; None if no class is needed."""
    if not classes:
        return None
    if head is None:
        head = AAMSoftmax(classes, scale)
        head.build(embeddings)
    if head.speakers < classes:
        raise InputError(f"the head has {head.speakers} classes; {classes} are needed")
    return head


def run(
    advance: Callable[[int, Any], float],
    stream: Endless,
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
        stream: one batch per step; a resumed run skips those of the steps that are done.
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
        KeyboardInterrupt: Ctrl-C, after the step is done and the state saved, if it is kept.
    """
    number = tf.Variable(0, dtype=tf.int64)
    recent = tf.Variable(tf.fill([MEAN_OVER], np.nan))
    state.number, state.losses = number, recent
    with ExitStack() as stack:
        manager = None
        if checkpoint_dir is not None:
            manager = _resumed(Path(checkpoint_dir), state, settings, stack)
        start = int(tf.convert_to_tensor(number))
        losses = tf.convert_to_tensor(recent).numpy()
        stream.skip(start)
        shown = stack.enter_context(
            tqdm(total=steps, initial=start, desc=bar, unit="step", disable=bar is None)
        )
        interrupted = stack.enter_context(deferred()) if manager else bool
        for step in range(start, steps):
            loss = advance(step, next(stream))
            if not np.isfinite(loss):
                raise InputError(
                    f"the loss became {loss} at step {step}; try a lower learning rate"
                )
            losses[step % MEAN_OVER] = loss
            shown.set_postfix(loss=f"{np.nanmean(losses):.3f}", refresh=False)
            shown.update()
            number.assign(step + 1)
            recent.assign(losses)
            stop = interrupted()
            due = stop or (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps
            if manager is not None and due:
                with _as_input_error(f"the state cannot be written to {checkpoint_dir}"):
                    manager.save()
            if stop:
                raise KeyboardInterrupt(
                    f"interrupted after step {step + 1} of {steps}; {checkpoint_dir} keeps the "
                    "state: the same command resumes"
                )
    return float(np.nanmean(losses))


def _resumed(
    folder: Path, state: tf.train.Checkpoint, settings: Mapping[str, Any], stack: ExitStack
) -> tf.train.CheckpointManager:
    """Restores what a folder holds; returns what saves there."""
    chief = is_chief(tf.distribute.get_strategy())
    with _as_input_error(f"{folder} holds a damaged state; delete that folder to start again"):
        latest = tf.train.latest_checkpoint(str(folder))
        start = int(tf.train.load_variable(latest, _NUMBER)) if latest else 0
    check_settings(folder, settings, begun=latest is not None, write=chief)
    _check_same_step(start)
    if latest:
        with _as_input_error(f"{folder} holds a damaged state; delete that folder to start again"):
            state.restore(latest).assert_existing_objects_matched()
    # Saving sums up what devices hold, so all workers must; but only the chief's file is kept.
    kept = str(folder) if chief else stack.enter_context(tempfile.TemporaryDirectory())
    return tf.train.CheckpointManager(state, kept, max_to_keep=1)


@contextmanager
def _as_input_error(message: str) -> Iterator[None]:
    """Converts TensorFlow's checkpoint errors to InputError."""
    try:
        yield
    # Reading a damaged one raises any of these.
    except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{message} ({reason})") from error


def _check_same_step(start: int) -> None:
    """Raises InputError if workers are to begin at different steps."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return
    everyone = tf.function(lambda: strategy.run(lambda: tf.constant(start)))
    total = int(strategy.reduce(tf.distribute.ReduceOp.SUM, everyone(), axis=None))
    if total != start * strategy.num_replicas_in_sync:
        raise InputError(
            f"workers resumed from different steps (this one: {start}); the state folder must be "
            "one that all workers see"
        )
