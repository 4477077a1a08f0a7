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

    print(f"2. {FLAGS.network} to {label} codebooks, and to .tflite")
    network = assets.load(FLAGS.network)
    quantized = quantize(network, QuantizationRecipe.uniform(network, FLAGS.bits))
    file = out / f"{FLAGS.network}-{label}.tflite"
    exported = export_tflite(quantized, file)
    sizes = {
        "float32 .tflite": export_float32(network, out / f"{FLAGS.network}-float32.tflite"),
        f"{label} .tflite": exported.bytes,
        f"{label}, inflated on the phone": exported.inflated_bytes,
    }

    print(f"3. EER on {len(trials):,} trials")
    encoders: dict[str, Encoder] = {
        "FP32, Keras": KerasEncoder(network),
        f"{label}, Keras": KerasEncoder(quantized),
        f"{label}, .tflite, embed": SpeakerEncoder(file, fast=False),
        f"{label}, .tflite, inflate": SpeakerEncoder(file),
    }
    systems = compare(encoders, corpus, trials)
    write_about(file, **systems[-1].result.thresholds())

    where = (
        f"made speech (espeak-ng, seed {spec.seed}), {spec.test_speakers} unseen speakers, "
        f"{len(trials):,} trials; not VoxCeleb"
    )
    with atomic(out / "results.json") as temporary:
        temporary.write_text(json.dumps(_record(systems, sizes, where), indent=2) + "\n")
    picture = out / "demo.png"
    report.comparison_figure(systems, sizes, picture, f"{FLAGS.network}: {where}")
    print(f"\n{where}\n\n{report.comparison(systems)}\n\n{report.sizes(sizes)}\n")
    print(f"picture  {picture}\nfile     {file}")
    first, second = (corpus.paths[key] for key in list(corpus.paths)[:2])
    print(f"try      tfq-sv verify {file} {first} {second}")


def compare(encoders: dict[str, Encoder], corpus: Corpus, trials: Trials) -> list[report.System]:
    """Evaluates encoders on the same trials, and each against the first."""
    systems: list[report.System] = []
    for name, encoder in encoders.items():
        result = evaluate(encoder, corpus, trials, progress=f"   {name}")
        difference = None
        if systems:
            difference = eer_interval(
                result.scores,
                trials.labels,
                trials.speakers(corpus),
                minus=systems[0].result.scores,
            )
        systems.append(report.System(name, result, difference))
    return systems


def _record(systems: list[report.System], sizes: dict[str, int], corpus: str) -> dict[str, object]:
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
