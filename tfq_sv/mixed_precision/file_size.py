"""How many bytes an exported file will have, before it is written.

A file holds, beside the packed kernels, scales and biases, a graph that decodes them. What a graph
takes follows from the ops it is made of; how much each takes was fitted by least squares to the
files that `tfq_sv.export` writes (tests hold the sum to 0.3 % of real ones).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from tfq_sv.codebook import packed_bytes
from tfq_sv.codec import FEWEST_GROUPED, planes, segments
from tfq_sv.mixed_precision.forms import BITS, Form, form, forms, recipe_for
from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.quantization import trellis
from tfq_sv.quantization.folding import scale_and_shift, unfolded
from tfq_sv.quantization.quantizers import DEPTHWISE, TRANSPOSED, kernel_attribute, quantizable
from tfq_sv.quantization.recipe import QuantizationRecipe

_GRAPH, _WAVEFORM, _BIAS, _DEVIATION, _DEQUANTIZE = 7698, 21840, 117, 2575, 115
_OPS = {
    "Conv2D": 394,
    "Conv1D": 394,
    "DepthwiseConv2D": 508,
    "Dense": 297,
    "ZeroPadding2D": 162,
    "AttentiveStatistics": 6400,
    "Concatenate": 150,
    "Multiply": 150,
    "Activation": 150,
    "MatMul": 130,
    "ChannelGroups": 70,
    "GlobalAveragePooling2D": 150,
}
_NORM = 150  # a vector's operator
_DECODING, _PLANE = 507, 419
_TRELLIS_STEP, _TRELLIS_LAYER, _TRELLIS_SPLIT, _TRELLIS_GROUP = 595, 113, 341, 828
_ONCE = {"codes": 176, "unpacked": 171, "joined": 321, "parts": 328, "group": 1264, "trellis": 104}
_ONCE["trellis group"] = _TRELLIS_GROUP + _TRELLIS_SPLIT
_MEMBER = 57
_SHARED = 128  # bytes from which the two forms of the network in a file share a buffer
_BYTE = 256

SharedTable = tuple[str | int, ...]
"""What a file holds once, however many layers use it: a kind, and what tells two of it apart."""


@dataclass(frozen=True)
class LayerSize:
    """What one layer takes at one width.

    Attributes:
        bytes: codes, levels and the ops that decode them.
        shared: decoding tables and the like, which the file holds once for all layers.
        alone: bytes where too few layers of its segment have this width to be decoded together;
            None if it is decoded alone in any case.
        weights: those of a trellis that is decoded together with others.
    """

    bytes: int
    shared: frozenset[SharedTable] = frozenset()
    alone: int | None = None
    weights: int = 0

    @property
    def group(self) -> SharedTable | None:
        """What it is decoded together with: the one of `shared` that stands for it."""
        return next((table for table in self.shared if "group" in str(table[0])), None)


@dataclass(frozen=True)
class FileSize:
    """What a network's file takes at any recipe.

    Attributes:
        fixed: bytes whatever the recipe.
        layers: layer name -> form -> its size; 32 stands for a layer that is left float. A form
            that a layer cannot have is that of `recipe_for`.
    """

    fixed: int
    layers: Mapping[str, Mapping[Form, LayerSize]]

    @classmethod
    def of(cls, model: keras.Model, input: str = "waveform", compute: str = "int8") -> "FileSize":
        """Counts what a float model will take, exported with these options."""
        model = plain_layers(model)
        layers = quantizable(model)
        found = {name: _Kernel.of(layer) for name, layer in layers.items()}
        groups = _segments(list(found.values()))
        fixed = _GRAPH + (_WAVEFORM if input == "waveform" else 0)
        fixed += sum(_OPS.get(type(layer).__name__, 0) for layer in model.layers)
        fixed += sum(_DEVIATION for layer in model.layers if getattr(layer, "deviation", False))
        fixed += sum(4 * kernel.scales for kernel in found.values())
        fixed += sum(8 * count for count in {kernel.scales for kernel in found.values()})
        vectors = {kernel.bias for kernel in found.values() if kernel.bias}
        for name, stay in unfolded(model).items():
            gains, shift = scale_and_shift(model.get_layer(name))
            kept = [gains] * stay.gains + [shift] * stay.shift
            fixed += _NORM * len(kept)
            vectors |= {x.astype(np.float32).tobytes() for x in kept}
        for vector in vectors:
            size = len(vector)
            fixed += _BIAS + (size if size >= _SHARED else 2 * size)
        if compute == "float32":
            fixed += _DEQUANTIZE * sum(not kernel.depthwise for kernel in found.values())
        else:
            fixed += _DEQUANTIZE * sum(kernel.dilated for kernel in found.values())
        sizes: dict[str, dict[Form, LayerSize]] = {}
        for (name, kernel), segment in zip(found.items(), groups, strict=True):
            own: dict[Form, LayerSize] = {b: kernel.size(b, segment) for b in (*BITS, 32)}
            for code in forms(trellis.WIDTHS, trellis=True):
                entry = recipe_for(layers[name], code)
                coded = entry.kind == "trellis"
                own[code] = kernel.trellis_size(entry.bits) if coded else own[form(entry)]
            sizes[name] = own
        return cls(fixed, sizes)

    def total(self, recipe: QuantizationRecipe) -> int:
        """Returns the file's bytes.

        Raises:
            InputError: the recipe names a layer that the network does not have.
        """
        recipe.check_layers(self.layers)
        chosen = [
            sizes[form(recipe.layers[name]) if name in recipe.layers else 32]
            for name, sizes in self.layers.items()
        ]
        groups = Counter(size.group for size in chosen if not size.weights)
        few = {group for group, count in groups.items() if group and count < FEWEST_GROUPED}
        shared = {table for size in chosen for table in size.shared} - few
        shared -= {size.group for size in chosen if size.weights}
        own = sum(size.bytes if size.group not in few else size.alone or 0 for size in chosen)
        return self.fixed + own + sum(map(shared_bytes, shared)) + _trellis_groups(chosen)

    def corrected_by(self, recipe: QuantizationRecipe, bytes: int) -> "FileSize":
        """Returns these sizes, corrected by one real file: its recipe and its bytes."""
        return replace(self, fixed=self.fixed + bytes - self.total(recipe))


def predict_bytes(
    model: keras.Model,
    recipe: QuantizationRecipe,
    *,
    input: str = "waveform",
    compute: str = "int8",
) -> int:
    """Returns how many bytes the exported file of a recipe will have, without exporting it.

    Right to half a percent for the networks of `tfq_sv.models`; for others, see
    `FileSize.corrected_by`. A network that is only rounded, not calibrated, takes one more op, and
    a float per channel, for each layer with a negative BatchNorm gain.

    Args:
        model: the float network.
        recipe: bits per layer.
        input: as in `export_tflite`.
        compute: as in `export_tflite`.

    Raises:
        InputError: see `quantizers.quantizable`; a recipe names a layer the model does not have.

    >>> from tfq_sv import models
    >>> network = models.build("ResNet18", channels=16)
    >>> two, four = (QuantizationRecipe.uniform(network, bits) for bits in (2, 4))
    >>> predict_bytes(network, two) < predict_bytes(network, four)
    True
    """
    return FileSize.of(model, input, compute).total(recipe)


def shared_bytes(shared: SharedTable) -> int:
    """Returns the bytes of a table that a file holds once.

    >>> shared_bytes(("codes", 1)) - shared_bytes(("codes", 2))
    1024
    """
    kind, *which = shared
    stored = 0
    if kind == "codes":  # of every byte, for bits of codes or of rows
        stored = 8 * _BYTE // int(which[0])
    elif kind == "joined":  # the codes of every part of a byte
        bits, width = map(int, which)
        cells = 8 // planes(bits)[0]
        stored = 2 ** (width * cells) * cells
    elif kind == "group":
        stored = _PLANE * (len(planes(int(which[-1]))) - 1)
    elif kind == "trellis":
        table = trellis.table(float(which[0]))
        # Each step of the table's expansion doubles the codes per row, up to a byte of them.
        stored = table.size + _TRELLIS_STEP * {512: 3, 1024: 2, 4096: 1}[len(table)]
    return _ONCE[str(kind)] + stored


def _unpacked(width: int) -> set[SharedTable]:
    return {("unpacked", width), ("codes", width)}


@dataclass(frozen=True)
class _Kernel:
    """What a file's writer sees of one layer."""

    weights: int
    channels: int
    depthwise: bool
    scales: int
    bias: bytes
    dilated: bool

    @classmethod
    def of(cls, layer: keras.layers.Layer) -> "_Kernel":
        kernel = getattr(layer, str(kernel_attribute(layer)))
        depthwise = isinstance(layer, DEPTHWISE)
        last = kernel.shape[-2] if isinstance(layer, TRANSPOSED) else kernel.shape[-1]
        channels = int(np.prod(kernel.shape[-2:]) if depthwise else last)
        gains, bias = _folded(layer, channels)
        dense = isinstance(layer, keras.layers.Dense)
        one = dense and np.ptp(np.abs(gains)) == 0
        no_bias = dense and not bias.any()  # convolutions have one in any case
        return cls(
            weights=int(np.prod(kernel.shape)),
            channels=channels,
            depthwise=depthwise,
            scales=1 if one else channels,
            bias=b"" if no_bias else bias.astype(np.float32).tobytes(),
            dilated=max(getattr(layer, "dilation_rate", (1,))) > 1,
        )

    def size(self, bits: int, segment: "_Segment | None" = None) -> LayerSize:
        """What it takes at so many bits, 32 for float."""
        if bits >= 8:
            return LayerSize(_aligned(packed_bytes(self.weights, bits)))
        widths, shift = planes(bits), 0
        count = _DECODING + _PLANE * (len(widths) - 1) + _aligned(2**bits)
        shared = _unpacked(widths[0])
        for width in widths:
            count += _aligned(-(-self.weights * width // 8))
            if shift:
                shared |= {("joined", bits, width), ("parts", width, widths[0], shift)}
                shared.add(("codes", 8 * width // widths[0]))
            shift += width
        if segment is not None:
            together = _MEMBER + packed_bytes(self.weights, bits)
            shared.add(("group", *segment.key, bits))
            return LayerSize(together + self.weights // segment.chunk, frozenset(shared), count)
        return LayerSize(count, frozenset(shared))

    def trellis_size(self, bits: float) -> LayerSize:
        """What it takes in trellis codes."""
        codes = _aligned(int(self.weights * bits / 8))
        shared = frozenset({("trellis", str(bits)), ("trellis group", str(bits), self.channels)})
        return LayerSize(codes + _TRELLIS_LAYER, shared, weights=self.weights)


def _trellis_groups(chosen: Iterable[LayerSize]) -> int:
    """The bytes of what layers in trellis codes share: in the groups that the file's writer makes.

    The search, which is linear, counts one group for each key, however large.
    """
    total = 0
    filled: dict[SharedTable | None, tuple[int, int]] = {}
    for size in chosen:
        if not size.weights:
            continue
        layers, weights = filled.get(size.group, (0, trellis.GROUP))
        if weights + size.weights > trellis.GROUP:
            layers, weights, total = 0, 0, total + _TRELLIS_GROUP
        total += _TRELLIS_SPLIT if layers == 1 else 0
        filled[size.group] = layers + 1, weights + size.weights
    return total


class _Segment(NamedTuple):
    """Layers that are decoded together, where they have as many bits; see `codec.segments`.

    Attributes:
        key: tells segments apart.
        chunk: weights of which the file holds a layer's number, one byte for each chunk.
    """

    key: tuple[int, bool]
    chunk: int


def _segments(kernels: Sequence[_Kernel]) -> list[_Segment | None]:
    keys = segments([kernel.weights for kernel in kernels])
    chunks: dict[tuple[int, bool], int] = {}
    for kernel, key in zip(kernels, keys, strict=True):
        if key is not None:
            chunks[key] = math.gcd(chunks.get(key, 0), kernel.weights)
    return [None if key is None else _Segment(key, chunks[key]) for key in keys]


def _folded(
    layer: keras.layers.Layer, channels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The gains and the bias that the converter gives a layer: those of the BatchNorm after it."""
    bias = layer.bias.numpy() if layer.use_bias else np.zeros(channels)
    norm = _folded_norm(layer)
    if norm is None:
        return np.ones(channels), bias
    gains, shift = scale_and_shift(norm)
    return gains, gains * bias + shift


def _folded_norm(layer: keras.layers.Layer) -> keras.layers.BatchNormalization | None:
    """The BatchNorm that the converter folds into a layer; None if there is none."""
    followers = [node.layer for node in layer.outbound_nodes]
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    if not linear or len(followers) != 1:
        return None
    norm = followers[0]
    return norm if isinstance(norm, keras.layers.BatchNormalization) else None


def _aligned(count: int) -> int:
    """A buffer with its length, up to the next multiple of 16."""
    return -(-(count + 4) // 16) * 16
