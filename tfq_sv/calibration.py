"""What a little unlabelled speech mends in a quantized network, without training."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tqdm import tqdm

from tfq_sv.errors import InputError
from tfq_sv.models import front_end, network_input
from tfq_sv.quantization import quantizers
from tfq_sv.reconstruction import latent_weights, reconstruct

_ROWS_AN_INPUT = 16
"""Positions of a layer's input that are looked at, for each input of its kernel."""


def calibrate(model: keras.Model, dataset: Iterable[Any], *, progress: bool = True) -> int:
    """Fits a quantized network's codes and BatchNorms to a minute of speech, in place.

    One pass, layer by layer. Each layer sees what the layers before it, already mended, give it:
    its codebook is fitted with each weight counting as much as its input is strong, its codes are
    chosen to keep its output (`reconstruction.reconstruct`), and each BatchNorm gets the
    statistics of what comes in. No label, no gradient, no other network.

    Args:
        model: what `tfq_sv.quantize` returned, before any fine-tuning.
        dataset: a minute of speech or so, in batches of waveforms or features, see
            `network_input`; held in memory at once, cut to the shortest.
        progress: show a bar.

    Returns:
        How many layers were fitted.

    Raises:
        InputError: nothing is quantized, no speech, or speech that is not finite; the model then
            keeps what it had.

    Source: Frantar et al., GPTQ, ICLR 2023; BatchNorm as in Sun et al., NeurIPS 2019.
    """
    books = quantizers(model)
    if not books:
        raise InputError(f"{model.name} is not quantized; call tfq_sv.quantize first")
    fbank = front_end(model)
    batches = [network_input(batch, fbank) for batch in dataset]
    if not batches:
        raise InputError("the dataset for calibration gave no batch")
    frames = min(batch.shape[1] for batch in batches)
    features = tf.concat([batch[:, :frames] for batch in batches], axis=0)
    if not np.isfinite(features.numpy()).all():
        raise InputError("the dataset for calibration holds values that are not finite")
    bar = tqdm(total=len(books), desc="calibration", unit="layer", disable=not progress)

    errors: list[InputError] = []

    def fit(wrapper: Any, inputs: tf.Tensor) -> None:
        try:
            _fit_codes(wrapper.layer, wrapper.quantize_config.quantizer, inputs)
        except InputError as error:
            errors.append(InputError(f"layer {wrapper.layer.name}: {error}"))
            raise
        bar.update()

    hooks: dict[Any, Callable[[tf.Tensor], None]] = {}
    for layer in model.layers:
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2):
            hooks[layer] = partial(fit, layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            hooks[layer] = partial(_fit_batch_norm, layer)
    kept = model.get_weights()
    try:
        with bar, _before_first_calls(hooks):
            model(features, training=False)
    except BaseException:
        model.set_weights(kept)
        if errors:  # Keras has wrapped it in a page about the layer's arguments
            raise errors[0] from None
        raise
    return len(books)


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


@contextmanager
def _before_first_calls(hooks: Mapping[Any, Callable[[tf.Tensor], None]]) -> Iterator[None]:
    """Shows each layer's input to its hook just before the layer is first called.

    Keras has no such hook, and a model cut off before every layer would run the first ones again
    for each of those that follow.
    """

    def hooked(layer: Any, hook: Callable[[tf.Tensor], None]) -> Callable[..., Any]:
        call, waiting = layer.call, [hook]

        def look_and_call(inputs: tf.Tensor, *arguments: Any, **options: Any) -> Any:
            if waiting:
                waiting.pop()(inputs)
            return call(inputs, *arguments, **options)

        return look_and_call

    try:
        for layer, hook in hooks.items():
            layer.call = hooked(layer, hook)
        yield
    finally:
        for layer in hooks:
            del layer.call


def _fit_codes(layer: Any, quantizer: Any, inputs: tf.Tensor) -> None:
    kernel = quantizer.latent.numpy()
    grouped = _grouped(kernel.astype(np.float64), layer)
    gram = _gram(layer, inputs, *grouped.shape[:2])
    if not np.isfinite(gram).all():
        raise InputError("the speech for calibration gives activations that are not finite")
    strength = np.einsum("gkk->gk", gram)[:, :, None] + 1e-30  # a dead input has none
    importance = np.broadcast_to(strength, grouped.shape).transpose(1, 0, 2)
    quantizer.refit(importance.reshape(kernel.shape))
    centroids = quantizer.centroids.numpy()
    latent = latent_weights(grouped, reconstruct(grouped, gram, centroids), centroids)
    quantizer.latent.assign(latent.transpose(1, 0, 2).reshape(kernel.shape))


def _fit_batch_norm(layer: Any, inputs: tf.Tensor) -> None:
    axes = [axis for axis in range(inputs.shape.rank) if axis not in layer.axis]
    mean, variance = tf.nn.moments(inputs, axes)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)


def _grouped(kernel: npt.NDArray[np.float64], layer: Any) -> npt.NDArray[np.float64]:
    """A kernel as (groups, inputs, outputs), see `reconstruct`."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        groups, inputs = kernel.shape[2], prod(kernel.shape[:2])
    else:
        groups, inputs = getattr(layer, "groups", 1), prod(kernel.shape[:-1])
    return kernel.reshape(inputs, groups, -1).transpose(1, 0, 2)


def _gram(layer: Any, inputs: tf.Tensor, groups: int, size: int) -> npt.NDArray[np.float64]:
    """E[x x^T] of what a kernel is multiplied with, over some positions: (groups, size, size)."""
    total, rows = np.zeros((groups, size, size)), 0
    each = -(-_ROWS_AN_INPUT * size // len(inputs))
    rng = np.random.default_rng(0)
    for item in inputs:
        patches = _patches(layer, item[None])
        chosen = rng.permutation(len(patches))[:each]
        x = tf.gather(patches, chosen).numpy().astype(np.float64)
        # A row holds taps, then channels; a group has its own share of the channels.
        x = x.reshape(len(chosen), prod(getattr(layer, "kernel_size", ())), groups, -1)
        x = x.transpose(2, 0, 1, 3).reshape(groups, len(chosen), size)
        total += x.transpose(0, 2, 1) @ x
        rows += len(chosen)
    return total / rows


def _patches(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """What a kernel is multiplied with, a row a position: (positions, taps * channels)."""
    if isinstance(layer, keras.layers.Dense):
        return tf.reshape(inputs, (-1, inputs.shape[-1]))
    size, strides, rates = layer.kernel_size, layer.strides, layer.dilation_rate
    padding = layer.padding.upper()
    if isinstance(layer, keras.layers.Conv1D):
        if padding == "CAUSAL":
            inputs = tf.pad(inputs, [[0, 0], [rates[0] * (size[0] - 1), 0], [0, 0]])
            padding = "VALID"
        inputs = inputs[:, :, None]
        size, strides, rates = (*size, 1), (*strides, 1), (*rates, 1)
    found = tf.image.extract_patches(
        inputs, [1, *size, 1], [1, *strides, 1], [1, *rates, 1], padding
    )
    return tf.reshape(found, (-1, found.shape[-1]))
