"""show what a network or a .tflite is made of, layer by layer

A Keras model or a shipped or known network: kernel shapes, weights, multiply-accumulates for one
utterance, and bytes in float32 and at given bit widths. A .tflite: the metadata it carries.

example:
  tfq-sv info --model=ResNet34 --bits=8,4,2
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfq_sv.cli.common import bit_widths, is_tflite, load_network, required
from tfq_sv.errors import InputError
from tfq_sv.origin import Origin, network_warning, threshold_warning

if TYPE_CHECKING:
    from tfq_sv.reports.complexity import LayerComplexity

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model",
    None,
    ".tflite, .keras, .h5, a checkpoint, a shipped name, or ResNet34, ...",
    flag_values=FLAGS,
)
flags.DEFINE_list("bits", ["8", "4", "2", "1"], "bit widths to show", flag_values=FLAGS)
flags.DEFINE_integer("frames", 200, "frames of the utterance, 10 ms each", flag_values=FLAGS)
REQUIRED = ("model",)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Prints the table, or the metadata."""
    if arguments and FLAGS.model is None:
        FLAGS.model, *arguments = arguments
    if arguments:
        raise InputError(f"unexpected argument {arguments[0]!r}; give one model")
    (name,) = required(FLAGS, *REQUIRED)
    if is_tflite(name):
        from tfq_sv import assets
        from tfq_sv.export import read_about

        file = assets.file(name)
        about, size = read_about(file), Path(file).stat().st_size
        print(f"{name}: {size:,} bytes")
        print(json.dumps(about, indent=2, ensure_ascii=False))
        warnings = [network_warning(Origin.of(about.get("origin"))), threshold_warning(about)]
        for warning in filter(None, warnings):
            print(f"warning: {warning}")
        return {"model": name, "bytes": size, **about}
    widths = bit_widths(FLAGS.bits)
    if FLAGS.frames < 1:
        raise InputError(f"--frames must be positive, not {FLAGS.frames}")
    from tfq_sv import models
    from tfq_sv.quantization.float_layers import float_layers
    from tfq_sv.reports.complexity import layer_complexity

    known = name in models.NAMES and not Path(name).exists()
    model = models.build(name) if known else load_network(name)
    costs = layer_complexity(model, FLAGS.frames)
    print(network_table(model, costs, widths, FLAGS.frames))
    origin = models.origin_of(model)
    if origin.fields():
        print(f"From {origin}.")
    if warning := network_warning(origin):
        print(f"warning: {warning}")
    layers = {layer: {**asdict(cost), "bytes": cost.bytes()} for layer, cost in costs.items()}
    floats = {layer: asdict(found) for layer, found in float_layers(model).items()}
    return {
        "model": name,
        "frames": FLAGS.frames,
        "layers": layers,
        "float": floats,
        "origin": origin.fields(),
    }


def network_table(
    model: Any, costs: Mapping[str, "LayerComplexity"], widths: Sequence[int], frames: int
) -> str:
    """Returns the table of a network's layers, with totals."""
    from tfq_sv.quantization import folding
    from tfq_sv.quantization.float_layers import float_layers, left_float, parameters
    from tfq_sv.reports.table import Table

    quantized = any(cost.bits < 32 for cost in costs.values())
    columns = [None] if quantized else [32, *widths]
    rows = [
        [
            layer,
            "x".join(map(str, cost.kernel)),
            f"{cost.weights:,}",
            f"{cost.macs / 1e6:,.1f}",
            *([str(cost.bits)] if quantized else []),
            *(f"{cost.bytes(bits):,}" for bits in columns),
        ]
        for layer, cost in costs.items()
    ]
    weights = sum(cost.weights for cost in costs.values())
    macs = sum(cost.macs for cost in costs.values())
    sums = [sum(cost.bytes(bits) for cost in costs.values()) for bits in columns]
    blank = [""] if quantized else []
    rows.append(
        ["total", "", f"{weights:,}", f"{macs / 1e6:,.1f}", *blank, *(f"{x:,}" for x in sums)]
    )
    sizes = ["bits", "bytes"] if quantized else [f"{b}-bit bytes" for b in widths]
    header = ["layer", "kernel", "weights", f"MMACs at {frames} frames"]
    header += sizes if quantized else ["FP32 bytes", *sizes]
    others = {name: x for name, x in float_layers(model).items() if not x.quantizable}
    floats = parameters(model) - weights - sum(layer.weights for layer in others.values())
    beside = f"Beside the kernels: {floats:,} floats of biases and BatchNorm.\n"
    if stay := folding.described(folding.unfolded(model)):
        beside += f"{stay}.\n"
    if others:
        beside += f"warning: {left_float(model)}.\n"
    return (
        f"{Table(header, rows)}\n\n{macs / 1e9:.3f} G multiply-accumulates at {frames} frames. "
        f"{beside}Bytes are codes and codebooks; a .tflite adds scales, biases and the graph."
    )
