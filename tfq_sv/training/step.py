"""One step of training: features, loss, gradients, update, on all devices together."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.features import FbankOptions, fbank_tensor
from tfq_sv.models import narrow_strides
from tfq_sv.models.entry import as_entry, one_embedding, takes_waveform
from tfq_sv.training import schedules
from tfq_sv.training.devices import BatchSharding
from tfq_sv.training.losses import AAMSoftmax, cosine_distillation
from tfq_sv.training.options import TrainingOptions
from tfq_sv.training.precision import gradients_of, scaled_for


class TrainingStep:
    """Calling it with a step's number and batch trains network and head by one step.

    To be made under the strategy's scope.

    Args:
        network: features, in an order that `as_entry` knows, or waveforms -> embedding.
        fbank: its front end.
        head: the classifier; None with a teacher alone.
        options: settings.
        epoch: steps per epoch.
        sharding: how devices share a batch.

    Attributes:
        steps: of the whole run.
        optimizer: for checkpoints.
    """

    def __init__(
        self,
        network: keras.Model,
        fbank: FbankOptions,
        head: AAMSoftmax | None,
        options: TrainingOptions,
        epoch: int,
        sharding: BatchSharding,
    ) -> None:
        self._network, self._fbank, self._head = network, fbank, head
        self._options, self._epoch, self._sharding = options, epoch, sharding
        self._replicas = sharding.strategy.num_replicas_in_sync
        self._variables = list(network.trainable_variables)
        if head is not None:
            self._variables += head.trainable_variables
        self.steps = options.num_epochs * epoch if options.num_epochs else options.steps
        self.optimizer = self._made_optimizer()
        self.optimizer.build(self._variables)

    def __call__(self, number: int, batch: Sequence[Any]) -> dict[str, float]:
        """Trains by a step.

        Args:
            number: of the step, from 0.
            batch: waveforms (B, N), speakers (B,) and, of a teacher, targets (B, embed_dim).

        Returns:
            What TensorBoard shows: loss and learning_rate; accuracy and margin of the classifier;
            cosine to the teacher.
        """
        values = {}
        if self._head is not None:
            values["margin"] = self._margin(number)
            self._head.margin.assign(values["margin"])
        losses = self._distributed_step(tf.constant(number), *self._sharding.shard(*batch))
        values |= {name: float(value) for name, value in losses.items()}
        return values | {"learning_rate": float(tf.convert_to_tensor(self.optimizer.learning_rate))}

    @tf.function
    def _distributed_step(self, number: tf.Tensor, *batch: Any) -> dict[str, tf.Tensor]:
        strategy = self._sharding.strategy
        losses = strategy.run(self._replica_step, (number, *batch))
        add = tf.distribute.ReduceOp.SUM
        return {name: strategy.reduce(add, value, axis=None) for name, value in losses.items()}

    def _replica_step(
        self,
        number: tf.Tensor,
        waveforms: tf.Tensor,
        labels: tf.Tensor,
        targets: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        options, variables = self._options, self._variables
        entry = waveforms + self._dither(number, waveforms)
        if not takes_waveform(self._network):
            entry = as_entry(self._network, fbank_tensor(entry, self._fbank))
        with narrow_strides.avoided(self._network), tf.GradientTape() as tape:
            embeddings = one_embedding(self._network, self._network(entry, training=True))
            values = self._losses(embeddings, labels, targets)
            loss = values["loss"] / self._replicas  # the optimizer sums gradients over devices
        gradients = gradients_of(tape, loss, variables, self.optimizer)
        if options.optimizer == "SGD" and options.weight_decay:
            # As PyTorch: a part of the gradient, so that momentum carries it on.
            decay = options.weight_decay / self._replicas
            gradients = [g + decay * v for g, v in zip(gradients, variables, strict=True)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {name: value / self._replicas for name, value in values.items()}

    def _losses(
        self, embeddings: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """The loss and what it consists of, means over this device's rows."""
        values = {}
        if self._head is not None:
            values["loss"], values["accuracy"] = self._head(embeddings, labels)
        if targets is not None:
            distance = cosine_distillation(embeddings, targets)
            values["cosine"] = 1.0 - distance
            values["loss"] = distance + self._options.aam_weight * values.get("loss", 0.0)
        return values

    def _dither(self, number: tf.Tensor, waveforms: tf.Tensor) -> tf.Tensor:
        """Kaldi's: normal noise of one step of 16-bit samples.

        A resumed run draws the same, and several devices what one alone would.
        """
        shape = [self._options.batch_size, tf.shape(waveforms)[1]]
        noise = tf.random.stateless_normal(shape, [self._options.seed, number])
        rows = self._sharding.per_replica
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
        return noise[first : first + rows] / 2**15

    def _margin(self, number: int) -> float:
        options = self._options
        if not options.num_epochs:
            return schedules.margin(number, self.steps, options.margin)
        start, end = options.increase_start_epoch - 1, options.fix_start_epoch - 1
        return schedules.exponential_margin(
            number, start * self._epoch, end * self._epoch, options.initial_margin, options.margin
        )

    def _made_optimizer(self) -> Any:
        options, kinds = self._options, keras.optimizers
        peak = options.learning_rate * options.lr_scale
        rate = schedules.cosine(peak, self.steps)
        if options.num_epochs:
            final, warm_up = options.final_lr * options.lr_scale, options.warm_up_epoch
            rate = schedules.WarmUpExponential(peak, final, self.steps, warm_up * self._epoch)
        if options.optimizer == "SGD":
            optimizer = kinds.SGD(rate, momentum=options.momentum, nesterov=True)
        elif options.optimizer == "AdamW":
            optimizer = kinds.AdamW(rate, weight_decay=options.weight_decay, epsilon=1e-8)
        else:
            optimizer = kinds.Adam(rate)
        return scaled_for(optimizer, options.precision)
