r"""compare networks, each at several bit widths and file sizes, on one corpus

Each network is quantized, calibrated to a minute of speech (and fine-tuned, with --steps),
exported, and measured as a .tflite: size, multiply-accumulates, latency, EER, minDCF. report.md has
the table, report.png the EER against the file size with its Pareto front. All is kept in --out: the
same command resumes, and takes further networks, --bits and --target_mb.

example:
  tfq-sv compare --models=resnet18.keras,model.keras --train=my/train --test=my/test \
    --bits=4,2 --target_mb=1 --out=compared
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.common import (
    are_listed,
    bit_widths,
    check_network,
    define_chunks,
    define_strict,
    load_network,
    megabytes,
    no_positional,
    print_skipped,
    read_corpus,
    read_trials,
    reasons,
    required,
)
from tfq_sv.errors import InputError
from tfq_sv.files import check_folder

FLAGS = flags.FlagValues()
flags.DEFINE_list(
    "models",
    [],
    "FP32 networks: .keras, .h5, or checkpoints as import takes them",
    flag_values=FLAGS,
)
flags.DEFINE_string("train", None, "speech to calibrate and fine-tune on", flag_values=FLAGS)
flags.DEFINE_string("test", None, "test speech", flag_values=FLAGS)
flags.DEFINE_string(
    "trials", None, "trial list; trials.txt in --test, or random pairs, if none", flag_values=FLAGS
)
flags.DEFINE_string("out", None, "folder of the results", flag_values=FLAGS)
flags.DEFINE_list("bits", ["8", "4", "3", "2"], "widths, 1-8", flag_values=FLAGS)
flags.DEFINE_list(
    "target_mb", [], "sizes of mixed precision too, MB of 10^6 bytes", flag_values=FLAGS
)
flags.DEFINE_integer("steps", 0, "steps of fine-tuning per row", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 1e-3, "peak learning rate (Adam)", flag_values=FLAGS)
flags.DEFINE_float("minutes", 1.0, "speech to calibrate on", lower_bound=0.01, flag_values=FLAGS)
define_chunks(FLAGS, 32, "of chunks and probes")
flags.DEFINE_integer(
    "probes", 32, "greatest number of batches for sensitivities", lower_bound=1, flag_values=FLAGS
)
define_strict(FLAGS)
REQUIRED = ("models", "train", "test", "out")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Makes what is missing of the comparison, and prints it."""
    no_positional(arguments)
    paths, train, test, out = required(FLAGS, *REQUIRED)
    for path in paths:
        check_network(path)
    check_folder(out)
    bits, targets = bit_widths(FLAGS.bits), [megabytes(text) for text in FLAGS.target_mb]
    speech = read_corpus(train, strict=FLAGS.strict, unlabelled=True)
    listed = are_listed(FLAGS.trials, test)
    tested = read_corpus(test, strict=FLAGS.strict, unlabelled=listed)
    trials = read_trials(FLAGS.trials, tested, strict=FLAGS.strict)
    trials.check()
    from tfq_sv.experiments.network_comparison import (
        ComparisonOptions,
        compare_networks,
        names_of,
    )
    from tfq_sv.quantization.quantized_model import quantizers_of

    networks = {}
    for name, path in zip(names_of(paths), paths, strict=True):
        networks[name] = load_network(path)
        if quantizers_of(networks[name]):
            raise InputError(f"{path} is quantized already; give the FP32 network")
    options = ComparisonOptions(
        bits=tuple(bits),
        target_bytes=tuple(targets),
        steps=FLAGS.steps,
        learning_rate=FLAGS.learning_rate,
        batch_size=FLAGS.batch_size,
        seconds=FLAGS.seconds,
        minutes=FLAGS.minutes,
        probes=FLAGS.probes,
        seed=FLAGS.seed,
    )
    text, skipped = compare_networks(
        networks, speech, tested, trials, out, options, strict=FLAGS.strict
    )
    print(f"\n{text}")
    if skipped:
        print_skipped(skipped, len(speech.paths) + len(tested.paths))
    print(f"wrote {out}/report.md and report.png; each row's model.tflite is in its folder")
    rows = [json.loads(path.read_text()) for path in sorted(Path(out).glob("*/*/results.json"))]
    return {"out": out, "rows": rows, "skipped": reasons(skipped)}
