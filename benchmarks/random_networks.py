"""Networks with hard weights, exported: `python benchmarks/random_networks.py --seeds=40`.

Each seed draws a network of the zoo with few channels, kernels from Student's t with 3 degrees of
freedom, some output channels zero or duplicated, BatchNorm gains of both signs, some tiny or zero,
and a recipe of any kinds and bits. Its file, as float32 and int8, runs by both signatures on
speech-like noise from 0.2 s to `--longest`, and on silence, clipping, an offset and denormals.
Nothing but finite embeddings or one InputError may come out, and they must agree with Keras. For
comparison, TensorFlow's converter makes its dynamic-range int8 of the same weights.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

from tfq_sv import dequantize, models, quantize
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import KerasEncoder
from tfq_sv.export import SpeakerEncoder, export_tflite, float32
from tfq_sv.features import fbank
from tfq_sv.models import df_resnet, resnet
from tfq_sv.quantization import QuantizationRecipe
from tfq_sv.quantization.batch_norm import reestimate_batch_norm
from tfq_sv.quantization.calibration import calibrate
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.quantization.recipe import LayerRecipe
from tfq_sv.quantization.trellis_quantizer import fits

RATE = 16000
CONVERTER = "converter's int8"
FAMILIES: dict[str, dict[str, Any]] = {
    "ResNet18": {"channels": 4, "embed_dim": 8},
    "ResNet50": {"channels": 4, "embed_dim": 8},
    "DF_ResNet56": {"channels": 4, "embed_dim": 8},
    "Gemini_DF_ResNet60": {"channels": 4, "embed_dim": 8},
    "CAMPPlus": {"channels": 4, "embed_dim": 8},
    "ECAPA_TDNN_c512": {"channels": 16, "embed_dim": 8},
}
# What is quantized as it runs differs more from Keras, in networks with such weights, than in
# trained ones; see what the converter's differs.
LEAST = {"float32": 0.9999, "int8": 0.9, CONVERTER: -1.0}


def main(seeds: int, first: int = 0, longest: int = 90) -> bool:
    """Returns whether all was finite and agreed."""
    worst: dict[Any, list[float]] = defaultdict(list)
    said: Counter[str] = Counter()
    fine = True
    for seed in range(first, first + seeds):
        name = list(FAMILIES)[seed % len(FAMILIES)]
        for compute, kind, value in checked(name, seed, longest):
            if isinstance(value, str):
                said[f"{name}: {kind}: {value}"] += 1
                continue
            worst[name, compute].append(value)
            if value < LEAST[compute]:
                fine = False
                print(f"seed {seed}, {name}, {compute}, {kind}: cosine {value:.5f}", flush=True)
    print(f"\n{seeds} networks\n\n| network | compute | embeddings | cosine, median | worst |")
    print("|---|---|---|---|---|")
    for (name, compute), cosines in sorted(worst.items()):
        print(f"| {name} | {compute} | {len(cosines)} ", end="")
        print(f"| {np.median(cosines):.6f} | {min(cosines):.6f} |")
    for line, count in sorted(said.items()):
        print(f"{count} times {line}")
    return fine


def checked(name: str, seed: int, longest: int = 90) -> Any:
    """Cosines to Keras: yields (compute, signature and input, cosine or a refusal).

    Raises:
        AssertionError: an embedding is not finite, or one of Keras and the file refuses alone.
    """
    rng = np.random.default_rng(seed)
    float_ = network(name, rng)
    model = quantize(float_, recipe(float_, rng))
    calibrate(model, None)
    entries = waveforms(rng, longest)
    keras_ = KerasEncoder(model)
    wanted = {what: answer(keras_, waveform) for what, waveform in entries.items()}
    theirs = converted(dequantize(model))
    for what, waveform in entries.items():
        if not isinstance(wanted[what], str) and len(waveform) <= 20 * RATE:
            found = theirs(fbank(waveform, keras_.fbank))
            yield CONVERTER, what, agreement(wanted[what], found, what)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CACHE_HOME=folder):
        for compute in ("float32", "int8"):
            path = Path(folder, f"{compute}.tflite")
            export_tflite(model, path, compute=compute)
            for fast in (False, True):
                file = SpeakerEncoder(path, fast=fast, check_speech=False)
                for what, waveform in entries.items():
                    kind = f"{'inflate' if fast else 'embed'}, {what}"
                    yield compute, kind, agreement(wanted[what], answer(file, waveform), kind)


def converted(model: keras.Model) -> Callable[[Any], Any]:
    """A float network as TensorFlow's converter quantizes it: features to embedding."""

    def dynamic(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    interpreter = Interpreter(model_content=float32.convert(model, "features", dynamic))
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def embed(features: Any) -> Any:
        interpreter.resize_tensor_input(entry["index"], (1, *features.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], features[None])
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])[0]

    return embed


def answer(encoder: KerasEncoder | SpeakerEncoder, waveform: Any) -> Any:
    """The embedding, or why there is none."""
    try:
        return encoder.embed(waveform)
    except InputError as error:
        return str(error)


def agreement(wanted: Any, found: Any, kind: str) -> float | str:
    """The cosine between two embeddings, or why there is none."""
    assert isinstance(wanted, str) == isinstance(found, str), f"{kind}: {wanted}, {found}"
    if isinstance(found, str):
        return found
    assert np.isfinite(found).all(), kind
    assert np.isfinite(wanted).all(), kind
    return float(found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted))


def network(name: str, rng: np.random.Generator) -> keras.Model:
    """A network of the zoo, with one block per stage and hard weights."""
    one = (1, 1, 1, 1)
    with (
        patch.dict(resnet.DEPTHS, {n: (one, wide) for n, (_, wide) in resnet.DEPTHS.items()}),
        patch.dict(df_resnet.DEPTHS, dict.fromkeys(df_resnet.DEPTHS, one)),
    ):
        model = models.build(name, **FAMILIES[name])
    for layer in quantizable(model).values():
        variable = getattr(layer, str(kernel_attribute(layer)))
        kernel = rng.standard_t(3, variable.shape)
        kernel /= np.sqrt(3 * np.prod(kernel.shape[:-1]))
        if kernel.shape[-1] > 2 and kernel.ndim > 2:  # not of the embedding
            out = rng.permutation(kernel.shape[-1])
            kernel[..., out[0]] = 0
            kernel[..., out[1]] = kernel[..., out[2]]
        variable.assign(kernel)
    speech = [0.1 * rng.normal(size=(2, RATE)).astype(np.float32) for _ in range(2)]
    reestimate_batch_norm(model, speech, progress=False)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.scale:
            gain = rng.uniform(0.2, 2, layer.gamma.shape) * rng.choice(
                [1, 1, -1], layer.gamma.shape
            )
            gain[rng.random(gain.shape) < 0.1] = rng.choice([0, 1e-7, -1e-4, 3e-42])
            layer.gamma.assign(gain)
            layer.beta.assign(rng.normal(0, 0.3, gain.shape))
    return model


def recipe(model: keras.Model, rng: np.random.Generator) -> QuantizationRecipe:
    """Any kind and any bits per layer; some layers stay float."""
    layers: dict[str, LayerRecipe] = {}
    for name, layer in quantizable(model).items():
        kind = rng.choice(["kmeans", "kmeans", "static_binary", "adaptive_binary", "trellis", ""])
        bits = float(rng.choice([0.5, 1, 2, 4]))
        if kind == "trellis" and fits(layer, bits):
            layers[name] = LayerRecipe("trellis", bits)
        elif kind:
            kind = "kmeans" if kind == "trellis" else str(kind)
            layers[name] = LayerRecipe(kind, int(rng.integers(1, 9)) if kind == "kmeans" else 1)
    return QuantizationRecipe(layers) if layers else QuantizationRecipe.uniform(model)


def waveforms(rng: np.random.Generator, longest: int) -> dict[str, Any]:
    """Speech-like noise of several lengths, and what microphones and files give instead."""
    loud = np.repeat(rng.uniform(0, 1, longest + 1), RATE)
    noise = (0.1 * loud * rng.normal(size=loud.size)).astype(np.float32)
    second = noise[RATE : 2 * RATE]
    lengths = [0.2, float(rng.uniform(0.3, 1)), float(rng.uniform(1, 8)), 20.0, float(longest)]
    return {f"{seconds:.2f} s": noise[: round(seconds * RATE)] for seconds in lengths} | {
        "silence": np.zeros(RATE, np.float32),
        "clipping": np.clip(50 * second, -1, 1),
        "offset": second + np.float32(0.5),
        "denormals": (1e-40 * np.sign(second)).astype(np.float32),
        "faint": second * np.float32(1e-6),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--longest", type=int, default=90, help="seconds of the longest input")
    arguments = parser.parse_args()
    sys.exit(not main(arguments.seeds, arguments.first, arguments.longest))
