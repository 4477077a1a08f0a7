"""What others make of a network: the converter's forms and ai-edge-quantizer's, beside ours."""

import contextlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError
from tfq_sv.export import convert, encoder, fast, float32
from tfq_sv.files import atomic

Features = Sequence[npt.NDArray[np.float32]]


def converter_forms(model: Any, folder: Path, features: Features) -> dict[str, Path]:
    """Writes a float network as TensorFlow's converter quantizes it, all with features input.

    With ai-edge-quantizer installed (`pip install 'tfq-sv[benchmark]'`), its int8 and int4 weights
    with dynamic activations are made from the float32 file too.

    Args:
        model: a float Keras network.
        folder: where the files go.
        features: some utterances' features, (T, feat_dim) each, by which full int8 is calibrated.

    Returns:
        Name of the form -> its file; float32 is the first.
    """
    import tensorflow as tf

    def quantized(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    def half(converter: Any) -> None:
        quantized(converter)
        converter.target_spec.supported_types = [tf.float16]

    def full(converter: Any) -> None:
        quantized(converter)
        converter.representative_dataset = lambda: ([x[None]] for x in features)
        ops = tf.lite.OpsSet
        converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS_INT8, ops.TFLITE_BUILTINS]

    forms: dict[str, Any] = {
        "float32": None,
        "float16": half,
        "dynamic-range int8": quantized,
        "full int8": full,
    }
    files = {
        name: _write(folder, name, float32.convert(model, "features", configure))
        for name, configure in forms.items()
    }
    return files | _ai_edge_forms(files["float32"], folder)


def our_forms(networks: Mapping[str, Any], folder: Path, features: Features) -> dict[str, Path]:
    """Writes quantized Keras networks, name -> network, each packed, and what that inflates to.

    With ai-edge-quantizer installed, the first one's other fast forms too.

    Returns:
        "<name>, embed", "<name>, inflated", "<name>, static-int8", "<name>, float16" -> file.
    """
    files: dict[str, Path] = {}
    for name, network in networks.items():
        packed = folder / f"{_file_name(name)}-embed.tflite"
        convert.export_tflite(network, packed, "features")
        files[f"{name}, embed"] = packed
        files[f"{name}, inflated"] = _write(folder, f"{name} inflated", encoder.inflate(packed))
        if len(files) == 2 and importlib.util.find_spec("ai_edge_quantizer"):
            for form in ("static-int8", "float16"):
                speech = features if form == "static-int8" else None
                data = fast.fast_file(packed, form, speech)
                files[f"{name}, {form}"] = _write(folder, f"{name} {form}", data)
    return files


def _ai_edge_forms(path: Path, folder: Path) -> dict[str, Path]:
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError:
        return {}
    recipes = {"int8": recipe.dynamic_wi8_afp32, "int4": recipe.dynamic_wi4_afp32}
    files = {}
    for name, make in recipes.items():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its sizes
            # It wants a name for every tensor.
            named = bytearray(fast.plain(path.read_bytes()))
            result = quantizer.Quantizer(named, make()).quantize()
        if result.quantized_model is None:
            raise InputError(f"ai-edge-quantizer made no {name} model of {path}")
        form = f"ai-edge-quantizer {name}"
        files[form] = _write(folder, form, bytes(result.quantized_model))
    return files


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / f"{_file_name(name)}.tflite"
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return path


def _file_name(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")
