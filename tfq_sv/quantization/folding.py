"""BatchNorms, and what of them the weights of other layers take over, exactly.

The converter folds a BatchNorm into a convolution right before it, as a factor for each output.
Files store these as scales, which are positive: `positive_gains` takes care of that. ECAPA-TDNN has
a ReLU between, and CAM++ has the convolution after it. What can go elsewhere without changing the
function:

- Gains, all positive, pass back through a ReLU into the convolution before it, as a factor for each
  of its outputs, which files store in any case: g relu(z) = relu(g z).
- The shift passes on into the bias of what follows, if that is linear and sees no zero padding.
  Padded zeros would be shifted too, and they must not be.

Gains do not pass on: a factor for each input of a kernel would leave no codebook of it. Nor do
shifts pass a ReLU. So CAM++ keeps its BatchNorms, and `unfolded` says what they cost.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from tfq_sv.quantization.graph import Call, calls
from tfq_sv.quantization.quantizers import DEPTHWISE, TRANSPOSED, kernel_attribute

Array = npt.NDArray[np.float64]

kinds = keras.layers

_CONVOLUTIONS = (kinds.Conv1D, kinds.Conv2D, kinds.DepthwiseConv2D)
_MEANS = (kinds.GlobalAveragePooling1D, kinds.GlobalAveragePooling2D)


@dataclass(frozen=True)
class UnfoldedNorm:
    """A BatchNorm that no convolution before it takes up, and what a file keeps of it.

    Attributes:
        channels: how many.
        gains: whether the file multiplies; otherwise `before` does.
        shift: whether the file adds; otherwise the layers `after` do.
        before: the convolution before its ReLU; empty if the gains stay.
        after: layers whose biases take the shift.
    """

    channels: int
    gains: bool
    shift: bool
    before: str = ""
    after: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of its float vectors in the file."""
        return 4 * self.channels * (self.gains + self.shift)


def unfolded(model: keras.Model) -> dict[str, UnfoldedNorm]:
    """Returns the BatchNorms that no convolution or dense layer is right in front of, by name.

    >>> from tfq_sv import models
    >>> ecapa = unfolded(models.build("ECAPA_TDNN_c512", channels=16))
    >>> ecapa["layer1.bn"].before, ecapa["layer2.se_res2block.1.bns.6"].after
    ('layer1.conv', ('layer2.se_res2block.2.conv',))
    >>> len(unfolded(models.build("CAMPPlus", channels=4)))
    55
    """
    return {norm.call.layer.name: norm.unfolded for norm in _norms(model)}


@contextmanager
def folded(model: keras.Model, shifts: bool = True) -> Iterator[None]:
    """Within, what others can take over of such BatchNorms is in their weights.

    The function is the same. Kernels are scaled by outputs alone.

    Args:
        model: functional, not quantized.
        shifts: whether shifts move too.
    """
    kept = [(weight, weight.numpy()) for weight in model.weights]
    try:
        for norm in _norms(model):
            _fold(norm, shifts)
        yield
    finally:
        for weight, value in kept:
            weight.assign(value)


def positive_gains(model: keras.Model) -> None:
    """Makes the gains of BatchNorms that the converter folds positive, in place.

    Where one is negative, the channel's kernel, bias, mean and gain all change their sign: the
    function stays, to the last bit. A kernel with several BatchNorms keeps its signs, and so does
    that of a transposed convolution.

    Args:
        model: functional, quantized or not; codes have to be found again.

    >>> layers = [keras.layers.Dense(1, input_shape=(1,)), keras.layers.BatchNormalization()]
    >>> model = keras.Sequential(layers)
    >>> model.set_weights([np.float32([x]) for x in ([2], 3, -1, 4, 5, 6)])
    >>> positive_gains(model)
    >>> [weights.item() for weights in model.get_weights()]
    [-2.0, -3.0, 1.0, 4.0, -5.0, 6.0]
    """
    graph = _Graph(model)
    for call in graph.calls:
        norm, maker = call.layer, graph.makers.get(call.inputs[0])
        if (
            isinstance(norm, kinds.BatchNormalization)
            and norm.scale
            and maker is not None
            and _takes_norm(maker)
            and not isinstance(maker.layer, TRANSPOSED)
            and all(map(graph.is_single_call, (maker, call)))
            and graph.taken_once(call.inputs[0])
            and list(norm.axis) == [call.rank - 1]
        ):
            signs = np.where(norm.gamma.numpy() < 0, -1.0, 1.0)
            _scale_outputs(maker, signs)
            for weight in (norm.gamma, norm.moving_mean):
                weight.assign(weight.numpy() * signs)


def scale_and_shift(norm: keras.layers.BatchNormalization) -> tuple[Array, Array]:
    """What a BatchNorm multiplies with, and adds: float64 (C,) each."""
    gains = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon, dtype=np.float64)
    gains *= norm.gamma.numpy() if norm.scale else 1
    shift = norm.beta.numpy() if norm.center else 0
    return gains, shift - gains * norm.moving_mean.numpy()


@dataclass(frozen=True)
class _Norm:
    call: Call
    before: Call | None
    after: tuple[tuple[Call, int], ...]  # layers, and the first channel of theirs

    @property
    def unfolded(self) -> UnfoldedNorm:
        return UnfoldedNorm(
            self.call.channels,
            self.before is None,
            not self.after,
            self.before.layer.name if self.before else "",
            tuple(call.layer.name for call, _ in self.after),
        )


class _Graph:
    """Who makes a tensor and who takes it."""

    def __init__(self, model: keras.Model) -> None:
        self.calls = list(calls(model))
        self.makers = {key: call for call in self.calls for key in call.outputs}
        self.takers: dict[str, list[Call]] = defaultdict(list)
        counts: dict[str, int] = defaultdict(int)
        for call in self.calls:
            counts[call.layer.name] += 1
            for key in call.inputs:
                self.takers[key].append(call)
        self.repeated = {name for name, count in counts.items() if count > 1}
        self._outputs = {str(id(tensor)) for tensor in model.outputs}

    def is_single_call(self, call: Call) -> bool:
        """Whether the layer is called once, and has one input and one output."""
        single = len(call.inputs) == len(call.outputs) == 1
        return single and call.layer.name not in self.repeated

    def taken_once(self, key: str) -> bool:
        """Whether one call, and nobody else, takes the tensor."""
        return len(self.takers[key]) == 1 and key not in self._outputs

    def given_out(self, key: str) -> bool:
        """Whether the tensor is one of the model's outputs."""
        return key in self._outputs


def _norms(model: keras.Model) -> list[_Norm]:
    graph, norms = _Graph(model), []
    for call in graph.calls:
        if not isinstance(call.layer, kinds.BatchNormalization) or not call.first:
            continue
        maker = graph.makers.get(call.inputs[0])
        if maker and _takes_norm(maker) and graph.taken_once(call.inputs[0]):
            continue
        usual = graph.is_single_call(call) and list(call.layer.axis) == [call.rank - 1]
        gain_target = _gain_target(graph, call) if usual and call.layer.scale else None
        shift_targets = _shift_targets(graph, call.outputs[0], 0) if usual else None
        if gain_target is None and any(
            isinstance(x.layer, kinds.Dense) for x, _ in shift_targets or ()
        ):
            # The converter would multiply gains alone into the kernel, and lose its codes.
            shift_targets = None
        norms.append(_Norm(call, gain_target, tuple(shift_targets or ())))
    return norms


def _takes_norm(call: Call) -> bool:
    """Whether the converter folds a BatchNorm into it."""
    linear = getattr(call.layer, "activation", None) in (None, keras.activations.linear)
    return bool(kernel_attribute(call.layer)) and linear


def _gain_target(graph: _Graph, call: Call) -> Call | None:
    """The convolution before a BatchNorm's ReLU, if it can take the gains."""
    gains, _ = scale_and_shift(call.layer)
    relu = graph.makers.get(call.inputs[0])
    if relu is None or not (gains > 0).all() or not graph.taken_once(call.inputs[0]):
        return None
    if _is_relu(relu.layer) and graph.is_single_call(relu) and graph.taken_once(relu.inputs[0]):
        producer = graph.makers.get(relu.inputs[0])
        linear = producer is not None and _takes_norm(producer)
    else:
        producer = relu
        linear = getattr(relu.layer, "activation", None) is keras.activations.relu
    if (
        producer is None
        or not linear
        or not _is_convolution(producer.layer)
        or not graph.is_single_call(producer)
    ):
        return None
    return producer


def _is_relu(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, kinds.ReLU):
        return layer.max_value is None and not layer.threshold
    return isinstance(layer, kinds.Activation) and layer.activation is keras.activations.relu


def _is_convolution(layer: keras.layers.Layer) -> bool:
    """A dense layer's filter with a factor for each output would not be read as int8."""
    usual = isinstance(layer, _CONVOLUTIONS) and not isinstance(layer, TRANSPOSED)
    return usual and layer.data_format == "channels_last"


def _shift_targets(graph: _Graph, key: str, first: int) -> list[tuple[Call, int]] | None:
    """The layers whose biases can take a shift of channels from `first` on; None if not all can."""
    if graph.given_out(key) or not graph.takers[key]:
        return None
    targets: list[tuple[Call, int]] = []
    for call in graph.takers[key]:
        if call.layer.name in graph.repeated:
            return None
        if _takes_shift(call.layer):
            targets.append((call, first))
            continue
        offset = _passes_shift(call, key)
        further = None if offset is None else _shift_targets(graph, call.outputs[0], first + offset)
        if further is None:
            return None
        targets += further
    return targets


def _takes_shift(layer: keras.layers.Layer) -> bool:
    """Whether a bias can take what is added to each of the layer's inputs."""
    if not getattr(layer, "use_bias", False):
        return False
    if isinstance(layer, kinds.Dense):
        return True
    if not _is_convolution(layer) or getattr(layer, "groups", 1) != 1:
        return False
    return layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)


def _passes_shift(call: Call, key: str) -> int | None:
    """How many channels come before those of a tensor, where they go on as they are."""
    layer = call.layer
    if isinstance(layer, kinds.Concatenate) and layer.axis in (-1, call.rank - 1):
        if call.inputs.count(key) != 1:
            return None
        return sum(call.input_channels[: call.inputs.index(key)])
    kept = isinstance(layer, kinds.Reshape) and call.channels == call.input_channels[0]
    return 0 if kept or isinstance(layer, (*_MEANS, kinds.Dropout)) else None


def _fold(norm: _Norm, shifts: bool) -> None:
    layer = norm.call.layer
    gains, shift = scale_and_shift(layer)
    moved = bool(norm.after) and shifts
    for call, first in norm.after if moved else ():
        _shift_inputs(call.layer, shift, first)
    if norm.before is not None:
        _scale_outputs(norm.before, gains)
        layer.gamma.assign(np.ones_like(gains))
        # So that float32 makes the root one exactly.
        layer.moving_variance.assign(np.full(gains.shape, 1 - layer.epsilon))
    if norm.before is not None or moved:
        layer.moving_mean.assign(np.zeros_like(shift) if moved else -shift)
        if layer.center:
            layer.beta.assign(np.zeros_like(shift))


def _scale_outputs(call: Call, factors: Array) -> None:
    kernel, layer = call.kernel, call.layer
    shape = kernel.shape[-2:] if isinstance(layer, DEPTHWISE) else kernel.shape[-1:]
    kernel.assign(kernel.numpy() * factors.reshape(shape))
    if layer.use_bias:
        layer.bias.assign(layer.bias.numpy() * factors)


def _shift_inputs(layer: keras.layers.Layer, shift: Array, first: int) -> None:
    kernel = getattr(layer, str(kernel_attribute(layer))).numpy().astype(np.float64)
    if isinstance(layer, DEPTHWISE):
        part = kernel[..., first : first + len(shift), :]
        added = np.zeros(kernel.shape[-2:])
        added[first : first + len(shift)] = part.sum(axis=(0, 1)) * shift[:, None]
        layer.bias.assign_add(added.ravel())
        return
    part = kernel[..., first : first + len(shift), :]
    layer.bias.assign_add(part.reshape(-1, *part.shape[-2:]).sum(axis=0).T @ shift)


def cost(norms: Mapping[str, UnfoldedNorm]) -> int:
    """Bytes of the float vectors of all."""
    return sum(norm.bytes for norm in norms.values())


def described(norms: Mapping[str, UnfoldedNorm]) -> str:
    """Says in one line what a file keeps of BatchNorms; empty if nothing.

    >>> described({"bn": UnfoldedNorm(512, gains=True, shift=True)})
    'BatchNorms that no kernel can take up: 1, 4,096 bytes of floats'
    """
    count = sum(norm.gains or norm.shift for norm in norms.values())
    if not count:
        return ""
    return f"BatchNorms that no kernel can take up: {count}, {cost(norms):,} bytes of floats"
