"""train a quantized network a little more, to win back what few bits lost

The FP32 network is the teacher: embeddings are pulled to where it puts them, so the corpus needs
no speaker labels (a folder of any speech, in speaker folders or with lists, will do).

With --recipe, --model is the FP32 network itself: it is quantized one bit width after the other,
--steps steps each (multi-stage fine-tuning).

example:
  tfq-sv finetune --model=model-2bit.keras --teacher=model.keras --corpus=corpus/train \
      --out=tuned-2bit.keras
  tfq-sv finetune --model=model.keras --recipe=recipe.json --corpus=corpus/train --out=tuned.keras
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfq_sv.cli.common import load_network, no_positional, output, read_corpus, required
from tfq_sv.data.chunks import batches
from tfq_sv.files import atomic

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "quantized network", flag_values=FLAGS)
flags.DEFINE_string("teacher", None, "the FP32 network it was made of", flag_values=FLAGS)
flags.DEFINE_string("corpus", None, "folder of speech", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the tuned model goes (.keras)", flag_values=FLAGS)
flags.DEFINE_string("recipe", None, "JSON of bits a layer: quantize in stages", flag_values=FLAGS)
flags.DEFINE_enum(
    "stages",
    "lowest_first",
    ["lowest_first", "highest_first"],
    "order of the bit widths, with --recipe",
    flag_values=FLAGS,
)
flags.DEFINE_integer("steps", 150, "optimizer steps", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 32, "chunks a step", flag_values=FLAGS)
flags.DEFINE_float("seconds", 2.0, "length of a chunk", flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 5e-4, "peak learning rate (Adam)", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "of the data order", flag_values=FLAGS)
flags.DEFINE_bool("strict", False, "end at the first bad recording", flag_values=FLAGS)


def run(arguments: Sequence[str]) -> None:
    """Fine-tunes and saves."""
    no_positional(arguments)
    if FLAGS.recipe:
        _run_stages()
        return
    name, teacher, folder, out = required(FLAGS, "model", "teacher", "corpus", "out")
    output(out, ".keras", ".h5")
    model, network = load_network(name), load_network(teacher)
    corpus = read_corpus(folder, strict=FLAGS.strict)
    from tfq_sv.fine_tuning import FineTuningOptions, finetune

    stream = batches(corpus, batch_size=FLAGS.batch_size, seconds=FLAGS.seconds, seed=FLAGS.seed)
    state = Path(f"{out}.state")
    loss = finetune(
        model,
        stream,
        teacher=network,
        options=FineTuningOptions(steps=FLAGS.steps, learning_rate=FLAGS.learning_rate),
        checkpoint_dir=state,
    )
    with atomic(out) as temporary:
        model.save(temporary)
    shutil.rmtree(state)
    print(f"wrote {out}; mean 1 - cosine to the teacher, last 100 steps: {loss:.4f}")


def _run_stages() -> None:
    name, folder, out = required(FLAGS, "model", "corpus", "out")
    output(out, ".keras", ".h5")
    from tfq_sv.recipe import QuantizationRecipe

    recipe = QuantizationRecipe.from_json(FLAGS.recipe)
    network = load_network(name)
    teacher = load_network(FLAGS.teacher) if FLAGS.teacher else None
    corpus = read_corpus(folder, strict=FLAGS.strict)
    from tfq_sv.fine_tuning import FineTuningOptions
    from tfq_sv.multi_stage import multi_stage_finetune

    state = Path(f"{out}.state")
    model = multi_stage_finetune(
        network,
        recipe,
        batches(corpus, batch_size=FLAGS.batch_size, seconds=FLAGS.seconds, seed=FLAGS.seed),
        teacher=teacher,
        options=FineTuningOptions(steps=FLAGS.steps, learning_rate=FLAGS.learning_rate),
        order=FLAGS.stages,
        checkpoint_dir=state,
    )
    with atomic(out) as temporary:
        model.save(temporary)
    shutil.rmtree(state)
    print(f"wrote {out}; next: tfq-sv export --model={out} --out=model.tflite")
