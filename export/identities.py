"""Drops multiplications by one, which the converter leaves where a BatchNorm's gains went away."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq_sv.export import flatbuffer
from tfq_sv.export.flatbuffer import Model

_ROUNDING = 2.0**-22  # the converter's reciprocal root is off by a unit in the last place


def drop_ones(model: Model) -> None:
    """Removes, in place, each MUL by a constant of ones whose answer is what came in."""
    for subgraph in model.subgraphs:
        given_out = {int(index) for index in subgraph.outputs}
        same: dict[int, int] = {}
        kept = []
        for operator in subgraph.operators:
            operator.inputs = np.array(
                [same.get(int(i), int(i)) for i in operator.inputs], np.int32
            )
            other, output = _times_one(model, subgraph, operator), int(operator.outputs[0])
            if other is None or output in given_out:
                kept.append(operator)
            else:
                same[output] = other
        subgraph.operators = kept


def _times_one(model: Model, subgraph: Any, operator: Any) -> int | None:
    """The tensor that a MUL by ones leaves as it is; None for any other operator."""
    if flatbuffer.op_name(model, operator) != "MUL":
        return None
    options = operator.builtinOptions
    none = schema.ActivationFunctionType.NONE
    if options is not None and options.fusedActivationFunction != none:
        return None
    left, right = map(int, operator.inputs)
    for ones, other in ((right, left), (left, right)):
        values = flatbuffer.values(model, subgraph.tensors[ones])
        tensor = subgraph.tensors[other]
        # Broadcasting must not add to the shape.
        if values is None or tensor.shape is None or values.ndim > len(tensor.shape):
            continue
        sizes = zip(values.shape[::-1], list(tensor.shape)[::-1], strict=False)
        fits = all(size in (1, whole) for size, whole in sizes)
        if fits and (np.abs(values - 1) <= _ROUNDING).all():
            return other
    return None
