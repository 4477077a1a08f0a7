"""HDF5 files, looked through before Keras reads them.

Some damaged files make libhdf5 loop for ever or crash, and h5py can do nothing about either. So
another process reads the file first.
"""

import os
import subprocess
import sys
from pathlib import Path

import h5py

from tfq_sv.errors import InputError

MAX_BYTES = 1 << 30
"""Weights and configuration that a file may unpack to: ten times ResNet293's."""

_PROCESSOR_SECONDS = 4  # a whole file takes a tenth of one
_SECONDS = 60  # where the system counts no processor time
_READ_ALL = f"""
import sys
import h5py
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({_PROCESSOR_SECONDS}, {_PROCESSOR_SECONDS}))
except ImportError:
    pass
def read(_, item):
    list(item.attrs.items())
    if isinstance(item, h5py.Dataset) and item.nbytes <= {MAX_BYTES}:
        if item.external is None and not item.is_virtual:
            item[()]
try:
    with h5py.File(sys.argv[1], "r") as file:
        read("", file)
        file.visititems(read)
except Exception:  # Keras meets it again, and says what is wrong
    pass
"""


def check(path: Path, name: Path | None = None) -> None:
    """Looks through a file; errors call it `name`.

    Raises:
        InputError: HDF5 hangs or crashes on it; it has its weights in another file, or too many.
        Exception: whatever h5py raises on a damaged file.
    """
    name = name or path
    if not _is_readable(path):
        raise InputError(f"{name} is damaged: HDF5 cannot get through it; get it again")
    with h5py.File(path, "r") as file:
        _check_weights(name, file)


def check_size(path: Path, size: int) -> None:
    """Raises InputError if a file unpacks to more bytes than any network has."""
    if size > MAX_BYTES:
        raise InputError(
            f"{path} would unpack to {size:,} bytes of weights; expected {MAX_BYTES:,} at most"
        )


def _is_readable(path: Path) -> bool:
    """Whether HDF5 comes to an end with a file, be it an error."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-c", _READ_ALL, str(path)]  # -P: nothing from here is run
    try:
        reader = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return reader.returncode >= 0  # negative: a signal ended it


def _check_weights(path: Path, file: h5py.File) -> None:
    sizes: list[int] = []

    def is_elsewhere(name: str, link: object) -> str | None:
        item = file[name] if isinstance(link, h5py.HardLink) else None
        elsewhere = isinstance(link, h5py.ExternalLink)
        if isinstance(item, h5py.Dataset):
            elsewhere = item.external is not None or item.is_virtual
            sizes.append(item.nbytes)
        return name if elsewhere else None  # a name ends the visit

    if name := file.visititems_links(is_elsewhere):
        raise InputError(f"{path} is not loaded: its {name!r:.100} lies in another file")
    check_size(path, sum(sizes))
