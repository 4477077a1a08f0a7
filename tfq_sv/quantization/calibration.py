"""What can be mended in a quantized network without training, by a little speech or none."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from scipy.signal import lfilter

from tfq_sv.data.stream import once
from tfq_sv.errors import InputError
from tfq_sv.models import front_end, network_input
from tfq_sv.models.entry import as_entry, takes_waveform
from tfq_sv.progress import tqdm
from tfq_sv.quantization import trellis_feedback
from tfq_sv.quantization.batch_norm import Moments, moved
from tfq_sv.quantization.gptq import Array, alternate, corrected, latent_weights, reconstruct
from tfq_sv.quantization.quantized_model import latent_model, quantizers_of
from tfq_sv.quantization.quantizers import DEPTHWISE, TRANSPOSED, kernel_attribute
from tfq_sv.quantization.trellis_quantizer import Trellis

_ROWS_AN_INPUT = 64
"""Positions of a layer's input that are looked at, for each input of its kernel."""
_NOT_FINITE = "activations are not finite in calibration"
# What stands for speech is as loud and as smooth as its log mel energies without their mean.
# Neighbours go together by exp(-distance): this much from frame to frame of 10 ms; over all bins,
# 16 for the one part of it and 3 for the other.
_NOISE_CHUNKS, _NOISE_FRAMES, _NOISE_DEVIATION = 10, 200, 2.0
_NOISE_FRAME, _NOISE_BINS = 0.14, ((0.6, 16.0), (0.4, 3.0))


def calibrate(
    model: keras.Model, dataset: Iterable[Any] | None = None, *, progress: bool = True
) -> int:
    """Fits a quantized network's codes and BatchNorms to a minute of speech or noise, in place.

    One pass, layer by layer, beside the float network, which the latent weights still are. Each
    layer sees what the layers before it, already mended, give it. Its kernel is corrected for what
    they lost (`reconstruction.corrected`), its codebook is fitted with each weight counting as
    much as its input is strong, codes and centroids are chosen to keep its output
    (`reconstruction.alternate`), and each BatchNorm's statistics are moved by what quantization
    changed in what comes in. No label, no gradient. Fine-tuning afterwards changes codes; these
    codebooks stay.

    Without speech, smooth noise stands for it, and in both networks each BatchNorm normalizes by
    what the noise gives there. So the layers behind it see inputs as strong as speech gives them,
    though not alike; what quantization changes in the noise's statistics is then changed in the
    float network's own.

    Args:
        model: what `tfq_sv.quantize` returned, before any fine-tuning.
        dataset: a minute of speech or so, in batches of waveforms or features, see
            `network_input`; held in memory at once, cut to the shortest. None for noise.
        progress: show a bar.

    Returns:
        How many layers were fitted.

    Raises:
        InputError: nothing is quantized, it is calibrated already, or has many inputs; no speech,
            too little of it, without end, or not finite. The model then keeps what it had.

    Source: Frantar et al., GPTQ, ICLR 2023; Li et al., GPTAQ, ICML 2025; BatchNorm as in Sun et
    al., NeurIPS 2019. Noise in place of data, made fit by BatchNorm, is in Haroush et al., The
    Knowledge Within, CVPR 2020.
    """
    books = quantizers_of(model)
    if not books:
        raise InputError(f"{model.name} is not quantized; call tfq_sv.quantize first")
    if len(model.inputs) != 1:
        raise InputError(f"{model.name} has {len(model.inputs)} inputs; calibration feeds one")
    if any(quantizer.calibrated for quantizer in books.values()):
        # Its latent weights are no longer the float network's.
        raise InputError(
            f"{model.name} is calibrated already; quantize the float network again for other speech"
        )
    kept = model.get_weights()
    try:
        with tqdm(total=len(books), desc="calibration", unit="layer", disable=not progress) as bar:
            if dataset is None:
                _fit(model, _noise(model), bar, own_statistics=True)
            else:
                _fit(model, _speech(model, dataset), bar, own_statistics=False)
    except BaseException:
        model.set_weights(kept)
        raise
    for quantizer in books.values():
        quantizer.calibrated = True
    return len(books)


def _speech(model: keras.Model, dataset: Iterable[Any]) -> tf.Tensor:
    fbank, raw = front_end(model), takes_waveform(model)
    batches = [
        tf.convert_to_tensor(batch[0] if isinstance(batch, tuple | list) else batch, tf.float32)
        if raw
        else network_input(batch, fbank)
        for batch in once(dataset, "calibration")
    ]
    frames = min(batch.shape[1] for batch in batches)
    features = tf.concat([batch[:, :frames] for batch in batches], axis=0)
    if not np.isfinite(features.numpy()).all():
        raise InputError("the dataset for calibration holds values that are not finite")
    return as_entry(model, features)


def _noise(model: keras.Model) -> tf.Tensor:
    """Smooth Gaussian noise in a network's input shape, the same every time."""
    if takes_waveform(model):
        return 0.1 * tf.random.stateless_normal([_NOISE_CHUNKS, 2 * 16000], (0, 0))
    shape = model.inputs[0].shape[1:]
    turned = shape.rank == 2 and shape[1] is None
    sizes = [size or _NOISE_FRAMES for size in (reversed(shape) if turned else shape)]
    rng, noise = np.random.default_rng(0), np.zeros((_NOISE_CHUNKS, *sizes))
    for share, distance in _NOISE_BINS:
        part = rng.normal(0, _NOISE_DEVIATION * np.sqrt(share), noise.shape)
        for axis in range(1, len(sizes)):
            part = _smooth(part, axis, np.exp(-_NOISE_FRAME))
        noise += _smooth(part, len(sizes), np.exp(-distance / sizes[-1]))
    if len(sizes) > 1:
        noise -= noise.mean(axis=1, keepdims=True)  # as CMN does
    if turned:
        noise = noise.transpose(0, 2, 1)
    return tf.constant(noise, tf.float32)


def _smooth(noise: Array, axis: int, near: float) -> Array:
    """White noise -> first-order autoregressive, of the same deviation from the first value on."""
    new = np.sqrt(1 - near**2)
    start = (1 - new) * np.take(noise, [0], axis)
    return lfilter([new], [1, -near], noise, axis, start)[0]


def _fit(model: keras.Model, features: tf.Tensor, bar: Any, *, own_statistics: bool) -> None:
    """Fits layer after layer, and BatchNorms, which may have own statistics on the way."""
    beside = _Beside(latent_model(model), features, own_statistics=own_statistics)
    errors: list[InputError] = []
    found: dict[Any, Moments] = {}

    def named(layer: Any, change: Callable[[Any, Any], None], inputs: tf.Tensor) -> None:
        try:
            change(inputs, beside.inputs(layer.name))
        except InputError as error:
            errors.append(InputError(f"layer {layer.name}: {error}"))
            raise

    def fit(wrapper: Any, inputs: tf.Tensor) -> None:
        quantizer = wrapper.quantize_config.quantizer
        named(wrapper.layer, partial(_fit_codes, wrapper.layer, quantizer), inputs)
        bar.update()

    def move(layer: Any, inputs: tf.Tensor) -> None:
        def change(inputs: tf.Tensor, wanted: tf.Tensor) -> None:
            was, now = _moments(layer, wanted), _moments(layer, inputs)
            found[layer] = moved(layer, was, now)
            if not all(np.isfinite(moment).all() for moment in found[layer]):
                raise InputError(_NOT_FINITE)
            _set(layer, now if own_statistics else found[layer])

        named(layer, change, inputs)

    hooks: dict[Any, Callable[[tf.Tensor], None]] = {}
    for layer in model.layers:
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2):
            hooks[layer] = partial(fit, layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            hooks[layer] = partial(move, layer)
    try:
        with beside, _before_first_calls(hooks):
            model(features, training=False)
    except BaseException:
        if errors:  # Keras has wrapped it in a page about the layer's arguments
            raise errors[0] from None
        raise
    for layer, moments in found.items():
        _set(layer, moments)


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

    def __init__(self, model: keras.Model, features: tf.Tensor, *, own_statistics: bool) -> None:
        self._model, self._features, self._own = model, features, own_statistics
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
            with _before_first_calls({layer: partial(self._show, layer) for layer in layers}):
                self._model(self._features, training=False)
            raise RuntimeError("the float network ended before a layer that the quantized one has")
        except BaseException as error:
            with suppress(_EndedError):
                self._put("", error)  # for whoever still asks

    def _show(self, layer: Any, inputs: tf.Tensor) -> None:
        if self._own and isinstance(layer, keras.layers.BatchNormalization):
            _set(layer, _moments(layer, inputs))
        self._put(layer.name, inputs)

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
    if isinstance(layer, TRANSPOSED):
        return  # its outputs are sums over different inputs at each place; codes stay the nearest
    shape = quantizer.latent.shape
    kernel = _grouped(quantizer.latent.numpy().astype(np.float64), layer)
    gram, cross = _moments_of_inputs(layer, inputs, wanted, *kernel.shape[:2])
    if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
        raise InputError(_NOT_FINITE)
    target = corrected(kernel, gram, cross)
    quantizer.latent.assign(_ungrouped(target, shape))
    if isinstance(quantizer, Trellis):
        per_channel = quantizer.per_channel
        codes = trellis_feedback.reconstruct(
            target[0], gram[0], quantizer.bits, per_channel=per_channel
        )
        return quantizer.set(*codes)
    strength = np.einsum("gkk->gk", gram)[:, :, None] + 1e-30  # a dead input has none
    quantizer.refit(_ungrouped(np.broadcast_to(strength, target.shape), shape))
    centroids = quantizer.centroids.numpy()
    if quantizer.levels_stay:
        rounded = reconstruct(target, gram, centroids)
    else:
        rounded, centroids = alternate(target, gram, centroids)
        quantizer.centroids.assign(centroids)
    quantizer.latent.assign(_ungrouped(latent_weights(target, rounded, centroids), shape))


def _moments(layer: Any, inputs: tf.Tensor) -> Moments:
    axes = [axis for axis in range(inputs.shape.rank) if axis not in layer.axis]
    mean, variance = tf.nn.moments(inputs, axes)
    return mean.numpy(), variance.numpy()


def _set(layer: Any, moments: Moments) -> None:
    layer.moving_mean.assign(moments[0])
    layer.moving_variance.assign(moments[1])


def _grouped(kernel: npt.NDArray[Any], layer: Any) -> npt.NDArray[Any]:
    """A kernel as (groups, inputs, outputs), see `reconstruct`."""
    if isinstance(layer, DEPTHWISE):
        groups, inputs = kernel.shape[-2], prod(kernel.shape[:-2])
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
            .reshape(len(chosen), taps, groups, -1)
            .transpose(2, 0, 1, 3)
            .reshape(groups, len(chosen), size)
            for found in patches
        )
        with np.errstate(all="ignore"):  # who calls looks at whether all is finite
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
    if isinstance(layer, keras.layers.Conv1D | keras.layers.DepthwiseConv1D):
        if padding == "CAUSAL":
            inputs = tf.pad(inputs, [[0, 0], [rates[0] * (size[0] - 1), 0], [0, 0]])
            padding = "VALID"
        inputs = inputs[:, :, None]
        size, strides, rates = (*size, 1), (*strides, 1), (*rates, 1)
    found = tf.image.extract_patches(
        inputs, [1, *size, 1], [1, *strides, 1], [1, *rates, 1], padding
    )
    return tf.reshape(found, (-1, found.shape[-1]))
