"""write the fast .tflite that a small one holds

The same network with its weights unpacked: as int8, twice the bytes of a 4-bit file, and as fast as
any int8 model. tfq-sv verify and evaluate do this by themselves and keep the result; this is to
ship the fast file. Metadata and thresholds come along, and all commands read it.

int8 quantizes activations as they come. NPUs want static-int8, whose ranges are measured on a
minute of speech beforehand; GPUs want float16. ai-edge-quantizer makes these two
(pip install ai-edge-quantizer); the front end stays float32. Their scores differ a little: measure
thresholds again with tfq-sv evaluate --store.

example:
  tfq-sv inflate --model=model.tflite --out=fast.tflite
  tfq-sv inflate --model=model.tflite --form=static-int8 --calibrate=corpus/train --out=npu.tflite
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from tfq_sv import assets
from tfq_sv.cli.common import no_positional, output, required, speech_for_calibration
from tfq_sv.errors import InputError
from tfq_sv.features import FbankOptions, fbank
from tfq_sv.files import atomic

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "what tfq-sv export wrote (.tflite)", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the fast .tflite goes", flag_values=FLAGS)
flags.DEFINE_enum(
    "form",
    "int8",
    ["int8", "static-int8", "float16"],
    "int8: for CPUs; static-int8: for NPUs; float16: for GPUs",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "calibrate",
    None,
    "for static-int8: speech, no speakers needed: any folder, wav.scp or list",
    flag_values=FLAGS,
)
REQUIRED = ("model", "out")
MINUTES = 1.0


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Inflates and prints the sizes."""
    no_positional(arguments)
    name, out = required(FLAGS, *REQUIRED)
    name = assets.file(name)
    target = output(out, ".tflite", keep=[name])
    if FLAGS.form == "static-int8" and not FLAGS.calibrate:
        raise InputError("--form=static-int8 needs speech; give --calibrate, a folder of any")
    if FLAGS.form != "static-int8" and FLAGS.calibrate:
        raise InputError(f"--form={FLAGS.form} takes no speech; leave --calibrate out")
    from tfq_sv.export.fast import fast_file, find_quantizer

    if FLAGS.form != "int8":
        find_quantizer()
    content = fast_file(name, FLAGS.form, _speech(name) if FLAGS.calibrate else None)
    with atomic(target) as temporary:
        temporary.write_bytes(content)
    print(f"wrote {out}: {len(content):,} bytes, {FLAGS.form}, from {Path(name).stat().st_size:,}")
    return {"out": out, "bytes": len(content), "form": FLAGS.form}


def _speech(model: str) -> list[Any]:
    """What the network takes: waveforms or their features."""
    from tfq_sv.export import read_about

    about = read_about(model)
    batches, _ = speech_for_calibration(FLAGS.calibrate, MINUTES)
    waveforms = [np.asarray(waveform[0], np.float32) for waveform, _ in batches]
    if about["input"] == "waveform":
        return waveforms
    if not about["frontend"]:
        raise InputError(f"{model} names no front end, and takes features; calibrate in Python")
    options = FbankOptions(**about["frontend"])
    return [fbank(waveform, options) for waveform in waveforms]
