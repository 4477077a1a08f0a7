"""Fast files: the network that a packed file holds, in the form that a runtime or chip wants.

Each is a `.tflite` of its own with the signatures `embed` and `about`, sealed as packed files are:
what reads those reads these too. FORMAT.md specifies them.
"""

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.export import encoder, fixed_lengths, flatbuffer, metadata, seal
from tfq_sv.export.flatbuffer import FLOAT32, INT8, UINT8, Graph, Model

FORMS = ("int8", "static-int8", "float16")
"""int8: int8 weights, activations quantized as they come. static-int8: both int8, by ranges that
were measured beforehand, as NPUs want it. float16: weights that GPUs read as they are."""

Waveforms = Iterable[npt.NDArray[np.float32]]

_FRONT_END, _NETWORK = "frontend/", "network/"  # of tensors' names, which recipes go by
_HALF = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_WEIGHTED = (*_HALF, "TRANSPOSE_CONV")
# Statistics pooling, gates and positions in time are worth their floats: in int8 they cost most.
_STATIC = (*_HALF, "ADD", "PAD", "RELU")


def fast_file(
    path: str | os.PathLike[str], form: str = "int8", speech: Waveforms | None = None
) -> bytes:
    """Returns a fast file of the network that a packed file holds.

    int8 is the network that the `inflate` signature returns. The other forms are made of it by
    ai-edge-quantizer (`pip install ai-edge-quantizer`); the front end, where the file contains it,
    stays float32 in all of them.

    Args:
        path: what `export_tflite` wrote.
        form: one of `FORMS`.
        speech: for static-int8, a minute or so of what the network takes: waveforms (N,), or
            features (T, feat_dim).

    Raises:
        InputError: no such file or form; it is damaged, not one of ours, or a fast file itself; no
            speech where it is needed, or speech where it is not; ai-edge-quantizer is missing.
    """
    if form not in FORMS:
        raise InputError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    if (form == "static-int8") != (speech is not None):
        raise InputError(f"{form} {'needs' if speech is None else 'takes no'} speech to calibrate")
    content, about = encoder.inflate(path), encoder.read_about(path)
    if form != "int8":
        floats = plain(content)
        content = _half(floats) if speech is None else _static(floats, about, speech)
    model = flatbuffer.read(content)
    if form != "int8":
        fixed_lengths.add(model, about.get("fixed_lengths", {}))
    about["form"] = form
    if form != "int8":
        about["compute"] = "int8" if form == "static-int8" else "float32"
        about["inflated_sha256"] = hashlib.sha256(content).hexdigest()
        about["inflated_bytes"] = len(content)
    metadata.attach(model, about, INT8 if "fixed_lengths" in about else UINT8)
    return seal.seal(flatbuffer.write(model))


def plain(inflated: bytes) -> bytes:
    """Returns an inflated network with float32 weights, its tensors named by part.

    The parts are the front end, up to the first layer with weights after the logarithm of its
    energies, and the network.
    """
    model = flatbuffer.read(inflated)
    fixed_lengths.remove(model)
    graph = Graph(model, model.subgraphs[0])
    renamed: dict[int, int] = {}
    operators = []
    for operator in graph.subgraph.operators:
        name = flatbuffer.op_name(model, operator)
        if name == "DEQUANTIZE" and _is_filter(model, graph, int(operator.inputs[0])):
            renamed[int(operator.outputs[0])] = int(operator.inputs[0])
            continue
        operator.inputs = np.array([renamed.get(int(x), int(x)) for x in operator.inputs], np.int32)
        if name == "FULLY_CONNECTED" and operator.builtinOptions.asymmetricQuantizeInputs:
            operator.builtinOptions.asymmetricQuantizeInputs = False
            operator.opcodeIndex = graph.op_code(name, 5)
        elif name == "CONV_2D":
            operator.opcodeIndex = graph.op_code(name, 1)
        operators.append(operator)
    graph.subgraph.operators = operators
    for index, tensor in enumerate(graph.subgraph.tensors):
        if _is_filter(model, graph, index):
            _widen(model, tensor)
    _name(model, graph)
    return flatbuffer.write(model)


def _is_filter(model: Model, graph: Graph, index: int) -> bool:
    tensor = graph.subgraph.tensors[index]
    return tensor.type == INT8 and bool(flatbuffer.buffer_bytes(model, tensor.buffer))


def _widen(model: Model, tensor: Any) -> None:
    levels = np.frombuffer(flatbuffer.buffer_bytes(model, tensor.buffer), np.int8)
    steps, shape = tensor.quantization.scale, [1] * len(tensor.shape)
    shape[tensor.quantization.quantizedDimension] = len(steps)
    weights = levels.reshape(tensor.shape) * np.reshape(np.float32(steps), shape)
    tensor.buffer = flatbuffer.add_buffer(model, weights.astype(np.float32).tobytes())
    tensor.type, tensor.quantization = FLOAT32, None


def _name(model: Model, graph: Graph) -> None:
    """Names tensors after the part that computes them, or is first to read them."""
    names = [flatbuffer.op_name(model, operator) for operator in graph.subgraph.operators]
    logarithm = names.index("LOG") if "LOG" in names else -1  # -1: no front end in the file
    part = _FRONT_END if logarithm >= 0 else _NETWORK
    ends = {int(i) for side in (graph.subgraph.inputs, graph.subgraph.outputs) for i in side}
    for place, (name, operator) in enumerate(zip(names, graph.subgraph.operators, strict=True)):
        if place > logarithm and name in _WEIGHTED:
            part = _NETWORK
        for index in [*operator.inputs, *operator.outputs]:
            tensor = graph.subgraph.tensors[index] if index >= 0 else None
            if tensor is not None and index not in ends and tensor.name is None:
                tensor.name = f"{part}{index}"
    (output,) = graph.subgraph.outputs
    graph.subgraph.tensors[output].name = f"{_NETWORK}embedding"


def _half(network: bytes) -> bytes:
    quantizer = find_quantizer().Quantizer(bytearray(network))
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for operation in _HALF:
        quantizer.update_quantization_recipe(
            regex=f"{_NETWORK}.*",
            operation_name=qtyping.TFLOperationName(operation),
            algorithm_key=AlgorithmName.FLOAT_CASTING,
            op_config=config,
        )
    return _quantized(quantizer)


def _static(network: bytes, about: Mapping[str, Any], speech: Waveforms) -> bytes:
    quantizer = find_quantizer().Quantizer(bytearray(network))
    from ai_edge_quantizer import qtyping

    for operation in _STATIC:
        quantizer.add_static_config(
            regex=f"{_NETWORK}.*",
            operation_name=qtyping.TFLOperationName(operation),
            activation_num_bits=8,
            weight_num_bits=8,
        )
    inputs = [{about["input"]: np.asarray(x, np.float32)[None]} for x in speech]
    if not inputs:
        raise InputError("there is no speech to calibrate on")
    with _quiet():
        ranges = quantizer.calibrate({"embed": inputs}, num_threads=1)
    return _quantized(quantizer, ranges)


def find_quantizer() -> Any:
    """Returns ai-edge-quantizer's module `quantizer`.

    Raises:
        InputError: it is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer
    except ImportError as error:
        raise InputError(
            f"ai-edge-quantizer makes this form, and is not installed ({error}); "
            "pip install ai-edge-quantizer"
        ) from None
    return quantizer


def _quantized(quantizer: Any, ranges: Any = None) -> bytes:
    """Quantizes; drops the names of inner tensors, which cost bytes."""
    with _quiet():
        data = bytes(quantizer.quantize(ranges).quantized_model)
    model = flatbuffer.read(data)
    for buffer in model.buffers:  # in larger models they follow the FlatBuffer
        if buffer.offset > 1:
            content = data[buffer.offset : buffer.offset + buffer.size]
            buffer.data, buffer.offset, buffer.size = np.frombuffer(content, np.uint8), 0, 0
    subgraph = model.subgraphs[0]
    ends = {int(i) for side in (subgraph.inputs, subgraph.outputs) for i in side}
    for index, tensor in enumerate(subgraph.tensors):
        if index not in ends:
            tensor.name = None
    model.metadata, model.metadataBuffer, model.description = None, None, None
    return flatbuffer.write(model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what ai-edge-quantizer prints: bars, sizes and warnings of its own interpreter."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
