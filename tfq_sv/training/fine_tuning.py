"""Quantization-aware fine-tuning: the latent weights train, the codebooks follow, then freeze."""

import itertools
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.stream import Stream, once
from tfq_sv.errors import InputError
from tfq_sv.models import model_input, narrow_strides
from tfq_sv.models.dilation import traced
from tfq_sv.models.entry import embedding_shape, one_embedding
from tfq_sv.quantization.batch_norm import batch_norms, reestimate_batch_norm
from tfq_sv.quantization.quantized_model import quantizers_of
from tfq_sv.run_folder import digest
from tfq_sv.training import schedules
from tfq_sv.training.devices import BatchSharding, broadcast_weights, is_chief, synchronized
from tfq_sv.training.loop import run
from tfq_sv.training.losses import AAMSoftmax, cosine_distillation
from tfq_sv.training.options import PRECISIONS
from tfq_sv.training.precision import gradients_of, in_precision, scaled_for


@dataclass(frozen=True)
class FineTuningOptions:
    """Settings of a run.

    Attributes:
        steps: optimizer steps.
        learning_rate: peak of the schedule (Adam).
        update_every: steps from one move of the codebooks to the next.
        lloyd_steps: Lloyd steps a move.
        freeze_fraction: share of the steps, at the end, in which codebooks stay as they are.
        batch_norm_batches: batches on which BatchNorm is re-estimated when training has ended,
            where it is: see `finetune`.
        precision: of the trunk: "fp32", "fp16" with loss scaling, or "bf16"; weights, codebooks,
            embedding and loss are float32.
    """

    steps: int = 150
    learning_rate: float = 5e-4
    update_every: int = 10
    lloyd_steps: int = 3
    freeze_fraction: float = 0.3
    batch_norm_batches: int = 20
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "update_every", "lloyd_steps"):
            if not getattr(self, name) > 0:  # NaN too
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.freeze_fraction <= 1:
            raise InputError(
                f"freeze_fraction must be a share from 0 to 1, not {self.freeze_fraction}"
            )
        if self.batch_norm_batches < 0:
            raise InputError(
                f"batch_norm_batches must not be negative, but is {self.batch_norm_batches}"
            )
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}"
            )


class UpdateCodebooks(keras.callbacks.Callback):
    """Updates the codebooks of a quantized model from its latent weights in plain `model.fit`.

    Every few steps each codebook moves by Lloyd's steps to where the latent weights are; for the
    last part of training all of them stay, so that the weights settle on what is deployed. Static
    and calibrated ones never move.

    Args:
        options: `update_every`, `lloyd_steps` and `freeze_fraction` count; the defaults if None.

    Source: Liu, Wang, Qian, arXiv 2406.05359, adaptive uniform precision.

    >>> UpdateCodebooks().last_update(steps=100)
    70
    """

    def __init__(self, options: FineTuningOptions | None = None) -> None:
        super().__init__()
        self.options = options or FineTuningOptions()
        self._first, self._last, self._end = 0, -1, 0

    def last_update(self, steps: int) -> int:
        """Returns the step from which on codebooks stay, of so many."""
        return int(steps * (1 - self.options.freeze_fraction))

    def update(self, model: keras.Model, number: int, steps: int, last: int | None = None) -> None:
        """Updates the codebooks if it is due before step `number` of `steps`.

        Args:
            model: quantized.
            number: of the step, from 0.
            steps: in all.
            last: the step before which this was called last; the one before if None.
        """
        every = self.options.update_every
        due = number // every > (number - 1 if last is None else last) // every
        if number and due and number < self.last_update(steps):
            for quantizer in quantizers_of(model).values():
                quantizer.update(self.options.lloyd_steps)

    def on_train_begin(self, logs: Any = None) -> None:
        """Reads how long `fit` will train."""
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        if not epochs or not steps:
            raise InputError("UpdateCodebooks needs to know the end: give fit steps_per_epoch")
        self._last, self._end = -1, epochs * steps

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Reads where `fit` is: it may have begun in a later epoch."""
        self._first = epoch * self.params["steps"]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Updates the codebooks when it is due; `batch` skips those done at once in one call."""
        number = self._first + batch
        self.update(self.model, number, self._end, self._last if self._last >= 0 else None)
        self._last = number


FollowCodebooks = UpdateCodebooks
"""Its name before 0.2."""


def finetune(
    model: keras.Model,
    dataset: Iterable[Any],
    *,
    teacher: keras.Model | None = None,
    head: AAMSoftmax | None = None,
    options: FineTuningOptions | None = None,
    strategy: tf.distribute.Strategy | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> float:
    """Fine-tunes a quantized model in place, to recover the accuracy that few bits cost.

    With a teacher, the FP32 network that was quantized, until its embeddings point where the
    teacher's do: no speaker label is needed. With a head, until AAM-softmax tells the speakers
    apart, for those who have the labels. Gradients pass straight through to the latent weights,
    the codebooks follow (see `UpdateCodebooks`), and BatchNorm is re-estimated at the end. A
    calibrated network that has a teacher trains with the BatchNorm statistics that calibration
    gave it, and keeps them: those of a batch of short chunks are far from them in a deep network.

    Args:
        model: what `tfq_sv.quantize` returned. A float model is trained in the same way: the
            control that a fair comparison needs.
        dataset: batches of waveforms or features, see `models.network_input`; for a head, tuples
            (waveforms or features, speaker's index (B,)). Restarted when it ends; a resumed
            run skips what it has had.
        teacher: network of the same features and embedding size.
        head: built, its centres trained before (`speaker_head`), its margin set; trained in place.
        options: settings; the defaults if None.
        strategy: devices or workers that share every batch; the models are built outside its
            scope, and every worker gives the same dataset. This device alone if None.
        checkpoint_dir: where the state is kept every 100 steps, and resumed from.
        progress: show a bar.

    Returns:
        The mean loss of the last 100 steps: 1 - cosine for a teacher, AAM-softmax for a head.

    Raises:
        InputError: neither or both of teacher and head, an empty dataset, one without labels for
            a head, networks that do not fit together, a batch that the devices cannot share, a
            loss that is not finite, or a checkpoint_dir of another run: other options, another
            teacher, a network of other bits or calibrated otherwise.
    """
    options = options or FineTuningOptions()
    if (teacher is None) == (head is None):
        raise InputError("finetune learns from a teacher or with a head: give one of them")
    if teacher is not None:
        _check_alike(model, teacher)
    strategy = strategy or tf.distribute.get_strategy()
    stream = Stream.of(dataset, "fine-tuning")
    with strategy.scope(), ExitStack() as stack:
        student = in_precision(model, options.precision)
        broadcast_weights(strategy, student)
        if strategy.num_replicas_in_sync > 1:
            stack.enter_context(synchronized(student))
        step = _Step(student, teacher, head, options, strategy)
        codebooks = UpdateCodebooks(options)

        def advance(number: int, batch: Any) -> float:
            codebooks.update(student, number, options.steps)
            features = model_input(model, batch)
            return step(features, _labels(batch, head, len(features)))

        settings = {
            "network": model.name,
            "bits": {name: quantizer.bits for name, quantizer in quantizers_of(model).items()},
            "calibrated": [name for name, x in quantizers_of(model).items() if x.calibrated],
            # The teacher's, not the model's, which training has changed when it is tried again.
            "teacher": None if teacher is None else digest(teacher.get_weights()),
            "speakers": None if head is None else head.speakers,
            **asdict(options),
        }
        loss = run(
            advance,
            stream,
            options.steps,
            step.state,
            checkpoint_dir,
            settings,
            "fine-tuning" if progress and is_chief(strategy) else None,
        )
        step.finish(model)
    if options.batch_norm_batches and step.batch_statistics and batch_norms(model):
        batches = itertools.islice(stream, options.batch_norm_batches)
        reestimate_batch_norm(model, batches, progress=progress and is_chief(strategy))
    return loss


class _Step:
    """Calling it with features and labels trains the student by a step, on all devices together."""

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        head: AAMSoftmax | None,
        options: FineTuningOptions,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._student, self._given, self._strategy = student, head, strategy
        self.batch_statistics = teacher is None or not _is_calibrated(student)
        self._teacher = None if teacher is None else in_precision(teacher, options.precision)
        self._head = None if head is None else _on_devices(head, embedding_shape(student))
        schedule = schedules.cosine(options.learning_rate, options.steps)
        self._optimizer = scaled_for(keras.optimizers.Adam(schedule), options.precision)
        self._variables = student.trainable_variables
        # A head has weights of its own to keep.
        kept = {} if self._head is None else {"head": self._head}
        self._variables = sum((x.trainable_variables for x in kept.values()), self._variables)
        self._optimizer.build(self._variables)
        self.state = tf.train.Checkpoint(model=student, optimizer=self._optimizer, **kept)
        self._distributed_step = traced(self._on_all_replicas, student)

    def __call__(self, features: tf.Tensor, labels: tf.Tensor) -> float:
        sharding = BatchSharding(self._strategy, features.shape[0])
        rows = sharding.rows
        parts = sharding.shard(features[rows], labels[rows])
        return float(self._distributed_step(*parts))

    def _on_all_replicas(self, features: Any, labels: Any) -> tf.Tensor:
        losses = self._strategy.run(self._replica_step, (features, labels))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def _replica_step(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with narrow_strides.avoided(self._student), tf.GradientTape() as tape:
            answer = self._student(features, training=self.batch_statistics)
            embeddings = one_embedding(self._student, answer)
            if self._teacher is not None:
                answer = self._teacher(features, training=False)
                target = tf.stop_gradient(one_embedding(self._teacher, answer))
                loss = cosine_distillation(embeddings, target)
            elif self._head is not None:
                loss = self._head(embeddings, labels)[0]
            loss = loss / self._strategy.num_replicas_in_sync  # gradients are summed over devices
        gradients = gradients_of(tape, loss, self._variables, self._optimizer)
        self._optimizer.apply_gradients(zip(gradients, self._variables, strict=True))
        return loss

    def finish(self, model: keras.Model) -> None:
        """Gives what was trained on the devices to the model, and the head, that were given."""
        if self._student is not model:
            model.set_weights(self._student.get_weights())
        if self._given is not None and self._head is not None and self._given is not self._head:
            self._given.set_weights(self._head.get_weights())


def speaker_head(
    teacher: keras.Model, dataset: Iterable[Any], speakers: int, *, margin: float = 0.2
) -> AAMSoftmax:
    """Returns an AAM-softmax head whose centres are the speakers' mean embeddings.

    Training heads are not kept with networks, and a random one would first destroy what the
    network knows.

    Args:
        teacher: the FP32 network.
        dataset: batches (waveforms or features, speaker's index (B,)) in which each speaker
            comes at least once.
        speakers: how many there are.
        margin: of the AAM-softmax, radians.

    Raises:
        InputError: a dataset without labels or without end, a label out of range, or a speaker
            without speech.
    """
    head = AAMSoftmax(speakers)
    head.build(embedding_shape(teacher))
    head.margin.assign(margin)
    sums = np.zeros((speakers, embedding_shape(teacher)[-1]))

    def embedded(features: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(one_embedding(teacher, teacher(features, training=False)), 1)

    embed = traced(embedded, teacher)
    for batch in once(dataset, "the head"):
        labels = _labels(batch, head, len(batch[0])).numpy()
        np.add.at(sums, labels, embed(model_input(teacher, batch)).numpy())
    lengths = np.linalg.norm(sums, axis=1)
    if not lengths.all():
        raise InputError(f"{int((lengths == 0).sum())} of {speakers} speakers have no speech")
    head.centers.assign((sums / lengths[:, None]).T)
    return head


def _check_alike(model: keras.Model, teacher: keras.Model) -> None:
    shapes, expected = [(x.input_shape, embedding_shape(x)) for x in (model, teacher)]
    if shapes != expected:
        raise InputError(
            f"the teacher maps {expected[0]} to {expected[1]}, the model {shapes[0]} to "
            f"{shapes[1]}; they must be alike"
        )


def _on_devices(head: AAMSoftmax, embeddings: Any) -> AAMSoftmax:
    """The head, or its like on the devices of the scope."""
    devices = tf.distribute.get_strategy().extended
    if all(devices.variable_created_in_scope(v) for v in head.weights):
        return head
    copy = AAMSoftmax(head.speakers, head.scale)
    copy.build(embeddings)
    copy.set_weights(head.get_weights())
    return copy


def _labels(batch: Any, head: AAMSoftmax | None, count: int) -> tf.Tensor:
    """A batch's speaker indices, (count,); zeros that nobody reads without a head."""
    if head is None:
        return tf.zeros([count], tf.int32)
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise InputError("a head needs labels: batches (waveforms or features, speaker's index)")
    labels = tf.convert_to_tensor(batch[1], tf.int32)
    if not np.all((labels.numpy() >= 0) & (labels.numpy() < head.speakers)):
        raise InputError(f"a speaker's index is outside 0 to {head.speakers - 1}")
    return labels


def _is_calibrated(model: keras.Model) -> bool:
    quantizers = quantizers_of(model)
    return bool(quantizers) and all(x.calibrated for x in quantizers.values())
