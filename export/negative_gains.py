"""Channels with a negative gain: their op gives the opposite, which a MUL turns back.

A filter's scales are positive. Calibration makes the gains positive too
(`tfq_sv.quantization.folding.positive_gains`), but rounding keeps the signs of the network, and
fine-tuning may change some.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tfq_sv.export import flatbuffer
from tfq_sv.export.filters import Filter, reads_filter
from tfq_sv.export.flatbuffer import Graph


def turned(graph: Graph, found: Mapping[int, Filter]) -> dict[int, Filter]:
    """Returns the filters with the amounts of their gains, after ops that give the signs back."""
    operators, graph.subgraph.operators = graph.subgraph.operators, []
    for operator in operators:
        graph.subgraph.operators.append(operator)
        filter = found.get(int(operator.inputs[1])) if reads_filter(graph.model, operator) else None
        if filter is not None and (filter.gains < 0).any():
            _turn(graph, operator, np.where(filter.gains < 0, -1, 1).astype(np.float32))
    return {index: replace(x, gains=np.abs(x.gains)) for index, x in found.items()}


def _turn(graph: Graph, operator: Any, signs: npt.NDArray[np.float32]) -> None:
    """Makes an op's bias and, right after the op, its output change their signs."""
    tensors = graph.subgraph.tensors
    place = 3 if flatbuffer.op_name(graph.model, operator) == "TRANSPOSE_CONV" else 2
    if len(operator.inputs) > place and operator.inputs[place] >= 0:
        bias = flatbuffer.values(graph.model, tensors[operator.inputs[place]])
        assert bias is not None
        operator.inputs = np.array([*operator.inputs[:place], graph.constant(bias * signs)])
    output = int(operator.outputs[0])
    tensors.append(copy.copy(tensors[output]))
    opposite = len(tensors) - 1
    operator.outputs = np.array([opposite])
    options = schema.MulOptionsT()
    options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
    operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
    graph.op("MUL", [opposite, graph.constant(signs)], output, options=options)
