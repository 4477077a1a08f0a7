"""Models in and out of codebooks, in the wrappers of tensorflow-model-optimization."""

import os
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv.codebook import Codebook
from tfq_sv.errors import InputError
from tfq_sv.models import keras_files  # the package registers the layers that saved models name
from tfq_sv.models.layer_copies import copied
from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.progress import counted
from tfq_sv.quantization.configs import (
    AdaptiveBinaryQuantizeConfig,
    KMeansQuantizeConfig,
    Quantizer,
    StaticBinaryQuantizeConfig,
    TrellisQuantizeConfig,
)
from tfq_sv.quantization.float_layers import left_float
from tfq_sv.quantization.quantizers import (
    AdaptiveBinary,
    KMeans,
    StaticBinary,
    fitted_later,
    quantizable,
)
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe
from tfq_sv.quantization.trellis import TrellisCodebook
from tfq_sv.quantization.trellis_quantizer import Trellis

_CONFIGS = {
    "kmeans": lambda bits: KMeansQuantizeConfig(bits),
    "static_binary": lambda bits: StaticBinaryQuantizeConfig(),
    "adaptive_binary": lambda bits: AdaptiveBinaryQuantizeConfig(),
    "trellis": lambda bits: TrellisQuantizeConfig(bits),
}
_KINDS = {
    StaticBinary: "static_binary",
    AdaptiveBinary: "adaptive_binary",
    KMeans: "kmeans",
    Trellis: "trellis",
}


def rounded(
    model: keras.Model, recipe: QuantizationRecipe, *, fit: bool = True, progress: bool = False
) -> keras.Model:
    """Wraps the recipe's layers in codebook quantizers, fitted to the model's kernels.

    Each weight takes the centroid nearest to it; see `calibration.quantize`, which goes on to
    calibrate.

    Args:
        model: a trained functional or sequential tf_keras model.
        recipe: which layers get which codebook.
        fit: False leaves the codebooks for calibration to fit; until then the model is of no use.
        progress: show a bar.

    Returns:
        A model of the same inputs and outputs.

    Raises:
        InputError: see `quantizable`; a recipe that names a layer that the model does not contain;
            kernels with NaN or infinite weights.

    >>> model = keras.Sequential([keras.layers.Dense(8, input_shape=(16,))])
    >>> small = rounded(model, QuantizationRecipe.uniform(model, bits=2))
    >>> [book.bits for book in codebooks(small).values()]
    [2]
    """
    recipe.check_layers(quantizable(model))
    model = plain_layers(model)
    if not recipe.layers:
        raise InputError("the recipe names no layer")
    _refuse_masks(model, recipe)

    bar = counted(len(recipe.layers), desc="codebooks", unit="layer", disable=not progress)
    with bar, nullcontext() if fit else fitted_later():
        quantized = keras.models.clone_model(model, clone_function=partial(_wrapped, recipe))
    for layer, copy in zip(model.layers, quantized.layers, strict=True):
        if layer.name not in recipe.layers:
            copy.set_weights(layer.get_weights())
    if note := left_float(quantized):
        warnings.warn(note, UserWarning, stacklevel=3)
    return quantized


def _wrapped(recipe: QuantizationRecipe, layer: keras.layers.Layer) -> keras.layers.Layer:
    """A copy of a layer, as tfmot's `quantize_apply` wraps it, which clones the graph four times.

    A copy that is not wrapped has no weights yet.
    """
    copy = copied(layer, **_dtype(layer))
    entry = recipe.layers.get(layer.name)
    if entry is None:
        return copy
    copy.trainable = True
    copy.build(layer.get_input_shape_at(0))
    copy.set_weights(layer.get_weights())
    return tfmot.quantization.keras.QuantizeWrapperV2(
        copy, _CONFIGS[entry.kind](entry.bits), name_prefix="quant_"
    )


def _refuse_masks(model: keras.Model, recipe: QuantizationRecipe) -> None:
    """Refuses masks: tfmot's wrappers hand them to layers that take none."""
    for layer in model.layers:
        inputs = tf.nest.flatten(layer.input) if layer.name in recipe.layers else []
        if any(getattr(tensor, "_keras_mask", None) is not None for tensor in inputs):
            masks = [x.name for x in model.layers if isinstance(x, keras.layers.Masking)]
            masks += [x.name for x in model.layers if getattr(x, "mask_zero", False)]
            raise InputError(
                f"layer {layer.name} gets a mask (of {', '.join(masks) or 'an input'}), which "
                "quantized layers do not take; build the network without it: utterances are "
                "embedded one by one, without padding"
            )


def refuse_dead(model: keras.Model) -> None:
    """Refuses a float network that answers zero or NaN to noise, and so to everything.

    Raises:
        InputError: it does; names the layer from which on all is zero, or not finite.
    """
    sizes = [size or 200 for size in model.inputs[0].shape[1:]]
    if len(sizes) == 1:
        sizes = [16000]
    noise = tf.random.stateless_normal([1, *sizes], (0, 0))
    if all(map(_is_alive, tf.nest.flatten(model(noise, training=False)))):
        return
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    found = keras.Model(model.inputs, [layer.output for layer in layers])(noise, training=False)
    answers = tf.nest.flatten([found])
    last, dead = answers[-1], ""
    for layer, answer in zip(reversed(layers), reversed(answers), strict=False):
        if _is_alive(answer):
            break
        last, dead = answer, f"{layer.name} ({type(layer).__name__})"
    what = "zero" if np.isfinite(last).all() else "NaN"
    raise InputError(f"{model.name} answers {what} to noise: from layer {dead} on all is {what}")


def _is_alive(answer: Any) -> bool:
    return bool(np.isfinite(answer).all() and np.any(answer))


def quantizers_of(model: keras.Model) -> dict[str, Quantizer]:
    """Returns a quantized model's quantizers by the name of the layer they serve."""
    return {
        layer.layer.name: layer.quantize_config.quantizer
        for layer in model.layers
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2)
    }


def recipe_of(model: keras.Model) -> QuantizationRecipe:
    """Returns the recipe that a quantized model was made by.

    >>> model = keras.Sequential([keras.layers.Dense(8, input_shape=(16,), name="seg")])
    >>> recipe_of(rounded(model, QuantizationRecipe.binary(model))).layers["seg"].kind
    'adaptive_binary'
    """
    layers = {}
    for name, quantizer in quantizers_of(model).items():
        kind = next(kind for known, kind in _KINDS.items() if isinstance(quantizer, known))
        layers[name] = LayerRecipe(kind, quantizer.bits)
    return QuantizationRecipe(layers)


def codebooks(model: keras.Model) -> dict[str, Codebook | TrellisCodebook]:
    """Returns what a quantized model has learned: layer name -> codebook.

    Raises:
        InputError: the model has no quantized layer.
    """
    found = quantizers_of(model)
    if not found:
        raise InputError(f"{model.name} is not quantized; call tfq_sv.quantize first")
    return {name: quantizer.codebook() for name, quantizer in found.items()}


def dequantize(model: keras.Model) -> keras.Model:
    """Returns a plain float model that computes the same: kernels decoded, wrappers gone."""
    kernels = {name: book.decode() for name, book in codebooks(model).items()}
    plain = keras.models.clone_model(model, clone_function=lambda x: _float_copy(unwrapped(x)))
    for layer, copy in zip(model.layers, plain.layers, strict=True):
        copy.set_weights(_float_weights(unwrapped(layer), kernels))
    return plain


def before_calibration(model: keras.Model) -> dict[keras.layers.Layer, keras.layers.Layer]:
    """Returns float copies of the layers that calibration changes: quantized ones and BatchNorms.

    Calibrated layers have their decoded kernels, the others their latent ones: what was quantized,
    if nothing was calibrated or trained since.
    """
    kernels = {}
    for name, quantizer in quantizers_of(model).items():
        latent = None if quantizer.calibrated else quantizer.latent
        kernels[name] = quantizer.codebook().decode() if latent is None else latent.numpy()
    copies = {}
    for layer in model.layers:
        inner = unwrapped(layer)
        if inner is not layer or isinstance(layer, keras.layers.BatchNormalization):
            copies[layer] = _float_copy(inner)
            copies[layer].build(layer.get_input_shape_at(0))
            copies[layer].set_weights(_float_weights(inner, kernels))
    return copies


def unwrapped(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns the layer in tfmot's wrapper; another layer as it is."""
    wrapped = isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2)
    return layer.layer if wrapped else layer


def _float_copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    mixed = layer.compute_dtype != layer.variable_dtype  # made under a mixed policy
    return copied(layer, **({"dtype": "float32"} if mixed else {}))


def _float_weights(
    layer: keras.layers.Layer, kernels: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    if layer.name not in kernels:
        return list(layer.get_weights())
    return [kernels[layer.name], *([] if layer.bias is None else [layer.bias.numpy()])]


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a model, quantized or not, that `model.save` wrote as .keras, .h5 or SavedModel.

    Nothing that the file holds is run; see `tfq_sv.models.keras_files`. Layers of your own load
    where your program has registered them, `keras.saving.register_keras_serializable`.

    Raises:
        InputError: missing, or not a tf_keras model; a layer that could run code, such as Lambda.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"model {file} does not exist")
    try:
        with tfmot.quantization.keras.quantize_scope():
            model = keras_files.load(file)
    except InputError:
        raise
    # Keras raises what its zip, HDF5 and JSON readers raise, and wraps none of it.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{file} is not a model that tf_keras can load ({reason[0]}); expected a .keras or "
            ".h5 file or a SavedModel folder"
        ) from error
    return model


def _dtype(layer: keras.layers.Layer) -> dict[str, str]:
    """What a copy's configuration has otherwise.

    In float32, if its model was made under a mixed policy that is not in force: tfmot's wrappers
    take the policy in force, and the layer inside must compute as its wrapper does.
    """
    mixed = layer.compute_dtype != layer.variable_dtype
    in_force = keras.mixed_precision.global_policy()
    return {"dtype": "float32"} if mixed and in_force.compute_dtype == "float32" else {}
