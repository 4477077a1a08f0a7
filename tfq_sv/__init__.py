"""Speaker verification networks in 1-8 bit codebooks, as standard `.tflite` files.

The names below are imported when they are first used: `import tfq_sv` alone loads neither
TensorFlow nor LiteRT, so that tools which only run a finished file start at once.

    >>> import tfq_sv
    >>> model = tfq_sv.models.build("ResNet34")
    >>> recipe = tfq_sv.QuantizationRecipe.uniform(model, bits=4)
    >>> quantized = tfq_sv.quantize(model, recipe)
"""

import importlib
import os
from typing import Any

# tfmot wraps Keras 2 layers. TensorFlow reads this once, when it is first imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__version__ = "0.1.0"

_HOME = {
    "AdaptiveBinaryQuantizeConfig": "quantize_config",
    "Codebook": "codebook",
    "InputError": "errors",
    "KMeansQuantizeConfig": "quantize_config",
    "QuantizationRecipe": "recipe",
    "StaticBinaryQuantizeConfig": "quantize_config",
    "WeightOnlyScheme": "quantize_config",
    "allocate_bits": "allocation",
    "codebooks": "quantization",
    "dequantize": "quantization",
    "embedding_distortions": "sensitivity",
    "calibrate": "calibration",
    "finetune": "fine_tuning",
    "fisher_traces": "sensitivity",
    "hessian_traces": "sensitivity",
    "load_model": "quantization",
    "multi_stage_finetune": "multi_stage",
    "predict_bytes": "file_size",
    "quantize": "quantization",
    "reestimate_batch_norm": "batch_norm",
    "FollowCodebooks": "fine_tuning",
}
_MODULES = [
    "allocation",
    "assets",
    "calibration",
    "codebook",
    "data",
    "export",
    "features",
    "file_size",
    "fine_tuning",
    "metrics",
    "models",
    "multi_stage",
    "quantization",
    "quantize_config",
    "quantizers",
    "recipe",
    "reconstruction",
    "report",
    "scoring",
    "sensitivity",
    "training",
]

__all__ = ["__version__", *sorted(_HOME), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"tfq_sv.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"tfq_sv.{name}")
    raise AttributeError(f"module 'tfq_sv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
