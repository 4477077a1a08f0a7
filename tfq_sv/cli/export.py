"""write a quantized network as a standard .tflite

The file holds the packed codes and decodes them with stock ops (signature `embed`), or gives the
bytes of a fast int8 model (signature `inflate`). It takes 16 kHz samples; the network's front end
is a part of it.

example:
  tfq-sv export --model=model-4bit.keras --out=model.tflite
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from absl import flags

from tfq_sv.cli.common import check_network, load_network, no_positional, output, required
from tfq_sv.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "quantized network (.keras)", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the .tflite goes", flag_values=FLAGS)
flags.DEFINE_enum(
    "input",
    "waveform",
    ["waveform", "features"],
    "waveform: the file takes 16 kHz samples; features: it takes log mel filter banks",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "compute",
    "int8",
    ["int8", "float32"],
    "int8: activations are quantized as the network runs, which is fast; float32: they are not",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "fixed_lengths",
    False,
    "for LiteRT's CompiledModel in Kotlin, and others that cannot resize an input: also signatures "
    "of 2, 3 and 6 s (embed_2s, ...), and inflate and about as int8",
    flag_values=FLAGS,
)
REQUIRED = ("model", "out")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Exports and prints the sizes."""
    no_positional(arguments)
    name, out = required(FLAGS, *REQUIRED)
    check_network(name)
    output(out, ".tflite")
    if FLAGS.fixed_lengths and FLAGS.input != "waveform":
        raise InputError("--fixed_lengths are of waveforms; leave --input out")
    model = load_network(name)
    from tfq_sv.export import export_tflite
    from tfq_sv.quantization import folding
    from tfq_sv.quantization.float_layers import named

    report = export_tflite(
        model,
        out,
        FLAGS.input,
        compute=FLAGS.compute,
        fixed_lengths=FLAGS.fixed_lengths,
        progress=True,
    )
    ratio = report.float32_bytes / report.bytes
    print(f"wrote {out}: {report.bytes:,} bytes, {ratio:.2f}x smaller than float32's")
    print(f"  float32 .tflite  {report.float32_bytes:,} bytes")
    print(f"  inflated, int8   {report.inflated_bytes:,} bytes (what `inflate` returns)")
    if report.norms:
        print(f"  {folding.described(report.norms)}")
    if report.floats:
        print(f"  left float       {named(report.floats)}")
    print(f"next: tfq-sv evaluate --model={out} --corpus=<folder of test speakers> --store")
    return {
        "out": out,
        "bytes": report.bytes,
        "float32_bytes": report.float32_bytes,
        "inflated_bytes": report.inflated_bytes,
        "float": {layer: asdict(found) for layer, found in report.floats.items()},
        "batch_norm_bytes": folding.cost(report.norms),
    }
