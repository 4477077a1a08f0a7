"""What a little unlabelled speech mends in a quantized network, without training."""

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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
from tfq_sv.quantization import latent_model, quantizers
from tfq_sv.quantizers import kernel_attribute
from tfq_sv.reconstruction import corrected, latent_weights, reconstruct

Moments = tuple[npt.NDArray[Any], npt.NDArray[Any]]

_ROWS_AN_INPUT = 16
"""Positions of a layer's input that are looked at, for each input of its kernel."""


def calibrate(model: keras.Model, dataset: Iterable[Any], *, progress: bool = True) -> int:
    """Fits a quantized network's codes and BatchNorms to a minute of speech, in place.

    One pass, layer by layer, beside the float network, which the latent weights still are. Each
    layer sees what the layers before it, already mended, give it. Its kernel is corrected for what
    they lost (`reconstruction.corrected`), its codebook is fitted with each weight counting as
    much as its input is strong, its codes are chosen to keep its output
    (`reconstruction.reconstruct`), and each BatchNorm's statistics are moved by what quantization
    changed in what comes in. No label, no gradient.

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

    Source: Frantar et al., GPTQ, ICLR 2023; Li et al., GPTAQ, ICML 2025; BatchNorm as in Sun et
    al., NeurIPS 2019.
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
    beside = _Beside(latent_model(model), features)
    bar = tqdm(total=len(books), desc="calibration", unit="layer", disable=not progress)

    errors: list[InputError] = []

    def fit(wrapper: Any, inputs: tf.Tensor) -> None:
        try:
            wanted = beside.inputs(wrapper.layer.name)
            _fit_codes(wrapper.layer, wrapper.quantize_config.quantizer, inputs, wanted)
        except InputError as error:
            errors.append(InputError(f"layer {wrapper.layer.name}: {error}"))
            raise
        bar.update()

    hooks: dict[Any, Callable[[tf.Tensor], None]] = {}
    for layer in model.layers:
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2):
            hooks[layer] = partial(fit, layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            hooks[layer] = partial(_move_batch_norm, layer, beside)
    kept = model.get_weights()
    try:
        with bar, beside, _before_first_calls(hooks):
            model(features, training=False)
    except BaseException:
        model.set_weights(kept)
        if errors:  # Keras has wrapped it in a page about the layer's arguments
            raise errors[0] from None
        raise
    return len(books)


def reestimate_batch_norm(
    model: keras.Model,
    dataset: Iterable[Any],
    *,
    reference: keras.Model | None = None,
    progress: bool = True,
) -> int:
    """Replaces BatchNorm's moving statistics, in place, by means over the batches given.

    Few-bit kernels shift the activations behind them, while BatchNorm still expects the float
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
        How many layers have new statistics.

    Raises:
        InputError: no BatchNorm, no batch, statistics that are not finite, or a reference without
            the same BatchNorms; the model then keeps what it had.

    Source: Sun et al., Hybrid 8-bit Floating Point (HFP8) Training and Inference, NeurIPS 2019.
    """
    layers = _batch_norms(model)
    if not layers:
        raise InputError(f"{model.name} has no BatchNorm to re-estimate")
    known = {} if reference is None else _batch_norms(reference)
    if reference is not None and known.keys() != layers.keys():
        raise InputError(
            f"{reference.name} has other BatchNorms than {model.name}; give the float network that "
            "it was quantized from"
        )
    fbank, count = front_end(model), 0
    with ExitStack() as stack:
        own = stack.enter_context(_batch_statistics(model))
        theirs = stack.enter_context(_batch_statistics(reference)) if reference else None
        for batch in tqdm(dataset, desc="BatchNorm", unit="batch", disable=not progress):
            features = network_input(batch, fbank)
            own.add(features)
            if theirs:
                theirs.add(features)
            count += 1
    if not count:
        raise InputError("the dataset for BatchNorm gave no batch")
    means = own.means()
    if not all(np.isfinite(value).all() for value in itertools.chain(*means.values())):
        raise InputError("the dataset for BatchNorm gives activations that are not finite")
    for name, (mean, variance) in means.items():
        if theirs:
            was = theirs.means()[name]
            mean, variance = _moved(known[name], was, (mean, variance))
        layers[name].moving_mean.assign(mean)
        layers[name].moving_variance.assign(variance)
    return len(layers)


class _BatchStatistics:
    """What BatchNorms see of batches in training mode, each batch normalized by its own."""

    def __init__(self, model: keras.Model) -> None:
        self._layers = _batch_norms(model)
        self._variables = [
            v for x in self._layers.values() for v in (x.moving_mean, x.moving_variance)
        ]
        self._sums, self._count = [np.zeros(v.shape) for v in self._variables], 0
        self._step = tf.function(lambda x: model(x, training=True), reduce_retracing=True)

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
    layers = _batch_norms(model).values()
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


def _batch_norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    return {x.name: x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}


def _moved(layer: Any, was: Moments, now: Moments) -> Moments:
    """A layer's statistics, moved as those of a few batches moved from `was` to `now`.

    What the batches have of their own is in both, and cancels out.
    """
    (mean_was, variance_was), (mean, variance) = was, now
    ratio = (variance + layer.epsilon) / (variance_was + layer.epsilon)
    return layer.moving_mean.numpy() + mean - mean_was, layer.moving_variance.numpy() * ratio


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


class _Beside:
    """A float network that runs beside another, so that both stand at the same layer.

    It runs in a thread of its own, which waits before each layer until that layer's inputs are
    asked for: never more than two layers' are in memory.
    """

    def __init__(self, model: keras.Model, features: tf.Tensor) -> None:
        self._model, self._features = model, features
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
        self._ended = threading.Event()
        self._found: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def inputs(self, layer: str) -> tf.Tensor:
        """What comes into a layer when it is first called. Each may be asked for once."""
        while layer not in self._found:
            name, inputs = self._queue.get()
            if isinstance(inputs, BaseException):
                raise inputs
            self._found[name] = inputs
        return self._found.pop(layer)

    def __enter__(self) -> "_Beside":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        layers = [
            layer
            for layer in self._model.layers
            if kernel_attribute(layer) or isinstance(layer, keras.layers.BatchNormalization)
        ]
        try:
            with _before_first_calls({layer: partial(self._put, layer.name) for layer in layers}):
                self._model(self._features, training=False)
        except BaseException as error:
            with suppress(_EndedError):
                self._put("", error)

    def _put(self, name: str, inputs: Any) -> None:
        while not self._ended.is_set():
            try:
                return self._queue.put((name, inputs), timeout=0.1)
            except queue.Full:
                continue
        raise _EndedError


class _EndedError(Exception):
    """Nobody asks any more."""


def _fit_codes(layer: Any, quantizer: Any, inputs: tf.Tensor, wanted: tf.Tensor) -> None:
    kernel = quantizer.latent.numpy()
    grouped = _grouped(kernel.astype(np.float64), layer)
    gram, cross = _moments_of_inputs(layer, inputs, wanted, *grouped.shape[:2])
    if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
        raise InputError("the speech for calibration gives activations that are not finite")
    target = corrected(grouped, gram, cross)
    quantizer.latent.assign(_ungrouped(target, kernel.shape))
    strength = np.einsum("gkk->gk", gram)[:, :, None] + 1e-30  # a dead input has none
    quantizer.refit(_ungrouped(np.broadcast_to(strength, grouped.shape), kernel.shape))
    centroids = quantizer.centroids.numpy()
    latent = latent_weights(target, reconstruct(target, gram, centroids), centroids)
    quantizer.latent.assign(_ungrouped(latent, kernel.shape))


def _moments(layer: Any, inputs: tf.Tensor) -> Moments:
    axes = [axis for axis in range(inputs.shape.rank) if axis not in layer.axis]
    mean, variance = tf.nn.moments(inputs, axes)
    return mean.numpy(), variance.numpy()


def _move_batch_norm(layer: Any, beside: _Beside, inputs: tf.Tensor) -> None:
    was = _moments(layer, beside.inputs(layer.name))
    mean, variance = _moved(layer, was, _moments(layer, inputs))
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)


def _grouped(kernel: npt.NDArray[np.float64], layer: Any) -> npt.NDArray[np.float64]:
    """A kernel as (groups, inputs, outputs), see `reconstruct`."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        groups, inputs = kernel.shape[2], prod(kernel.shape[:2])
    else:
        groups, inputs = getattr(layer, "groups", 1), prod(kernel.shape[:-1])
    return kernel.reshape(inputs, groups, -1).transpose(1, 0, 2)


def _ungrouped(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """(groups, inputs, outputs) as a kernel again."""
    return values.transpose(1, 0, 2).reshape(shape)


def _moments_of_inputs(
    layer: Any, inputs: tf.Tensor, wanted: tf.Tensor, groups: int, size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Second moments of what a kernel is multiplied with, over some positions.

    E[x x^T] and E[x (y - x)^T], (groups, size, size) each: x of `inputs`, y of `wanted`.
    """
    gram, cross, rows = np.zeros((groups, size, size)), np.zeros((groups, size, size)), 0
    each = -(-_ROWS_AN_INPUT * size // len(inputs))
    rng = np.random.default_rng(0)
    taps = prod(getattr(layer, "kernel_size", ()))
    for pair in zip(inputs, wanted, strict=True):
        patches = [_patches(layer, item[None]) for item in pair]
        chosen = rng.permutation(len(patches[0]))[:each]
        x, y = (
            # A row holds taps, then channels; a group has its own share of the channels.
            tf.gather(found, chosen)
            .numpy()
            .astype(np.float64)
            .reshape(len(chosen), taps, groups, -1)
            .transpose(2, 0, 1, 3)
            .reshape(groups, len(chosen), size)
            for found in patches
        )
        gram += x.transpose(0, 2, 1) @ x
        cross += x.transpose(0, 2, 1) @ (y - x)
        rows += len(chosen)
    return gram / rows, cross / rows


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
