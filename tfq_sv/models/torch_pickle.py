"""Pickles as `torch.save` writes them, read without running anything.

A pickle is a program, and a damaged or hostile one can hold up even PyTorch's reader for weights,
by a name of half a megabyte for instance. So its opcodes are interpreted here. Those that make
numbers, texts, containers and tensors do so; whatever else a pickle asks for is `INERT`.

Source: Python's pickletools, for the opcodes; PyTorch's torch/_utils.py, for what makes tensors.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Storage = Callable[[str, str, int], Any]
BFLOAT16 = "bfloat16"

_KINDS = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
}
_MOST_DIMENSIONS = 32  # NumPy's own limit, before 2.0
_MOST_VALUES = 1 << 28  # of a sparse tensor
_NUMBERS_AND_TEXTS = frozenset(
    """
    BINBYTES BINBYTES8 BINFLOAT BININT BININT1 BININT2 BINSTRING BINUNICODE BINUNICODE8 FLOAT INT
    LONG LONG1 LONG4 SHORT_BINBYTES SHORT_BINSTRING SHORT_BINUNICODE STRING UNICODE
    """.split()
)


class Inert:
    """Stands for an object of a class that is not known; its class is never looked up."""


class NoValues:
    """A tensor without values, or of a kind that NumPy does not know."""


INERT = Inert()


@dataclass(frozen=True)
class _Function:
    """What a pickle may call."""

    call: Callable[..., Any]


@dataclass(frozen=True)
class _Kind:
    """Of a storage's numbers: a NumPy type, or `BFLOAT16`."""

    name: str


def read(stream: IO[bytes], objects: list[str], storage: Storage | None = None) -> Any:
    """Reads a pickle.

    Args:
        stream: at the pickle's start; is left after its end.
        objects: takes the names of classes and functions that are not known.
        storage: (key, kind, count) -> a storage's numbers; None where a pickle has no tensors.

    Returns:
        Numbers, texts, tuples, lists and dictionaries, whose keys are numbers and texts; tensors
        are arrays, or `NoValues`; anything else is `INERT`.

    Raises:
        ValueError, TypeError, LookupError: it is damaged.

    >>> import io, pickle
    >>> objects = []
    >>> read(io.BytesIO(pickle.dumps({"lr": [0.1], "of": read}, protocol=2)), objects)["lr"]
    [0.1]
    >>> objects
    ['tfq_sv.models.torch_pickle.read']
    """
    machine = _Machine(objects, storage)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return machine.stack.pop()
        if opcode.name in _NUMBERS_AND_TEXTS:
            machine.stack.append(argument)
        elif opcode.name in _ACTIONS:
            _ACTIONS[opcode.name](machine, argument)
        else:
            raise ValueError(f"its pickle has the opcode {opcode.name}")
    raise ValueError("its pickle has no end")


class _Machine:
    """What a pickle works on."""

    def __init__(self, objects: list[str], storage: Storage | None) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._objects, self._storage = objects, storage

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_inert(self, taken: list[Any]) -> None:
        """Pushes `INERT` in place of what was taken."""
        self.stack.append(INERT)

    def take(self, count: int) -> list[Any]:
        """Pops so many values."""
        if count > len(self.stack):
            raise ValueError("its pickle takes more than there is")
        return [self.stack.pop() for _ in range(count)][::-1]

    def take_marked(self) -> list[Any]:
        """Pops all values since the last mark."""
        start = self._marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def mark(self) -> None:
        self._marks.append(len(self.stack))

    def keep(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def append(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                # The hash of a tuple within a tuple within ... would overflow C's stack.
                if isinstance(key, str | int | float | None):
                    self.stack[-1][key] = value

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is no text")
        if (module, name) not in _KNOWN:
            self._objects.append(f"{module}.{name}"[:200])
        self.stack.append(_KNOWN.get((module, name), INERT))

    def call(self) -> None:
        function, arguments = self.take(2)
        self.stack.append(_called(function, arguments))

    def load(self) -> None:
        """Puts a storage's numbers in place of the reference to it."""
        (reference,) = self.take(1)
        what, kind, key, _, count, *view = reference
        if what != "storage" or not isinstance(key, str) or any(x is not None for x in view):
            raise ValueError("it refers to what is no storage")
        if self._storage is None or not isinstance(kind, _Kind):
            self.stack.append(INERT)
        else:
            self.stack.append(self._storage(key, kind.name, _size(count)))


def _called(function: Any, arguments: Any) -> Any:
    """What a call gives."""
    return function.call(*arguments) if isinstance(function, _Function) else INERT


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("a size is no whole number")
    return value


def _sizes(values: Any) -> list[int]:
    if len(values) > _MOST_DIMENSIONS:
        raise ValueError("a tensor has too many dimensions")
    return [_size(x) for x in values]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    """Source: torch._utils._rebuild_tensor."""
    sizes, steps, begin = _sizes(shape), _sizes(strides), _size(offset)
    if not isinstance(storage, np.ndarray):
        return NoValues()
    if storage.ndim != 1 or not storage.flags.c_contiguous:
        raise ValueError("a tensor lies in another tensor")
    if not all(sizes):
        return np.zeros(sizes, storage.dtype)
    last = begin + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if last >= storage.size or math.prod(sizes) > storage.size:
        raise ValueError("a tensor is larger than its storage")
    bytes_ = [step * storage.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(storage[begin:], sizes, bytes_, writeable=False)


def _sparse(layout: Any, parts: Any) -> Any:
    """Source: torch._utils._rebuild_sparse_tensor."""
    indices, values, sizes = parts[0], parts[1], _sizes(parts[2])
    if layout != "torch.sparse_coo" or not all(isinstance(x, np.ndarray) for x in parts[:2]):
        return NoValues()
    if indices.shape != (len(sizes), values.size) or math.prod(sizes) > _MOST_VALUES:
        raise ValueError("a sparse tensor is too large, or does not fit together")
    dense = np.zeros(sizes, values.dtype)
    np.add.at(dense, tuple(indices), values)
    return dense


def _layout(name: Any) -> Any:
    return name if isinstance(name, str) else INERT


_KNOWN: dict[tuple[str, str], _Function | _Kind] = {
    **{("torch", name): _Kind(kind) for name, kind in _KINDS.items()},
    ("collections", "OrderedDict"): _Function(lambda: {}),
    ("torch", "Size"): _Function(lambda sizes=(): tuple(_sizes(sizes))),
    ("torch._tensor", "_rebuild_from_type_v2"): _Function(
        lambda function, _, arguments, *more: _called(function, arguments)
    ),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _Function(lambda *_: NoValues()),
    ("torch._utils", "_rebuild_parameter"): _Function(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_sparse_tensor"): _Function(_sparse),
    ("torch._utils", "_rebuild_tensor"): _Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch.serialization", "_get_layout"): _Function(_layout),
}
# Sets are inert, too: no network has one.
_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.take(1),
    "POP_MARK": lambda machine, _: machine.take_marked(),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.take_marked())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.take_marked()),
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.take_marked()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.set(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set(machine.take_marked()),
    "EMPTY_SET": lambda machine, _: machine.push_inert([]),
    "ADDITEMS": lambda machine, _: machine.take_marked(),
    "FROZENSET": lambda machine, _: machine.push_inert(machine.take_marked()),
    "PUT": lambda machine, index: machine.keep(index),
    "BINPUT": lambda machine, index: machine.keep(index),
    "LONG_BINPUT": lambda machine, index: machine.keep(index),
    "MEMOIZE": lambda machine, _: machine.keep(None),
    "GET": lambda machine, index: machine.recall(index),
    "BINGET": lambda machine, index: machine.recall(index),
    "LONG_BINGET": lambda machine, index: machine.recall(index),
    "GLOBAL": lambda machine, name: machine.find(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find(*machine.take(2)),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "NEWOBJ_EX": lambda machine, _: machine.push_inert(machine.take(3)),
    # Attributes: of an OrderedDict the versions of modules, which nothing needs.
    "BUILD": lambda machine, _: machine.take(1),
    "BINPERSID": lambda machine, _: machine.load(),
}
