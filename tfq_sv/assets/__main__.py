"""Makes a shipped network of a trained one: `python -m tfq_sv.assets model.keras small.h5.gz`.

The weights are rounded to ten significant bits, or to as many as fit into 2 MB. The result is the
FP32 network that everything is compared with; unzipped, any tf_keras opens it.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.quantization.quantized_model import load_model

LIMIT = 2_000_000  # bytes


def pack(source: str, target: str) -> None:
    """Rewrites a model as gzipped HDF5 with float16 data, byte-shuffled and deflated."""
    with tempfile.TemporaryDirectory() as folder, atomic(target) as temporary:
        plain, small = Path(folder) / "plain.h5", Path(folder) / "small.h5"
        load_model(source).save(plain, include_optimizer=False)
        for dropped in (1, 2, 3, 4):
            with h5py.File(plain) as old, h5py.File(small, "w", libver="latest") as new:
                _copy(old, new, dropped)
                new.attrs["model_config"] = _for_any_keras(str(old.attrs["model_config"]))
            # Names and structure deflate well, the weights no further.
            packed = gzip.compress(small.read_bytes(), mtime=0)
            if len(packed) <= LIMIT:
                break
        else:
            raise InputError(f"{source} takes {len(packed):,} bytes; a shipped one, {LIMIT:,}")
        temporary.write_bytes(packed)
    print(f"wrote {target}: {len(packed):,} bytes, {11 - dropped} significant bits")


def _copy(old: h5py.Group, new: h5py.Group, dropped: int) -> None:
    new.attrs.update(old.attrs)
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            _copy(item, new.create_group(name), dropped)
        elif item.dtype == np.float32 and item.size > 1:
            half = _rounded(item[()], dropped)
            new.create_dataset(
                name, data=half, compression="gzip", compression_opts=9, shuffle=True
            )
        else:
            old.copy(name, new)


def _for_any_keras(config: str) -> str:
    """A model's JSON without a setting that tf_keras before 2.17 does not know."""
    model = json.loads(config)
    for layer in model["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            layer["config"].pop("optional", None)
    return json.dumps(model)


def _rounded(weights: npt.NDArray[np.float32], dropped: int) -> npt.NDArray[np.float16]:
    """Half precision less its last bits, so that there is something to deflate."""
    bits = weights.astype(np.float16).view(np.uint16)
    unit = 1 << dropped
    return ((bits + unit // 2) & (0x10000 - unit)).astype(np.uint16).view(np.float16)


if __name__ == "__main__":
    pack(*sys.argv[1:])
