r"""train an FP32 network: by speaker labels (AAM-softmax), or to embed as a teacher does

The folder is in VoxCeleb's form, speaker/.../file.wav, or holds wav.scp and utt2spk; --corpus may
be repeated. The state is kept beside the output every 100 steps and at Ctrl-C; the same command
resumes. The classifier is kept too (model.head.npz), for a large-margin stage that begins with
--init.

--config takes a YAML file of these flags, or a shipped recipe: resnet, resnet_lm, df_resnet,
df_resnet_lm (WeSpeaker's for VoxCeleb); flags override it. With --num_epochs, or a recipe, the
learning rate falls exponentially after a warm-up, and the margin rises between two epochs; with
--steps, the run is a short one.

With --teacher, the network learns to embed as that one does (distillation), which is any network or
published checkpoint. No speaker labels are needed; --aam_weight adds the AAM-softmax. The teacher
embeds each recording once, whole and without noise, at every speed; its embeddings are kept in a
folder teacher-... next to --out, for other networks too.

All GPUs of a machine are used. Several machines each run the same command with TF_CONFIG in their
environment, and --out in a folder that all of them see.

example:
  tfq-sv train --corpus=corpus/train --out=model.keras --steps=1500
  tfq-sv train --config=resnet --corpus=vox2_dev --musan=musan --rirs=RIRS_NOISES --out=model.keras
  tfq-sv train --teacher=voxceleb_resnet34_LM --corpus=corpus/train --corpus=my/train \
      --speed_perturb --out=student.keras
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    fingerprint,
    load_network,
    no_positional,
    number,
    open_encoder,
    output,
    print_skipped,
    read_corpora,
    reasons,
    required,
)
from tfq_sv.cli.config import apply_config
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.files import atomic, check_folder
from tfq_sv.origin import Origin, speech_of
from tfq_sv.run_folder import remove
from tfq_sv.training.augment import SPEEDS, Augmenter
from tfq_sv.training.options import OPTIMIZERS, TrainingOptions

if TYPE_CHECKING:
    from tfq_sv.training.distillation import TeacherEmbeddings

FLAGS = flags.FlagValues()
DEFAULT = TrainingOptions()
flags.DEFINE_multi_string("corpus", None, "training speech, see above", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the network goes (.keras)", flag_values=FLAGS)
flags.DEFINE_string("config", None, "YAML file of settings, or a recipe", flag_values=FLAGS)
flags.DEFINE_string("network", "ResNet18", "ResNet18, DF_ResNet56, ...", flag_values=FLAGS)
flags.DEFINE_integer(
    "channels",
    16,
    "width of the first stage (usually 32)",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer("embed_dim", 128, "length of the embedding", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string("init", None, "network to start from, instead of --network", flag_values=FLAGS)
flags.DEFINE_string(
    "teacher", None, "network to learn from: .pt, .keras, a folder, ...", flag_values=FLAGS
)
flags.DEFINE_float(
    "aam_weight",
    DEFAULT.aam_weight,
    "weight of the AAM-softmax, added to the teacher's loss",
    lower_bound=0.0,
    flag_values=FLAGS,
)
flags.DEFINE_integer("steps", DEFAULT.steps, "optimizer steps", flag_values=FLAGS)
flags.DEFINE_integer("num_epochs", None, "epochs, instead of --steps", flag_values=FLAGS)
flags.DEFINE_integer("num_avg", 1, "last epochs whose weights are averaged", flag_values=FLAGS)
define_speaker_level(FLAGS)
define_chunks(FLAGS, DEFAULT.batch_size, "of weights, data order and augmentation")
flags.DEFINE_bool(
    "speed_perturb", False, "speeds 0.9 and 1.1 too, as further speakers", flag_values=FLAGS
)
define_augmentation(FLAGS)
flags.DEFINE_enum("optimizer", "Adam", OPTIMIZERS, "as in PyTorch", flag_values=FLAGS)
flags.DEFINE_float("momentum", DEFAULT.momentum, "of SGD (Nesterov's form)", flag_values=FLAGS)
flags.DEFINE_float("weight_decay", 0.0, "for AdamW and SGD", flag_values=FLAGS)
flags.DEFINE_float(
    "learning_rate", DEFAULT.learning_rate, "peak of the schedule", flag_values=FLAGS
)
flags.DEFINE_float(
    "final_lr", DEFAULT.final_lr, "learning rate after the last epoch", flag_values=FLAGS
)
flags.DEFINE_integer("warm_up_epoch", DEFAULT.warm_up_epoch, "epochs of warm-up", flag_values=FLAGS)
flags.DEFINE_integer(
    "base_batch_size",
    None,
    "batch size that the learning rates are for; they scale with --batch_size",
    flag_values=FLAGS,
)
flags.DEFINE_float("scale", DEFAULT.scale, "of the AAM-softmax", flag_values=FLAGS)
flags.DEFINE_float("margin", DEFAULT.margin, "final AAM margin", flag_values=FLAGS)
flags.DEFINE_float("initial_margin", 0.0, "AAM margin of the first epochs", flag_values=FLAGS)
flags.DEFINE_integer(
    "increase_start_epoch",
    DEFAULT.increase_start_epoch,
    "epoch, from 1, when the margin begins to rise",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "fix_start_epoch",
    DEFAULT.fix_start_epoch,
    "epoch when the margin reaches --margin",
    flag_values=FLAGS,
)
define_precision(FLAGS)
flags.DEFINE_bool(
    "sync_batch_norm", True, "BatchNorm statistics over all devices together", flag_values=FLAGS
)
flags.DEFINE_integer(
    "num_workers",
    min(8, os.cpu_count() or 1),
    "threads that read",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_string("tensorboard", None, "folder for TensorBoard's curves", flag_values=FLAGS)
define_strict(FLAGS)
REQUIRED = ("corpus", "out")


def run(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Trains and saves."""
    no_positional(arguments)
    form = [name for name in ("network", "channels", "embed_dim") if FLAGS[name].present]
    if FLAGS.config:
        apply_config(FLAGS, FLAGS.config)
    folders, out = required(FLAGS, *REQUIRED)
    output(out, ".keras", ".h5", keep=[FLAGS.teacher])
    if FLAGS.tensorboard:
        check_folder(FLAGS.tensorboard)
    if FLAGS.num_epochs and FLAGS["steps"].present:
        raise InputError("--steps and --num_epochs exclude each other; a recipe counts in epochs")
    if FLAGS.aam_weight and not FLAGS.teacher:
        raise InputError(
            "--aam_weight goes with --teacher; without one, AAM-softmax is all there is"
        )
    for given in (FLAGS.init, FLAGS.teacher):
        if given:
            check_network(given)
    if FLAGS.init and form:  # a recipe's own are for those who start without --init
        raise InputError(f"--{form[0]} is for a new network; --init {FLAGS.init} has its own")
    names = [field.name for field in dataclasses.fields(TrainingOptions)]
    options = TrainingOptions(**{name: FLAGS[name].value for name in names})
    added = augmenter(FLAGS, SPEEDS if FLAGS.speed_perturb else SPEEDS[:1])
    if not FLAGS.init and all(Path(folder).exists() for folder in folders):
        from tfq_sv.models.registry import check_name  # imports TensorFlow

        check_name(FLAGS.network)
    corpus = read_corpora(
        folders,
        strict=FLAGS.strict,
        speaker_level=FLAGS.speaker_level,
        unlabelled=bool(FLAGS.teacher),
    )
    return on_all_devices(lambda strategy: _train(strategy, corpus, options, added, Path(out)))


def _train(
    strategy: Any,
    corpus: Corpus,
    options: TrainingOptions,
    added: Augmenter | None,
    out: Path,
) -> dict[str, Any] | None:
    import tf_keras as keras

    from tfq_sv.models import set_origin
    from tfq_sv.training import AAMSoftmax, train
    from tfq_sv.training.classifier import class_names, classifier_path, save_classifier
    from tfq_sv.training.devices import is_chief

    speeds = added.speeds if added else SPEEDS[:1]
    teacher = _teacher(corpus, speeds, out) if FLAGS.teacher else None
    total = len(corpus.paths)
    corpus = teacher.corpus if teacher else corpus
    keras.utils.set_random_seed(FLAGS.seed)
    head: AAMSoftmax | None = None
    names: list[str] = []
    with strategy.scope():
        model = _network()
        if not teacher or FLAGS.aam_weight:
            head, names = _head(model, class_names(corpus, speeds), options.scale)
    print(f"{model.name}: {model.count_params():,} parameters, {len(names):,} classes")
    if added:
        print("augmentation:", ", ".join(f"{k} {v}" for k, v in added.summary().items()))
    state = Path(f"{out}.state")
    result = train(
        model,
        corpus,
        options,
        augmenter=added,
        head=head,
        teacher=teacher,
        checkpoint_dir=state,
        tensorboard=FLAGS.tensorboard,
        strict=FLAGS.strict,
        workers=FLAGS.num_workers,
    )
    skipped = {**(teacher.skipped if teacher else {}), **result.skipped}
    if skipped:
        print_skipped(skipped, total)
    print_bad_additions(added)
    weights = model.get_weights()  # all workers together
    if not is_chief(strategy):
        return None
    if strategy.num_replicas_in_sync > 1:
        model = keras.models.clone_model(model)  # on one device, as a file is
        model.set_weights(weights)
    with atomic(out) as temporary:
        set_origin(model, _origin(model))
        model.save(temporary)
    if head is not None:
        save_classifier(classifier_path(out), head, names)
    else:  # one that was trained with another network of this name
        classifier_path(out).unlink(missing_ok=True)
    remove(state)
    print(f"wrote {out}; mean loss of the last 100 steps {result.loss:.3f}")
    print(f"next: tfq-sv evaluate --model={out} --corpus=<folder of other speakers>")
    return {
        "out": str(out),
        "network": model.name,
        "parameters": model.count_params(),
        "classes": len(names),
        "loss": number(result.loss),
        "skipped": reasons(skipped),
    }


def _origin(model: Any) -> Origin:
    """What the network has heard: --corpus, and before it what --init had."""
    from tfq_sv import models

    before = models.origin_of(model)
    heard = [before.speech, *(speech_of(Path(folder)) for folder in FLAGS.corpus)]
    speech = ", ".join(dict.fromkeys(filter(None, heard)))
    return Origin(before.source, before.licence, speech)


def _teacher(corpus: Corpus, speeds: tuple[float, ...], out: Path) -> "TeacherEmbeddings":
    """What the teacher says of the corpus; kept beside the output."""
    from tfq_sv.training.distillation import teacher_embeddings

    encoder = open_encoder(FLAGS.teacher)
    name = fingerprint(FLAGS.teacher, encoder)
    return teacher_embeddings(
        encoder,
        name,
        corpus,
        speeds,
        folder=out.parent / f"teacher-{name[:8]}",
        strict=FLAGS.strict,
    )


def _network() -> Any:
    from tfq_sv import models
    from tfq_sv.quantization.quantized_model import quantizers_of

    if not FLAGS.init:
        return models.build(FLAGS.network, embed_dim=FLAGS.embed_dim, channels=FLAGS.channels)
    model = load_network(FLAGS.init)
    if quantizers_of(model):
        raise InputError(f"--init {FLAGS.init} is quantized; tfq-sv finetune trains such networks")
    return model


def _head(model: Any, names: list[str], scale: float) -> tuple[Any, list[str]]:
    """The classifier beside --init, or a new one; and the names of its classes."""
    from tfq_sv.models.entry import embedding_shape
    from tfq_sv.training import AAMSoftmax
    from tfq_sv.training.classifier import classifier_path, load_classifier

    kept = classifier_path(FLAGS.init) if FLAGS.init else None
    if kept and kept.is_file():
        return load_classifier(kept, names, embedding_shape(model)[-1], scale)
    if kept:
        print(f"there is no {kept}: the classifier starts from random weights")
    head = AAMSoftmax(len(names), scale)
    head.build(embedding_shape(model))
    return head, names
