"""Files of `torch.save`, read by NumPy alone: without PyTorch, and without running anything.

Source: PyTorch's torch/serialization.py for the two layouts, a zip archive since 1.6 (`_save`) and
a row of pickles before (`_legacy_save`).
"""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tfq_sv.models import torch_pickle
from tfq_sv.models.torch_pickle import BFLOAT16, INERT, Array

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class UnreadableError(ValueError):
    """No file of `torch.save`, or a damaged one.

    Attributes:
        objects: names of unknown classes and functions that it asks for, as far as it was read.
    """

    def __init__(self, reason: str, objects: list[str]) -> None:
        super().__init__(reason)
        self.objects = objects


def read(file: Path) -> tuple[Any, list[str]]:
    """Reads a file.

    Returns:
        What was saved, as `torch_pickle.read` returns it; and the names of the classes and
        functions that are not known, whose objects are inert.

    Raises:
        UnreadableError: a file of another kind, or a damaged one.
    """
    objects: list[str] = []
    try:
        read_form = _read_archive if zipfile.is_zipfile(file) else _read_pickles
        return read_form(file, objects), objects
    # What damage leads to: a text in place of a number, a wrong checksum, ...
    except (
        *(ValueError, TypeError, LookupError, OverflowError, MemoryError, EOFError, OSError),
        *(struct.error, zipfile.BadZipFile, NotImplementedError, RuntimeError),
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnreadableError(f"{reason:.200}", objects) from error


def _read_archive(file: Path, objects: list[str]) -> Any:
    """`<name>/data.pkl`, and `<name>/data/<key>` for each storage."""
    left = file.stat().st_size
    storages: dict[str, Array] = {}
    with zipfile.ZipFile(file) as archive:
        members = {x.filename: x for x in archive.infolist()}
        pickles = [x for x in members if x.count("/") == 1 and x.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("its archive has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if any(x.compress_type != zipfile.ZIP_STORED for x in members.values()):
            raise ValueError("its archive is compressed; expected one of torch.save")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("it was saved on a big-endian machine")

        def storage(key: str, kind: str, count: int) -> Array:
            nonlocal left
            if key not in storages:
                left -= members[f"{root}data/{key}"].file_size
                if left < 0:
                    raise ValueError("its storages are larger than the file")
                storages[key] = _numbers(archive.read(f"{root}data/{key}"), kind)
            if storages[key].size != count:
                raise ValueError("a storage has another size than the file says")
            return storages[key]

        with archive.open(pickles[0]) as stream:
            return torch_pickle.read(stream, objects, storage)


def _read_pickles(file: Path, objects: list[str]) -> Any:
    """Magic number, version, machine, what was saved, keys of the storages; then the storages."""
    with file.open("rb") as stream:
        if [torch_pickle.read(stream, objects) for _ in range(2)] != [_MAGIC, _PROTOCOL]:
            raise ValueError("it does not begin as a file of torch.save does")
        if torch_pickle.read(stream, objects)["little_endian"] is not True:
            raise ValueError("it was saved on a big-endian machine")
        begin = stream.tell()
        sizes: dict[str, tuple[str, int]] = {}

        def note(key: str, kind: str, count: int) -> Any:
            sizes[key] = kind, count
            return INERT

        torch_pickle.read(stream, [], note)
        storages = {}
        for key in torch_pickle.read(stream, []):
            kind, count = sizes[key]
            size = count * (2 if kind == BFLOAT16 else np.dtype(kind).itemsize)
            if size > file.stat().st_size or stream.read(8) != struct.pack("<q", count):
                raise ValueError("a storage has another size than the file says")
            storages[key] = _numbers(stream.read(size), kind)
            if storages[key].size != count:
                raise ValueError("the file is cut")
        stream.seek(begin)
        return torch_pickle.read(stream, objects, lambda key, *_: storages[key])


def _numbers(data: bytes, kind: str) -> Array:
    if kind != BFLOAT16:
        return np.frombuffer(data, kind)
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
