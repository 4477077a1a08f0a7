"""write the fast int8 .tflite that a small one holds

The same network with plain int8 weights: twice the bytes of a 4-bit file, and as fast as any int8
model. tfq-sv verify and evaluate do this by themselves and keep the result; this is to ship
the fast file. Its SHA-256 is checked against the one in the metadata.

example:
  tfq-sv inflate --model=model.tflite --out=fast.tflite
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.common import no_positional, output, required
from tfq_sv.errors import InputError
from tfq_sv.files import atomic

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "what tfq-sv export wrote (.tflite)", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the fast .tflite goes", flag_values=FLAGS)
REQUIRED = ("model", "out")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Inflates and prints the sizes."""
    no_positional(arguments)
    name, out = required(FLAGS, *REQUIRED)
    target = output(out, ".tflite")
    if target.exists() and target.samefile(name):
        raise InputError(f"--out {out} is the model itself, which holds more; name another file")
    from tfq_sv.export import inflate

    content = inflate(name)
    with atomic(target) as temporary:
        temporary.write_bytes(content)
    print(f"wrote {out}: {len(content):,} bytes, from {Path(name).stat().st_size:,}")
    print("one signature, embed, as in the small file; thresholds and metadata stay in that")
    return {"out": out, "bytes": len(content)}
