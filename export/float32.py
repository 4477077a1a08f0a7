"""A Keras network as a plain float32 `.tflite`, by TensorFlow's converter."""

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging
from ai_edge_litert import schema_py_generated as schema

from tfq_sv import files
from tfq_sv.errors import InputError
from tfq_sv.export import flatbuffer, frontend
from tfq_sv.export.flatbuffer import FLOAT32

_PLANNED_SAMPLES = 16000


def export_float32(model: Any, path: str | os.PathLike[str], input: str = "waveform") -> int:
    """Writes a float model as the plain float32 `.tflite` that the others are compared with.

    Args:
        model: features (B, T, feat_dim) -> embedding (B, embed_dim), not quantized.
        path: the file to write.
        input: as in `export_tflite`.

    Returns:
        Its size in bytes.

    Raises:
        InputError: an input that is not there; a model that is no such network.
    """
    data = convert(model, input)
    with files.atomic(path) as temporary:
        temporary.write_bytes(data)
    return len(data)


def convert(model: Any, input: str, configure: Callable[[Any], None] | None = None) -> bytes:
    """Returns a model as a float32 `.tflite` of batch 1 and free time; see `export_float32`.

    `configure`, called with the TFLiteConverter before it runs, may make another form of it.
    """
    import tensorflow as tf

    from tfq_sv import models
    from tfq_sv.models.dilation import native_dilation
    from tfq_sv.models.entry import (
        as_entry,
        features_shape,
        one_embedding,
        takes_features,
        takes_waveform,
    )

    if input not in ("waveform", "features"):
        raise InputError(f'input must be "waveform" or "features", not {input!r}')
    one_embedding(model, model.output)  # refuses several
    raw = takes_waveform(model)
    if raw and input == "features":
        raise InputError(f'{model.name} takes waveforms (B, N); export it with input="waveform"')
    if input == "waveform" and not raw and not takes_features(model):
        shape = tuple(model.inputs[0].shape)
        raise InputError(
            f'{model.name} takes {shape}, no mel bins; export it with input="features"'
        )
    options = models.front_end(model)
    tables = frontend.constants(options) if input == "waveform" and not raw else {}
    shape = (1, None) if input == "waveform" else (1, *model.inputs[0].shape[1:])
    if input == "features":
        shape = (1, *features_shape(model))
    signature = [
        tf.TensorSpec(shape, tf.float32, input),
        *(tf.TensorSpec(table.shape, tf.float32, name) for name, table in tables.items()),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def embed(entry: Any, *rest: Any) -> Any:
        if tables:
            entry = frontend.log_mel(entry, options, dict(zip(tables, rest, strict=True)))
        return one_embedding(model, model(as_entry(model, entry), training=False))

    with native_dilation(model):
        function = embed.get_concrete_function()
    try:
        data = _converted(function, configure)
    except Exception as error:  # the converter's own class is no public name
        raise _named(model, function, error) from None
    return flatbuffer.write(_finished(data, input, tables))


def _named(model: Any, function: Any, error: Exception) -> InputError:
    """Says in one line which layer has an operation that the converter lacks."""
    missing = re.findall(r"'?tf\.(\w+)'? op (?:is neither a custom op nor a|requires)", str(error))
    if not missing:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = reason.rpartition("error: ")[2]  # without the converter's own place
        return InputError(f"{model.name} cannot be converted: {reason:.300}")
    layers = {layer.name: layer for layer in model.layers}
    library = {f.signature.name: f for f in function.graph.as_graph_def().library.function}
    for operation in function.graph.get_operations():
        found = _computed(operation.node_def, library).intersection(missing)
        if found:
            name = next((x for x in operation.name.split("/") if x in layers), operation.name)
            kind = f" ({type(layers[name]).__name__})" if name in layers else ""
            return InputError(
                f"layer {name}{kind} computes {min(found)}, for which the .tflite format has "
                "no built-in operation; replace that layer by others"
            )
    return InputError(f"{model.name} computes {missing[0]}, which the .tflite format lacks")


def _computed(node: Any, library: Mapping[str, Any]) -> set[str]:
    """The operations of a node, and of the functions that it calls: loops, recurrent layers."""
    found = {node.op}
    for value in node.attr.values():
        if value.func.name in library:
            for inner in library[value.func.name].node_def:
                found |= _computed(inner, library)
    return found


def _converted(function: Any, configure: Callable[[Any], None] | None) -> bytes:
    """Converts a function of TensorFlow.

    Given the model too, the converter would go by way of a SavedModel: the same comes out, after
    far longer. It warns those who do not give it.
    """
    import tensorflow as tf

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        if configure:
            configure(converter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with _without_native_errors():
                return bytes(converter.convert())
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _without_native_errors() -> Iterator[None]:
    """Without the megabytes of MLIR that the converter writes beside its exception."""
    try:
        saved = os.dup(2)
    except OSError:  # no standard error to write to
        yield
        return
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _finished(
    data: bytes, input: str, tables: Mapping[str, npt.NDArray[np.float32]]
) -> flatbuffer.Model:
    """Makes the tables, inputs so far, constants; gives the network its signature."""
    model = flatbuffer.read(data)
    graph = flatbuffer.Graph(model, model.subgraphs[0])
    tensors = graph.subgraph.tensors
    (entry, *rest), (embedding,) = graph.subgraph.inputs, graph.subgraph.outputs
    for index, table in zip(rest, tables.values(), strict=True):
        tensors[index].buffer = flatbuffer.add_buffer(model, table.tobytes())
    if input == "waveform":
        # Runtimes plan for this shape before anybody resizes it; one sample has no frame.
        tensors[entry].shape = np.array([1, _PLANNED_SAMPLES], np.int32)
    _require_one(graph, int(entry))
    graph.signature("embed", {input: int(entry)}, {"embedding": int(embedding)})
    return model


def _require_one(graph: flatbuffer.Graph, entry: int) -> None:
    """Makes the network fail on any input but one recording of the right rank.

    Its RESHAPEs are for batch 1: two recordings would be read as one, glued together. TRANSPOSE
    refuses another rank, SQUEEZE a first dimension other than 1, on all runtimes and before the
    network runs; what comes out of them is what went in.
    """
    tensor, later = graph.subgraph.tensors[entry], graph.subgraph.operators
    shape = [int(size) for size in tensor.shape]
    graph.subgraph.operators = []
    order = graph.constant(np.arange(len(shape), dtype=np.int32))
    first = graph.constant(np.zeros(1, np.int32))
    ranked, single, checked = (graph.tensor(part, FLOAT32) for part in (shape, shape[1:], shape))
    graph.op("TRANSPOSE", [entry, order], ranked, options=schema.TransposeOptionsT())
    options = schema.SqueezeOptionsT(squeezeDims=np.zeros(1, np.int32))
    graph.op("SQUEEZE", [ranked], single, options=options)
    graph.op("EXPAND_DIMS", [single, first], checked, options=schema.ExpandDimsOptionsT())
    signature = tensor.shapeSignature
    if signature is not None:
        for index, free in ((ranked, signature), (single, signature[1:]), (checked, signature)):
            graph.subgraph.tensors[index].shapeSignature = np.array(free, np.int32)
    for operator in later:
        operator.inputs = np.where(operator.inputs == entry, checked, operator.inputs)
    graph.subgraph.operators += later
