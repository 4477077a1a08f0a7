r"""fine-tune a quantized network, to recover the accuracy that few bits cost

The FP32 network is the teacher: embeddings are pulled towards its own, so the corpus needs no
speaker labels: a folder of any speech, in speaker folders or with lists, will do. --corpus may be
given several times. --loss=aam trains AAM-softmax on the corpus's speakers instead, starting from
their embeddings by the FP32 network.

Several GPUs or machines share every batch, as in train. --aug_prob=0.6 with --musan and --rirs adds
noise and reverberation, to what the teacher hears too.

With --recipe, --model is the FP32 network itself: it is quantized one bit width after the other,
--steps steps each (multi-stage fine-tuning).

Below 4 bits, quantize with --calibrate first: fine-tuning does far better from there.

example:
  tfq-sv finetune --model=model-2bit.keras --teacher=model.keras --corpus=corpus/train \
      --out=tuned-2bit.keras
  tfq-sv finetune --model=model.keras --recipe=recipe.json --corpus=corpus/train --out=tuned.keras
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.augmentation import (
    augmenter,
    define_augmentation,
    define_precision,
    print_bad_additions,
)
from tfq_sv.cli.cluster import on_all_devices
from tfq_sv.cli.common import (
    check_network,
    define_chunks,
    define_speaker_level,
    define_strict,
    load_network,
    no_positional,
    number,
    output,
    print_skipped,
    read_corpora,
    reasons,
    required,
)
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.files import atomic, require_file
from tfq_sv.run_folder import remove
from tfq_sv.training.augment import Augmenter

UTTERANCES_A_CENTER = 8

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model", None, "quantized network; with --recipe the FP32 one", flag_values=FLAGS
)
flags.DEFINE_string("teacher", None, "the FP32 network it was made from", flag_values=FLAGS)
flags.DEFINE_multi_string("corpus", None, "folder of speech", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the tuned model goes (.keras)", flag_values=FLAGS)
flags.DEFINE_string("recipe", None, "JSON of bits per layer: quantize in stages", flag_values=FLAGS)
flags.DEFINE_enum(
    "stages",
    "lowest_first",
    ["lowest_first", "highest_first"],
    "order of the bit widths, with --recipe",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "loss",
    "distillation",
    ["distillation", "aam"],
    "towards the teacher's embeddings, or AAM-softmax on the corpus's speakers",
    flag_values=FLAGS,
)
flags.DEFINE_float("margin", 0.2, "of the AAM-softmax", flag_values=FLAGS)
flags.DEFINE_integer("steps", 150, "optimizer steps", flag_values=FLAGS)
define_speaker_level(FLAGS)
define_chunks(FLAGS, 32, "of data order and augmentation")
define_augmentation(FLAGS)
flags.DEFINE_float("learning_rate", 5e-4, "peak learning rate (Adam)", flag_values=FLAGS)
define_precision(FLAGS)
define_strict(FLAGS)
REQUIRED = ("model", "corpus", "out")


def run(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Fine-tunes and saves."""
    no_positional(arguments)
    name, folders, out = required(FLAGS, *REQUIRED)
    check_network(name)
    output(out, ".keras", ".h5", keep=[FLAGS.teacher, name if FLAGS.recipe else None])
    for flag, what in (("margin", "--loss=aam"), ("stages", "--recipe")):
        if FLAGS[flag].present and not (FLAGS.recipe if flag == "stages" else FLAGS.loss == "aam"):
            raise InputError(f"--{flag} goes with {what}")
    if FLAGS.recipe and FLAGS.loss == "aam":
        raise InputError("--recipe learns from the FP32 network only; leave --loss=aam out")
    if not FLAGS.recipe:
        required(FLAGS, "teacher")
    if FLAGS.teacher:
        check_network(FLAGS.teacher)
    if FLAGS.recipe:
        require_file(FLAGS.recipe, "recipe")
    added = augmenter(FLAGS)
    return on_all_devices(lambda strategy: _finetune(name, folders, out, added, strategy))


def _finetune(
    name: str, folders: Sequence[str], out: str, added: Augmenter | None, strategy: Any
) -> dict[str, Any] | None:
    model = load_network(name)
    teacher = load_network(FLAGS.teacher) if FLAGS.teacher else None
    from tfq_sv.quantization.quantized_model import codebooks
    from tfq_sv.quantization.recipe import QuantizationRecipe
    from tfq_sv.training.devices import is_chief
    from tfq_sv.training.fine_tuning import FineTuningOptions, finetune
    from tfq_sv.training.multi_stage import multi_stage_finetune

    options = FineTuningOptions(
        steps=FLAGS.steps, learning_rate=FLAGS.learning_rate, precision=FLAGS.precision
    )
    recipe = QuantizationRecipe.from_json(FLAGS.recipe) if FLAGS.recipe else None
    if not recipe:
        codebooks(model)  # refuses a float model
    corpus = read_corpora(
        folders,
        strict=FLAGS.strict,
        speaker_level=FLAGS.speaker_level,
        unlabelled=FLAGS.loss != "aam",
    )
    dataset = batches(
        corpus,
        batch_size=FLAGS.batch_size,
        seconds=FLAGS.seconds,
        seed=FLAGS.seed,
        augmentation=added,
        strict=FLAGS.strict,
    )
    state, loss = Path(f"{out}.state"), math.nan
    skipped: dict[str, BadAudioError] = {}
    if recipe:
        model = multi_stage_finetune(
            model,
            recipe,
            dataset,
            teacher=teacher,
            options=options,
            order=FLAGS.stages,
            strategy=strategy,
            checkpoint_dir=state,
        )
    else:
        kind, head = "1 - cosine to the teacher", None
        if FLAGS.loss == "aam":
            head, skipped = _head(teacher, corpus)
            kind, teacher = "AAM-softmax loss", None
        loss = finetune(
            model,
            dataset,
            teacher=teacher,
            head=head,
            options=options,
            strategy=strategy,
            checkpoint_dir=state,
        )
        print(f"mean {kind}, last 100 steps: {loss:.4f}")
    if not is_chief(strategy):
        return None
    with atomic(out) as temporary:
        model.save(temporary)
    remove(state)
    skipped |= dataset.skipped
    if skipped:
        print_skipped(skipped, len(corpus.paths))
    print_bad_additions(added)
    print(f"wrote {out}; next: tfq-sv export --model={out} --out=model.tflite")
    return {
        "out": out,
        "loss": number(loss),
        "skipped": reasons(skipped),
    }


def _head(network: Any, corpus: Corpus) -> tuple[Any, dict[str, BadAudioError]]:
    """AAM-softmax with each speaker's centre where the FP32 network has a few utterances.

    Also returns the recordings that could not be read.
    """
    from tfq_sv.training.fine_tuning import speaker_head

    number: Counter[str] = Counter()
    further = []
    for key, speaker in corpus.speakers.items():
        number[speaker] += 1
        if number[speaker] > UTTERANCES_A_CENTER:
            further.append(key)
    few = corpus.without(further)
    stream = batches(
        few,
        batch_size=FLAGS.batch_size,
        seconds=FLAGS.seconds,
        seed=FLAGS.seed,
        strict=FLAGS.strict,
    )
    once = itertools.islice(stream, -(-len(few.paths) // FLAGS.batch_size))
    return speaker_head(network, once, len(number), margin=FLAGS.margin), stream.skipped
