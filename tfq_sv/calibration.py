"""What can be mended in a quantized network without training, by a little speech or none."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv.batch_norm import Moments, moved
from tfq_sv.data.stream import once
from tfq_sv.errors import InputError
from tfq_sv.models import front_end, network_input
from tfq_sv.progress import tqdm
from tfq_sv.quantization import latent_model, quantizers
from tfq_sv.quantizers import kernel_attribute
from tfq_sv.reconstruction import (
    Array,
    alternate,
    assumed_gram,
    corrected,
    latent_weights,
    reconstruct,
)

_ROWS_AN_INPUT = 64
"""Positions of a layer's input that are looked at, for each input of its kernel."""
_CHANNELS_TOGETHER = 64
"""Whose errors pay for each other where nobody has looked: more win little, and cost more."""
_NOT_FINITE = "the speech for calibration gives activations that are not finite"


def calibrate(
    model: keras.Model, dataset: Iterable[Any] | None = None, *, progress: bool = True
) -> int:
    """Fits a quantized network's codes and BatchNorms to a minute of speech, in place.

    One pass, layer by layer, beside the float network, which the latent weights still are. Each
    layer sees what the layers before it, already mended, give it. Its kernel is corrected for what
    they lost (`reconstruction.corrected`), its codebook is fitted with each weight counting as
    much as its input is strong, codes and centroids are chosen to keep its output
    (`reconstruction.alternate`), and each BatchNorm's statistics are moved by what quantization
    changed in what comes in. No label, no gradient. Fine-tuning afterwards changes codes; these
    codebooks stay.

    Without speech, codes and centroids are chosen for inputs as ReLU networks have them
    (`reconstruction.assumed_gram`); nothing is corrected, and BatchNorms stay.

    Args:
        model: what `tfq_sv.quantize` returned, before any fine-tuning.
        dataset: a minute of speech or so, in batches of waveforms or features, see
            `network_input`; held in memory at once, cut to the shortest. None for no speech.
        progress: show a bar.

    Returns:
        How many layers were fitted.

    Raises:
        InputError: nothing is quantized, or it is calibrated already; no speech, too little of
            it, without end, or not finite. The model then keeps what it had.

    Source: Frantar et al., GPTQ, ICLR 2023; Li et al., GPTAQ, ICML 2025; BatchNorm as in Sun et
    al., NeurIPS 2019.
    """
    books = quantizers(model)
    if not books:
        raise InputError(f"{model.name} is not quantized; call tfq_sv.quantize first")
    if any(quantizer.calibrated for quantizer in books.values()):
        # Its latent weights are no longer the float network's.
        raise InputError(
            f"{model.name} is calibrated already; quantize the float network again for other speech"
        )
    kept = model.get_weights()
    try:
        with tqdm(total=len(books), desc="calibration", unit="layer", disable=not progress) as bar:
            if dataset is None:
                _without_speech(model, bar)
            else:
                _with_speech(model, dataset, bar)
    except BaseException:
        model.set_weights(kept)
        raise
    for quantizer in books.values():
        quantizer.calibrated = True
    return len(books)


def _without_speech(model: keras.Model, bar: Any) -> None:
    for layer in model.layers:
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2):
            quantizer = layer.quantize_config.quantizer
            cut = _Cut.of(layer.layer, quantizer.latent.shape, most=_CHANNELS_TOGETHER)
            gram = assumed_gram(getattr(layer.layer, "kernel_size", ()), cut.channels)
            target = cut.apart(quantizer.latent.numpy().astype(np.float64))
            _keep_output(quantizer, cut, target, gram[None])  # the same for all groups
            bar.update()


def _with_speech(model: keras.Model, dataset: Iterable[Any], bar: Any) -> None:
    fbank = front_end(model)
    batches = [network_input(batch, fbank) for batch in once(dataset, "calibration")]
    frames = min(batch.shape[1] for batch in batches)
    features = tf.concat([batch[:, :frames] for batch in batches], axis=0)
    if not np.isfinite(features.numpy()).all():
        raise InputError("the dataset for calibration holds values that are not finite")
    beside = _Beside(latent_model(model), features)
    errors: list[InputError] = []

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
        named(layer, partial(_move_batch_norm, layer), inputs)

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
            raise RuntimeError("the float network ended before a layer that the quantized one has")
        except BaseException as error:
            with suppress(_EndedError):
                self._put("", error)  # for whoever still asks

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
    cut = _Cut.of(layer, quantizer.latent.shape)
    kernel = cut.apart(quantizer.latent.numpy().astype(np.float64))
    gram, cross = _moments_of_inputs(layer, inputs, wanted, *kernel.shape[:2])
    if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
        raise InputError(_NOT_FINITE)
    target = corrected(kernel, gram, cross)
    quantizer.latent.assign(cut.together(target))
    strength = np.einsum("gkk->gk", gram)[:, :, None] + 1e-30  # a dead input has none
    quantizer.refit(cut.together(np.broadcast_to(strength, target.shape)))
    _keep_output(quantizer, cut, target, gram)


def _keep_output(quantizer: Any, cut: "_Cut", target: Array, gram: Array) -> None:
    """Chooses codes and centroids by what the target makes of inputs with these second moments."""
    centroids = quantizer.centroids.numpy()
    if quantizer.levels_stay:
        rounded = reconstruct(target, gram, centroids)
    else:
        rounded, centroids = alternate(target, gram, centroids)
        quantizer.centroids.assign(centroids)
    quantizer.latent.assign(cut.together(latent_weights(target, rounded, centroids)))


def _moments(layer: Any, inputs: tf.Tensor) -> Moments:
    axes = [axis for axis in range(inputs.shape.rank) if axis not in layer.axis]
    mean, variance = tf.nn.moments(inputs, axes)
    return mean.numpy(), variance.numpy()


def _move_batch_norm(layer: Any, inputs: tf.Tensor, wanted: tf.Tensor) -> None:
    mean, variance = moved(layer, _moments(layer, wanted), _moments(layer, inputs))
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise InputError(_NOT_FINITE)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)


class _Cut(NamedTuple):
    """How a kernel is cut into (groups, inputs, outputs), see `reconstruct`.

    Attributes:
        shape: the kernel's.
        taps: positions in time and frequency that it looks at.
        blocks: that a group's channels are cut into, each then a group of its own.
        channels: of a block; an input is a tap and a channel.
        groups: of channels and outputs, without the blocks.
    """

    shape: tuple[int, ...]
    taps: int
    blocks: int
    channels: int
    groups: int

    @classmethod
    def of(cls, layer: Any, shape: tuple[int, ...], most: int | None = None) -> "_Cut":
        """That of a layer and its kernel's shape, in blocks of at most so many channels."""
        channels, groups = shape[-2], getattr(layer, "groups", 1)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            channels, groups = 1, channels
        most = min(most or channels, channels)
        block = max(n for n in range(1, most + 1) if channels % n == 0)
        return cls(tuple(shape), prod(shape[:-2]), channels // block, block, groups)

    def apart(self, kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(groups x blocks, taps x channels, outputs) of a kernel."""
        cut = kernel.reshape(self.taps, self.blocks, self.channels, self.groups, -1)
        groups, inputs = self.groups * self.blocks, self.taps * self.channels
        return cut.transpose(3, 1, 0, 2, 4).reshape(groups, inputs, -1)

    def together(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The kernel again."""
        cut = values.reshape(self.groups, self.blocks, self.taps, self.channels, -1)
        return cut.transpose(2, 1, 3, 0, 4).reshape(self.shape)


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
