"""How much it hurts to quantize each layer: the measure that bits are allocated by.

Three measures of the float network in inference mode, none of which needs labels. Each is a mean
over probes; a probe is one batch, begun again when the batches end.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from tfq_sv import codebook
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.models import front_end, network_input
from tfq_sv.quantizers import kernel_attribute, quantizable
from tfq_sv.training.losses import cosine_distillation

Values = npt.NDArray[np.float64]
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_MIN_PROBES, _DRAWS = 8, 100


class Estimate(float):
    """A mean over probes: a float with its standard error.

    >>> Estimate(2.0, 0.5).standard_error
    0.5
    """

    standard_error: float

    def __new__(cls, value: float, standard_error: float) -> "Estimate":
        """Makes the float."""
        estimate = super().__new__(cls, value)
        estimate.standard_error = standard_error
        return estimate


def hessian_traces(
    model: keras.Model,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    max_probes: int = 64,
    stable: float = 0.99,
    seed: int = 0,
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
        max_probes: the limit.
        stable: what the Spearman correlation of the layers' order with the estimate's must reach
            in 95 of 100 bootstrap draws of the probes; 8 probes at least.
        seed: of the vectors.
        cache: a JSON file that keeps every probe; a run that finds one goes on from it and ends
            as it would have without the break.
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
    kernels = _kernels(model)

    def probe(features: tf.Tensor, labels: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        variables = list(kernels.values())
        vectors = _signs([v.shape for v in variables], key)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(variables)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(variables)
                embeddings = model(features, training=False)
                value = tf.reduce_mean(
                    loss(embeddings, labels)
                    if loss
                    else cosine_distillation(embeddings, tf.stop_gradient(embeddings))
                )
            gradients = inner.gradient(value, variables, unconnected_gradients="zero")
            slope = tf.add_n([_dot(g, v) for g, v in zip(gradients, vectors, strict=True)])
        products = outer.gradient(slope, variables, unconnected_gradients="zero")
        return tf.stack([_dot(h, v) for h, v in zip(products, vectors, strict=True)])

    return _traces(
        "hessian", probe, model, batches, loss, max_probes, stable, seed, cache, progress
    )


def fisher_traces(
    model: keras.Model,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    max_probes: int = 64,
    stable: float = 0.99,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, Estimate]:
    """Estimates the trace of the Fisher information in each layer's kernel, by gradients alone.

    A probe gives every loss of the batch a random sign, and takes the squared gradient of their
    sum: its expectation is the sum of each loss's squared gradient. It costs a third of a Hessian
    probe.

    Args:
        model: as in `hessian_traces`, and so all others.
        batches: one or several.
        loss: embeddings (B, D), labels (B,) -> losses (B,): the empirical Fisher. None: each
            component of the unit embedding is a loss of its own, as if the network predicted it
            with unit variance. Its trace is that of the Hessian of 1 - cosine.
        max_probes: the limit.
        stable: when to stop.
        seed: of the signs.
        cache: a JSON file to keep probes in.
        progress: show a bar.

    Returns:
        Layer name -> trace, with its `standard_error`, in the model's order.

    Raises:
        InputError: as `hessian_traces`; a loss that gives no value an utterance.
    """
    kernels = _kernels(model)

    def probe(features: tf.Tensor, labels: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        variables = list(kernels.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            embeddings = tf.cast(model(features, training=False), tf.float32)
            values = loss(embeddings, labels) if loss else tf.math.l2_normalize(embeddings, 1)
            if values.shape.rank == 0:
                raise InputError("the Fisher information needs a loss an utterance: (B,), no mean")
            total = _dot(values, *_signs([tf.shape(values)], key))
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        count = tf.cast(tf.shape(features)[0], tf.float32)
        return tf.stack([_dot(g, g) for g in gradients]) / count

    return _traces("fisher", probe, model, batches, loss, max_probes, stable, seed, cache, progress)


def embedding_distortions(
    model: keras.Model,
    batches: Iterable[Any],
    *,
    bits: Iterable[int] = range(1, 9),
    max_probes: int = 8,
    stable: float = 0.99,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, dict[int, Estimate]]:
    """Measures how far embeddings turn when one layer alone is quantized: 1 - cosine, mean.

    The direct measure, at a forward pass for each layer and width and batch.

    Args:
        model: as in `hessian_traces`, and so all others.
        batches: one or several.
        bits: the widths.
        max_probes: most batches.
        stable: when to stop.
        cache: a JSON file to keep probes in.
        progress: show a bar.

    Returns:
        Layer name -> bits -> distortion, with its `standard_error`.

    Raises:
        InputError: as `hessian_traces`; bits out of range.
    """
    kernels, widths = _kernels(model), sorted({codebook.check_bits(b) for b in bits})
    choices = [(layer, width) for layer in kernels for width in widths]
    books: dict[tuple[str, int], npt.NDArray[np.float32]] = {}
    run = tf.function(partial(model, training=False), reduce_retracing=True)

    def probe(features: tf.Tensor, _labels: tf.Tensor, number: int) -> Values:
        shown = tqdm(choices, desc=f"batch {number + 1}", leave=False, disable=not progress)
        wanted, found = run(features), []
        for layer, width in shown:
            kernel = kernels[layer]
            weights = kernel.numpy()
            if (layer, width) not in books:
                books[layer, width] = codebook.snap(codebook.fit(weights, width))
            centroids = books[layer, width]
            try:
                kernel.assign(centroids[codebook.assign(weights, centroids)])
                found.append(_distance(run(features), wanted))
            finally:
                kernel.assign(weights)
        return np.array(found)

    settings = {"measure": "distortion", "bits": widths}
    names = [f"{layer} at {width} bits" for layer, width in choices]
    values = _probes(
        probe, names, model, batches, settings, False, max_probes, stable, cache, progress
    )
    table: dict[str, dict[int, Estimate]] = {layer: {} for layer in kernels}
    for (layer, width), estimate in zip(choices, _estimates(values), strict=True):
        table[layer][width] = estimate
    return table


MEASURES: Mapping[str, Callable[..., Any]] = {
    "hessian": hessian_traces,
    "fisher": fisher_traces,
    "distortion": embedding_distortions,
}
"""Every measure by its name; each is called with a model and batches."""


def _traces(
    measure: str,
    probe: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    model: keras.Model,
    batches: Iterable[Any],
    loss: Loss | None,
    max_probes: int,
    stable: float,
    seed: int,
    cache: str | os.PathLike[str] | None,
    progress: bool,
) -> dict[str, Estimate]:
    compiled = tf.function(probe, reduce_retracing=True, autograph=False)
    names = list(_kernels(model))
    values = _probes(
        lambda features, labels, number: compiled(features, labels, tf.constant([seed, number])),
        names,
        model,
        batches,
        {"measure": measure, "loss": "given" if loss else "cosine", "seed": seed},
        loss is not None,
        max_probes,
        stable,
        cache,
        progress,
    )
    return dict(zip(names, _estimates(values), strict=True))


def _probes(
    probe: Callable[[tf.Tensor, tf.Tensor, int], Any],
    names: Sequence[str],
    model: keras.Model,
    batches: Iterable[Any],
    settings: Mapping[str, Any],
    labelled: bool,
    max_probes: int,
    stable: float,
    cache: str | os.PathLike[str] | None,
    progress: bool,
) -> Values:
    """Makes probes until they are enough; returns them, (probes, len(names))."""
    if max_probes < 1:
        raise InputError(f"max_probes must be positive, not {max_probes}")
    fbank, stream = front_end(model), _endless(batches)
    first = next(stream)
    run = {
        **settings,
        "network": model.name,
        "weights": _digest(model.get_weights()),
        "first batch": _digest([network_input(first, fbank).numpy()]),
    }
    values = _kept(cache, run, len(names))
    stream = itertools.islice(itertools.chain([first], stream), len(values), None)
    with tqdm(
        total=max_probes,
        initial=len(values),
        desc=settings["measure"],
        unit="probe",
        disable=not progress,
    ) as shown:
        while not _enough(values, max_probes, stable):
            number, batch = len(values), next(stream)
            features = network_input(batch, fbank)
            if not features.shape[0]:
                raise InputError(f"batch {number} for the sensitivity is empty")
            found = np.asarray(probe(features, _labels(batch, labelled), number), np.float64)
            for name, value in zip(names, found, strict=True):
                if not np.isfinite(value):
                    raise InputError(
                        f"the {settings['measure']} of {name} became {value} at probe {number}; "
                        "look for NaN in the network's weights and in the batches"
                    )
            values = np.concatenate([values, found[None]])
            if cache is not None:
                with atomic(cache) as temporary:
                    temporary.write_text(json.dumps({**run, "probes": values.tolist()}))
            shown.update()
    return values


def _kept(cache: str | os.PathLike[str] | None, run: Mapping[str, Any], count: int) -> Values:
    """The probes that a file keeps; none without one."""
    if cache is None or not Path(cache).exists():
        return np.empty((0, count))
    try:
        found = json.loads(Path(cache).read_text(encoding="utf-8"))
        values = np.array(found.pop("probes"), np.float64).reshape(-1, count)
    except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
        raise InputError(f"{cache} holds no probes of a sensitivity; delete it") from None
    for name, value in run.items():
        if found.get(name) != value:
            raise InputError(
                f"{cache} is of another run: its {name} is {found.get(name)!r}, not {value!r}; "
                "give that run's network and data, or another file"
            )
    return values


def _enough(values: Values, limit: int, stable: float) -> bool:
    """Whether so many probes are made, or the order of their means is stable."""
    if len(values) >= limit or len(values) < _MIN_PROBES:
        return len(values) >= limit
    if values.shape[1] < 2:
        return False
    rng = np.random.default_rng(len(values))
    shares = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), _DRAWS)
    drawn = shares @ values  # (draws, layers): sums over probes drawn with replacement
    ranks = drawn.argsort(axis=1).argsort(axis=1)
    own = values.sum(0).argsort().argsort()
    correlations = [np.corrcoef(rank, own)[0, 1] for rank in ranks]
    return float(np.quantile(correlations, 0.05)) >= stable


def _estimates(values: Values) -> list[Estimate]:
    spread = values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    errors = spread / np.sqrt(len(values))
    return [Estimate(*pair) for pair in zip(values.mean(0), errors, strict=True)]


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


def _distance(embeddings: tf.Tensor, wanted: tf.Tensor) -> float:
    """Mean 1 - cosine, (B, D) each, by a difference: exact where it is small."""
    pair = (np.asarray(x, np.float64) for x in (embeddings, wanted))
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in pair)
    return float(np.sum(np.square(left - right), axis=1).mean() / 2)


def _labels(batch: Any, wanted: bool) -> tf.Tensor:
    if not wanted:
        return tf.zeros([0])
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise InputError("a loss needs labels: batches must be tuples (speech, labels)")
    return tf.convert_to_tensor(batch[1])


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    count = 0
    while True:
        before = count
        for batch in batches:
            count += 1
            yield batch
        if count == before:
            raise InputError(
                f"the batches for the sensitivity ended after {count}; give some, and a list or a "
                "stream without end"
            )


def _digest(arrays: Iterable[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
