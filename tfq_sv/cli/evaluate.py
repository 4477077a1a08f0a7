"""measure the EER of a network or a .tflite on a trial list

A .tflite runs in the LiteRT interpreter. Without --trials, trials.txt in the corpus folder is
used, or else pairs drawn at random. --store writes the thresholds found into the .tflite, where
tfq-sv verify and apps read them.

example:
  tfq-sv evaluate --model=model.tflite --corpus=corpus/test --store
"""

from collections.abc import Sequence

from absl import flags

from tfq_sv.cli.common import no_positional, open_encoder, read_corpus, read_trials, required
from tfq_sv.errors import InputError
from tfq_sv.evaluation import evaluate
from tfq_sv.files import atomic

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, ".tflite, .keras, .h5 or a shipped name", flag_values=FLAGS)
flags.DEFINE_string("corpus", None, "folder of test speech", flag_values=FLAGS)
flags.DEFINE_string("trials", None, "`1 enroll test` or Kaldi's form", flag_values=FLAGS)
flags.DEFINE_enum(
    "signature",
    "inflate",
    ["inflate", "embed"],
    "how a .tflite runs: inflated first (fast) or decoding as it runs (small)",
    flag_values=FLAGS,
)
flags.DEFINE_bool("store", False, "write the thresholds into the .tflite", flag_values=FLAGS)
flags.DEFINE_string("scores_out", None, "write `enroll test score label` lines", flag_values=FLAGS)


def run(arguments: Sequence[str]) -> None:
    """Evaluates, prints, and stores if asked."""
    no_positional(arguments)
    name, folder = required(FLAGS, "model", "corpus")
    if FLAGS.store and not name.endswith(".tflite"):
        raise InputError(f"--store writes into a .tflite; {name} is none")
    encoder = open_encoder(name, fast=FLAGS.signature == "inflate")
    corpus = read_corpus(folder)
    trials = read_trials(FLAGS.trials, corpus)
    result = evaluate(encoder, corpus, trials, progress="embedding")
    targets = int(trials.labels.sum())
    low, high = result.interval
    print(f"{name}: {len(trials):,} trials ({targets:,} target) from {trials.source}")
    print(f"  EER     {100 * result.eer:.3f} %  (95 %: {100 * low:.3f} to {100 * high:.3f})")
    print(f"  minDCF  {result.min_dcf:.4f}  (p_target 0.01)")
    print(f"  threshold at the EER  {result.threshold:.4f}  (cosine, -1 to 1)")
    if FLAGS.scores_out:
        rows = zip(trials.enroll, trials.test, result.scores, trials.labels, strict=True)
        with atomic(FLAGS.scores_out) as temporary:
            temporary.write_text(
                "".join(
                    f"{enroll} {test} {score:.5f} {'target' if label else 'nontarget'}\n"
                    for enroll, test, score, label in rows
                )
            )
        print(f"  wrote {FLAGS.scores_out}")
    if FLAGS.store:
        from tfq_sv.export import write_about

        write_about(name, **result.thresholds())
        print(f"  stored the thresholds in {name}")
