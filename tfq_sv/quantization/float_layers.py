"""Kernels that no codebook replaces: which they are, and how much of a network they make up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.quantization.quantizers import kernel_attribute


@dataclass(frozen=True)
class FloatLayer:
    """A layer whose kernels are float.

    Attributes:
        kind: its class, "GRU" for instance.
        weights: how many weights its kernels have; vectors (biases, BatchNorm) do not count.
        share: of the float network's parameters, 0 to 1.
        quantizable: whether a recipe could name it.
    """

    kind: str
    weights: int
    share: float
    quantizable: bool


def float_layers(model: keras.Model) -> dict[str, FloatLayer]:
    """Returns the layers of a network, quantized or not, whose kernels are float.

    Args:
        model: functional or sequential.

    Returns:
        Layer name -> what it holds, in the model's order.

    >>> model = keras.Sequential([keras.Input((None, 8)), keras.layers.GRU(4, name="gru")])
    >>> layer = float_layers(model)["gru"]
    >>> layer.kind, layer.weights, layer.quantizable
    ('GRU', 168, False)
    """
    model = plain_layers(model)
    total = parameters(model)
    found = {}
    for layer in model.layers:
        if _is_quantized(layer):
            continue
        weights = sum(math.prod(x.shape) for x in layer.weights if _is_kernel(x))
        if weights:
            codebook = kernel_attribute(layer) is not None
            kind = type(layer).__name__
            if isinstance(layer, keras.layers.Wrapper):
                kind = f"{kind} of {type(layer.layer).__name__}"
            found[layer.name] = FloatLayer(kind, weights, weights / total, codebook)
    return found


def left_float(model: keras.Model) -> str:
    """Names the layers that cannot be quantized, with their share of the weights; "" if none.

    >>> layers = [keras.Input((None, 8)), keras.layers.GRU(4, name="gru"), keras.layers.Dense(2)]
    >>> left_float(keras.Sequential(layers))
    'left float, as they cannot be quantized: gru (GRU), 94.4 % of the weights'
    """
    layers = {name: x for name, x in float_layers(model).items() if not x.quantizable}
    return f"left float, as they cannot be quantized: {named(layers)}" if layers else ""


def named(layers: Mapping[str, FloatLayer]) -> str:
    """Layers with their kinds, and their share of the weights, the largest first."""
    largest = sorted(layers, key=lambda name: -layers[name].weights)
    names = [f"{name} ({layers[name].kind})" for name in largest[:5]]
    more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
    share = 100 * sum(layer.share for layer in layers.values())
    return f"{', '.join(names)}{more}, {share:.3g} % of the weights"


def parameters(model: keras.Model) -> int:
    """Returns how many parameters the float network has: without what quantizers keep."""
    count = 0
    for layer in model.layers:
        if _is_quantized(layer):
            bias = layer.layer.bias
            count += math.prod(layer.quantize_config.quantizer.latent.shape)
            count += 0 if bias is None else math.prod(bias.shape)
        else:
            count += layer.count_params()
    return count


def _is_quantized(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2)


def _is_kernel(weight: Any) -> bool:
    """Whether a weight is a matrix or more; vectors, such as biases, are not."""
    return weight.dtype.is_floating and sum(size > 1 for size in weight.shape) > 1
