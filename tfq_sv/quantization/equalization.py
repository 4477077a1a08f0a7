"""The same network, its channels scaled so that codebooks fit its kernels best.

Through ReLUs, poolings and sums a channel may be twice as loud, if what makes it doubles its
weights and what takes it halves its own. Before and after a BatchNorm it may be scaled apart. The
function stays, the kernels change. Inputs that are faint, and have large weights for that, give
published networks much of their heavy tails.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras
from scipy.optimize import minimize

from tfq_sv.models.context import MatMul, Segments
from tfq_sv.models.pooling import FrameSequence
from tfq_sv.models.sequence import FrameRow
from tfq_sv.quantization.graph import Call, calls
from tfq_sv.quantization.patches import grouped, taps, ungrouped
from tfq_sv.quantization.quantizers import TRANSPOSED, kernel_attribute

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

layers = keras.layers

_MOVES = (layers.Reshape, layers.Flatten, layers.Permute, FrameRow, FrameSequence)
_PASSES = (
    layers.LeakyReLU,
    layers.PReLU,
    layers.Dropout,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
)
_SUMS = (layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
_HOMOGENEOUS = (keras.activations.linear, keras.activations.relu)
_FLOOR = 1e-6  # of the mean: what is next to nothing is not made loud
_STEPS = 200


def equalize(model: keras.Model) -> None:
    """Scales channels, in place, until all that come into a kernel have weights of one power.

    And all that go out of it, as far as the graph lets channels be scaled: the mean square of each
    kernel's weights comes as near as it can to their geometric mean over inputs and outputs. Its
    logarithm is a convex function of the scales' logarithms, summed over kernels, so there is one
    solution, and how the network was scaled before does not matter.

    Args:
        model: a functional network, quantized or not, channels last. Its function stays.

    Source: the scaling is that of Nagel et al., Data-Free Quantization Through Weight
    Equalization and Bias Correction, ICCV 2019, section 4.1; here of all kernels together, and
    through BatchNorm. For one matrix it is matrix balancing, Sinkhorn and Knopp, 1967.

    >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(1,)), keras.layers.Dense(1)])
    >>> model.set_weights([np.float32([[1, 4]]), np.zeros(2), np.float32([[4], [1]]), np.zeros(1)])
    >>> equalize(model)
    >>> [kernel.round(2).ravel().tolist() for kernel in model.get_weights()[::2]]
    [[2.0, 2.0], [2.0, 2.0]]
    """
    scales = _Scales()
    scaled = _trace(model, scales)
    kernels = [
        _Kernel.of(call, scales.roots(incoming), scales.roots(outgoing))
        for call, incoming, outgoing in scaled.values()
        if kernel_attribute(call.layer)
    ]
    logs = _solve(kernels, scales.count)
    for call, incoming, outgoing in scaled.values():
        _rescale(call, logs[scales.roots(incoming)], logs[scales.roots(outgoing)])


class _Scales:
    """One number for each channel that can be scaled on its own; number 0 cannot be scaled."""

    def __init__(self) -> None:
        self._parents = [0]

    @property
    def count(self) -> int:
        return len(self._parents)

    def new(self, channels: int) -> Ids:
        ids = np.arange(self.count, self.count + channels)
        self._parents += ids.tolist()
        return ids

    def roots(self, ids: Ids) -> Ids:
        return np.array([self._root(index) for index in ids], np.int64)

    def tie(self, one: Ids, other: Ids) -> Ids:
        """Makes channels share their scales. One channel goes with many."""
        for a, b in zip(*np.broadcast_arrays(one, other), strict=True):
            low, high = sorted((self._root(a), self._root(b)))
            self._parents[high] = low  # 0 stays 0
        return max(one, other, key=len)

    def fix(self, ids: Ids) -> None:
        self.tie(ids, _FIXED)

    def fixed(self, ids: Ids) -> bool:
        return not self.roots(ids).any()

    def _root(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index


_FIXED = np.zeros(1, np.int64)


def _trace(model: keras.Model, scales: _Scales) -> dict[str, tuple[Call, Ids, Ids]]:
    """Kernel layers and BatchNorms by name, each with its channels' numbers before and after."""
    tensors = {str(id(tensor)): _FIXED for tensor in model.inputs}
    scaled: dict[str, tuple[Call, Ids, Ids]] = {}
    for call in calls(model):
        incoming = [tensors[key] for key in call.inputs]
        outgoing = _output_channels(call, incoming, scales)
        if outgoing is None:
            for ids in incoming:
                scales.fix(ids)
            outgoing = _FIXED
        tensors.update(dict.fromkeys(call.outputs, outgoing))
        if _holds_scales(call.layer):
            # What has no number for each channel is one channel with a scale of 1.
            if not call.first:  # the same weights again
                scales.tie(scaled[call.layer.name][1], incoming[0])
                scales.tie(scaled[call.layer.name][2], outgoing)
            scaled.setdefault(call.layer.name, (call, incoming[0], outgoing))
    for tensor in model.outputs:
        scales.fix(tensors[str(id(tensor))])
    return scaled


def _holds_scales(layer: Any) -> bool:
    if isinstance(layer, layers.BatchNormalization):
        return True
    return bool(kernel_attribute(layer)) and not isinstance(layer, TRANSPOSED)


def _output_channels(call: Call, incoming: list[Ids], scales: _Scales) -> Ids | None:
    """The channels that a layer gives for those that it gets; None: no channel may be scaled."""
    layer = call.layer
    if isinstance(layer, TRANSPOSED):
        return None
    if kernel_attribute(layer):
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            return None
        return scales.new(call.channels) if layer.activation in _HOMOGENEOUS else _FIXED
    if isinstance(layer, layers.BatchNormalization):
        free = layer.scale and list(layer.axis) == [call.rank - 1]
        return scales.new(call.channels) if free else None
    if isinstance(layer, layers.ReLU):
        return incoming[0] if layer.max_value is None and not layer.threshold else None
    if isinstance(layer, layers.Activation):
        return incoming[0] if layer.activation in _HOMOGENEOUS else None
    if isinstance(layer, _PASSES):
        last = getattr(layer, "data_format", "channels_last") == "channels_last"
        return incoming[0] if last else None
    if isinstance(layer, _MOVES):
        return _moved(call, incoming[0])
    if isinstance(layer, Segments):  # looks at the length alone
        return _FIXED
    if isinstance(layer, _SUMS):
        for ids in incoming[1:]:
            incoming[0] = scales.tie(incoming[0], ids)
        return incoming[0]
    if isinstance(layer, layers.Concatenate) and layer.axis in (-1, call.rank - 1):
        widths = call.input_channels
        return np.concatenate(
            [np.broadcast_to(ids, width) for ids, width in zip(incoming, widths, strict=True)]
        )
    if isinstance(layer, layers.Multiply | MatMul) and len(incoming) == 2:
        left, right = incoming
        if scales.fixed(left):
            return right
        return left if scales.fixed(right) and isinstance(layer, layers.Multiply) else None
    return None


def _moved(call: Call, incoming: Ids) -> Ids | None:
    """Where a layer that only moves values puts the channels."""
    shape = [1, *(size or 2 for size in call.node.input_shapes[1:])]
    moved = call.layer.call(tf.constant(np.broadcast_to(incoming, shape), tf.float64)).numpy()
    rows = moved.reshape(-1, moved.shape[-1])
    return rows[0].astype(np.int64) if (rows == rows[0]).all() else None


@dataclass(frozen=True)
class _Kernel:
    """A kernel's squares (G, K, O), summed over taps, and the scales of its channels."""

    squares: Array
    inputs: Ids  # (G, K)
    outputs: Ids  # (G, O)

    @classmethod
    def of(cls, call: Call, inputs: Ids, outputs: Ids) -> "_Kernel":
        kernel = grouped(call.kernel.numpy().astype(np.float64), call.layer)
        groups, size, width = kernel.shape
        squares = np.square(kernel).reshape(groups, taps(call.layer), -1, width).sum(axis=1)
        size //= taps(call.layer)
        return cls(
            squares + _FLOOR * squares.mean() + 1e-30,
            np.broadcast_to(inputs, groups * size).reshape(groups, size),
            np.broadcast_to(outputs, groups * width).reshape(groups, width),
        )

    def value(self, logs: Array, gradient: Array) -> float:
        """The logarithm of the mean square over the geometric one; adds its gradient."""
        incoming, outgoing = logs[self.inputs], logs[self.outputs]
        rows = np.exp(-2 * incoming) * (self.squares @ np.exp(2 * outgoing)[:, :, None])[:, :, 0]
        columns = np.exp(2 * outgoing) * (np.exp(-2 * incoming)[:, None] @ self.squares)[:, 0]
        mean = rows.sum()
        for ids, slopes in (
            (self.inputs, 1 / rows.size - rows / mean),
            (self.outputs, columns / mean - 1 / columns.size),
        ):
            gradient += np.bincount(ids.ravel(), 2 * slopes.ravel(), gradient.size)
        return float(np.log(mean) + 2 * incoming.mean() - 2 * outgoing.mean())


def _solve(kernels: list[_Kernel], count: int) -> Array:
    """The logarithms of all scales, number 0's is 0."""

    def objective(logs: Array) -> tuple[float, Array]:
        gradient = np.zeros(count)
        logs = np.concatenate([[0.0], logs])
        value = sum(kernel.value(logs, gradient) for kernel in kernels)
        return value, gradient[1:]

    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "gtol": 1e-6, "ftol": 1e-8}
    solution = minimize(
        objective, np.zeros(count - 1), jac=True, method="L-BFGS-B", options=options
    )
    return np.concatenate([[0.0], solution.x])


def _rescale(call: Call, incoming: Array, outgoing: Array) -> None:
    """Gives a layer the weights that do the same between scaled channels."""
    layer = call.layer
    if isinstance(layer, layers.BatchNormalization):
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy().astype(float)
        before, after = variance + layer.epsilon, variance * np.exp(2 * incoming) + layer.epsilon
        layer.moving_mean.assign(mean * np.exp(incoming))
        layer.moving_variance.assign(variance * np.exp(2 * incoming))
        if layer.scale:
            layer.gamma.assign(layer.gamma * np.exp(outgoing - incoming) * np.sqrt(after / before))
        if layer.center:
            layer.beta.assign(layer.beta * np.exp(outgoing))
        return
    kernel = call.kernel
    values = grouped(kernel.numpy().astype(np.float64), layer)
    groups, size, outputs = values.shape
    inputs = size // taps(layer)
    incoming = np.broadcast_to(incoming, groups * inputs).reshape(groups, inputs)
    outgoing = np.broadcast_to(outgoing, groups * outputs).reshape(groups, 1, outputs)
    values = values * np.exp(outgoing - np.tile(incoming, taps(layer))[:, :, None])
    kernel.assign(ungrouped(values, layer, kernel.shape))
    if layer.use_bias:
        layer.bias.assign(layer.bias * np.exp(outgoing.ravel()))
