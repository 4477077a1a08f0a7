"""Each family's files beside other tools': bytes, and latency in one run.

    pip install ai-edge-quantizer onnx onnxruntime torch
    python benchmarks/families.py

Full-size networks of random weights, features input; of such weights, bytes and times alone mean
something. Codes alone are bits times weights. A file also holds vectors of floats (BatchNorms that
stay, biases, and a scale per output channel). The rest is given per kernel; its limit is 1.3 KB.

Latencies: 200 frames, one thread, all files in turn, --rounds times, in time of the processor,
which other work on the machine changes little. `ours, 4 bits` is what is inflated, as it runs by
default. ONNX Runtime's are of the same network in PyTorch, exported by torch.onnx; static int8 is
calibrated on noise. `--only=bytes` or `--only=latency` for one of both.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import numpy as np
from file_sizes import random_codes, randomize

import tfq_sv
from tfq_sv.export import convert, encoder, fast, float32
from tfq_sv.quantization.recipe import QuantizationRecipe
from tfq_sv.quantization.trellis import TrellisCodebook
from tfq_sv.reports.table import markdown

NETWORKS = ["ResNet34", "DF_ResNet56", "CAMPPlus", "ECAPA_TDNN_GLOB_c512"]
BITS = (8, 4, 3, 2, 1)
TRELLIS = (4, 2, 1, 0.5)
FRAMES = 200
MOST = 1300  # bytes per kernel


def main(options: argparse.Namespace) -> None:
    """Prints what is asked for."""
    sizes, times = [], []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for name in options.networks:
            network = tfq_sv.models.build(name)
            randomize(network)
            plain = float32.convert(network, "features")
            if options.only != "latency":
                sizes += [(name, *row) for row in bytes_of(network, plain)]
            if options.only != "bytes":
                times.append((name, *latencies(network, plain, Path(folder), options.rounds)))
                print(times[-1], flush=True)
    if sizes:
        heading = ("network", "file", "bytes", "codes alone", "floats", "else, per kernel")
        print("\n" + "\n".join(markdown((*heading, f"at most {MOST}"), sizes)))
    if times:
        print("\n" + "\n".join(markdown(("network", *FORMS), times)))
        print("\nms of the processor, median (and times the converter's int8)")


def bytes_of(network: Any, plain: bytes) -> list[tuple[str, ...]]:
    """The file at each width, and ai-edge-quantizer's."""
    rows = [("float32", f"{len(plain):,}", "", "", "", "")]
    for bits in (8, 4):
        size = len(ai_edge(plain, bits))
        rows.append((f"ai-edge-quantizer int{bits}", f"{size:,}", "", "", "", ""))
    for bits in BITS:
        rows.append((label(bits), *cells_of(network, random_codes(network, bits))))
        print(network.name, rows[-1], flush=True)
    for bits in TRELLIS:
        cells = cells_of(network, random_trellises(network, bits))
        rows.append((f"{label(bits)}, trellis", *cells))
        print(network.name, rows[-1], flush=True)
    return rows


def label(bits: float) -> str:
    return f"{bits} bit{'s' * (bits > 1)}"


def random_trellises(network: Any, bits: float) -> dict[str, Any]:
    """As `random_codes`, in trellis codes where `QuantizationRecipe.trellis` has them."""
    rng, books = np.random.default_rng(0), dict(random_codes(network, max(1, int(bits))))
    for name, entry in QuantizationRecipe.trellis(network, bits).layers.items():
        if entry.kind == "trellis":
            kernel = network.get_layer(name).kernel
            channels, inputs = kernel.shape[-1], int(np.prod(kernel.shape[:-1]))
            codes = rng.integers(0, 256, (channels, int(inputs * bits / 8))).astype(np.uint8)
            scales = rng.uniform(1e-4, 1e-3, channels).astype(np.float32)
            books[name] = TrellisCodebook(codes, scales, bits, tuple(kernel.shape))
            kernel.assign(books[name].decode())
    return books


def cells_of(network: Any, books: Any) -> tuple[str, ...]:
    """Bytes: of the file, its codes and floats, and the rest per kernel; and if that is little."""
    size = len(convert.build(network, books, "features").data)
    codes = sum(math.ceil(book.size * book.bits / 8) for book in books.values())
    floats = float_bytes(network, books)
    rest = (size - codes - floats) / len(books)
    limit = "yes" if rest <= MOST else "NO"
    return f"{size:,}", f"{codes:,}", f"{floats:,}", f"{rest:,.0f}", limit


def float_bytes(network: Any, books: Any) -> int:
    """Bytes of scales, biases and BatchNorms that stay."""
    from tfq_sv.quantization.folding import cost, unfolded

    scales = sum(network.get_layer(name).output_shape[-1] for name in books)
    return 2 * 4 * scales + cost(unfolded(network))


def ai_edge(plain: bytes, bits: int) -> bytes:
    """What ai-edge-quantizer makes of a float file: weights alone, dynamic activations."""
    from ai_edge_quantizer import quantizer, recipe

    chosen = recipe.dynamic_wi8_afp32() if bits == 8 else recipe.dynamic_wi4_afp32()
    named = bytearray(fast.plain(plain))  # it wants a name for every tensor
    return bytes(quantizer.Quantizer(named, chosen).quantize().quantized_model)


FORMS = (
    *("float32", "converter's int8", "ours, 4 bits", "ours, 4 bits, embed"),
    *("ONNX Runtime, float", "ONNX Runtime, static int8"),
)


def latencies(network: Any, plain: bytes, folder: Path, rounds: int) -> tuple[str, ...]:
    """Milliseconds of each form, all in turn."""
    features = np.random.default_rng(0).normal(size=(1, FRAMES, 80)).astype(np.float32)
    packed = folder / f"{network.name}.tflite"
    packed.write_bytes(convert.build(network, random_codes(network, 4), "features").data)
    dynamic = float32.convert(network, "features", _dynamic)
    float_onnx = folder / f"{network.name}.onnx"
    export_onnx(network, float_onnx, features)
    runs = [
        tflite(plain, features),
        tflite(dynamic, features),
        tflite(encoder.inflate(packed), features),
        tflite(packed.read_bytes(), features),
        onnx(float_onnx, features),
        onnx(static_int8(float_onnx, features), features),
    ]
    times = np.zeros((rounds + 1, len(runs)))
    for number in range(rounds + 1):
        for column, run in enumerate(runs):
            start = time.process_time()
            run()
            times[number, column] = 1e3 * (time.process_time() - start)
    times = times[1:]
    ratios = np.median(times / times[:, 1:2], axis=0)
    return tuple(
        f"{ms:.1f} ({ratio:.2f})"
        for ms, ratio in zip(np.median(times, axis=0), ratios, strict=True)
    )


def _dynamic(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def tflite(data: bytes, features: np.ndarray) -> Callable[[], Any]:
    """Returns a function that runs the `embed` signature of a .tflite."""
    runner = encoder.interpreter(data).get_signature_runner("embed")
    return lambda: runner(features=features)


def onnx(path: Path, features: np.ndarray) -> Callable[[], Any]:
    """Returns a function that runs an ONNX file in ONNX Runtime, on one thread."""
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), chosen, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": features})


def export_onnx(network: Any, path: Path, features: np.ndarray) -> None:
    """Writes the PyTorch form of a network, with random weights, as ONNX."""
    import sys

    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from checkpoints import state_like

    from tfq_sv.models import torch_reference

    state = {key: torch.from_numpy(np.array(x)) for key, x in state_like(network).items()}
    pooling = "ASTP" if network.name.startswith("ECAPA") else "TSTP"

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch_reference.embed(state, x, pooling=pooling)

    names = {"input_names": ["x"], "output_names": ["embedding"]}
    example = (torch.from_numpy(features),)
    torch.onnx.export(Network().eval(), example, path, opset_version=17, dynamo=False, **names)


def static_int8(path: Path, features: np.ndarray) -> Path:
    """Quantizes an ONNX file to static int8 (QDQ, a scale per channel); returns the new file."""
    from onnxruntime import quantization

    class Noise(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = 4

        def get_next(self) -> dict[str, np.ndarray] | None:
            if not self._left:
                return None
            self._left -= 1
            noise = np.random.default_rng(self._left).normal(size=features.shape)
            return {"x": noise.astype(np.float32)}

    made = path.with_suffix(".int8.onnx")
    ready = path.with_suffix(".ready.onnx")
    quantization.shape_inference.quant_pre_process(str(path), str(ready))
    quantization.quantize_static(str(ready), str(made), Noise(), per_channel=True)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", choices=("bytes", "latency"))
    main(parser.parse_args())
