"""make the whole experiment table of the paper from one trained network

Quantizes the network in every way (8 to 1 bits by k-means, static and adaptive binary, trellises,
mixed bits for given sizes, at once and in stages), calibrates and fine-tunes each, exports it, and
measures it as a .tflite. K-means and trellises are measured without fine-tuning too. Every row is
kept in --out: after an interruption the same command resumes. report.md and report.png grow with
each row. A second table says which of the paper's claims hold on these trials.

--test is VoxCeleb1 as distributed, with its trial lists in it: veri_test2.txt, list_test_all2.txt
and list_test_hard2.txt are Vox1-O, E and H. Any other corpus will do, with trials.txt in it or
--trials. Fine-tuning needs no labels. Several GPUs or machines share the work, as in train.

example:
  tfq-sv reproduce --model=voxceleb_resnet34_LM --train=vox2/dev --test=vox1 --out=reproduced
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.augmentation import define_precision
from tfq_sv.cli.cluster import on_all_devices
from tfq_sv.cli.common import (
    check_network,
    define_chunks,
    define_speaker_level,
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
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.files import check_folder

VOXCELEB = {
    "Vox1-O": "veri_test2.txt",
    "Vox1-E": "list_test_all2.txt",
    "Vox1-H": "list_test_hard2.txt",
}

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "FP32 network: .keras, .h5 or a checkpoint", flag_values=FLAGS)
flags.DEFINE_string("train", None, "speech to fine-tune on", flag_values=FLAGS)
flags.DEFINE_string("test", None, "test speech with its trial lists", flag_values=FLAGS)
define_speaker_level(FLAGS, "test")
flags.DEFINE_list("trials", [], "trial lists, if not those in --test", flag_values=FLAGS)
flags.DEFINE_string("out", None, "folder of the results", flag_values=FLAGS)
flags.DEFINE_list(
    "target_mb",
    [],
    "sizes of mixed precision, MB of 10^6 bytes; those of 3, 2.5 and 2 bits if not given",
    flag_values=FLAGS,
)
flags.DEFINE_integer("steps", 3000, "steps of fine-tuning per row", flag_values=FLAGS)
define_chunks(FLAGS, 32, "of chunks and probes")
flags.DEFINE_float("learning_rate", 1e-3, "peak learning rate (Adam)", flag_values=FLAGS)
define_precision(FLAGS)
flags.DEFINE_integer(
    "probes", 32, "greatest number of batches for sensitivities", flag_values=FLAGS
)
flags.DEFINE_enum("input", "waveform", ["waveform", "features"], "as in export", flag_values=FLAGS)
define_strict(FLAGS)
REQUIRED = ("model", "train", "test", "out")


def run(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Makes what is missing of the table, and prints it."""
    no_positional(arguments)
    name, train, test, out = required(FLAGS, *REQUIRED)
    check_network(name)
    check_folder(out)
    targets = tuple(megabytes(text) for text in FLAGS.target_mb)
    speech = read_corpus(train, strict=FLAGS.strict, unlabelled=True)
    tested = read_corpus(
        test, strict=FLAGS.strict, speaker_level=FLAGS.speaker_level, unlabelled=True
    )
    trials = _trials(tested)
    return on_all_devices(
        lambda strategy: _reproduce(name, speech, tested, trials, targets, out, strategy)
    )


def _reproduce(
    name: str,
    train: Corpus,
    test: Corpus,
    trials: dict[str, Trials],
    targets: tuple[int, ...],
    out: str,
    strategy: Any,
) -> dict[str, Any] | None:
    from tfq_sv.experiments.reproduction import ReproductionOptions, reproduce
    from tfq_sv.training.devices import is_chief

    options = ReproductionOptions(
        steps=FLAGS.steps,
        batch_size=FLAGS.batch_size,
        seconds=FLAGS.seconds,
        learning_rate=FLAGS.learning_rate,
        precision=FLAGS.precision,
        seed=FLAGS.seed,
        probes=FLAGS.probes,
        target_bytes=targets,
        input=FLAGS.input,
    )
    network = _network(name)
    result = reproduce(
        network, train, test, trials, out, options, strategy=strategy, strict=FLAGS.strict
    )
    if not is_chief(strategy):
        return None
    print(f"\n{result.report}")
    if result.skipped:
        print_skipped(result.skipped, len(train.paths) + len(test.paths))
    print(
        f"wrote {out}/report.md and report.png; each row's .keras and .tflite stand in its folder"
    )
    rows = [json.loads(path.read_text()) for path in sorted(Path(out).glob("*/results.json"))]
    return {"out": out, "rows": rows, "skipped": reasons(result.skipped)}


def _network(name: str) -> Any:
    from tfq_sv.quantization.quantized_model import quantizers_of

    network = load_network(name)
    if quantizers_of(network):
        raise InputError(f"--model {name} is quantized already; give the FP32 network")
    return network


def _trials(test: Corpus) -> dict[str, Trials]:
    """The lists by name: those given, VoxCeleb1's, or the corpus's own."""
    lists = {Path(path).stem: Path(path) for path in FLAGS.trials}
    if len(lists) < len(FLAGS.trials):
        raise InputError("--trials has two lists of one name; rename one")
    if not lists:
        lists = {name: test.root / file for name, file in VOXCELEB.items()}
        lists = {name: path for name, path in lists.items() if path.is_file()}
    if not lists and (test.root / "trials.txt").is_file():
        lists = {"trials": test.root / "trials.txt"}
    if not lists:
        raise InputError(
            f"{test.root} has no trial list ({', '.join(VOXCELEB.values())} or trials.txt); name "
            "lists with --trials"
        )
    found = {name: read_trials(str(p), test, strict=FLAGS.strict) for name, p in lists.items()}
    for each in found.values():
        each.check()
    return found
