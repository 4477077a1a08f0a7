"""What each layer of a network costs: weights, multiplications, bytes."""

from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.quantization.keras import QuantizeWrapperV2

from tfq_sv.codebook import packed_bytes
from tfq_sv.models.dilation import native_dilation
from tfq_sv.models.entry import takes_waveform
from tfq_sv.models.frontend import front_end
from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.quantization.quantized_model import quantizers_of
from tfq_sv.quantization.quantizers import kernel_attribute

_PRODUCTS = (
    "Conv2D",
    "Conv2DBackpropInput",
    "DepthwiseConv2dNative",
    "MatMul",
    "BatchMatMulV2",
)


@dataclass(frozen=True)
class LayerComplexity:
    """The cost of one convolution or dense layer.

    Attributes:
        kind: its class, "Conv2D" for instance.
        kernel: shape of the kernel, as Keras has it.
        macs: multiply-accumulate operations for one utterance.
        bits: bits per weight; 32 where it is float.
    """

    kind: str
    kernel: tuple[int, ...]
    macs: int
    bits: float

    @property
    def weights(self) -> int:
        """How many weights the kernel has."""
        return int(tf.TensorShape(self.kernel).num_elements())

    def bytes(self, bits: float | None = None) -> int:
        """Bytes of the kernel at so many bits (32: float); as it is if None."""
        return packed_bytes(self.weights, self.bits if bits is None else bits)


def layer_complexity(model: keras.Model, frames: int = 200) -> dict[str, LayerComplexity]:
    """Counts what convolutions and dense layers cost, quantized or not.

    Args:
        model: features (B, T, ...) or waveforms (B, N) -> embedding.
        frames: length T of the utterance that operations are counted for; of waveforms, N is as
            many of the front end's frame shifts.

    Returns:
        Layer name -> cost, in the model's order. A layer that is used twice is counted twice in
        `macs`, once in `weights`.

    >>> from tfq_sv import models
    >>> costs = layer_complexity(models.build("ResNet34"))
    >>> costs["conv1"].kernel, round(sum(cost.macs for cost in costs.values()) / 1e9, 3)
    ((3, 3, 1, 32), 4.528)
    """
    model = plain_layers(model)
    shape = [1, *model.input_shape[1:]]
    if None in shape:
        free = frames * front_end(model).frame_shift if takes_waveform(model) else frames
        shape = [free if size is None else size for size in shape]
    run = tf.function(lambda x: model(x, training=False), autograph=False)
    with native_dilation(model):
        graph = run.get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph
    scopes = {layer.name: layer for layer in model.layers}
    macs = dict.fromkeys(scopes, 0)
    for operation in graph.get_operations():
        scope = next((part for part in operation.name.split("/") if part in scopes), None)
        if scope is not None and operation.type in _PRODUCTS:
            macs[scope] += _macs(operation)
    books = quantizers_of(model)
    costs = {}
    for scope, layer in scopes.items():
        inner = layer.layer if isinstance(layer, QuantizeWrapperV2) else layer
        if attribute := kernel_attribute(inner):
            kernel = tuple(getattr(inner, attribute).shape)
            bits = books[inner.name].bits if inner.name in books else 32
            costs[inner.name] = LayerComplexity(type(inner).__name__, kernel, macs[scope], bits)
    return costs


def _macs(operation: tf.Operation) -> int:
    if operation.type == "Conv2DBackpropInput":  # each input meets the kernel of its channel
        height, width, outputs, _ = operation.inputs[1].shape
        return int(operation.inputs[2].shape.num_elements() * height * width * outputs)
    outputs = operation.outputs[0].shape.num_elements()
    kernel = operation.inputs[1].shape
    if operation.type == "DepthwiseConv2dNative":
        return int(outputs * kernel[0] * kernel[1])
    inputs = kernel[-2] if operation.type != "Conv2D" else kernel[:-1].num_elements()
    return int(outputs * inputs)
