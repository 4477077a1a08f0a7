"""Quantized networks as standard `.tflite` files, and the encoder that runs them on LiteRT.

The names below are imported when they are first used: a program that only runs a finished file
never loads TensorFlow. FORMAT.md, beside this file, specifies what is written.
"""

import importlib
from typing import Any

_HOME = {
    "Benchmark": "benchmark",
    "ExportReport": "convert",
    "SpeakerEncoder": "encoder",
    "benchmark_figure": "benchmark",
    "benchmark_files": "benchmark",
    "benchmark_network": "benchmark",
    "benchmark_table": "benchmark",
    "export_float32": "float32",
    "export_tflite": "convert",
    "inflate": "encoder",
    "layer_noise": "noise",
    "read_about": "encoder",
    "validate": "validation",
    "write_about": "metadata",
}
_MODULES = [
    *(
        "about",
        "baselines",
        "benchmark",
        "cache",
        "codec",
        "convert",
        "decoder",
        "encoder",
        "filters",
        "flatbuffer",
    ),
    *("float32", "frontend", "metadata", "noise", "seal", "validation"),
]

__all__ = [*sorted(_HOME), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"tfq_sv.export.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"tfq_sv.export.{name}")
    raise AttributeError(f"module 'tfq_sv.export' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
