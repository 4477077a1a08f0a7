"""measure your own recordings: which threshold to take, and what it does

A corpus of your own speakers, two recordings or more of each, gives operating points: at the EER
and at false alarm rates (FAR) of 1e-2 and 1e-3, with the share of right speakers rejected (FRR)
there. The thresholds are those of whole recordings; the rows of 1-6 s say what the same thresholds
do where only the loudest seconds of the tested recording are heard. Intervals (95 %) are from a
bootstrap over speakers. The rates are of the recordings that the thresholds come from, so they are
a little too good: measure other speakers with tfq-sv evaluate.

Scores are calibrated as well: logistic regression computes a log-likelihood ratio (LLR) from the
score, the seconds of speech and the number of references. tfq-sv verify --speaker reports it where
it is stored. Cllr says how good these are, in bits: 0 is perfect, 1 is no information.

example:
  tfq-sv threshold --model=model.tflite --corpus=my/recordings --store --report=threshold.html
"""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import flags

from tfq_sv import windows
from tfq_sv.cli.common import (
    check_file,
    define_report,
    define_speaker_level,
    fingerprint,
    no_positional,
    open_encoder,
    print_corpus,
    print_skipped,
    reasons,
    required,
)
from tfq_sv.cli.stored import check_store, store
from tfq_sv.data import audio
from tfq_sv.data.conditions import loudest
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.speech_check import RATE, STEP
from tfq_sv.errors import InputError
from tfq_sv.evaluation import operating_points, score_calibration
from tfq_sv.evaluation.comparison import System
from tfq_sv.evaluation.conditions import Changed
from tfq_sv.evaluation.extraction import Cache, Encoder, Extraction, extract
from tfq_sv.evaluation.measurement import Evaluation, measure
from tfq_sv.evaluation.operating_points import (
    LEAST_SPEAKERS,
    REFERENCES,
    SECONDS,
    Rate,
    pair_scores,
    tested_on,
    with_references,
)
from tfq_sv.evaluation.score_calibration import ScoredTrials
from tfq_sv.progress import tqdm
from tfq_sv.reports.comparison import det_figure, score_figure
from tfq_sv.reports.page import Page
from tfq_sv.reports.table import Table
from tfq_sv.verification import quality

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, ".tflite, or a Keras network", flag_values=FLAGS)
flags.DEFINE_string("corpus", None, "your speech: a folder of speakers", flag_values=FLAGS)
define_speaker_level(FLAGS)
flags.DEFINE_string("embeddings", None, "folder that keeps embeddings", flag_values=FLAGS)
flags.DEFINE_bool("store", False, "write the thresholds into the .tflite", flag_values=FLAGS)
define_report(FLAGS)

Points = dict[str, tuple[Rate, Rate]]

REQUIRED = ("model", "corpus")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Measures, prints, and stores if asked."""
    no_positional(arguments)
    name, folder = required(FLAGS, *REQUIRED)
    check_file(FLAGS, "report", ".html")
    if FLAGS.store:
        check_store(name)
    corpus = Corpus.read(folder, speaker_level=FLAGS.speaker_level)
    trials = operating_points.every_pair(corpus)  # too few speakers are said before the work
    encoder = open_encoder(name)
    mark = fingerprint(name, encoder)
    whole = _embedded(encoder, mark, corpus, trials.utterances, None)
    print_corpus(folder, corpus, whole.changes + whole.doubts)
    if whole.skipped:
        print_skipped(whole.skipped, len(trials.utterances))
    # Of many recordings some are in no pair; further references come from those that are.
    corpus = corpus.without(corpus.paths.keys() - whole.embeddings.keys())
    operating_points.check_speakers(corpus)
    result = measure(whole, corpus, trials)
    thresholds = {
        point: at["threshold"]
        for point, at in result.thresholds()["thresholds"].items()
        if at["threshold"] is not None
    }
    tested = sorted(set(result.trials.test))
    speech = _net_speech(corpus, tested)
    every = {"whole": _scored(corpus, result, whole, speech[None])}
    for seconds in SECONDS:
        short = _embedded(encoder, mark, corpus, tested, seconds)
        every[f"{seconds:g} s"] = _scored(corpus, result, short, speech[seconds])
    rows = {row: _points(parts[0], thresholds) if parts else None for row, parts in every.items()}
    points = rows["whole"]
    assert points
    speakers = len(corpus.speaker_ids)
    lines = _recommendation(points, thresholds, speakers)
    calibration, message = _calibrated([trials for parts in every.values() for trials in parts])
    lines.append(message)
    table = _table(rows, thresholds)
    print(f"{name}: {len(result.trials):,} trials, {result.trials.source}, {speakers} speakers")
    print(f"\n{table}\n\n" + "\n".join(lines))
    if FLAGS.report:
        _report(name, result, table, lines)
    if FLAGS.store:
        store(name, result, corpus, calibration)
    return {
        "thresholds": thresholds,
        "recommended": operating_points.recommended(points)[0],
        "rates": {row: at and _record(at) for row, at in rows.items()},
        "calibration": calibration,
        "skipped": reasons(whole.skipped),
    }


def _embedded(
    encoder: Encoder, mark: str, corpus: Corpus, keys: Sequence[str], seconds: float | None
) -> Extraction:
    """Embeddings of whole recordings, or of their loudest seconds."""
    cache = None
    if FLAGS.embeddings:
        part = "" if seconds is None else f"/{seconds:g}s"
        cache = Cache(f"{FLAGS.embeddings}{part}", mark + part)
    heard = encoder
    if seconds is not None:
        samples = round(seconds * audio.SAMPLE_RATE)
        heard = Changed(encoder, partial(loudest, samples=samples))
    bar = "embedding" if seconds is None else f"{seconds:g} s of each"
    return extract(heard, corpus, keys, cache=cache, progress=bar)


def _scored(
    corpus: Corpus, whole: Evaluation, tested: Extraction, net: Mapping[str, float]
) -> list[ScoredTrials]:
    """The trials with whole recordings, or the loudest seconds, tested: against one reference, and
    against more where speakers have them. Empty where few are left. `net`: speech in them, s.
    """
    assert whole.extraction
    pairs = tested_on(whole.trials, tested.embeddings)
    found = []
    for count in REFERENCES:
        trials = with_references(pairs, corpus, count)
        whose = trials.speakers(corpus) if len(trials) else None
        if whose is None or len(set(whose[1])) < LEAST_SPEAKERS or not 0 < trials.labels.mean() < 1:
            break
        scores = pair_scores(whole.extraction.embeddings, tested.embeddings, trials)
        speech = np.array([net[key] for key in trials.test])
        found.append(
            ScoredTrials(scores, trials.labels, speech, np.full(len(trials), count), whose)
        )
    return found


def _net_speech(corpus: Corpus, keys: Sequence[str]) -> dict[float | None, dict[str, float]]:
    """Seconds of speech in each recording (None), and in the loudest 1 to 6 s of it."""
    found: dict[float | None, dict[str, float]] = {seconds: {} for seconds in (None, *SECONDS)}
    for key in tqdm(keys, desc="net speech", unit="utt", leave=False):
        source = corpus.paths[key]
        samples = audio.read(source, seconds=windows.WHOLE_SECONDS).samples
        for seconds in SECONDS:
            size = round(seconds * audio.SAMPLE_RATE)
            if size <= len(samples):
                found[seconds][key] = _net(loudest(samples, size))
        long = audio.probe(source).seconds > windows.WHOLE_SECONDS
        found[None][key] = sum(audio.read_windows(source, _net).found) if long else _net(samples)
    return found


def _net(samples: npt.NDArray[np.float32]) -> float:
    """Seconds of speech, at least one step: the logarithm is taken."""
    return max(quality.measure(samples).seconds, STEP / RATE)


def _points(trials: ScoredTrials, thresholds: dict[str, float]) -> Points:
    at = list(thresholds.values())
    found = operating_points.rates(trials.scores, trials.labels, trials.speakers, at)
    return dict(zip(thresholds, found, strict=True))


def _calibrated(parts: Sequence[ScoredTrials]) -> tuple[dict[str, float] | None, str]:
    """What the file keeps, and a line for people; None, and why, where the data are too few."""
    trials = ScoredTrials.joined(parts)
    try:
        calibration = score_calibration.fit(trials)
        cost, least = score_calibration.cross_checked(trials)
    except InputError as error:
        return None, str(error)
    return calibration.about() | {"cllr": cost, "min_cllr": least}, (
        f"calibration: Cllr {cost:.4f}, at least {least:.4f} by any calibration (each half of the "
        f"speakers by the other, all durations{_counts(parts)} together)"
    )


def _counts(parts: Sequence[ScoredTrials]) -> str:
    most = max(int(part.references.max()) for part in parts)
    return f" and 1 to {most} references" if most > 1 else ""


def _table(rows: dict[str, Points | None], thresholds: dict[str, float]) -> Table:
    header = ["test speech"]
    for point, threshold in thresholds.items():
        header += [f"{point} {threshold:.4f}: FAR %", "FRR %"]
    cells = []
    for row, points in rows.items():
        rates = [str(rate) for both in points.values() for rate in both] if points else []
        cells.append([row, *(rates or ["too few"] * (len(header) - 1))])
    return Table(header, cells)


def _recommendation(points: Points, thresholds: dict[str, float], speakers: int) -> list[str]:
    """The recommendation, and what is not sure yet."""
    choice, reason = operating_points.recommended(points)
    lines = [f"recommended: {choice}, {thresholds[choice]:.4f}: {reason}"]
    for point, both in points.items():
        for kind, rate in zip(("FAR", "FRR"), both, strict=True):
            needed = rate.speakers_needed(speakers)
            if needed is None:
                lines.append(f"{kind} at {point}: no error seen, so the rate is not known")
            elif needed > speakers:
                lines.append(
                    f"{kind} at {point}: about {needed - speakers:,} more speakers make it "
                    f"sure to {100 * operating_points.SURE:.0f} % of itself"
                )
    missing = [point for point in ("far_1e-2", "far_1e-3") if point not in thresholds]
    if missing:
        lines.append(f"too few nontarget trials for {' and '.join(missing)}: record more speakers")
    return lines


def _record(points: Points) -> dict[str, Any]:
    return {
        point: {
            kind: [rate.value, rate.low, rate.high]
            for kind, rate in zip(("far", "frr"), both, strict=True)
        }
        for point, both in points.items()
    }


def _report(name: str, result: Evaluation, table: Table, lines: Sequence[str]) -> None:
    lines = [f"{line[0].upper()}{line[1:]}." for line in lines]
    page = Page(f"{name}: operating points", lines[0]).table(table)
    for line in lines[1:]:
        page.text(line)
    with tempfile.TemporaryDirectory() as folder:
        system = System(name, result)
        det_figure([system], f"{folder}/det.png", result.trials.source)
        score_figure(system, f"{folder}/scores.png")
        page.heading("DET curve").picture(f"{folder}/det.png", "Whole recordings.")
        page.heading("Scores").picture(
            f"{folder}/scores.png", "Whole recordings; the line is the threshold at the EER."
        )
    page.write(FLAGS.report)
    print(f"wrote {FLAGS.report}")
