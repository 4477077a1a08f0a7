"""Finds the filters of a float `.tflite` network among the codebooks that they were decoded from.

The converter folds each BatchNorm into the convolution before it, so that a filter is the decoded
kernel with each output channel multiplied by a gain of its own. Layers keep no names on that way;
they are found by content.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv import codec
from tfq_sv.codebook import Codebook
from tfq_sv.errors import InputError
from tfq_sv.export import flatbuffer
from tfq_sv.quantization.trellis import TrellisCodebook

Book = Codebook | TrellisCodebook

_TOLERANCE = 1e-5  # of a channel's greatest weight; float32 folding errs by about 1e-7
_TINY_SCALE = 1e-30  # for a channel whose gain is zero: runtimes want positive scales


@dataclass(frozen=True, eq=False)
class Filter:
    """One constant filter of the network: codes into a layer's codebook, and one gain per channel.

    Attributes:
        layer: the layer's name.
        book: its codebook, of the Keras kernel's shape.
        shape: the TFLite filter's.
        axis: the filter's output channels: 0, or 3 where it is depthwise.
        gains: float32 (channels,); filter = decoded kernel * gains.
        transposed: whether it is of a transposed convolution.
    """

    layer: str
    book: Book
    shape: tuple[int, ...]
    axis: int
    gains: npt.NDArray[np.float32]
    transposed: bool = False

    @property
    def size(self) -> int:
        """How many weights."""
        return math.prod(self.shape)

    def scales(self) -> npt.NDArray[np.float32]:
        """Returns the step of the int8 grid in each channel, positive: float32 (channels,)."""
        return np.maximum(self.book.steps() * self.gains, np.float32(_TINY_SCALE))

    def levels(self) -> npt.NDArray[np.int8]:
        """Returns the int8 filter, in the TFLite filter's shape."""
        return self._laid_out(self.book.levels())

    def packed(self) -> list[npt.NDArray[np.uint8]]:
        """Returns a k-means codebook's packed planes: at 8 bits the levels themselves, as bytes."""
        assert isinstance(self.book, Codebook)
        if self.book.bits == 8:
            return [self.levels().view(np.uint8).reshape(-1)]
        return codec.pack(self._laid_out(self.book.codes).reshape(-1), self.book.bits)

    def _laid_out(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        laid_out = _layout(values, self.axis, len(self.shape), self.transposed)
        assert laid_out is not None
        return laid_out


def find(model: flatbuffer.Model, books: Mapping[str, Book]) -> dict[int, Filter]:
    """Returns the filters of the model's first subgraph by tensor index.

    Raises:
        InputError: a codebook's layer is nowhere in the network.
    """
    graph, filters = model.subgraphs[0], {}
    candidates = _Candidates(books)
    for operator in graph.operators:
        if not reads_filter(model, operator):
            continue
        index = int(operator.inputs[1])
        weights = flatbuffer.values(model, graph.tensors[index])
        if weights is None or index in filters:
            continue
        name = flatbuffer.op_name(model, operator)
        axis, transposed = 3 if name == "DEPTHWISE_CONV_2D" else 0, name == "TRANSPOSE_CONV"
        if match := candidates.match(weights, axis, transposed):
            layer, gains = match
            filters[index] = Filter(layer, books[layer], weights.shape, axis, gains, transposed)
    found = candidates.found
    if missing := [layer for layer in books if layer not in found]:
        raise InputError(
            f"layer {missing[0]!r} was not found in the converted network ({len(missing)} of "
            f"{len(books)} layers were not); dense layers and convolutions whose "
            "kernels are used as they are can be exported"
        )
    order = {layer: number for number, layer in enumerate(books)}
    return dict(sorted(filters.items(), key=lambda item: order[item[1].layer]))


class _Candidates:
    """Layers by the sizes of their kernels, those that no filter was found for first."""

    def __init__(self, books: Mapping[str, Book]) -> None:
        self.found: set[str] = set()
        self._kernels: dict[int, dict[str, npt.NDArray[np.float32]]] = defaultdict(dict)
        self._equal: dict[bytes, list[str]] = defaultdict(list)
        self._key: dict[str, bytes] = {}
        for layer, book in books.items():
            kernel = book.decode()
            self._kernels[kernel.size][layer] = kernel
            # Equal layers may have one filter.
            self._key[layer] = hashlib.sha256(kernel.tobytes()).digest()
            self._equal[self._key[layer]].append(layer)

    def match(
        self, weights: npt.NDArray[np.float32], axis: int, transposed: bool
    ) -> tuple[str, npt.NDArray[np.float32]] | None:
        """Returns the layer that a filter is of, and its gains; None if there is none."""
        kernels = self._kernels.get(weights.size, {})
        for layer in sorted(kernels, key=self.found.__contains__):
            gains = _match(kernels[layer], weights, axis, transposed)
            if gains is not None:
                self.found.update(self._equal[self._key[layer]])
                return layer, gains
        return None


def reads_filter(model: flatbuffer.Model, operator: Any) -> bool:
    """Whether the op is one whose second input is a filter."""
    name = flatbuffer.op_name(model, operator)
    return name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def _match(
    kernel: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    axis: int,
    transposed: bool,
) -> npt.NDArray[np.float32] | None:
    """Returns the gains that make a filter of a Keras kernel; None if there are none."""
    laid_out = _layout(kernel, axis, weights.ndim, transposed)
    if laid_out is None or laid_out.shape != weights.shape:
        return None
    target = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    source = np.moveaxis(laid_out, axis, 0).reshape(target.shape)
    # The first channels tell nearly all layers of one shape apart, at no cost.
    return None if _gains(target[:2], source[:2]) is None else _gains(target, source)


def _gains(
    target: npt.NDArray[np.float32], kernel: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32] | None:
    """Returns g with target = g * kernel in each row, by least squares; None if there is none."""
    wide, wanted = kernel.astype(np.float64), target.astype(np.float64)
    power = (wide**2).sum(1)
    gains = (wide * wanted).sum(1) / np.where(power > 0, power, 1)
    error = np.abs(wanted - gains[:, None] * wide).max(1)
    # A gain that is next to nothing, as weight decay leaves them, has few digits or none.
    fits = error <= np.maximum(_TOLERANCE * np.abs(wanted).max(1), _TINY_SCALE)
    return gains.astype(np.float32) if fits.all() else None


def _layout(
    values: npt.NDArray[Any], axis: int, rank: int, transposed: bool
) -> npt.NDArray[Any] | None:
    """Returns a Keras kernel in a TFLite filter's order; None if it is of no kind."""
    if rank == 2:
        return values.T if values.ndim == 2 else None
    if values.ndim == 3:  # Conv1D: a convolution of height 1
        values = values[None]
    if values.ndim != 4:
        return None
    if axis == 3:  # HWC and multiplier, or HW1O of a convolution in as many groups as channels
        return values.reshape(1, *values.shape[:2], -1)
    return values.transpose(2, 0, 1, 3) if transposed else values.transpose(3, 0, 1, 2)
