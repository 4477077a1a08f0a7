"""end to end on synthetic speech: corpus, few bits, .tflite, EER, report

Makes a corpus of artificial voices and quantizes a shipped network in three ways: to --bits,
without any speech; to the bits that are best for each layer at a wanted size; and to one bit. The
last two are calibrated to a minute of speech and fine-tuned briefly. Exports them, measures the EER
of each file in the interpreter on the same trials, and writes report.html with all tables and
pictures. Takes a few minutes on two cores.

example:
  tfq-sv demo --out=demo
"""

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv import assets
from tfq_sv.cli.common import megabytes, no_positional
from tfq_sv.cli.stored import described
from tfq_sv.codebook import check_bits
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.synthetic import CorpusSpec, make_corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.comparison import System, compare
from tfq_sv.evaluation.measurement import Encoder, KerasEncoder, evaluate
from tfq_sv.files import atomic, check_folder
from tfq_sv.reports.comparison import (
    comparison_figure,
    comparison_table,
    det_figure,
    size_figure,
    size_table,
)
from tfq_sv.reports.page import Page

FLAGS = flags.FlagValues()
flags.DEFINE_string("out", "demo", "folder for everything it makes", flag_values=FLAGS)
flags.DEFINE_enum("network", "resnet18-small", assets.NAMES, "shipped network", flag_values=FLAGS)
flags.DEFINE_integer("bits", 4, "bits per weight of the first file, 1-8", flag_values=FLAGS)
flags.DEFINE_string(
    "target_mb",
    None,
    "size of the mixed file, MB of 10^6 bytes; that of 2 bits if not given",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "steps", 60, "fine-tuning steps of the mixed and the 1-bit file", flag_values=FLAGS
)
flags.DEFINE_integer("test_speakers", 120, "speakers in the trials", flag_values=FLAGS)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs all steps and writes the report."""
    no_positional(arguments)
    out, uniform = Path(FLAGS.out), f"{check_bits(FLAGS.bits)}-bit"
    check_folder(out)
    target = megabytes(FLAGS.target_mb) if FLAGS.target_mb else None
    spec = CorpusSpec(speakers=60, utterances=4, test_speakers=FLAGS.test_speakers)
    print(f"1. synthetic speech: {spec.test_speakers} unheard voices, 60 to tune on")
    make_corpus(out / "corpus", spec)
    corpus = Corpus.read(out / "corpus" / "test")
    trials = Trials.read(corpus.root / "trials.txt", corpus)

    from tfq_sv.export import SpeakerEncoder, export_float32, export_tflite, write_about

    network = assets.load(FLAGS.network)
    print(f"2. {FLAGS.network} to {uniform} codebooks, to mixed bits, and to 1 bit")
    forms, answer, traces = _quantized(network, uniform, target, Corpus.read(out / "corpus/train"))
    sizes = {"float32 .tflite": export_float32(network, out / f"{FLAGS.network}-float32.tflite")}
    files = {name: out / f"{FLAGS.network}-{_short(name, forms)}.tflite" for name in forms}
    for name, model in forms.items():
        exported = export_tflite(model, files[name])
        sizes[f"{name}, .tflite"] = exported.bytes

    print(f"3. EER on {len(trials):,} trials")
    encoders: dict[str, Encoder] = {"FP32, Keras": KerasEncoder(network)}
    for name, file in files.items():
        encoders[f"{name}, .tflite"] = SpeakerEncoder(file)
    results = {
        name: evaluate(encoder, corpus, trials, progress=f"   {name}")
        for name, encoder in encoders.items()
    }
    systems = compare(results, corpus)
    for file, system in zip(files.values(), systems[1:], strict=True):
        write_about(file, **described(system.result, corpus))

    where = (
        f"synthetic speech (espeak-ng, seed {spec.seed}), {spec.test_speakers} unseen speakers, "
        f"{len(trials):,} trials; not VoxCeleb"
    )
    lead = _summary(systems, sizes, where)
    record = {"summary": lead, **_record(systems, sizes, where)}
    with atomic(out / "results.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    comparison_figure(systems, sizes, out / "demo.png", f"{FLAGS.network}: {where}")
    page = _page(lead, systems, sizes, network, forms, (traces, answer), out, where)
    page.write(out / "report.html")
    first, second = (corpus.paths[key] for key in list(corpus.paths)[:2])
    print(f"\n{where}\n\n{comparison_table(systems)}\n\n{size_table(sizes)}\n")
    print(f"{lead}\n")
    print(f"report   {out / 'report.html'}\nfile     {files[uniform]}")
    print(f"try      tfq-sv verify {files[uniform]} {first} {second}")
    return {**record, "report": str(out / "report.html")}


def _short(name: str, names: Collection[str]) -> str:
    """What a form's file is called among those of all forms.

    >>> _short("mixed, tuned", ["mixed, tuned"]), _short("1-bit, tuned", ["1-bit", "1-bit, tuned"])
    ('mixed', '1-bit-tuned')
    """
    short = name.removesuffix(", tuned")
    return f"{short}-tuned" if short != name and short in names else short


def _quantized(
    network: Any, uniform: str, target: int | None, speech: Corpus
) -> tuple[dict[str, Any], Any, Any]:
    """The three networks by name; and the allocation of the mixed one with its sensitivities."""
    from tfq_sv.mixed_precision import allocation
    from tfq_sv.mixed_precision.file_size import FileSize
    from tfq_sv.mixed_precision.probes import ProbeOptions
    from tfq_sv.mixed_precision.sensitivity import fisher_traces
    from tfq_sv.quantization.calibration import quantize
    from tfq_sv.quantization.recipe import QuantizationRecipe
    from tfq_sv.training.fine_tuning import FineTuningOptions, finetune

    sizes = FileSize.of(network, "waveform")
    if target is None:
        target = sizes.total(QuantizationRecipe.uniform(network, 2))
    traces = fisher_traces(network, batches(speech, batch_size=8), options=ProbeOptions(8))
    answer = allocation.sweep(network, traces, [target], sizes=sizes)[0]
    options = FineTuningOptions(steps=FLAGS.steps)
    same = QuantizationRecipe.uniform(network, FLAGS.bits)
    forms = {uniform: quantize(network, same, progress=True)}
    minute = list(islice(batches(speech, batch_size=10), 3))
    binary = QuantizationRecipe.binary(network, "adaptive")
    for name, recipe in (("mixed, tuned", answer.recipe), ("1-bit, tuned", binary)):
        forms[name] = quantize(network, recipe, calibrate=minute, progress=True)
        stream = batches(speech, batch_size=16, seed=1)
        finetune(forms[name], stream, teacher=network, options=options)
    return forms, answer, traces


def _summary(systems: Sequence[System], sizes: Mapping[str, int], where: str) -> str:
    """All of it in a sentence."""
    whole, base = next(iter(sizes.values())), systems[0].result.eer
    parts = [
        f"{sizes[system.name] / 1e6:.2f} MB ({whole / sizes[system.name]:.0f}x smaller) at "
        f"{100 * system.result.eer:.2f} %"
        for system in systems[1:]
    ]
    return (
        f"The {whole / 1e6:.1f} MB network that tells voices apart with an equal error rate of "
        f"{100 * base:.2f} % becomes {', '.join(parts[:-1])}, or {parts[-1]}: {where}."
    )


def _record(systems: list[System], sizes: dict[str, int], corpus: str) -> dict[str, Any]:
    rows = [
        {
            "system": system.name,
            "eer": system.result.eer,
            "interval": system.result.interval,
            "difference": system.difference,
            "min_dcf": system.result.min_dcf,
        }
        for system in systems
    ]
    return {"corpus": corpus, "bytes": sizes, "systems": rows}


def _page(
    lead: str,
    systems: Sequence[System],
    sizes: Mapping[str, int],
    network: Any,
    forms: Mapping[str, Any],
    mixed: tuple[Any, Any],
    out: Path,
    where: str,
) -> Page:
    from tfq_sv.codebook import Codebook
    from tfq_sv.quantization.quantized_model import codebooks
    from tfq_sv.reports.allocation import SENSITIVITY, allocation_figure
    from tfq_sv.reports.codebooks import codebook_figure

    pictures = out / "pictures"
    pictures.mkdir(exist_ok=True)
    det_figure(systems, pictures / "det.png", where)
    size_figure(systems, sizes, pictures / "sizes.png", where)
    traces, answer = mixed
    title = f"{FLAGS.network}: Fisher sensitivities, and the best bits for this size"
    allocation_figure(traces, [answer], pictures / "bits.png", title)
    layer = max(traces, key=lambda name: network.get_layer(name).get_weights()[0].size)
    kernel = network.get_layer(layer).get_weights()[0]
    every = {name: codebooks(model)[layer] for name, model in forms.items()}
    books = {name: book for name, book in every.items() if isinstance(book, Codebook)}
    codebook_figure(kernel, books, pictures / "codebooks.png", f"{layer}, {kernel.size:,} weights")
    return (
        Page(f"{FLAGS.network}, smaller", lead)
        .heading("Errors and sizes")
        .table(comparison_table(systems))
        .text(
            "EER: where as many impostors are accepted as true speakers are rejected; its interval "
            "comes from a bootstrap over speakers. The files were measured in the LiteRT "
            "interpreter. The mixed and the 1-bit one were calibrated to a minute of speech, and "
            f"fine-tuned for {FLAGS.steps} steps only, without labels."
        )
        .table(size_table(sizes))
        .picture(pictures / "sizes.png", "File size against equal error rate.")
        .picture(
            pictures / "det.png",
            "DET curves: nearer to the lower left corner is better. Dots are the EERs; the legend "
            "has the thresholds there.",
        )
        .heading("Where the bits go")
        .picture(
            pictures / "bits.png",
            "Above: how much each layer suffers from quantization. Below: its bits, mixed.",
        )
        .text(SENSITIVITY)
        .heading("What a codebook is")
        .text(
            "Each layer keeps a table of 2^b values, its centroids, and a code of b bits per "
            "weight that says which of them takes its place: at 1 bit, one of two."
        )
        .picture(
            pictures / "codebooks.png",
            f"The weights of {layer}, and its centroids, as high as the weights they stand for.",
        )
    )
