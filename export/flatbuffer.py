"""Small editing verbs on the TFLite schema's object API."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tfq_sv.errors import InputError

Model = Any
"""A `schema.ModelT`; the generated module has no types."""

FLOAT32 = schema.TensorType.FLOAT32
INT32 = schema.TensorType.INT32
INT8 = schema.TensorType.INT8
UINT8 = schema.TensorType.UINT8

_Output = TypeVar("_Output", int, list[int])

_TYPES = {"float32": FLOAT32, "int32": INT32, "int8": INT8, "uint8": UINT8}
_OP_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # what the schema asks of buffers, and the Python packer does not do


def read(data: bytes) -> Model:
    """Parses a model."""
    return schema.ModelT.InitFromPackedBuf(data)


def strip(model: Model) -> None:
    """Drops the names, signatures and metadata of a float model, which only cost bytes."""
    model.description, model.metadata, model.metadataBuffer = None, None, None
    model.signatureDefs = []
    for subgraph in model.subgraphs:
        subgraph.name = None
        for tensor in subgraph.tensors:
            tensor.name = None
            tensor.quantization = None


class Graph:
    """One subgraph of a model, to which tensors and ops are appended."""

    def __init__(self, model: Model, subgraph: Any = None) -> None:
        """Opens a subgraph of the model; without one, appends a new one."""
        self.model = model
        if subgraph is None:
            subgraph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[])
            model.subgraphs.append(subgraph)
        self.subgraph = subgraph
        self._constants: dict[tuple[int, tuple[int, ...], bytes], int] = {}

    def tensor(self, shape: Sequence[int], kind: int, *, buffer: int = 0) -> int:
        """Appends a tensor; returns its index."""
        tensor = schema.TensorT(shape=np.array(shape, np.int32), type=kind, buffer=buffer)
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def constant(self, values: npt.NDArray[Any], kind: int | None = None) -> int:
        """Returns the index of a constant (of another one-byte type, if `kind` says so).

        Equal ones are one tensor.
        """
        kind = _TYPES[values.dtype.name] if kind is None else kind
        key = kind, values.shape, values.tobytes()
        if key not in self._constants:
            buffer = add_buffer(self.model, key[-1])
            self._constants[key] = self.tensor(values.shape, kind, buffer=buffer)
        return self._constants[key]

    def op(
        self,
        name: str,
        inputs: Iterable[int],
        output: _Output,
        *,
        version: int = 1,
        options: Any = None,
    ) -> _Output:
        """Appends an op; returns its output, or its outputs, as given."""
        operator = schema.OperatorT(
            opcodeIndex=self.op_code(name, version),
            inputs=np.array(list(inputs), np.int32),
            outputs=np.atleast_1d(np.array(output, np.int32)),
        )
        if options is not None:
            operator.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self.subgraph.operators.append(operator)
        return output

    def op_code(self, name: str, version: int) -> int:
        """Returns the index of an op's code in the model; adds it if need be."""
        code = getattr(schema.BuiltinOperator, name)
        for index, known in enumerate(self.model.operatorCodes):
            if (known.builtinCode, known.version) == (code, version):
                return index
        self.model.operatorCodes.append(
            # Runtimes from before 2020 read the first field, which is a signed byte.
            schema.OperatorCodeT(
                deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version
            )
        )
        return len(self.model.operatorCodes) - 1

    def reshape(self, tensor: int, shape: Sequence[int], output: int | None = None) -> int:
        """Appends a RESHAPE to a fixed shape."""
        if output is None:
            output = self.tensor(shape, self.subgraph.tensors[tensor].type)
        options = schema.ReshapeOptionsT(newShape=np.array(shape, np.int32))
        return self.op("RESHAPE", [tensor], output, options=options)

    def gather(self, table: int, positions: int, axis: int = 0) -> int:
        """Appends a GATHER of the table's rows (or along another axis), one for each position."""
        rows, kind = self.subgraph.tensors[table], self.subgraph.tensors[table].type
        places = self.subgraph.tensors[positions].shape
        shape = [*rows.shape[:axis], *places, *rows.shape[axis + 1 :]]
        version = 2 if kind == INT8 else 1
        options = schema.GatherOptionsT(axis=axis)
        output = self.tensor(shape, kind)
        return self.op("GATHER", [table, positions], output, version=version, options=options)

    def cast_int32(self, tensor: int) -> int:
        """Appends a CAST of bytes to int32."""
        output = self.tensor(self.subgraph.tensors[tensor].shape, INT32)
        return self.op("CAST", [tensor], output)

    def arithmetic(self, name: str, left: int, right: int) -> int:
        """Appends an int32 ADD or MUL; shapes are broadcast."""
        options = {"ADD": schema.AddOptionsT, "MUL": schema.MulOptionsT}[name]()
        shapes = [self.subgraph.tensors[index].shape for index in (left, right)]
        output = self.tensor(np.broadcast_shapes(*map(tuple, shapes)), INT32)
        return self.op(name, [left, right], output, options=options)

    def slice(self, tensor: int, begin: Sequence[int], shape: Sequence[int]) -> int:
        """Appends a SLICE: what is from `begin` on, of that shape."""
        kind = self.subgraph.tensors[tensor].type
        bounds = [self.constant(np.array(bound, np.int32)) for bound in (begin, shape)]
        output, version = self.tensor(shape, kind), 2 if kind == INT8 else 1
        options = schema.SliceOptionsT()
        return self.op("SLICE", [tensor, *bounds], output, version=version, options=options)

    def concatenate(self, tensors: Sequence[int], axis: int) -> int:
        """Appends a CONCATENATION."""
        first = self.subgraph.tensors[tensors[0]]
        shape = list(first.shape)
        shape[axis] = sum(self.subgraph.tensors[index].shape[axis] for index in tensors)
        output, version = self.tensor(shape, first.type), 2 if first.type == INT8 else 1
        options = schema.ConcatenationOptionsT(axis=axis)
        return self.op("CONCATENATION", tensors, output, version=version, options=options)

    def tile(self, tensor: int, multiples: Sequence[int]) -> int:
        """Appends a TILE."""
        whole = self.subgraph.tensors[tensor]
        shape = [size * times for size, times in zip(whole.shape, multiples, strict=True)]
        output, version = self.tensor(shape, whole.type), 3 if whole.type == INT8 else 1
        times = self.constant(np.array(multiples, np.int32))
        options = schema.TileOptionsT()
        return self.op("TILE", [tensor, times], output, version=version, options=options)

    def split(self, tensor: int, sizes: Sequence[int], axis: int) -> list[int]:
        """Appends a SPLIT_V along an axis; returns the index of each piece."""
        whole = self.subgraph.tensors[tensor]
        pieces = []
        for size in sizes:
            shape = list(whole.shape)
            shape[axis] = size
            pieces.append(self.tensor(shape, whole.type))
        parameters = [
            self.constant(np.array(sizes, np.int32)),
            self.constant(np.array(axis, np.int32)),
        ]
        options, version = (
            schema.SplitVOptionsT(numSplits=len(sizes)),
            2 if whole.type == INT8 else 1,
        )
        self.op("SPLIT_V", [tensor, *parameters], pieces, version=version, options=options)
        return pieces

    def signature(self, key: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """Makes these tensors the subgraph's inputs and outputs, callable as a signature."""
        self.subgraph.inputs = np.array(list(inputs.values()), np.int32)
        self.subgraph.outputs = np.array(list(outputs.values()), np.int32)
        for name, index in [*inputs.items(), *outputs.items()]:
            self.subgraph.tensors[index].name = name
        maps = [
            [schema.TensorMapT(name=name, tensorIndex=index) for name, index in side.items()]
            for side in (inputs, outputs)
        ]
        self.model.signatureDefs.append(
            schema.SignatureDefT(
                inputs=maps[0],
                outputs=maps[1],
                signatureKey=key,
                subgraphIndex=self.model.subgraphs.index(self.subgraph),
            )
        )


def add_buffer(model: Model, data: bytes) -> int:
    """Appends a buffer; returns its index. `write` merges equal ones."""
    model.buffers.append(schema.BufferT(data=np.frombuffer(data, np.uint8)))
    return len(model.buffers) - 1


def buffer_bytes(model: Model, index: int) -> bytes:
    """Returns a buffer's content; empty for none."""
    data = model.buffers[index].data
    return b"" if data is None else bytes(data)


def values(model: Model, tensor: Any) -> npt.NDArray[np.float32] | None:
    """Returns a float32 constant; None if the tensor is no such thing."""
    data = model.buffers[tensor.buffer].data
    if tensor.type != FLOAT32 or data is None or tensor.shape is None or not len(data):
        return None
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def op_name(model: Model, operator: Any) -> str:
    """Returns an op's name in the schema, such as CONV_2D."""
    return _OP_NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode]


def write(model: Model) -> bytes:
    """Packs a model, each distinct buffer and vector once; leaves out what nothing refers to.

    Tensors and buffers are renumbered in place: hold on to the objects, not to the numbers.
    """
    for number, subgraph in enumerate(model.subgraphs):
        signatures = [known for known in model.signatureDefs if known.subgraphIndex == number]
        _drop_tensors(subgraph, signatures)
    _drop_op_codes(model)
    _merge_buffers(model)
    model.buffers = [_PlacedBuffer(data=buffer.data) for buffer in model.buffers]
    contents = [buffer_bytes(model, index) for index in range(1, len(model.buffers))]
    builder = _Builder(contents)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def buffer_spans(data: bytes) -> list[tuple[int, int]]:
    """Returns where each buffer's content is in a packed model: (start, stop), start 0 if none."""
    model, spans = schema.Model.GetRootAs(data), []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        field = buffer._tab.Offset(4)  # data is the table's first field
        start = buffer._tab.Vector(field) if field else 0
        spans.append((start, start + buffer.DataLength()))
    return spans


def require_builtin(model: Model) -> None:
    """Raises InputError if the model needs ops that a plain TFLite runtime does not have."""
    custom = [code.customCode for code in model.operatorCodes if code.customCode]
    if custom:
        names = ", ".join(sorted(name.decode() for name in custom))
        raise InputError(f"the network uses ops that are not built into TFLite: {names}")


def _drop_tensors(subgraph: Any, signatures: list[Any]) -> None:
    used = {int(i) for side in (subgraph.inputs, subgraph.outputs) for i in side}
    for operator in subgraph.operators:
        used |= {int(i) for side in (operator.inputs, operator.outputs) for i in side if i >= 0}
    number = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}

    def renumber(indices: Iterable[int]) -> npt.NDArray[np.int32]:
        return np.array([number[int(i)] for i in indices], np.int32)

    subgraph.tensors = [subgraph.tensors[old] for old in sorted(used)]
    subgraph.inputs, subgraph.outputs = renumber(subgraph.inputs), renumber(subgraph.outputs)
    for operator in subgraph.operators:
        operator.inputs, operator.outputs = renumber(operator.inputs), renumber(operator.outputs)
    for signature in signatures:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex = number[entry.tensorIndex]


def _drop_op_codes(model: Model) -> None:
    operators = [operator for subgraph in model.subgraphs for operator in subgraph.operators]
    used = sorted({operator.opcodeIndex for operator in operators})
    number = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[old] for old in used]
    for operator in operators:
        operator.opcodeIndex = number[operator.opcodeIndex]


def _merge_buffers(model: Model) -> None:
    holders = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    holders += model.metadata or []
    merged, number = [model.buffers[0]], {b"": 0}
    for holder in holders:
        content = buffer_bytes(model, holder.buffer)
        if content not in number:
            number[content] = len(merged)
            merged.append(model.buffers[holder.buffer])
        holder.buffer = number[content]
    model.buffers = merged


class _Builder(flatbuffers.Builder):
    """Writes what is equal once: zero points alone would cost 8 bytes per channel.

    What others refer to comes first, so that every later reference to it is a valid one. Buffers
    come before all else: a filter's scales and zero points are in the buffer that holds the head of
    the inner file too, in just the form of a vector, and are referred to in there.
    """

    def __init__(self, buffers: Iterable[bytes]) -> None:
        super().__init__(1 << 20)
        self._written: dict[Any, int] = {}
        self._buffers: dict[bytes, int] = {}
        for content in buffers:
            self._buffers[content] = self._write_buffer(content)
        self._heads = {x: place for x, place in self._buffers.items() if x[4:8] == _IDENTIFIER}

    def buffer(self, content: bytes) -> int:
        """Returns the offset of a buffer's data."""
        return self._buffers[content]

    def CreateNumpyVector(self, x: npt.NDArray[Any]) -> int:  # noqa: N802 (overrides)
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            place = self._within_buffers(x)
            self._written[key] = super().CreateNumpyVector(x) if place is None else place
        return self._written[key]

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:  # noqa: N802
        key = s.encode(encoding, errors) if isinstance(s, str) else s  # bytes, where it was read
        if key not in self._written:
            self._written[key] = super().CreateString(key)
        return self._written[key]

    def _write_buffer(self, content: bytes) -> int:
        self.StartVector(1, len(content), _ALIGNMENT)
        self.head -= len(content)
        self.Bytes[self.head : self.head + len(content)] = content
        self.vectorNumElems = len(content)
        return self.EndVector()

    def _within_buffers(self, x: npt.NDArray[Any]) -> int | None:
        if x.dtype not in (np.float32, np.int64):
            return None  # scales and zero points; other vectors are short
        vector = struct.pack("<I", x.size) + x.tobytes()
        for content, offset in self._heads.items():
            start = content.find(vector)
            # Buffers start at multiples of 16; the vector's first element must at its own size.
            if start >= 0 and (start + 4) % x.itemsize == 0:
                return offset - 4 - start  # offsets count from the end; 4 bytes of length first
        return None


class _PlacedBuffer(schema.BufferT):
    def Pack(self, builder: _Builder) -> int:  # noqa: N802 (overrides)
        content = b"" if self.data is None else bytes(self.data)
        schema.BufferStart(builder)
        if content:
            schema.BufferAddData(builder, builder.buffer(content))
        return schema.BufferEnd(builder)
