"""A functional network, call by call."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv.quantization.quantizers import kernel_attribute


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        layer: what is called; the layer inside, where tfmot has wrapped it.
        wrapper: the layer as the graph has it.
        inputs: keys of the tensors that come in.
        outputs: keys of those that go out.
        first: whether no earlier call is of the same layer.
    """

    layer: keras.layers.Layer
    wrapper: keras.layers.Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    first: bool
    node: Any

    @property
    def quantizer(self) -> Any:
        """Of a layer that is quantized; None otherwise."""
        return None if self.wrapper is self.layer else self.wrapper.quantize_config.quantizer

    @property
    def kernel(self) -> tf.Variable:
        """The float kernel: the latent one of a layer that is quantized."""
        if self.quantizer is not None:
            return self.quantizer.latent
        return getattr(self.layer, str(kernel_attribute(self.layer)))

    @property
    def rank(self) -> int:
        """Axes of what goes out."""
        return len(tf.nest.flatten(self.node.outputs)[0].shape)

    @property
    def channels(self) -> int:
        """The last axis of what goes out."""
        return int(tf.nest.flatten(self.node.outputs)[0].shape[-1])

    @property
    def input_channels(self) -> list[int]:
        """The last axis of each tensor that comes in."""
        return [int(tensor.shape[-1]) for tensor in tf.nest.flatten(self.node.keras_inputs)]


def calls(model: keras.Model) -> Iterator[Call]:
    """Yields a functional network's calls in the order in which Keras runs them.

    >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,)), keras.layers.ReLU()])
    >>> [type(call.layer).__name__ for call in calls(model)]
    ['Dense', 'ReLU']
    """
    seen = set()
    depths = sorted(model._nodes_by_depth, reverse=True)
    for node in (node for depth in depths for node in model._nodes_by_depth[depth]):
        if node.is_input:
            continue
        wrapper = node.layer
        wrapped = isinstance(wrapper, tfmot.quantization.keras.QuantizeWrapperV2)
        yield Call(
            wrapper.layer if wrapped else wrapper,
            wrapper,
            tuple(map(str, node.flat_input_ids)),
            tuple(map(str, node.flat_output_ids)),
            wrapper not in seen,
            node,
        )
        seen.add(wrapper)


def inputs_of_calls(
    model: keras.Model,
    features: tf.Tensor,
    instead: Mapping[keras.layers.Layer, keras.layers.Layer] | None = None,
) -> Iterator[tuple[Call, Any]]:
    """Runs a network of one input, and yields each call with what comes in, before it is made.

    So a layer can be changed before it is called. Where there is a layer `instead`, that is
    called. A tensor is dropped with its last use.

    >>> model = keras.Sequential([keras.layers.ReLU(input_shape=(1,)), keras.layers.ReLU()])
    >>> [x.numpy().item() for _, x in inputs_of_calls(model, tf.constant([[-2.0]]))]
    [-2.0, 0.0]
    """
    uses = model._tensor_usage_count
    tensors = {}

    def keep(key: str, tensor: Any) -> None:
        tensors[key] = [tensor] * uses[key]  # `map_arguments` takes one for each use

    # As the model itself does: types are cast, and a missing last axis is added.
    flat = model._flatten_to_reference_inputs(features)
    for symbol, tensor in zip(model.inputs, flat, strict=True):
        keep(str(id(symbol)), model._conform_to_reference_input(tensor, ref_input=symbol))
    for call in calls(model):
        if instead and (layer := instead.get(call.wrapper)) is not None:
            call = replace(call, layer=layer, wrapper=layer)
        args, kwargs = call.node.map_arguments(tensors)
        yield call, args[0] if args else kwargs["inputs"]
        if call.wrapper._expects_training_arg and kwargs.get("training") is None:
            kwargs["training"] = False
        outputs = tf.nest.flatten(call.wrapper(*args, **kwargs))
        for key, tensor in zip(call.outputs, outputs, strict=True):
            if uses[key]:
                keep(key, tensor)
