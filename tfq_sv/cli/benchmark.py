"""measure a network's .tflite forms: size, load time, latency, memory, error rate

Compares TensorFlow's converter (float32, float16, dynamic-range and full int8), ai-edge-quantizer's
int8 and int4 if it is installed (pip install 'tfq-sv[benchmark]'), and ours at each bit width, as
`tfq-sv quantize` makes it, on disk (embed) and inflated. All of them take features, so the front
end is left out. With --corpus, the EER of each. Latencies come from one run, the forms interleaved;
load times and memory from one process each.

example:
  tfq-sv benchmark --model=model.keras --bits=4,2 --corpus=corpus/test
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import flags

from tfq_sv.cli.common import (
    are_listed,
    bit_widths,
    check_file,
    check_network,
    define_report,
    define_speaker_level,
    load_network,
    no_positional,
    print_skipped,
    read_corpus,
    read_trials,
    reasons,
    required,
)
from tfq_sv.data import audio
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.files import check_folder
from tfq_sv.reports.page import Page

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model", None, "FP32 network: .keras, .h5, a checkpoint, or a shipped name", flag_values=FLAGS
)
flags.DEFINE_list("bits", ["8", "4", "3", "2", "1"], "bits per weight", flag_values=FLAGS)
flags.DEFINE_string("recipe", None, "also measure this recipe (.json)", flag_values=FLAGS)
flags.DEFINE_string("corpus", None, "test speech, for the EER", flag_values=FLAGS)
flags.DEFINE_string("trials", None, "`1 enroll test` or Kaldi's form", flag_values=FLAGS)
define_speaker_level(FLAGS)
flags.DEFINE_integer("rounds", 30, "timed runs of each form", flag_values=FLAGS)
flags.DEFINE_string("out", None, "folder in which the files are kept", flag_values=FLAGS)

define_report(FLAGS)

_UTTERANCES, _SECONDS = 20, 2.0
REQUIRED = ("model",)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Makes the forms, measures them, prints the table."""
    no_positional(arguments)
    (name,) = required(FLAGS, *REQUIRED)
    widths = bit_widths(FLAGS.bits)
    check_file(FLAGS, "report", ".html")
    if FLAGS.out:
        check_folder(FLAGS.out)
    if FLAGS.rounds < 1:
        raise InputError(f"--rounds must be positive, not {FLAGS.rounds}")
    if FLAGS.trials and not FLAGS.corpus:
        raise InputError("--trials needs --corpus, where its utterances are")
    check_network(name)
    network = load_network(name)
    from tfq_sv.experiments import benchmark_figure, benchmark_network, benchmark_table
    from tfq_sv.features import fbank
    from tfq_sv.models import front_end
    from tfq_sv.quantization.calibration import quantize
    from tfq_sv.quantization.recipe import QuantizationRecipe

    recipes = {f"{bits} bit": QuantizationRecipe.uniform(network, bits) for bits in widths}
    if FLAGS.recipe:
        recipes[Path(FLAGS.recipe).name] = QuantizationRecipe.from_json(FLAGS.recipe)
    corpus = _corpus() if FLAGS.corpus else None
    trials = _trials(FLAGS.corpus, corpus) if corpus else None
    length = round(_SECONDS * audio.SAMPLE_RATE)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, length).astype(np.float32)
    speech, skipped = _speech(corpus, length) if corpus else ([noise], {})
    features = [fbank(samples, front_end(network)) for samples in speech]
    quantized = {form: quantize(network, x, progress=True) for form, x in recipes.items()}
    with tempfile.TemporaryDirectory() as folder:
        found = benchmark_network(
            network,
            quantized,
            features,
            FLAGS.out or folder,
            corpus=corpus,
            trials=trials,
            rounds=FLAGS.rounds,
        )
    forms, skipped = found.forms, {**skipped, **found.skipped}
    what = (
        f"{len(features)} recordings of {corpus.root}" if corpus else "a recording of white noise"
    )
    how = f"{len(features[0])} frames a run; cosines with float32 over {what}"
    print(f"{how}\n{benchmark_table(forms)}")
    if FLAGS.report:
        least = min(forms, key=lambda one: one.bytes)
        smaller = f"{least.bytes / 1e6:.2f} MB, {forms[0].bytes / least.bytes:.1f}x smaller"
        lead = (
            f"The smallest of {len(forms)} forms of {name} is {least.name}: {smaller} than "
            f"{forms[0].name}, with a mean cosine of {least.cosine:.4f} to its embeddings."
        )
        page = Page(f"{name} as .tflite", lead).table(benchmark_table(forms)).text(f"{how}.")
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "benchmark.png"
            benchmark_figure(forms, picture, f"{name}: {len(features[0])} frames")
            page.picture(picture, "Size and latency of each form; medians, whiskers are quartiles.")
        page.write(FLAGS.report)
        print(f"wrote {FLAGS.report}")
    if corpus and skipped:
        print_skipped(skipped, len(corpus.paths))
    return {
        "frames": len(features[0]),
        "forms": [asdict(one) for one in forms],
        "skipped": reasons(skipped),
    }


def _corpus() -> Corpus:
    listed = are_listed(FLAGS.trials, FLAGS.corpus)
    return read_corpus(FLAGS.corpus, speaker_level=FLAGS.speaker_level, unlabelled=listed)


def _trials(folder: str, corpus: Corpus) -> Trials:
    """The trials, less those of recordings that were left out of the corpus already."""
    listed = are_listed(FLAGS.trials, folder)
    whole = Corpus.read(folder, speaker_level=FLAGS.speaker_level, unlabelled=listed)
    trials = read_trials(FLAGS.trials, whole, strict=False)
    trials = trials.without(whole.paths.keys() - corpus.paths.keys())
    trials.check()
    return trials


def _speech(
    corpus: Corpus, length: int
) -> tuple[list[npt.NDArray[np.float32]], dict[str, BadAudioError]]:
    """Some of a corpus's recordings, each cut or repeated to so many samples; and the bad ones."""
    speech, skipped = [], {}
    for key, path in corpus.paths.items():
        try:
            speech.append(np.resize(audio.read(path).samples, length))
        except BadAudioError as error:
            skipped[key] = error.without_traceback()
        if len(speech) == _UTTERANCES:
            break
    if not speech:
        raise InputError(f"{corpus.root} has no good recording: {next(iter(skipped.values()))}")
    return speech, skipped
