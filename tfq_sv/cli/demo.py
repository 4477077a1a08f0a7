"""the whole way on made speech: corpus, 4 bits, .tflite, EER, picture

Makes a corpus of artificial voices, quantizes a shipped network to 4-bit codebooks, exports it and
measures the EER of every form of it on the same trials. Takes a few minutes on two cores.

example:
  tfq-sv demo --out=demo
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfq_sv import assets, report
from tfq_sv.cli.common import no_positional
from tfq_sv.codebook import check_bits
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.synthetic import CorpusSpec, make_corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation import Encoder, KerasEncoder, evaluate
from tfq_sv.files import atomic
from tfq_sv.metrics import eer_interval

FLAGS = flags.FlagValues()
flags.DEFINE_string("out", "demo", "folder for everything it makes", flag_values=FLAGS)
flags.DEFINE_enum("network", assets.NAMES[0], assets.NAMES, "shipped network", flag_values=FLAGS)
flags.DEFINE_integer("bits", 4, "bits a weight, 1-8", flag_values=FLAGS)
flags.DEFINE_integer("test_speakers", 120, "speakers in the trials", flag_values=FLAGS)


def run(arguments: Sequence[str]) -> None:
    """Goes the whole way."""
    no_positional(arguments)
    out, label = Path(FLAGS.out), f"{check_bits(FLAGS.bits)}-bit"
    spec = CorpusSpec(test_speakers=FLAGS.test_speakers)
    print(f"1. made speech: {spec.test_speakers} voices the network has not heard")
    make_corpus(out / "corpus", spec, train=False)
    corpus = Corpus.read(out / "corpus" / "test")
    trials = Trials.read(corpus.root / "trials.txt", corpus)

    from tfq_sv.export import SpeakerEncoder, export_float32, export_tflite, write_about
    from tfq_sv.quantization import quantize
    from tfq_sv.recipe import QuantizationRecipe

    print(f"2. {FLAGS.network} to {FLAGS.bits}-bit codebooks, and to .tflite")
    network = assets.load(FLAGS.network)
    quantized = quantize(network, QuantizationRecipe.uniform(network, FLAGS.bits))
    float_file = out / f"{FLAGS.network}-float32.tflite"
    small_file = out / f"{FLAGS.network}-{label}.tflite"
    export_float32(network, float_file)
    export_tflite(quantized, small_file)
    with atomic(out / f"{FLAGS.network}-{label}.keras") as temporary:
        quantized.save(temporary)

    print(f"3. EER on {len(trials):,} trials")
    size = small_file.stat().st_size
    encoders: list[tuple[str, int, Encoder]] = [
        ("FP32, Keras", float_file.stat().st_size, KerasEncoder(network)),
        (f"{label}, Keras", size, KerasEncoder(quantized)),
        (f"{label}, .tflite, embed", size, SpeakerEncoder(small_file, fast=False)),
        (f"{label}, .tflite, inflate", size, SpeakerEncoder(small_file)),
    ]
    systems: list[report.System] = []
    for name, size, encoder in encoders:
        result = evaluate(encoder, corpus, trials, progress=f"   {name}")
        difference = None
        if systems:
            difference = eer_interval(
                result.scores,
                trials.labels,
                trials.speakers(corpus),
                minus=systems[0].result.scores,
            )
        systems.append(report.System(name, size, result, difference))
    write_about(small_file, **systems[-1].result.thresholds())
    _finish(out, small_file, systems, spec, corpus)


def _finish(
    out: Path, file: Path, systems: list[report.System], spec: CorpusSpec, corpus: Corpus
) -> None:
    where = (
        f"made speech (espeak-ng, seed {spec.seed}), {spec.test_speakers} unseen speakers, "
        f"{len(systems[0].result.trials):,} trials; not VoxCeleb"
    )
    text = report.comparison(systems)
    with atomic(out / "results.json") as temporary:
        temporary.write_text(json.dumps(_record(systems, where), indent=2) + "\n")
    report.comparison_figure(systems, out / "demo.png", f"{FLAGS.network}: {where}")
    print(f"\n{where}\n\n{text}\n")
    print(f"picture  {out / 'demo.png'}\nfile     {file}")
    first, second = (corpus.paths[key] for key in list(corpus.paths)[:2])
    print(f"try      tfq-sv verify {file} {first} {second}")


def _record(systems: list[report.System], corpus: str) -> dict[str, object]:
    rows = [
        {
            "system": system.name,
            "bytes": system.bytes,
            "eer": system.result.eer,
            "interval": system.result.interval,
            "difference": system.difference,
            "min_dcf": system.result.min_dcf,
        }
        for system in systems
    ]
    return {"corpus": corpus, "systems": rows}
