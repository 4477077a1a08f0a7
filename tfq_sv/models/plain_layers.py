"""A network again, in layers of one kernel each, which is what codebooks are for."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.models.layer_copies import copied

kinds = keras.layers

Step = tuple[keras.layers.Layer, slice]
"""A layer, and which of the weights of the one that it replaces it takes."""

Values = list[tuple[keras.layers.Layer, list[Any]]]
"""Layers, and what their weights are to be."""


def plain_layers(model: keras.Model) -> keras.Model:
    """Returns the same network with fewer kinds of layers; the model itself if it has no others.

    | layer | becomes |
    |---|---|
    | TimeDistributed(Dense) | Dense of that name, which works on the last axis in any case |
    | SeparableConv1D, SeparableConv2D | `name.depthwise` and `name.pointwise` |
    | a model inside the model | its layers, `model.layer` |

    Args:
        model: functional, or sequential with an input shape.

    Returns:
        A model with copies of the weights, of the same inputs and outputs.

    >>> separable = kinds.SeparableConv1D(8, 3, name="a")
    >>> model = keras.Sequential([keras.Input((None, 4)), separable])
    >>> [layer.name for layer in plain_layers(model).layers][1:]
    ['a.depthwise', 'a.pointwise']
    """
    if not any(_is_nested(layer) or _steps(layer, layer.name) for layer in model.layers):
        return model
    inputs = [
        keras.Input(batch_shape=tuple(x.shape), dtype=x.dtype, name=x.node.layer.name)
        for x in model.inputs
    ]
    copies: dict[int, Callable[..., Any]] = {}
    values: Values = []
    outputs = _apply(model, inputs, copies, values, "")
    # Inputs and outputs keep their structure: a list, a dictionary by name, a single one.
    named = dict(zip(model.input_names, inputs, strict=True))
    entry = named if isinstance(model._nested_inputs, dict) else _single(inputs)
    plain = keras.Model(entry, outputs, name=model.name)
    for layer, weights in values:
        layer.set_weights(weights)
    return plain


def _single(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _is_nested(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.Model) and getattr(layer, "_is_graph_network", False)


def _apply(
    model: keras.Model,
    inputs: Any,
    copies: dict[int, Callable[..., Any]],
    values: Values,
    prefix: str,
) -> Any:
    """Runs a model's graph on other tensors, each layer as its copy; as Keras itself runs it."""
    flat = model._flatten_to_reference_inputs(inputs)
    tensors = {
        str(id(old)): [new] * model._tensor_usage_count[str(id(old))]
        for old, new in zip(model.inputs, flat, strict=True)
    }
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            arguments, options = node.map_arguments(tensors)
            layer = node.layer
            if _is_nested(layer):
                inner = f"{prefix}{layer.name}."
                found = _apply(layer, arguments[0], copies, values, inner)
            else:
                if id(layer) not in copies:
                    copies[id(layer)] = _copy(layer, prefix, values)
                found = copies[id(layer)](*arguments, **options)
            for old, new in zip(node.flat_output_ids, tf.nest.flatten(found), strict=True):
                tensors[old] = [new] * model._tensor_usage_count[old]
    return tf.nest.map_structure(lambda x: tensors[str(id(x))].pop(), model._nested_outputs)


def _copy(
    layer: keras.layers.Layer,
    prefix: str,
    values: Values,
) -> Callable[..., Any]:
    """A layer, or several that do the same; `values` gets what their weights are to be."""
    name = prefix + layer.name
    whole = copied(layer, name=name)
    steps = _steps(layer, name) or [(whole, slice(None))]
    weights = layer.get_weights()
    values += [(step, weights[part]) for step, part in steps]

    def run(*arguments: Any, **options: Any) -> Any:
        found = steps[0][0](*arguments, **options)
        for step, _ in steps[1:]:
            found = step(found)
        return found

    return run


def _steps(layer: keras.layers.Layer, name: str) -> list[Step]:
    """Layers of one kernel each that do the same; none if the layer is left as it is."""
    config = layer.get_config() if type(layer) in _REPLACED else {}
    if type(layer) is kinds.TimeDistributed and type(layer.layer) is kinds.Dense:
        return [(kinds.Dense.from_config({**config["layer"]["config"], "name": name}), slice(None))]
    if type(layer) not in _SEPARABLE or layer.padding == "causal":
        return []
    depthwise, pointwise = _SEPARABLE[type(layer)]
    shared = {key: config[key] for key in ("data_format", "dtype", "trainable")}
    sizes = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")
    first = depthwise(
        **{key: config[key] for key in sizes},
        **shared,
        use_bias=False,
        name=f"{name}.depthwise",
    )
    second = pointwise(
        config["filters"],
        1,
        activation=config["activation"],
        use_bias=config["use_bias"],
        **shared,
        name=f"{name}.pointwise",
    )
    return [(first, slice(0, 1)), (second, slice(1, None))]


_SEPARABLE = {
    kinds.SeparableConv1D: (kinds.DepthwiseConv1D, kinds.Conv1D),
    kinds.SeparableConv2D: (kinds.DepthwiseConv2D, kinds.Conv2D),
}
_REPLACED = {kinds.TimeDistributed, *_SEPARABLE}
