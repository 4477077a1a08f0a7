"""train an FP32 network to tell a folder's speakers apart (AAM-softmax)

The folder is in VoxCeleb's form, speaker/.../file.wav, or holds wav.scp and utt2spk. The state is
kept beside the output every 100 steps; the same command goes on after an interruption.

example:
  tfq-sv train --corpus=corpus/train --out=model.keras --steps=1500
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfq_sv.cli.common import no_positional, output, read_corpus, required
from tfq_sv.files import atomic

FLAGS = flags.FlagValues()
flags.DEFINE_string("corpus", None, "folder of training speech", flag_values=FLAGS)
flags.DEFINE_string("out", None, "where the network goes (.keras)", flag_values=FLAGS)
flags.DEFINE_string("network", "ResNet18", "ResNet18, DF_ResNet56, ...", flag_values=FLAGS)
flags.DEFINE_integer("channels", 16, "width of the first stage (the field: 32)", flag_values=FLAGS)
flags.DEFINE_integer("embed_dim", 128, "length of the embedding", flag_values=FLAGS)
flags.DEFINE_integer("steps", 1500, "optimizer steps", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 32, "chunks a step", flag_values=FLAGS)
flags.DEFINE_float("seconds", 2.0, "length of a chunk", flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 3e-3, "peak learning rate (Adam)", flag_values=FLAGS)
flags.DEFINE_float("margin", 0.2, "final AAM margin", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "of weights and data order", flag_values=FLAGS)
flags.DEFINE_bool("strict", False, "end at the first bad recording", flag_values=FLAGS)


def run(arguments: Sequence[str]) -> None:
    """Trains and saves."""
    no_positional(arguments)
    folder, out = required(FLAGS, "corpus", "out")
    output(out, ".keras", ".h5")
    corpus = read_corpus(folder, strict=FLAGS.strict)
    import tf_keras as keras

    from tfq_sv import models
    from tfq_sv.training import TrainingOptions, train

    options = TrainingOptions(
        steps=FLAGS.steps,
        batch_size=FLAGS.batch_size,
        seconds=FLAGS.seconds,
        learning_rate=FLAGS.learning_rate,
        margin=FLAGS.margin,
        seed=FLAGS.seed,
    )
    keras.utils.set_random_seed(FLAGS.seed)
    model = models.build(FLAGS.network, embed_dim=FLAGS.embed_dim, channels=FLAGS.channels)
    print(f"{FLAGS.network}, {FLAGS.channels} channels: {model.count_params():,} parameters")
    state = Path(f"{out}.state")
    loss = train(model, corpus, options, checkpoint_dir=state)
    with atomic(out) as temporary:
        model.save(temporary)
    shutil.rmtree(state)
    print(f"wrote {out}; mean loss of the last 100 steps {loss:.3f}")
    print(f"next: tfq-sv evaluate --model={out} --corpus=<folder of other speakers>")
