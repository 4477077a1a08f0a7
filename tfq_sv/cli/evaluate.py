r"""measure the EER of a network or a .tflite on a trial list

A .tflite runs in the LiteRT interpreter. Without --trials, trials.txt in the corpus folder is
used, or else pairs drawn at random, which --trials_out keeps. --store writes the thresholds found
into the .tflite, where tfq-sv verify and apps read them. A recording that cannot be used is skipped
with its trials, and listed at the end. --reference measures a .tflite by both signatures beside the
Keras network that it was made from, on the same trials. --conditions measures EER, FAR and FRR at
the stored threshold with the tested recordings coded as calls are, in noise, in a room, short,
quiet and clipped. --embeddings of an .scp, .ark or .npy needs no --model.

example:
  tfq-sv evaluate --model=model.tflite --corpus=corpus/test --store
  tfq-sv evaluate --model=model.tflite --corpus=corpus/test --reference=model-4bit.keras
  tfq-sv evaluate --model=model.tflite --corpus=corpus/test --conditions --reference=model.keras
  tfq-sv evaluate --model=model.keras --corpus=voxceleb1 --trials=veri_test2.txt \
      --cohort=voxceleb2/dev --as_norm --embeddings=embedded --plot=det.png
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.common import (
    are_listed,
    check_file,
    check_network,
    define_report,
    define_signature,
    define_speaker_level,
    define_strict,
    fingerprint,
    is_tflite,
    load_network,
    no_positional,
    open_encoder,
    print_corpus,
    print_skipped,
    read_trials,
    reasons,
    required,
)
from tfq_sv.cli.stored import check_store, other_model, store
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.comparison import System
from tfq_sv.evaluation.copies import copies, overlap
from tfq_sv.evaluation.embeddings import SUFFIXES, Embeddings
from tfq_sv.evaluation.extraction import Cache, Extraction, extract, from_file
from tfq_sv.evaluation.measurement import Evaluation, measure
from tfq_sv.evaluation.scoring import SCALES, TOP, Cohort, to_scale, write_det, write_scores
from tfq_sv.files import require_file
from tfq_sv.metrics import P_TARGETS, min_dcf
from tfq_sv.reports.comparison import comparison_table, det_figure
from tfq_sv.reports.page import Page
from tfq_sv.reports.table import Table

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model",
    None,
    ".tflite, .keras, .h5, a checkpoint, or a shipped name",
    flag_values=FLAGS,
)
flags.DEFINE_string("corpus", None, "test speech: folder, raw.list, shard.list", flag_values=FLAGS)
flags.DEFINE_string("trials", None, "`1 enroll test` or Kaldi's form", flag_values=FLAGS)
flags.DEFINE_string("enroll_map", None, "`id utterance ...` lines (CN-Celeb)", flag_values=FLAGS)
flags.DEFINE_string("reference", None, "Keras network to compare with", flag_values=FLAGS)
flags.DEFINE_bool(
    "conditions", False, "measure codecs, noise, rooms, 1-6 s, levels", flag_values=FLAGS
)
define_speaker_level(FLAGS)
define_signature(FLAGS)
flags.DEFINE_string(
    "embeddings",
    None,
    "folder that keeps embeddings from run to run, for later runs and tfq-sv embed; or a finished "
    ".scp, .ark or .npy, and then no --model is needed",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "cohort",
    None,
    "training speech, a corpus: its mean embedding is subtracted from all others",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "cohort_speaker_level",
    None,
    "as --speaker_level, for --cohort; the same if not given",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool("as_norm", False, "AS-norm against the cohort's speakers", flag_values=FLAGS)
flags.DEFINE_enum(
    "score_scale",
    "cosine",
    list(SCALES),
    "of thresholds and scores, printed and written; half is (cosine + 1) / 2. Stored are cosines",
    flag_values=FLAGS,
)
define_strict(FLAGS)
flags.DEFINE_bool("store", False, "write the thresholds into the .tflite", flag_values=FLAGS)
flags.DEFINE_string(
    "trials_out", None, "write the trials, such as drawn pairs, for --trials", flag_values=FLAGS
)
flags.DEFINE_string(
    "scores_out", None, "write `enroll test score target|nontarget` lines", flag_values=FLAGS
)
flags.DEFINE_string(
    "det_out", None, "write `threshold miss_rate false_alarm_rate` lines", flag_values=FLAGS
)
flags.DEFINE_string("plot", None, "write the DET curve (.png)", flag_values=FLAGS)
define_report(FLAGS)
REQUIRED = ("corpus",)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Evaluates, prints, and stores if asked."""
    no_positional(arguments)
    (folder,) = required(FLAGS, *REQUIRED)
    _check_flags()
    corpus = _corpus(folder)
    trials = read_trials(FLAGS.trials, corpus, enroll_map=FLAGS.enroll_map, strict=FLAGS.strict)
    trials.check()
    if FLAGS.trials_out:
        trials.write(FLAGS.trials_out)
        print(f"wrote {FLAGS.trials_out}: {len(trials):,} trials from {trials.source}")
    if FLAGS.conditions:
        from tfq_sv.cli import condition_table

        return condition_table.run(FLAGS, corpus, trials)
    if FLAGS.reference:
        return _compare(corpus, trials)
    others = _cohort_corpus() if FLAGS.cohort else None  # what is wrong with it comes up early
    embeddings = _embeddings()
    extraction = embeddings(corpus, trials.utterances, "embedding")
    cohort = _cohort(embeddings, others, extraction.embeddings) if others is not None else None
    print_corpus(folder, corpus, extraction.changes + extraction.doubts)
    result = measure(extraction, corpus, trials, cohort=cohort, normalize=FLAGS.as_norm)
    name = FLAGS.model or FLAGS.embeddings
    for note in copies(extraction.embeddings, corpus, result.trials):
        print(note)
    shown = _scaled(result)
    system = System(name, shown)
    _print(name, shown, cohort)
    if FLAGS.scores_out:
        write_scores(FLAGS.scores_out, shown.trials, shown.normalized or shown.scores)
        print(f"  wrote {FLAGS.scores_out}")
    if FLAGS.det_out:
        write_det(FLAGS.det_out, shown.scores, shown.trials.labels)
        print(f"  wrote {FLAGS.det_out}")
    if FLAGS.plot:
        det_figure([system], FLAGS.plot, trials.source)
        print(f"  wrote {FLAGS.plot}")
    if FLAGS.report:
        _report([system], trials.source)
    if FLAGS.store:
        store(name, result, corpus)
    return _record(system) | _skipped(result, trials)


def _scaled(result: Evaluation) -> Evaluation:
    """The same on --score_scale; AS-norm's scores stay, no other scale goes with them."""
    if FLAGS.score_scale == "cosine":
        return result
    scores = to_scale(result.scores, FLAGS.score_scale)
    return replace(
        result, scores=scores, threshold=float(to_scale(result.threshold, FLAGS.score_scale))
    )


def _corpus(folder: str) -> Corpus:
    """The test speech; with a list of trials, its speakers need not be known."""
    listed = are_listed(FLAGS.trials, folder)
    return Corpus.read(folder, speaker_level=FLAGS.speaker_level, unlabelled=listed)


def _compare(corpus: Corpus, trials: Trials) -> dict[str, Any]:
    from tfq_sv.export import validate

    reference = load_network(FLAGS.reference)
    validation = validate(
        FLAGS.model, reference, corpus, trials, strict=FLAGS.strict, progress=True
    )
    used = validation.reference.trials
    print(f"{len(used):,} of {len(trials):,} trials from {trials.source}\n\n{validation}")
    systems = [System(FLAGS.reference, validation.reference)]
    for one in validation.parities:
        name = f"{FLAGS.model}, {one.signature}"
        systems.append(System(name, one.result, one.difference))
    if FLAGS.report:
        _report(systems, trials.source, validation.table())
    records = [_record(system) for system in systems]
    return {"systems": records} | _skipped(validation.reference, trials)


def _skipped(result: Evaluation, trials: Trials) -> dict[str, Any]:
    """Lists the recordings that were skipped; returns them, and how many trials are left."""
    bad = result.extraction.skipped if result.extraction else {}
    if bad:
        lost = f", and with them {result.trials_skipped:,} of {len(trials):,} trials"
        print_skipped(bad, len(trials.utterances), lost)
    return {
        "trials": len(result.trials),
        "trials_skipped": result.trials_skipped,
        "skipped": reasons(bad),
    }


def _record(system: System) -> dict[str, Any]:
    result = system.result
    labels = result.trials.labels
    return {
        "model": system.name,
        "eer": result.eer,
        "interval": result.interval,
        "difference": system.difference,
        "min_dcf": {p: min_dcf(result.scores, labels, p) for p in P_TARGETS},
        "threshold": result.threshold,
    }


def _interval(result: Evaluation, digits: int) -> str:
    if result.interval is None:
        return " (no interval: the speakers, over whom it is taken, are not known)"
    low, high = (f"{100 * bound:.{digits}f}" for bound in result.interval)
    return f" (95 %: {low} to {high})"


def _report(systems: Sequence[System], source: str, parity: Table | None = None) -> None:
    last = systems[-1]
    page = Page(
        f"{last.name}: error rates",
        f"{last.name} has an equal error rate of {100 * last.result.eer:.2f} %"
        f"{_interval(last.result, 2)} on {len(last.result.trials):,} trials from {source}.",
    )
    page.table(comparison_table(systems))
    if parity:
        page.heading("Beside its Keras network").table(parity)
    with tempfile.TemporaryDirectory() as folder:
        det_figure(systems, f"{folder}/det.png", source)
        page.heading("DET curves")
        page.picture(
            f"{folder}/det.png",
            "Nearer to the lower left corner is better. A dot is an EER; the legend has the "
            "threshold there.",
        )
    page.write(FLAGS.report)
    print(f"wrote {FLAGS.report}")


def _check_flags() -> None:
    """Refuses what does not go together before the work is done."""
    name, kept = FLAGS.model or "", FLAGS.embeddings or ""
    if FLAGS.reference and not FLAGS.conditions and not is_tflite(name):
        raise InputError(f"--reference is for a .tflite; {other_model(name)}")
    only = next((flag for flag in ("conditions", "reference") if FLAGS[flag].value), None)
    for other in ("cohort", "embeddings", "store", "scores_out", "det_out", "plot"):
        if only and FLAGS[other].value and (only, other) != ("conditions", "embeddings"):
            raise InputError(f"--{only} only compares; leave --{other} out")
    if only and FLAGS.score_scale != "cosine":
        raise InputError(f"--{only} only compares; leave --score_scale out")
    if FLAGS.store:
        check_store(name)
    if FLAGS.conditions or not kept:
        required(FLAGS, "model")
    elif not name and Path(kept).suffix not in SUFFIXES and not Path(kept).is_file():
        raise InputError(
            f"--embeddings={kept} is a folder, and needs --model; without one, give a finished "
            ".scp, .ark or .npy: tfq-sv embed --out=embedded.scp"
        )
    if FLAGS.store and FLAGS.cohort:
        raise InputError("--store keeps thresholds of plain cosines; leave --cohort out")
    if FLAGS.as_norm and not FLAGS.cohort:
        raise InputError("--as_norm needs --cohort, the speakers to compare with")
    if FLAGS.as_norm and FLAGS.score_scale != "cosine":
        raise InputError(
            f"AS-norm's scores are no cosines: --score_scale={FLAGS.score_scale} has no meaning"
        )
    for given in (FLAGS.model, FLAGS.reference):
        if given:
            check_network(given, finished=True)
    check_file(FLAGS, "trials_out")
    check_file(FLAGS, "scores_out")
    check_file(FLAGS, "det_out")
    check_file(FLAGS, "plot", ".png")
    check_file(FLAGS, "report", ".html")


def _embeddings() -> Callable[[Corpus, list[str], str], Extraction]:
    """Returns a function that reads embeddings from a file, or extracts and perhaps keeps them."""
    place = FLAGS.embeddings
    if place and Path(place).suffix in SUFFIXES:
        require_file(place, "embeddings")
    if place and Path(place).is_file():
        if FLAGS.model:
            raise InputError(f"{place} has embeddings already; leave --model out, or name a folder")
        strict = FLAGS.strict
        return lambda corpus, keys, _: from_file(place, keys, corpus=corpus, strict=strict)
    (name,) = required(FLAGS, "model")
    fast = FLAGS.signature == "inflate"
    encoder = open_encoder(name, fast=fast)
    cache = Cache(place, fingerprint(name, encoder, fast=fast)) if place else None

    def extracted(corpus: Corpus, keys: list[str], progress: str) -> Extraction:
        found = extract(encoder, corpus, keys, cache=cache, strict=FLAGS.strict, progress=progress)
        if cache:
            print(f"{place}: {found.reused:,} of {len(keys):,} embeddings were there")
        return found

    return extracted


def _cohort_corpus() -> Corpus:
    level = FLAGS.cohort_speaker_level or FLAGS.speaker_level
    # A mean needs no speakers.
    return Corpus.read(FLAGS.cohort, speaker_level=level, unlabelled=not FLAGS.as_norm)


def _cohort(
    embeddings: Callable[[Corpus, list[str], str], Extraction],
    corpus: Corpus,
    under_test: Embeddings,
) -> Cohort:
    extraction = embeddings(corpus, list(corpus.paths), "cohort")
    print_corpus(FLAGS.cohort, corpus, extraction.changes + extraction.doubts)
    if extraction.skipped:
        print_skipped(extraction.skipped, len(corpus.paths))
    if not extraction.embeddings:
        raise InputError(f"cohort {FLAGS.cohort} has no good recording")
    for note in overlap(extraction.embeddings, under_test):
        print(note)
    return Cohort.of(extraction.embeddings, corpus.speakers)


def _print(name: str, result: Evaluation, cohort: Cohort | None) -> None:
    trials = result.trials
    targets = int(trials.labels.sum())
    print(f"{name}: {len(trials):,} trials ({targets:,} target) from {trials.source}")
    scale = SCALES[FLAGS.score_scale]
    if cohort:
        subtracted = f"mean of {cohort.utterances:,} cohort embeddings subtracted"
        if result.normalized:
            scale = f"AS-norm, top {min(TOP, len(cohort.speakers))} of {len(cohort.speakers):,}"
        print(f"  scores  {scale}; {subtracted}")
    print(f"  EER     {100 * result.eer:.3f} % {_interval(result, 3)}")
    if result.eer > 0.5:
        print("  warning: above 50 %; are the labels the wrong way round?")
    for p_target in P_TARGETS:
        cost = min_dcf(result.scores, trials.labels, p_target)
        print(f"  minDCF  {cost:.4f}  (p_target {p_target})")
    print(f"  threshold at the EER  {result.threshold:.4f}  ({scale})")
