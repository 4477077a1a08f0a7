"""How much it hurts to quantize each layer: the measure that bits are allocated by.

Three measures of the float network in inference mode, none of which needs labels. Each is a mean
over probes; a probe is one batch, and the batches are restarted when they end.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.mixed_precision.forms import Form, form_text, forms, rounded
from tfq_sv.mixed_precision.probes import Estimate, ProbeOptions, ProbeRun, estimates
from tfq_sv.models import narrow_strides
from tfq_sv.models.dilation import traced
from tfq_sv.models.entry import one_embedding
from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.progress import tqdm
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.training.losses import cosine_distillation
from tfq_sv.training.precision import in_precision

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def hessian_traces(
    model: keras.Model,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    options: ProbeOptions | None = None,
    strategy: tf.distribute.Strategy | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, Estimate]:
    """Estimates the trace of the loss's Hessian in each layer's kernel, by Hutchinson's method.

    A probe draws a vector v of +-1 for all kernels, makes one Hessian-vector product H v, and takes
    each layer's part of v . H v: its expectation is the trace of that layer's block. Probes end
    when the layers' order is stable, or at the limit.

    Args:
        model: a float network, at its training's end; see `quantizers.quantizable`.
        batches: waveforms or features, see `models.network_input`; with labels if `loss` is given.
        loss: embeddings (B, D), labels (B,) -> losses (B,) or their mean, a trained head for
            instance. None: 1 - cosine to the embedding as it is, which needs no labels: its
            gradient is zero here, its Hessian J'J / B, J the derivative of the B unit embeddings.
        options: when probes end; the defaults if None.
        strategy: devices or workers, which make one probe each at a time: it changes no value. The
            model is built outside its scope. This device alone if None.
        cache: a JSON file that keeps every probe; an interrupted run resumes from it and ends as
            it would have without the interruption.
        progress: show a bar.

    Returns:
        Layer name -> trace, with its `standard_error`, in the model's order.

    Raises:
        InputError: see `quantizable`; no batch or an empty one; no labels for `loss`; a trace that
            is not finite; a cache of another run.

    Source: Hutchinson, 1990; for bit allocation HAWQ-V2 (Dong et al., 2020).

    >>> model = keras.Sequential([keras.layers.Dense(2, name="d", input_shape=(1, 4))])
    >>> batch = np.eye(4, dtype=np.float32)[:, None], np.zeros(4)
    >>> squares = lambda outputs, labels: tf.reduce_sum(outputs**2, axis=[1, 2])
    >>> hessian_traces(model, [batch], loss=squares, progress=False)["d"]
    4.0
    """
    strategy = strategy or tf.distribute.get_strategy()
    run = ProbeRun(model, batches, options or ProbeOptions(), strategy, cache, progress)
    twin = _distributed(strategy, model)
    kernels = _kernels(twin)

    def probe(features: tf.Tensor, labels: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        variables = list(kernels.values())
        vectors = _signs([v.shape for v in variables], key)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(variables)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(variables)
                with narrow_strides.avoided(twin):
                    embeddings = one_embedding(twin, twin(features, training=False))
                value = tf.reduce_mean(
                    loss(embeddings, labels)
                    if loss
                    else cosine_distillation(embeddings, tf.stop_gradient(embeddings))
                )
            gradients = inner.gradient(value, variables, unconnected_gradients="zero")
            slope = tf.add_n([_dot(g, v) for g, v in zip(gradients, vectors, strict=True)])
        products = outer.gradient(slope, variables, unconnected_gradients="zero")
        return tf.stack([_dot(h, v) for h, v in zip(products, vectors, strict=True)])

    return _traces(run, "hessian", probe, loss)


def fisher_traces(
    model: keras.Model,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    options: ProbeOptions | None = None,
    strategy: tf.distribute.Strategy | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, Estimate]:
    """Estimates the trace of the Fisher information in each layer's kernel, by gradients alone.

    A probe gives every loss of the batch a random sign, and takes the squared gradient of their
    sum: its expectation is the sum of each loss's squared gradient. It costs a third of a Hessian
    probe.

    Args:
        model: a float network.
        batches: one or several.
        loss: embeddings (B, D), labels (B,) -> losses (B,): the empirical Fisher. None: each
            component of the unit embedding is a loss of its own, as if the network predicted it
            with unit variance. Its trace is that of the Hessian of 1 - cosine.
        options: as in `hessian_traces`, and so all others.
        strategy: devices that share the probes.
        cache: a JSON file to keep probes in.
        progress: show a bar.

    Returns:
        Layer name -> trace, with its `standard_error`, in the model's order.

    Raises:
        InputError: as `hessian_traces`; a loss that gives no value per utterance.
    """
    strategy = strategy or tf.distribute.get_strategy()
    run = ProbeRun(model, batches, options or ProbeOptions(), strategy, cache, progress)
    twin = _distributed(strategy, model)
    kernels = _kernels(twin)

    def probe(features: tf.Tensor, labels: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        variables = list(kernels.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            with narrow_strides.avoided(twin):
                embeddings = one_embedding(twin, twin(features, training=False))
            values = loss(embeddings, labels) if loss else tf.math.l2_normalize(embeddings, 1)
            if values.shape.rank == 0:
                raise InputError("the Fisher information needs one loss per utterance, (B,)")
            total = _dot(values, *_signs([tf.shape(values)], key))
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        count = tf.cast(tf.shape(features)[0], tf.float32)
        return tf.stack([_dot(g, g) for g in gradients]) / count

    return _traces(run, "fisher", probe, loss)


def embedding_distortions(
    model: keras.Model,
    batches: Iterable[Any],
    *,
    bits: Iterable[float] | None = None,
    trellis: bool = False,
    options: ProbeOptions | None = None,
    strategy: tf.distribute.Strategy | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, dict[Form, Estimate]]:
    """Measures how far embeddings turn when one layer alone is quantized: 1 - cosine, mean.

    The direct measure, at a forward pass for each layer and width and batch.

    Args:
        model: a float network.
        batches: one or several.
        bits: the widths, as in `allocate_bits`.
        trellis: whether trellis codes are measured too, as in `allocate_bits`.
        options: as in `hessian_traces`, and so all others; at most 8 probes if None.
        strategy: devices that share the probes.
        cache: a JSON file to keep probes in.
        progress: show a bar.

    Returns:
        Layer name -> form -> distortion, with its `standard_error`; see `forms.forms`.

    Raises:
        InputError: as `hessian_traces`; bits out of range.
    """
    strategy = strategy or tf.distribute.get_strategy()
    options = options or ProbeOptions(max_probes=8)
    run = ProbeRun(model, batches, options, strategy, cache, progress)
    twin = _distributed(strategy, model)
    layers, kernels = quantizable(twin), _kernels(twin)
    widths = forms(bits, trellis=trellis)
    choices = [(layer, width) for layer in kernels for width in widths]
    values_of: dict[tuple[str, Form], npt.NDArray[np.float32]] = {}

    def embedded(features: Any) -> Any:
        return strategy.run(lambda x: one_embedding(twin, twin(x, training=False)), (features,))

    def distance_to(features: Any, target: Any) -> Any:
        def on_one(features: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
            return _distance(one_embedding(twin, twin(features, training=False)), target)

        return strategy.run(on_one, (features, target))

    @tf.function(reduce_retracing=True)
    def stacked(values: Any) -> Any:
        return strategy.run(lambda *each: tf.stack(each), values)

    embed, distance = traced(embedded, twin), traced(distance_to, twin)

    def probe(features: Any, _labels: Any, _number: Any) -> Any:
        bar = tqdm(choices, desc="layers and widths", leave=False, disable=not progress)
        target, distances = embed(features), []
        for layer, width in bar:
            kernel = kernels[layer]
            weights = kernel.numpy()
            if (layer, width) not in values_of:
                values_of[layer, width] = rounded(layers[layer], width)
            try:
                kernel.assign(values_of[layer, width])
                distances.append(distance(features, target))
            finally:
                kernel.assign(weights)
        return stacked(distances)

    settings = {"measure": "distortion", "bits": widths}
    names = [f"{layer} at {form_text(width)}" for layer, width in choices]
    values = run.make(probe, names, settings)
    table: dict[str, dict[Form, Estimate]] = {layer: {} for layer in kernels}
    for (layer, width), estimate in zip(choices, estimates(values), strict=True):
        table[layer][width] = estimate
    return table


MEASURES: Mapping[str, Callable[..., Any]] = {
    "hessian": hessian_traces,
    "fisher": fisher_traces,
    "distortion": embedding_distortions,
}
"""Every measure by its name; each is called with a model and batches."""


def _traces(
    run: ProbeRun,
    measure: str,
    probe: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    loss: Loss | None,
) -> dict[str, Estimate]:
    seed = run.options.seed

    @partial(traced, model=run.model, autograph=False)
    def on_all_devices(features: Any, labels: Any, number: Any) -> Any:
        def on_one(features: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
            return probe(features, labels, tf.stack([seed, number]))

        return run.strategy.run(on_one, (features, labels, number))

    names = list(_kernels(run.model))
    settings = {"measure": measure, "loss": "given" if loss else "cosine", "seed": seed}
    values = run.make(on_all_devices, names, settings, labelled=loss is not None)
    return dict(zip(names, estimates(values), strict=True))


def _kernels(model: keras.Model) -> dict[str, tf.Variable]:
    return {
        name: getattr(layer, str(kernel_attribute(layer)))
        for name, layer in quantizable(model).items()
    }


def _signs(shapes: Iterable[Any], key: tf.Tensor) -> list[tf.Tensor]:
    """Tensors of +-1 (Rademacher), float32; one key gives one draw."""
    seeds = (tf.random.experimental.stateless_fold_in(key, i) for i in itertools.count())
    return [
        2.0 * tf.cast(tf.random.stateless_uniform(shape, fold, 0, 2, tf.int32), tf.float32) - 1.0
        for shape, fold in zip(shapes, seeds, strict=False)
    ]


def _dot(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(left * right)


def _distance(embeddings: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Mean 1 - cosine, (B, D) each, by a difference: exact where it is small."""
    pair = (tf.cast(x, tf.float64) for x in (embeddings, target))
    left, right = (tf.math.l2_normalize(x, 1, epsilon=0.0) for x in pair)
    return tf.reduce_mean(tf.reduce_sum(tf.square(left - right), axis=1)) / 2


def _distributed(strategy: tf.distribute.Strategy, model: keras.Model) -> keras.Model:
    """The model on the strategy's devices: itself, on this one alone."""
    with strategy.scope():
        return in_precision(plain_layers(model), "fp32")
