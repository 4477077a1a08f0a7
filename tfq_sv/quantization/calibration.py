"""Post-training calibration of codes, codebooks and BatchNorm, with or without speech."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras
from scipy.signal import lfilter

from tfq_sv.data.stream import once
from tfq_sv.errors import InputError
from tfq_sv.models import FrontEnd, model_input
from tfq_sv.models.entry import as_entry, features_shape
from tfq_sv.progress import tqdm
from tfq_sv.quantization import trellis_feedback
from tfq_sv.quantization.batch_norm import Moments, moved
from tfq_sv.quantization.equalization import equalize
from tfq_sv.quantization.folding import positive_gains
from tfq_sv.quantization.gptq import (
    DAMPING,
    Array,
    compensated_kernel,
    fit_to_output,
    latent_weights,
    reconstruct,
)
from tfq_sv.quantization.graph import Call, inputs_of_calls
from tfq_sv.quantization.patches import in_pieces, second_moments, ungrouped
from tfq_sv.quantization.quantized_model import before_calibration, quantizers_of, rounded
from tfq_sv.quantization.quantizers import TRANSPOSED, kernel_attribute
from tfq_sv.quantization.recipe import QuantizationRecipe
from tfq_sv.quantization.trellis_quantizer import Trellis
from tfq_sv.run_folder import digest

_NOT_FINITE = "activations are not finite in calibration"
# What stands for speech is as loud and as smooth as its log mel energies without their mean.
# Neighbours go together by exp(-distance): this much from frame to frame of 10 ms; over all bins,
# 16 for the one part of it and 3 for the other.
_NOISE_CHUNKS, _NOISE_FRAMES, _NOISE_DEVIATION = 10, 200, 2.0
_NOISE_FRAME, _NOISE_BINS = 0.14, ((0.6, 16.0), (0.4, 3.0))
# Mean log mel energy of LibriSpeech's recordings, samples in [-1, 1]: 14.0 in int16's scale. From
# recording to recording it deviates by 1.2.
_LEVEL, _LEVEL_DEVIATION = -6.8, 1.2
# As gptq.DAMPING, for noise: its correlations between channels are not those of speech.
_NOISE_DAMPING = 0.1


class _Origin(NamedTuple):
    """Where `quantize` calibrated without speech from: what calibration to speech returns to."""

    weights: list[npt.NDArray[Any]]  # before calibration: the float network's kernels
    calibrated: str  # digest of the weights that calibration left


_ORIGINS: WeakKeyDictionary[keras.Model, _Origin] = WeakKeyDictionary()


def quantize(
    model: keras.Model,
    recipe: QuantizationRecipe,
    *,
    calibrate: bool | Iterable[Any] = True,
    progress: bool = False,
) -> keras.Model:
    """Turns the recipe's kernels into codebooks and codes, calibrated, as `tfq-sv quantize` does.

    The model given stays as it is. Layers of several kernels and models within it become
    `plain_layers`; a `UserWarning` names the layers that cannot be quantized. A layer that was
    frozen can be trained when it is quantized.

    Args:
        model: a trained functional or sequential tf_keras model.
        recipe: which layers get which codebook.
        calibrate: True to choose the codes that keep each layer's output on noise; a minute of
            speech, in batches, to keep it on that, which is worth it below 4 bits; False to round
            each weight to the nearest centroid. See `tfq_sv.calibrate`.
        progress: show bars.

    Returns:
        A model of the same inputs and outputs, ready to fine-tune or to export.

    Raises:
        InputError: see `quantizable`; a recipe that names a layer that the model does not contain;
            kernels with NaN or infinite weights; see `tfq_sv.calibrate`.

    >>> model = keras.Sequential([keras.layers.Dense(8, input_shape=(16,))])
    >>> small = quantize(model, QuantizationRecipe.uniform(model, bits=2))
    >>> rough = quantize(model, QuantizationRecipe.uniform(model, bits=2), calibrate=False)
    >>> [next(iter(quantizers_of(x).values())).calibrated for x in (small, rough)]
    [True, False]
    """
    small = rounded(model, recipe, fit=calibrate is False, progress=progress)
    if calibrate is True:
        weights = small.get_weights()
        _calibrate(small, None, progress)
        _ORIGINS[small] = _Origin(weights, digest(small.get_weights()))
    elif calibrate is not False:
        _calibrate(small, calibrate, progress)
    return small


def calibrate(
    model: keras.Model, dataset: Iterable[Any] | None = None, *, progress: bool = True
) -> keras.Model:
    """Fits a quantized network's codes and BatchNorms to a minute of speech or noise, in place.

    `tfq_sv.quantize` has done so without speech, unless told otherwise. Speech given here then
    takes the place of that: calibration starts from the float network again, which is kept in
    memory until then.

    Channels are scaled first, so that the weights of each kernel are as even as they can be
    (`equalization.equalize`), and BatchNorms' gains are made positive (`folding.positive_gains`):
    the function stays. Then comes one pass, layer by layer, through this network and the float one,
    which the latent weights still are. Each layer gets what the layers before it, already fitted,
    give it. Its kernel is corrected for what they lost (`gptq.compensated_kernel`), its codebook is
    fitted with each weight counting as much as its input is strong, codes and centroids are chosen
    to keep its output (`gptq.fit_to_output`), and each BatchNorm's statistics are moved by what
    quantization changed in its input. No label, no gradient. Fine-tuning afterwards changes codes;
    these codebooks stay.

    Without speech, smooth noise takes its place, and in both networks each BatchNorm normalizes by
    what the noise gives there. So later layers get inputs as strong as speech gives them, though
    not alike; what quantization changes in the noise's statistics is then changed in the float
    network's own. Correlations between channels are not those of speech, so rounding errors are
    compensated with ten times the damping.

    Args:
        model: what `tfq_sv.quantize` or tfmot's `quantize_apply` returned, before any fine-tuning.
        dataset: a minute of speech or so, in batches of waveforms or features, see
            `network_input`; held in memory at once, cut to the shortest. None for noise.
        progress: show a bar.

    Returns:
        The model given.

    Raises:
        InputError: nothing is quantized, it is calibrated already (to speech, or saved or trained
            since), or has many inputs; no speech, too little of it, without end, or not finite.
            The model then keeps what it had.

    Source: Frantar et al., GPTQ, ICLR 2023; Li et al., GPTAQ, ICML 2025; BatchNorm as in Sun et
    al., NeurIPS 2019. Noise in place of data, made fit by BatchNorm, is in Haroush et al., The
    Knowledge Within, CVPR 2020.
    """
    books = quantizers_of(model)
    if not books:
        raise InputError(f"{model.name} is not quantized; call tfq_sv.quantize first")
    if not any(quantizer.calibrated for quantizer in books.values()):
        _calibrate(model, dataset, progress)
        return model
    origin = _ORIGINS.get(model)
    if origin is None or digest(model.get_weights()) != origin.calibrated:
        # Its latent weights are no longer the float network's.
        raise InputError(
            f"{model.name} is calibrated already; quantize the float network again for other speech"
        )
    if dataset is None:
        return model
    kept = model.get_weights()
    model.set_weights(origin.weights)
    for quantizer in books.values():
        quantizer.calibrated = False
    try:
        _calibrate(model, dataset, progress)
    except BaseException:
        model.set_weights(kept)
        for quantizer in books.values():
            quantizer.calibrated = True
        raise
    del _ORIGINS[model]
    return model


def calibrate_rest(
    model: keras.Model, dataset: Iterable[Any] | None = None, *, progress: bool = True
) -> None:
    """Calibrates the layers that are not yet, of a network in which others are, and were trained.

    As `calibrate`; the layers that are calibrated stay, in the network that is the reference too,
    and channels are not scaled again.
    """
    _calibrate(model, dataset, progress)


def _calibrate(model: keras.Model, dataset: Iterable[Any] | None, progress: bool) -> None:
    kept = model.get_weights()
    fresh = [x for x in quantizers_of(model).values() if not x.calibrated]
    if len(model.inputs) != 1:
        raise InputError(
            f"{model.name} has {len(model.inputs)} inputs; calibration feeds one; without it, "
            "tfq_sv.quantize(..., calibrate=False), weights are rounded"
        )
    try:
        with tqdm(total=len(fresh), desc="calibration", unit="layer", disable=not progress) as bar:
            if dataset is None:
                _fit(model, _noise(model), bar, noise=True)
            else:
                _fit(model, _speech(model, dataset), bar, noise=False)
    except BaseException:
        model.set_weights(kept)
        raise
    for quantizer in fresh:
        quantizer.calibrated = True


def _speech(model: keras.Model, dataset: Iterable[Any]) -> tf.Tensor:
    batches = [model_input(model, batch) for batch in once(dataset, "calibration")]
    shortest = np.min([batch.shape for batch in batches], axis=0)[1:]  # in time; others are alike
    whole = [slice(None), *(slice(size) for size in shortest)]
    features = tf.concat([batch[whole] for batch in batches], axis=0)
    if not np.isfinite(features.numpy()).all():
        raise InputError("the dataset for calibration holds values that are not finite")
    return features


def _noise(model: keras.Model) -> tf.Tensor:
    """Smooth Gaussian noise for a network's input, the same every time."""
    shape = tuple(model.inputs[0].shape[1:])
    if shape == (None,):  # a waveform
        return 0.1 * tf.random.stateless_normal([_NOISE_CHUNKS, 2 * 16000], (0, 0))
    axes = features_shape(model) if len(shape) > 1 else shape
    sizes = [size or _NOISE_FRAMES for size in axes]
    rng, noise = np.random.default_rng(0), np.zeros((_NOISE_CHUNKS, *sizes))
    for share, distance in _NOISE_BINS:
        part = rng.normal(0, _NOISE_DEVIATION * np.sqrt(share), noise.shape)
        for axis in range(1, len(sizes)):
            part = _smooth(part, axis, np.exp(-_NOISE_FRAME))
        noise += _smooth(part, len(sizes), np.exp(-distance / sizes[-1]))
    if len(sizes) > 1:
        noise -= noise.mean(axis=1, keepdims=True)  # as CMN does
    for layer in model.layers:
        if isinstance(layer, FrontEnd) and not layer.fbank.subtract_mean:
            level = _LEVEL + 2 * np.log(layer.fbank.sample_scale)
            levels = rng.normal(level, _LEVEL_DEVIATION, _NOISE_CHUNKS)
            noise += levels.reshape(-1, *[1] * len(sizes))
    features = tf.constant(noise, tf.float32)
    return as_entry(model, features) if len(shape) > 1 else features


def _smooth(noise: Array, axis: int, near: float) -> Array:
    """White noise -> first-order autoregressive, of the same deviation from the first value on."""
    new = np.sqrt(1 - near**2)
    start = (1 - new) * np.take(noise, [0], axis)
    return lfilter([new], [1, -near], noise, axis, start)[0]


def _fit(model: keras.Model, features: tf.Tensor, bar: Any, *, noise: bool) -> None:
    """Fits layer after layer, and BatchNorms, which have noise's own statistics on the way."""
    if not any(quantizer.calibrated for quantizer in quantizers_of(model).values()):
        positive_gains(model)
        equalize(model)
    reference = before_calibration(model)
    moments: dict[Any, Moments] = {}
    pairs = zip(
        _in_order(inputs_of_calls(model, features), own_statistics=False),
        _in_order(inputs_of_calls(model, features, reference), own_statistics=noise),
        strict=True,
    )
    for (call, inputs), (twin, wanted) in pairs:
        layer = call.layer
        try:
            if isinstance(layer, keras.layers.BatchNormalization):
                now = _moments(layer, inputs)
                moments[layer] = moved(layer, _moments(twin.layer, wanted), now)
                _check(*moments[layer])
                _set(layer, now if noise else moments[layer])
            elif call.quantizer is not None and not call.quantizer.calibrated:
                _fit_codes(
                    layer, call.quantizer, inputs, wanted, _NOISE_DAMPING if noise else DAMPING
                )
                bar.update()
        except InputError as error:
            raise InputError(f"layer {layer.name}: {error}") from error
    for layer, values in moments.items():
        _set(layer, values)


def _in_order(
    calls: Iterator[tuple[Call, tf.Tensor]], *, own_statistics: bool
) -> Iterator[tuple[Call, tf.Tensor]]:
    """The layers with kernels and BatchNorms when they are first called, and what comes in."""
    for call, inputs in calls:
        batch_norm = isinstance(call.layer, keras.layers.BatchNormalization)
        if call.first and (batch_norm or kernel_attribute(call.layer)):
            if batch_norm and own_statistics:
                _set(call.layer, _moments(call.layer, inputs))
            yield call, inputs


def _check(*values: npt.NDArray[Any]) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise InputError(_NOT_FINITE)


def _fit_codes(
    layer: Any, quantizer: Any, inputs: tf.Tensor, wanted: tf.Tensor, damping: float
) -> None:
    if isinstance(layer, TRANSPOSED):
        return  # its outputs are sums over different inputs at each place; codes stay the nearest
    latent = quantizer.latent
    shape = latent.shape
    kernel = in_pieces(latent.numpy().astype(np.float64), layer)
    gram, cross = second_moments(layer, inputs, wanted, *kernel.shape[:2])
    _check(gram, cross)
    target = compensated_kernel(kernel, gram, cross)
    latent.assign(ungrouped(target, layer, shape))
    if isinstance(quantizer, Trellis):
        if len(target) > 1:  # pieces: their scales would differ
            codes = quantizer.nearest(layer, ungrouped(target, layer, shape), quantizer.bits)
        else:
            codes = trellis_feedback.reconstruct(
                target[0],
                gram[0],
                quantizer.bits,
                per_channel=quantizer.per_channel,
                damping=damping,
            )
        quantizer.set(*codes)
        quantizer.sqnr = _sqnr(target, in_pieces(quantizer.codebook().decode(), layer), gram)
        # The kernel is nearer to other paths: fine-tuning would begin by undoing the choice.
        latent.assign(quantizer.codebook().decode())
        return
    strength = np.einsum("gkk->gk", gram)[:, :, None] + 1e-30  # a dead input has none
    quantizer.refit(ungrouped(np.broadcast_to(strength, target.shape), layer, shape))
    centroids = quantizer.centroids.numpy()
    if quantizer.fixed_levels:
        rounded = reconstruct(target, gram, centroids, damping=damping)
    else:
        rounded, centroids = fit_to_output(target, gram, centroids, damping=damping)
        quantizer.centroids.assign(centroids)
    quantizer.sqnr = _sqnr(target, rounded, gram)
    latent.assign(ungrouped(latent_weights(target, rounded, centroids), layer, shape))


def _sqnr(kernel: Array, rounded: Array, gram: Array) -> float:
    """Returns the signal-to-quantization-noise ratio of a layer's output, dB."""
    signal, noise = (float(np.sum(x * (gram @ x))) for x in (kernel, kernel - rounded))
    return 10 * np.log10((signal + 1e-30) / (noise + 1e-30))


def _moments(layer: Any, inputs: tf.Tensor) -> Moments:
    axes = [axis for axis in range(inputs.shape.rank) if axis not in layer.axis]
    mean, variance = tf.nn.moments(inputs, axes)
    return mean.numpy(), variance.numpy()


def _set(layer: Any, moments: Moments) -> None:
    layer.moving_mean.assign(moments[0])
    layer.moving_variance.assign(moments[1])
