"""BatchNorm's statistics after quantization: re-estimated, or shifted by what it changed."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.stream import once
from tfq_sv.errors import InputError
from tfq_sv.models import model_input
from tfq_sv.models.dilation import traced
from tfq_sv.progress import tqdm
from tfq_sv.quantization.quantized_model import quantizers_of

Moments = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""A mean and a variance per channel."""


def reestimate_batch_norm(
    model: keras.Model,
    dataset: Iterable[Any],
    *,
    reference: keras.Model | None = None,
    progress: bool = True,
) -> keras.Model:
    """Replaces BatchNorm's moving statistics, in place, by means over the batches given.

    Few-bit kernels shift the activations after them, while BatchNorm still expects the float
    network's. At 1 and 2 bits that is a large part of what quantization costs. No weight and no
    codebook changes.

    Args:
        model: quantized or not.
        dataset: batches, a few dozen as a rule, of waveforms or features: see `network_input`.
        reference: the float network that was quantized. Its own statistics, which all its
            training data went into, are then moved by how much the two networks' differ on these
            batches: that needs far fewer of them. The batches' own means if None.
        progress: show a bar.

    Returns:
        The model given.

    Raises:
        InputError: no BatchNorm, no batch, batches without end, statistics that are not finite, a
            reference without the same BatchNorms, or a reference for a calibrated model. The model
            then keeps what it had.

    Source: Sun et al., Hybrid 8-bit Floating Point (HFP8) Training and Inference, NeurIPS 2019.
    """
    layers = batch_norms(model)
    if not layers:
        raise InputError(f"{model.name} has no BatchNorm to re-estimate")
    known = {} if reference is None else batch_norms(reference)
    if reference is not None and known.keys() != layers.keys():
        raise InputError(
            f"{reference.name} has other BatchNorms than {model.name}; give the float network that "
            "it was quantized from"
        )
    if reference is not None and any(x.calibrated for x in quantizers_of(model).values()):
        # And its channels are scaled otherwise than the reference's.
        raise InputError(
            f"{model.name} is calibrated: its statistics were moved then; leave out the reference"
        )
    with ExitStack() as stack:
        own = stack.enter_context(_batch_statistics(model))
        theirs = stack.enter_context(_batch_statistics(reference)) if reference else None
        batches = once(dataset, "BatchNorm")
        for batch in tqdm(batches, desc="BatchNorm", unit="batch", disable=not progress):
            features = model_input(model, batch)
            own.add(features)
            if theirs:
                theirs.add(features)
    means = own.means()
    if theirs:
        was = theirs.means()
        means = {name: moved(known[name], was[name], now) for name, now in means.items()}
    if not all(np.isfinite(value).all() for value in itertools.chain(*means.values())):
        raise InputError("the dataset for BatchNorm gives activations that are not finite")
    for name, (mean, variance) in means.items():
        layers[name].moving_mean.assign(mean)
        layers[name].moving_variance.assign(variance)
    return model


class _BatchStatistics:
    """What BatchNorms see of batches in training mode, each batch normalized by its own."""

    def __init__(self, model: keras.Model) -> None:
        self._layers = batch_norms(model)
        self._variables = [
            v for x in self._layers.values() for v in (x.moving_mean, x.moving_variance)
        ]
        self._sums, self._count = [np.zeros(v.shape) for v in self._variables], 0
        self._step = traced(lambda x: model(x, training=True), model)

    def add(self, features: tf.Tensor) -> None:
        self._step(features)
        self._sums = [s + v.numpy() for s, v in zip(self._sums, self._variables, strict=True)]
        self._count += 1

    def means(self) -> dict[str, Moments]:
        """Layer -> mean and variance, means over the batches."""
        values = [total / self._count for total in self._sums]
        return dict(zip(self._layers, zip(values[::2], values[1::2], strict=True), strict=True))


@contextmanager
def _batch_statistics(model: keras.Model) -> Iterator[_BatchStatistics]:
    """Lets each batch leave its statistics in the BatchNorms; they get back what they had."""
    layers = batch_norms(model).values()
    kept = [(x, x.momentum, x.moving_mean.numpy(), x.moving_variance.numpy()) for x in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield _BatchStatistics(model)
    finally:
        for layer, momentum, mean, variance in kept:
            layer.momentum = momentum
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)


def batch_norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Returns a model's BatchNorms by name."""
    return {x.name: x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}


def moved(layer: Any, was: Moments, now: Moments) -> Moments:
    """Returns a layer's statistics, moved as those of a few batches moved from `was` to `now`.

    What the batches have of their own is in both, and cancels out.

    >>> layer = keras.layers.BatchNormalization(epsilon=0.0)
    >>> layer.build((None, 1))  # mean 0, variance 1
    >>> [x.item() for x in moved(layer, (np.ones(1), np.ones(1)), (np.full(1, 3), np.full(1, 4)))]
    [2.0, 4.0]
    """
    (mean_was, variance_was), (mean, variance) = was, now
    with np.errstate(all="ignore"):  # the caller checks for non-finite values
        ratio = (variance + layer.epsilon) / (variance_was + layer.epsilon)
        return layer.moving_mean.numpy() + mean - mean_was, layer.moving_variance.numpy() * ratio
