"""turn a network's weights into codebooks of 1-8 bits

Every convolution and dense kernel gets its own k-means codebook (or as a recipe says). The result
is a Keras model for tfq-sv finetune, evaluate and export. Codes are chosen to keep the layers'
outputs rather than their weights: on noise, or with --calibrate on a minute of any speech. Speech
is worth it below 4 bits, before finetune too. With --trellis, layers that cannot have trellis codes
keep codebooks: depthwise, grouped and transposed convolutions, fewer than 16 channels, inputs that
do not fill whole bytes.

example:
  tfq-sv quantize --model=model.keras --bits=4 --out=model-4bit.keras
  tfq-sv quantize --model=model.keras --bits=2 --calibrate=corpus/train --out=model-2bit.keras
  tfq-sv quantize --model=model.keras --bits=2 --trellis --out=model-trellis.keras
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from absl import flags

from tfq_sv.cli.common import (
    check_file,
    check_network,
    load_network,
    no_positional,
    output,
    reasons,
    required,
    speech_for_calibration,
)
from tfq_sv.codebook import check_bits
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.quantization import trellis
from tfq_sv.quantization.recipe import QuantizationRecipe

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "FP32 network: a path or a shipped name", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the quantized model goes (.keras)", flag_values=FLAGS)
flags.DEFINE_float(
    "bits",
    4,
    "bits per weight for every layer: 1-8; 0.5, 1, 2 or 4 with --trellis",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "trellis", False, "trellis codes instead of k-means codebooks; for --bits", flag_values=FLAGS
)
flags.DEFINE_enum(
    "binary",
    None,
    ["adaptive", "static"],
    "one bit per weight, on two levels that are fitted to the layer's output (adaptive), or lie "
    "evenly about the weights' mean (static); for --bits",
    flag_values=FLAGS,
)
flags.DEFINE_string("recipe", None, "JSON of bits per layer; instead of --bits", flag_values=FLAGS)
flags.DEFINE_string(
    "calibrate", None, "speech, no speakers needed: any folder, wav.scp or list", flag_values=FLAGS
)
flags.DEFINE_float(
    "minutes", 1.0, "minutes of speech to calibrate on", lower_bound=0.05, flag_values=FLAGS
)
flags.DEFINE_string("recipe_out", None, "write the recipe used here", flag_values=FLAGS)
REQUIRED = ("model", "out")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Quantizes and saves."""
    no_positional(arguments)
    name, out = required(FLAGS, *REQUIRED)
    output(out, ".keras", ".h5", keep=[name])
    check_file(FLAGS, "recipe_out")
    check_network(name)
    if FLAGS["minutes"].present and not FLAGS.calibrate:
        raise InputError("--minutes goes with --calibrate, the speech that it is of")
    bits, recipe = _bits(), _recipe()
    speech, skipped = (
        speech_for_calibration(FLAGS.calibrate, FLAGS.minutes) if FLAGS.calibrate else (None, {})
    )
    started = time.perf_counter()
    network = load_network(name)
    from tfq_sv.mixed_precision.file_size import predict_bytes
    from tfq_sv.models.plain_layers import plain_layers
    from tfq_sv.quantization.calibration import quantize
    from tfq_sv.quantization.float_layers import float_layers, left_float
    from tfq_sv.quantization.quantized_model import codebooks, quantizers_of
    from tfq_sv.reports.table import Table

    network = plain_layers(network)
    if recipe is None and FLAGS.binary:
        recipe = QuantizationRecipe.binary(network, FLAGS.binary)
    elif recipe is None and FLAGS.trellis:
        recipe = QuantizationRecipe.trellis(network, bits)
    elif recipe is None:
        recipe = QuantizationRecipe.uniform(network, int(bits))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said below
        model = quantize(
            network, recipe, calibrate=True if speech is None else speech, progress=True
        )
    layers, rows = {}, []
    quantizers = quantizers_of(model)
    for layer, book in codebooks(model).items():
        sqnr = quantizers[layer].sqnr  # None: a transposed convolution, which is only rounded
        layers[layer] = {"weights": book.size, "bits": book.bits, "sqnr_db": sqnr}
        noise = "-" if sqnr is None else f"{sqnr:.1f}"
        rows.append([layer, f"{book.size:,}", str(book.bits), noise])
    print(Table(["layer", "weights", "bits", "output SQNR dB"], rows))
    if note := left_float(model):
        print(f"warning: {note}")
    floats = {name: asdict(layer) for name, layer in float_layers(model).items()}
    if FLAGS.recipe_out:
        recipe.to_json(FLAGS.recipe_out)
        print(f"wrote {FLAGS.recipe_out}")
    with atomic(out) as temporary:
        model.save(temporary)
    size, seconds = predict_bytes(network, recipe), time.perf_counter() - started
    print(f"about {size:,} bytes as a .tflite; quantized in {seconds:.1f} s")
    print(f"wrote {out}; next: tfq-sv export --model={out} --out=model.tflite")
    return {
        "out": out,
        "bytes": size,
        "seconds": seconds,
        "layers": layers,
        "float": floats,
        "skipped": reasons(skipped),
    }


def _bits() -> float:
    """The width asked for; refused before anything loads, and where something else decides."""
    if FLAGS.recipe and FLAGS.binary:
        raise InputError("--recipe and --binary exclude each other; give one")
    if FLAGS.trellis and (FLAGS.recipe or FLAGS.binary):
        raise InputError("--trellis goes with --bits; drop --recipe and --binary")
    if FLAGS.recipe and FLAGS["bits"].present:
        raise InputError("--recipe says the bits of every layer; drop --bits or --recipe")
    if FLAGS.binary and FLAGS["bits"].present and FLAGS.bits != 1:
        raise InputError("--binary is one bit per weight; drop --bits")
    bits = int(FLAGS.bits) if FLAGS.bits.is_integer() else FLAGS.bits
    if not FLAGS.trellis:
        return check_bits(bits)
    trellis.check_bits(bits)
    return bits


def _recipe() -> QuantizationRecipe | None:
    return QuantizationRecipe.from_json(FLAGS.recipe) if FLAGS.recipe else None
