"""What a little unlabelled speech mends in a quantized network, without training."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from tfq_sv.errors import InputError
from tfq_sv.models import front_end, network_input


def reestimate_batch_norm(
    model: keras.Model, dataset: Iterable[Any], *, progress: bool = True
) -> int:
    """Replaces BatchNorm's moving statistics, in place, by means over the batches given.

    Few-bit kernels shift the activations behind them, while BatchNorm still expects the float
    network's. At 1 and 2 bits that is a large part of what quantization costs. No weight and no
    codebook changes.

    Args:
        model: quantized or not.
        dataset: batches, a few dozen as a rule, of waveforms or features: see `network_input`.
        progress: show a bar.

    Returns:
        How many layers have new statistics.

    Raises:
        InputError: no BatchNorm, no batch, or statistics that are not finite; the model then
            keeps what it had.

    Source: Sun et al., Hybrid 8-bit Floating Point (HFP8) Training and Inference, NeurIPS 2019.
    """
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    if not layers:
        raise InputError(f"{model.name} has no BatchNorm to re-estimate")
    fbank = front_end(model)
    variables = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    statistics = [v.numpy() for v in variables]
    momenta = [layer.momentum for layer in layers]

    @tf.function(reduce_retracing=True)
    def step(features: tf.Tensor) -> None:
        model(features, training=True)

    sums, count = [np.zeros_like(value) for value in statistics], 0
    try:
        for layer in layers:
            layer.momentum = 0.0  # each batch leaves its own statistics
        for batch in tqdm(dataset, desc="BatchNorm", unit="batch", disable=not progress):
            step(network_input(batch, fbank))
            sums = [total + v.numpy() for total, v in zip(sums, variables, strict=True)]
            count += 1
        if not count:
            raise InputError("the dataset for BatchNorm gave no batch")
        if not all(np.isfinite(total).all() for total in sums):
            raise InputError("the dataset for BatchNorm gives activations that are not finite")
        statistics = [total / count for total in sums]
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for v, value in zip(variables, statistics, strict=True):
            v.assign(value)
    return len(layers)
