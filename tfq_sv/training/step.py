"""One step of training: features, loss, gradients, update, on all devices together."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.chunks import Batch
from tfq_sv.features import FbankOptions, fbank_tensor
from tfq_sv.training import schedules
from tfq_sv.training.devices import Shares
from tfq_sv.training.losses import AAMSoftmax
from tfq_sv.training.options import TrainingOptions
from tfq_sv.training.precision import gradients_of, scaled_for


class TrainingStep:
    """Calling it with a step's number and batch trains network and head by one step.

    To be made under the strategy's scope.

    Args:
        network: features -> embedding.
        fbank: its front end.
        head: the classifier.
        options: settings.
        epoch: steps an epoch.
        shares: how devices share a batch.

    Attributes:
        steps: of the whole run.
        optimizer: for checkpoints.
    """

    def __init__(
        self,
        network: keras.Model,
        fbank: FbankOptions,
        head: AAMSoftmax,
        options: TrainingOptions,
        epoch: int,
        shares: Shares,
    ) -> None:
        self._network, self._fbank, self._head = network, fbank, head
        self._options, self._epoch, self._shares = options, epoch, shares
        self._replicas = shares.strategy.num_replicas_in_sync
        self._variables = [*network.trainable_variables, *head.trainable_variables]
        self.steps = options.num_epochs * epoch if options.num_epochs else options.steps
        self.optimizer = self._made_optimizer()
        self.optimizer.build(self._variables)

    def __call__(self, number: int, batch: Batch) -> dict[str, float]:
        """Returns what TensorBoard shows: loss, accuracy, margin, learning_rate."""
        margin = self._margin(number)
        self._head.margin.assign(margin)
        loss, right = self._on_all_devices(tf.constant(number), *self._shares.spread(*batch))
        rate = float(tf.convert_to_tensor(self.optimizer.learning_rate))
        values = {"loss": float(loss), "accuracy": float(right)}
        return {**values, "margin": margin, "learning_rate": rate}

    @tf.function
    def _on_all_devices(self, number: tf.Tensor, waveforms: Any, labels: Any) -> list[tf.Tensor]:
        strategy = self._shares.strategy
        found = strategy.run(self._on_one, (number, waveforms, labels))
        return [strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None) for x in found]

    def _on_one(
        self, number: tf.Tensor, waveforms: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        options, variables = self._options, self._variables
        features = fbank_tensor(waveforms + self._dither(number, waveforms), self._fbank)
        with tf.GradientTape() as tape:
            loss, right = self._head(self._network(features, training=True), labels)
            loss = loss / self._replicas  # the optimizer sums gradients over devices
        gradients = gradients_of(tape, loss, variables, self.optimizer)
        if options.optimizer == "SGD" and options.weight_decay:
            # As PyTorch: a part of the gradient, so that momentum carries it on.
            decay = options.weight_decay / self._replicas
            gradients = [g + decay * v for g, v in zip(gradients, variables, strict=True)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss, right / self._replicas

    def _dither(self, number: tf.Tensor, waveforms: tf.Tensor) -> tf.Tensor:
        """Kaldi's: normal noise of one step of 16-bit samples.

        A resumed run draws the same, and several devices what one alone would.
        """
        shape = [self._options.batch_size, tf.shape(waveforms)[1]]
        noise = tf.random.stateless_normal(shape, [self._options.seed, number])
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * self._shares.each
        return noise[first : first + self._shares.each] / 2**15

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
