"""choose each layer's bits, so that the file has at most a wanted size

How much each layer suffers from quantization is measured on a little speech; no labels are needed.
Then the best bits of all layers together are found. The size is that of the finished .tflite, graph
and all: one file is really built, to correct the prediction. Give several sizes for the curve of
size against cost, and a test corpus for the EER at each (calibrated to a little of the speech,
without fine-tuning). Several GPUs or machines share the work, as in train.

example:
  tfq-sv search --model=model.keras --target_mb=1.0 --corpus=corpus/train --out=recipe.json
  tfq-sv quantize --model=model.keras --recipe=recipe.json --calibrate=corpus/train --out=s.keras
  tfq-sv search --model=model.keras --target_mb=0.5 --trellis --corpus=corpus/train --out=r.json
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.cluster import on_all_devices
from tfq_sv.cli.common import (
    are_listed,
    bit_widths,
    check_file,
    check_network,
    define_chunks,
    define_report,
    define_speaker_level,
    define_strict,
    load_network,
    megabytes,
    no_positional,
    output,
    print_skipped,
    read_corpus,
    read_trials,
    reasons,
    required,
)
from tfq_sv.data.chunks import Batches, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import Evaluation
from tfq_sv.reports.page import Page
from tfq_sv.reports.table import Table

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "FP32 network: a path or a shipped name", flag_values=FLAGS)
flags.DEFINE_list(
    "target_mb",
    None,
    "greatest file size, MB of 10^6 bytes; or several",
    flag_values=FLAGS,
)
flags.DEFINE_string("corpus", None, "folder of speech to measure on", flag_values=FLAGS)
flags.DEFINE_string(
    "out",
    None,
    "the recipe (.json); with several sizes, one each: recipe-1MB.json",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "sensitivity",
    "fisher",
    ["fisher", "hessian", "distortion"],
    "fisher, hessian: traces of 1 - cosine; the first has less noise and costs a third. "
    "distortion: 1 - cosine itself with one layer quantized, slow",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "method",
    "exact",
    ["exact", "sections"],
    "exact: the best bits of every layer; sections: layers sorted in 4 sections, one width each",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "bits",
    None,
    "widths to choose from; if not given 1-8, with --trellis 0.5 too",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "trellis",
    False,
    "trellis codes of 0.5, 1, 2 and 4 bits too, where they serve a layer better",
    flag_values=FLAGS,
)
flags.DEFINE_enum("input", "waveform", ["waveform", "features"], "as in export", flag_values=FLAGS)
flags.DEFINE_enum("compute", "int8", ["int8", "float32"], "as in export", flag_values=FLAGS)
flags.DEFINE_integer("probes", 32, "greatest number of batches to measure on", flag_values=FLAGS)
define_chunks(FLAGS, 16, "of chunks and probes")
flags.DEFINE_string("test_corpus", None, "test speech, for the EER at each size", flag_values=FLAGS)
flags.DEFINE_string(
    "trials", None, "trial list of --test_corpus, as in evaluate", flag_values=FLAGS
)
define_speaker_level(FLAGS, "test_corpus")
flags.DEFINE_string(
    "plot", None, "the picture (.png); beside the recipe if not given", flag_values=FLAGS
)
define_report(FLAGS)
define_strict(FLAGS)
REQUIRED = ("model", "target_mb", "corpus", "out")


_MINUTE = 60.0  # s, of speech for calibration


def run(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Measures, allocates, prints, writes and draws."""
    no_positional(arguments)
    name, _, folder, out = required(FLAGS, *REQUIRED)
    targets = [megabytes(text) for text in FLAGS.target_mb]
    widths = None if FLAGS.bits is None else _widths(FLAGS.bits)
    check_network(name)
    target = output(out, ".json")
    check_file(FLAGS, "plot", ".png")
    plot = Path(FLAGS.plot) if FLAGS.plot else target.with_suffix(".png")
    check_file(FLAGS, "report", ".html")
    corpus = read_corpus(folder, strict=FLAGS.strict, unlabelled=True)
    test = _test()
    return on_all_devices(
        lambda strategy: _search(name, corpus, test, target, plot, targets, widths, strategy)
    )


def _test() -> tuple[Corpus, Trials] | None:
    """What the EER at each size is measured on, if anything."""
    if not FLAGS.test_corpus:
        if FLAGS.trials:
            raise InputError("--trials needs --test_corpus, where its utterances are")
        return None
    test = read_corpus(
        FLAGS.test_corpus,
        strict=FLAGS.strict,
        speaker_level=FLAGS.speaker_level,
        unlabelled=are_listed(FLAGS.trials, FLAGS.test_corpus),
    )
    trials = read_trials(FLAGS.trials, test, strict=FLAGS.strict)
    trials.check()
    return test, trials


def _widths(texts: Sequence[str]) -> list[float]:
    """Codebooks have 1 to 8 bits; half a bit is a trellis's alone."""
    half = [0.5] if FLAGS.trellis and "0.5" in texts else []
    return [*half, *bit_widths([text for text in texts if not half or text != "0.5"])]


def _search(
    name: str,
    corpus: Corpus,
    test: tuple[Corpus, Trials] | None,
    target: Path,
    plot: Path,
    targets: Sequence[int],
    widths: Sequence[float] | None,
    strategy: Any,
) -> dict[str, Any] | None:
    from tfq_sv.mixed_precision import allocation
    from tfq_sv.mixed_precision.file_size import FileSize
    from tfq_sv.reports.allocation import SENSITIVITY, allocation_figure, allocation_table
    from tfq_sv.training.devices import is_chief

    network = load_network(name)
    stream = _chunks(corpus)
    traces = _traces(network, stream, target, widths, strategy)
    skipped = stream.skipped
    if not is_chief(strategy):
        return None
    costs = allocation.quantization_costs(network, traces, widths, trellis=FLAGS.trellis)
    sizes = FileSize.of(network, FLAGS.input, FLAGS.compute)
    options = {"bits": widths, "trellis": FLAGS.trellis, "method": FLAGS.method}
    order = allocation.sensitivity_order(traces)
    first = allocation.sweep(network, costs, targets[:1], order=order, sizes=sizes, **options)[0]
    real = _file_bytes(network, first.recipe)
    print(f"a real file of {first.bytes:,} predicted bytes has {real:,}: predictions are corrected")
    sizes = sizes.corrected_by(first.recipe, real)
    answers = allocation.sweep(network, costs, targets, order=order, sizes=sizes, **options)
    layers = allocation_table(network, traces, answers)
    print(layers)
    rates = None
    if test:
        stream = _chunks(corpus)
        rates = _error_rates(network, stream, answers, *test)
        skipped |= stream.skipped
    records = []
    for number, (wanted, answer) in enumerate(zip(targets, answers, strict=True)):
        file = target
        if len(targets) > 1:
            file = target.with_stem(f"{target.stem}-{wanted / 1e6:g}MB")
        answer.recipe.to_json(file)
        rate = "" if rates is None else f", EER {_percent(rates[number])}"
        print(
            f"wrote {file}: {answer.bytes:,} of at most {wanted:,} bytes, "
            f"predicted cost {answer.cost:.3g}{rate}"
        )
        record = {"recipe": str(file), "target": wanted, "bytes": answer.bytes, "cost": answer.cost}
        if rates:
            record |= {"eer": rates[number].eer, "interval": rates[number].interval}
        records.append(record)
    title = f"{name}: {FLAGS.sensitivity}, {FLAGS.method}"
    allocation_figure(traces, answers, plot, title, rates)
    print(f"picture {plot}")
    if FLAGS.report:
        taken = "; ".join(f"{x.bytes:,} of {y:,}" for x, y in zip(answers, targets, strict=True))
        best = f"The best bits of all layers together take, in predicted bytes: {taken} allowed."
        page = Page(f"{name}: bits per layer", best)
        caption = (
            f"Sensitivity ({FLAGS.sensitivity}), measured on {corpus.root}; bits for each size."
        )
        page.table(_size_table(targets, answers, rates)).picture(plot, caption)
        page.text(SENSITIVITY).table(layers).write(FLAGS.report)
        print(f"wrote {FLAGS.report}")
    if skipped:
        print_skipped(skipped, len(corpus.paths))
    return {
        "sensitivity": FLAGS.sensitivity,
        "method": FLAGS.method,
        "answers": records,
        "skipped": reasons(skipped),
    }


def _chunks(corpus: Corpus) -> Batches:
    return batches(
        corpus,
        batch_size=FLAGS.batch_size,
        seconds=FLAGS.seconds,
        seed=FLAGS.seed,
        strict=FLAGS.strict,
    )


def _traces(
    network: Any, chunks: Batches, target: Path, widths: Sequence[float] | None, strategy: Any
) -> Any:
    """Measures, or resumes what an earlier call has measured."""
    from tfq_sv.mixed_precision.probes import ProbeOptions
    from tfq_sv.mixed_precision.sensitivity import MEASURES

    kind = FLAGS.sensitivity
    options = ProbeOptions(FLAGS.probes, seed=FLAGS.seed)
    choices = {"bits": widths, "trellis": FLAGS.trellis} if kind == "distortion" else {}
    cache = target.with_suffix(f".{kind}.json")
    traces = MEASURES[kind](
        network, chunks, options=options, strategy=strategy, cache=cache, **choices
    )
    print(f"{cache} keeps the {kind} of {len(traces)} layers for further calls")
    return traces


def _file_bytes(network: Any, recipe: Any) -> int:
    from tfq_sv.export.convert import build
    from tfq_sv.quantization.folding import positive_gains
    from tfq_sv.quantization.quantized_model import codebooks, dequantize, rounded

    model = rounded(network, recipe)
    positive_gains(model)  # as calibration does; codes no longer fit, but have the same size
    built = build(dequantize(model), codebooks(model), FLAGS.input, compute=FLAGS.compute)
    return len(built.data)


def _size_table(
    targets: Sequence[int], answers: Sequence[Any], rates: Sequence[Evaluation] | None
) -> Table:
    """What each size gave, in numbers."""
    header = ["at most, bytes", "predicted bytes", "predicted cost"]
    rows = []
    for number, (target, answer) in enumerate(zip(targets, answers, strict=True)):
        row = [f"{target:,}", f"{answer.bytes:,}", f"{answer.cost:.3g}"]
        rows.append([*row, *([_percent(rates[number])] if rates else [])])
    return Table([*header, *(["EER, 95 %"] if rates else [])], rows)


def _percent(result: Evaluation) -> str:
    """An EER with its interval."""
    if result.interval is None:
        return f"{100 * result.eer:.2f} %"
    low, high = (f"{100 * bound:.2f}" for bound in result.interval)
    return f"{100 * result.eer:.2f} % ({low} to {high})"


def _error_rates(
    network: Any, chunks: Batches, answers: Sequence[Any], test: Corpus, trials: Trials
) -> list[Evaluation]:
    from tfq_sv.evaluation.measurement import KerasEncoder, evaluate
    from tfq_sv.quantization.calibration import quantize

    # Of short chunks, less: each costs as much time as a long one.
    minute = min(20, round(_MINUTE / (FLAGS.batch_size * FLAGS.seconds)) or 1)
    speech, rates = list(islice(chunks, minute)), []
    for answer in answers:
        model = quantize(network, answer.recipe, calibrate=speech, progress=True)
        label = f"EER at {answer.bytes:,} bytes"
        encoder = KerasEncoder(model)
        rates.append(evaluate(encoder, test, trials, strict=FLAGS.strict, progress=label))
    return rates
