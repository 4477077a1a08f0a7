"""Files of tensors by key: PyTorch's and safetensors. Nothing that a file holds is ever run."""

import json
import logging
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

_log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
_SAFE_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER = 1 << 26
_COUNTER = "num_batches_tracked"


def read_tensors(file: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Reads a file of weights: key -> float32 array; counters of BatchNorm are left out.

    Raises:
        InputError: PyTorch is missing; the file is damaged, of another kind, or holds anything but
            tensors; a tensor that is not floating point, or with NaN.
    """
    if file.suffix.lower() == ".safetensors":
        found = _read_safetensors(file)
    else:
        found = _unwrapped(file, _torch_load(file))
    tensors = {}
    for key, value in found.items():
        if key.endswith(_COUNTER) or _is_count(value):
            continue
        tensors[key] = _floats(file, key, value)
        if not np.isfinite(tensors[key]).all():
            raise InputError(f"{file}: {key} holds NaN or infinite values")
        if key.endswith("running_var") and tensors[key].min(initial=0) < 0:
            raise InputError(f"{file}: {key} holds negative variances; the file is damaged")
    return tensors


def average(files: Sequence[Path]) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the mean of several epochs' weights, as WeSpeaker's average_model.py takes it.

    Raises:
        InputError: as `read_tensors`; files of different networks.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for file in files:
        tensors = read_tensors(file)
        shapes = {key: value.shape for key, value in tensors.items()}
        if sums and shapes != {key: value.shape for key, value in sums.items()}:
            raise InputError(f"{file} is of another network than {files[0]}; name one file")
        for key, value in tensors.items():
            sums[key] = sums.get(key, 0.0) + value.astype(np.float64)
    return {key: (value / len(files)).astype(np.float32) for key, value in sums.items()}


def _is_count(value: Any) -> bool:
    """Whether a tensor is a single integer, such as a number of steps: no weight."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iu"
    return bool(value.ndim == 0) and not bool(value.dtype.is_floating_point)


def _floats(file: Path, key: str, value: Any) -> npt.NDArray[np.float32]:
    if isinstance(value, np.ndarray):
        return value.astype(np.float32)
    if not value.is_floating_point():
        raise InputError(f"{file}: {key} is {value.dtype}; expected floating point")
    try:
        found: npt.NDArray[np.float32] = value.detach().to_dense().float().numpy()
    except (RuntimeError, TypeError) as error:  # no values, or of other devices
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{file}: {key} has no values that can be read ({reason})") from None
    return found


def _read_safetensors(file: Path) -> dict[str, Array]:
    """The format: 8 bytes of length, a JSON header of that length, the tensors' bytes.

    Source: huggingface/safetensors, README, "Format".
    """
    _refuse_pages(file)
    data = file.read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > min(len(data), _MAX_HEADER):
            raise ValueError("the header is longer than the file")
        header = json.loads(data[8 : 8 + length])
        body, found = data[8 + length :], {}
        for key, entry in header.items():
            if key != "__metadata__" and not key.endswith(_COUNTER):
                found[key] = _safe_tensor(body, **entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is not a safetensors file, or is damaged ({error})") from None
    return found


def _safe_tensor(body: bytes, dtype: str, shape: list[int], data_offsets: list[int]) -> Array:
    if dtype not in _SAFE_TYPES:
        raise ValueError(f"a tensor is {dtype:.10}; expected floating point")
    first, last = data_offsets
    values = np.frombuffer(body[first:last], _SAFE_TYPES[dtype])
    if dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape)


def _torch_load(file: Path) -> Any:
    _refuse_programs(file)
    try:
        import torch
    except ImportError:
        raise InputError(f"reading {file} needs PyTorch: pip install 'tfq-sv[torch]'") from None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error) and "Unsupported class" not in str(error):
            raise InputError(f"{file} is not a PyTorch checkpoint, or is damaged") from None
        content = _tensors_alone(file)
        if content is None:
            raise InputError(
                f"{file} holds more than tensors, which could run code and is not read; save the "
                "bare weights where you trust the file: torch.save(model.state_dict(), path)"
            ) from None
        return content
    # What its zip and tar readers raise on other files and on damaged ones, it does not wrap.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} is not a PyTorch checkpoint, or is damaged ({reason})") from None


def _refuse_pages(file: Path) -> None:
    """Names what a failed download leaves under the name of the weights."""
    with file.open("rb") as content:
        head = content.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{file} is Git LFS's pointer to a file; fetch that: git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{file} is a web page, no checkpoint; download it again")


def _refuse_programs(file: Path) -> None:
    """Names files that people have beside the weights, and that hold a program."""
    take = "take avg_model.pt of the same network"
    _refuse_pages(file)
    if file.suffix.lower() == ".onnx":
        raise InputError(f"{file} is an ONNX program, whose weights have no names; {take}")
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    # What zipfile raises on damaged directories; torch.load then says what is wrong.
    except (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError):
        return
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{file} is a TorchScript program, which is not run; {take}, or save its weights "
            f"where you trust it: torch.save(torch.jit.load({file.name!r}).state_dict(), "
            "'avg_model.pt')"
        )


class _Inert:
    """Stands for an object of any class that is not known; its class is never looked up."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "_Inert":
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Drops it."""

    def extend(self, _: Any) -> None:
        """Drops them."""

    add = append


class _Function:
    """A function that a pickle may call, and not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise pickle.UnpicklingError("functions have no state")


def _tensors_alone(file: Path) -> dict[str, Any] | None:
    """Reads the state dict of a checkpoint that holds other objects too, as Lightning's do.

    Whatever else there is becomes inert; two functions that make tensors are all that is called.
    Returns None if there is no such state dict.
    """
    import torch

    if not zipfile.is_zipfile(file):
        return None
    known: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Function(torch._utils._rebuild_tensor_v2),
        ("torch._utils", "_rebuild_parameter"): _Function(torch._utils._rebuild_parameter),
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return known.get((module, name), _Inert)

    reader = SimpleNamespace(Unpickler=Unpickler, __name__="tensors_alone")
    try:
        content = torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)
    except Exception:  # as above
        return None
    state: dict[str, Any] = _inner(content)
    return state if _is_state(state, torch.Tensor) else None


def _is_state(content: Any, tensor: type) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(key, str) for key in content)
        and all(isinstance(value, tensor) for value in content.values())
    )


def _inner(content: Any) -> Any:
    """What the wrappers hold: by their usual names, or the one state dict beside other things."""
    import torch

    for wrapper in _WRAPPERS * 2:  # as {"model": {"state_dict": ...}} too
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            others = [
                name
                for name, value in content.items()
                if name != wrapper and _is_state(value, torch.Tensor)
            ]
            if others:
                _log.warning("read %r; %s is left out", wrapper, ", ".join(map(str, others)))
            content = content[wrapper]
    if isinstance(content, dict) and not _is_state(content, torch.Tensor):
        states = [value for value in content.values() if _is_state(value, torch.Tensor)]
        if len(states) == 1:
            return states[0]
    return content


def _unwrapped(file: Path, content: Any) -> dict[str, Any]:
    import torch

    content = _inner(content)
    if isinstance(content, dict) and content:
        odd = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
        if not odd:
            return dict(content)
        what = f"{odd[0]!r} is no tensor"
    else:
        what = f"it holds {type(content).__name__}"
    raise InputError(
        f"{file} is not a state dict ({what}); expected key -> tensor, bare or under "
        f"{' or '.join(map(repr, _WRAPPERS))}"
    )
