"""The small trained networks that ship with the package. README.md says how they were made."""

import gzip
import tempfile
from pathlib import Path
from typing import Any

from tfq_sv.errors import InputError
from tfq_sv.origin import SYNTHETIC, Origin

_FOLDER = Path(__file__).parent
_REAL = (
    "distilled from CAM++ (3D-Speaker, zh-en) on speechocean762 (train), LibriSpeech and synthetic "
    "speech"
)
SPEECH = {
    "resnet18-real": _REAL,
    "df_resnet56-real": _REAL,
    "resnet18-small": SYNTHETIC,
    "df_resnet56-small": SYNTHETIC,
}
"""Shipped networks, and what each was trained on."""

NAMES = tuple(SPEECH)
FILES = ("resnet18-real.tflite", "df_resnet56-real.tflite")
"""Shipped files for LiteRT, quantized, with their thresholds."""


def file(name: str) -> str:
    """Returns the path of a shipped file by its name, and any other path as it is.

    >>> Path(file("resnet18-real.tflite")).exists(), file("my.tflite")
    (True, 'my.tflite')
    """
    return str(_FOLDER / name) if name in FILES and not Path(name).exists() else name


def load(name: str) -> Any:
    """Loads a shipped network: a tf_keras model, features (B, T, 80) -> embedding.

    What was trained on synthetic speech, see `SPEECH`, is for trying things out.

    Raises:
        InputError: an unknown name.

    >>> load("resnet18-small").name
    'ResNet18'
    """
    from tfq_sv.models import set_origin
    from tfq_sv.quantization.quantized_model import load_model

    if name not in NAMES:
        raise InputError(f"no network {name!r} ships here; there are {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"{name}.h5"
        plain.write_bytes(gzip.decompress((_FOLDER / f"{name}.h5.gz").read_bytes()))
        model = load_model(plain)
    set_origin(model, Origin(f"tfq-sv, {name}", "Apache-2.0", SPEECH[name]))
    return model
