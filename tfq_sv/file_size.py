"""How many bytes an exported file will have, before it is written.

A file holds, beside the packed kernels, scales and biases, a graph that decodes them. What a graph
takes follows from the ops it is made of; how much each takes was fitted by least squares to the
files that `tfq_sv.export` writes (tests hold the sum to 0.1 % of real ones).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from tfq_sv.codebook import packed_bytes
from tfq_sv.errors import InputError
from tfq_sv.quantizers import kernel_attribute, quantizable
from tfq_sv.recipe import QuantizationRecipe

# Widths of the planes that codes are cut into, see the file format.
_PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: ()}
_DECODING, _PLANE, _SIGNS, _TABLE, _SIGNED_TABLE = 111, 509, 558, 620, 330
_GRAPH, _WAVEFORM, _BIAS, _DEVIATION = 6600, 22130, 110, 2600
_OPS = {
    "Conv2D": 397,
    "Conv1D": 397,
    "DepthwiseConv2D": 527,
    "Dense": 400,
    "ZeroPadding2D": 161,
    "AttentiveStatistics": 5900,
}
_DEQUANTIZE = 119
_SHARED = 128  # bytes from which the two forms of the network in a file share a buffer


@dataclass(frozen=True)
class LayerSize:
    """What one layer takes at one width.

    Attributes:
        bytes: codes, levels and the ops that decode them.
        tables: the decoding tables it reads, which are in a file once.
    """

    bytes: int
    tables: frozenset[tuple[int, bool]]


@dataclass(frozen=True)
class FileSize:
    """What a network's file takes at any recipe.

    Attributes:
        fixed: bytes whatever the recipe.
        layers: layer name -> bits -> its size; 32 bits stand for a layer that is left float.
    """

    fixed: int
    layers: Mapping[str, Mapping[int, LayerSize]]

    @classmethod
    def of(cls, model: keras.Model, input: str = "waveform", compute: str = "int8") -> "FileSize":
        """Counts what a float model will take, exported with these options."""
        layers = quantizable(model)
        found = {name: _Kernel.of(layer, model) for name, layer in layers.items()}
        fixed = _GRAPH + (_WAVEFORM if input == "waveform" else 0)
        fixed += sum(_OPS.get(type(layer).__name__, 0) for layer in model.layers)
        fixed += sum(_DEVIATION for layer in model.layers if getattr(layer, "deviation", False))
        fixed += sum(4 * kernel.scales for kernel in found.values())
        fixed += sum(16 * count for count in {kernel.scales for kernel in found.values()})
        for bias in {kernel.bias for kernel in found.values() if kernel.bias}:
            size = len(bias)
            fixed += _BIAS + (size if size >= _SHARED else 2 * size)
        if compute == "float32":
            fixed += _DEQUANTIZE * sum(not kernel.depthwise for kernel in found.values())
        sizes = {
            name: {bits: kernel.size(bits) for bits in (*range(1, 9), 32)}
            for name, kernel in found.items()
        }
        return cls(fixed, sizes)

    def total(self, recipe: QuantizationRecipe) -> int:
        """Returns the file's bytes.

        Raises:
            InputError: the recipe names a layer that the network has not.
        """
        for name in recipe.layers:
            if name not in self.layers:
                raise InputError(
                    f"the recipe names {name!r}, which is no quantizable layer of the network; "
                    f"those are {', '.join(self.layers)}"
                )
        chosen = [
            sizes[recipe.layers[name].bits if name in recipe.layers else 32]
            for name, sizes in self.layers.items()
        ]
        tables = frozenset().union(*(size.tables for size in chosen))
        return self.fixed + sum(size.bytes for size in chosen) + table_bytes(tables)

    def measured(self, recipe: QuantizationRecipe, bytes: int) -> "FileSize":
        """Returns these sizes, set right by one real file: its recipe and its bytes."""
        return replace(self, fixed=self.fixed + bytes - self.total(recipe))


def predict_bytes(
    model: keras.Model,
    recipe: QuantizationRecipe,
    *,
    input: str = "waveform",
    compute: str = "int8",
) -> int:
    """Returns how many bytes the exported file of a recipe will have, without exporting it.

    Right to 0.1 % for the networks of `tfq_sv.models`; for others, see `FileSize.measured`.

    Args:
        model: the float network.
        recipe: bits a layer.
        input: as in `export_tflite`.
        compute: as in `export_tflite`.

    Raises:
        InputError: see `quantizers.quantizable`; a recipe that names a layer the model has not.

    >>> from tfq_sv import models
    >>> network = models.build("ResNet34")
    >>> predict_bytes(network, QuantizationRecipe.uniform(network, bits=4)) // 10_000
    341
    """
    return FileSize.of(model, input, compute).total(recipe)


def table_bytes(tables: Iterable[tuple[int, bool]]) -> int:
    """Returns what decoding tables take: of a plane's width, and whether for signed layers."""
    return sum(
        256 * (8 // width) * (1 + signed) + (_SIGNED_TABLE if signed else _TABLE)
        for width, signed in tables
    )


@dataclass(frozen=True)
class _Kernel:
    """What a file's writer sees of one layer."""

    weights: int
    channels: int
    depthwise: bool
    scales: int
    signed: bool
    bias: bytes

    @classmethod
    def of(cls, layer: keras.layers.Layer, model: keras.Model) -> "_Kernel":
        kernel = getattr(layer, str(kernel_attribute(layer)))
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        channels = int(np.prod(kernel.shape[-2:]) if depthwise else kernel.shape[-1])
        gains, bias = _folded(layer, channels)
        dense = isinstance(layer, keras.layers.Dense)
        one = dense and np.ptp(np.abs(gains)) == 0
        no_bias = dense and not bias.any()  # convolutions have one in any case
        return cls(
            weights=int(np.prod(kernel.shape)),
            channels=channels,
            depthwise=depthwise,
            scales=1 if one else channels,
            signed=bool((gains < 0).any()),
            bias=b"" if no_bias else bias.astype(np.float32).tobytes(),
        )

    def size(self, bits: int) -> LayerSize:
        if bits >= 8:
            return LayerSize(_aligned(packed_bytes(self.weights, bits)), frozenset())
        planes = _PLANES[bits]
        count = _DECODING + _PLANE * len(planes)
        count += sum(_aligned(-(-self.weights * width // 8)) for width in planes)
        count += _aligned(2**bits * (1 + self.signed))
        whole = not self.depthwise and self.weights // self.channels * bits % 8 == 0
        signed_table = self.signed and whole and len(planes) == 1
        if self.signed:
            count += _SIGNS + _aligned(self.channels)
        return LayerSize(count, frozenset((width, signed_table) for width in planes))


def _folded(
    layer: keras.layers.Layer, channels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The gains and the bias that the converter gives a layer: those of the BatchNorm behind it."""
    bias = layer.bias.numpy() if layer.use_bias else np.zeros(channels)
    followers = [node.layer for node in layer.outbound_nodes]
    linear = layer.activation in (None, keras.activations.linear)
    if not linear or len(followers) != 1:
        return np.ones(channels), bias
    norm = followers[0]
    if not isinstance(norm, keras.layers.BatchNormalization):
        return np.ones(channels), bias
    gains = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon, dtype=np.float64)
    gains *= norm.gamma.numpy() if norm.scale else 1
    shift = norm.beta.numpy() if norm.center else 0
    return gains, gains * (bias - norm.moving_mean.numpy()) + shift


def _aligned(count: int) -> int:
    """A buffer with its length, up to the next multiple of 16."""
    return -(-(count + 4) // 16) * 16
