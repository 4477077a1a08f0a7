"""Files of tensors by key: PyTorch's and safetensors. Nothing that a file holds is ever run."""

import json
import logging
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.models import hdf5, torch_files
from tfq_sv.models.torch_pickle import NoValues

_log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
_SAFE_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER = 1 << 26
_COUNTER = "num_batches_tracked"
_TENSORS = (np.ndarray, NoValues)


def read_tensors(file: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Reads a file of weights: key -> float32 array; counters of BatchNorm are left out.

    Raises:
        InputError: the file is damaged, of another kind, or holds anything but tensors; a tensor
            that is not floating point, or with NaN.
    """
    safe = file.suffix.lower() == ".safetensors"
    found = _read_safetensors(file) if safe else _read_torch(file)
    hdf5.check_size(file, sum(4 * x.size for x in found.values() if isinstance(x, np.ndarray)))
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
    return isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu"


def _floats(file: Path, key: str, value: Any) -> npt.NDArray[np.float32]:
    if not isinstance(value, np.ndarray):
        raise InputError(f"{file}: {key} has no values that can be read; save the network again")
    if value.dtype.kind != "f":
        raise InputError(f"{file}: {key} is torch.{value.dtype}; expected floating point")
    return value.astype(np.float32, copy=False)


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


def _read_torch(file: Path) -> dict[str, Any]:
    _refuse_programs(file)
    try:
        content, objects = torch_files.read(file)
    except torch_files.UnreadableError as error:
        if not error.objects:
            raise InputError(
                f"{file} is not a PyTorch checkpoint, or is damaged ({error})"
            ) from None
        content, objects = None, error.objects
    content = _inner(content)
    if _is_state(content):
        return dict(content)
    if objects:
        raise InputError(
            f"{file} holds more than tensors, which could run code and is not read; save the "
            "bare weights where you trust the file: torch.save(model.state_dict(), path)"
        )
    what = f"it holds {type(content).__name__}"
    if isinstance(content, dict) and content:
        what = f"{_odd_one(content)!r:.100} is no tensor"
    raise InputError(
        f"{file} is not a state dict ({what}); expected key -> tensor, bare or under "
        f"{' or '.join(map(repr, _WRAPPERS))}"
    )


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
    # What zipfile raises on damaged directories; `torch_files.read` then says what is wrong.
    except (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError):
        return
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{file} is a TorchScript program, which is not run; {take}, or save its weights "
            f"where you trust it: torch.save(torch.jit.load({file.name!r}).state_dict(), "
            "'avg_model.pt')"
        )


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(key, str) for key in content)
        and all(isinstance(value, _TENSORS) for value in content.values())
    )


def _odd_one(content: dict[Any, Any]) -> Any:
    return next(key for key, value in content.items() if not _is_state({key: value}))


def _inner(content: Any) -> Any:
    """What the wrappers hold: by their usual names, or the one state dict beside other things."""
    for wrapper in _WRAPPERS * 2:  # as {"model": {"state_dict": ...}} too
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            others = [
                name for name, value in content.items() if name != wrapper and _is_state(value)
            ]
            if others:
                _log.warning("read %r; %s is left out", wrapper, ", ".join(map(str, others)))
            content = content[wrapper]
    if isinstance(content, dict) and not _is_state(content):
        states = [value for value in content.values() if _is_state(value)]
        if len(states) == 1:
            return states[0]
    return content
