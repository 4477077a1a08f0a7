"""Enrolment and decisions under codecs, noise, rooms and short speech, on real voices.

    python benchmarks/published.py --network=campplus_cn_en_common.pt --rows=4:speech,2:speech \
        --speech=librispeech --test=speechocean762/test --out=published
    python benchmarks/conditions.py published/{FP32,4-speech,2-speech}/model.tflite \
        --train=speechocean762/train --test=speechocean762/test --embeddings=embedded
    python benchmarks/conditions.py resnet18-real resnet18-real.tflite \
        --train=held --test=speechocean762/test --embeddings=embedded

`held` has the speakers of the train half that resnet18-real has not heard; tfq_sv/assets/README.md.

Thresholds (FAR 1e-2) and calibrations come from pairs of --train's recordings, up to 30,000 of each
kind, as by `tfq-sv threshold`. On --test, other speakers, the first three recordings of each
enroll, as recorded; --tests of the others are tested, each against everyone, under every condition.
Intervals (95 %) are from a bootstrap over speakers.

Calibrations are measured on --test as they are made on --train: every recording is tested against
enrolments of one and of three recordings, which start from each recording in turn. "Fitted to the
test": how far above the least Cllr the LLRs are with the scale and the offset that suit the test
speech best. It shows what another calibration could gain at most, and is not one to use. "Perfect":
how far above it LLRs are that need no calibration, Gaussian ones, on as many trials with the same
EERs. They are not at the least, as that is fitted to the very trials that it is measured on, and
more so if these are few.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from tfq_sv import assets, metrics
from tfq_sv.cli.common import is_tflite, load_network
from tfq_sv.data import audio
from tfq_sv.data.conditions import CONDITIONS, Condition
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.evaluation import operating_points, score_calibration
from tfq_sv.evaluation.conditions import CLEAN, Changed, ErrorRates, error_rates
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.evaluation.extraction import Cache, Encoder, extract
from tfq_sv.evaluation.operating_points import (
    LEAST_SPEAKERS,
    REFERENCES,
    pair_scores,
    tested_on,
    with_references,
)
from tfq_sv.evaluation.score_calibration import Calibration, ScoredTrials
from tfq_sv.experiments.network_comparison import WaveformFile
from tfq_sv.export.encoder import SpeakerEncoder
from tfq_sv.export.float32 import export_float32
from tfq_sv.reports.table import markdown
from tfq_sv.verification import decision, quality

ENROLLED = 3
DRAWS = 40
COSTS = (
    *("speech, references", "Cllr", "least"),
    *("above it, %", "fitted to the test, %", "perfect, %"),
)
DURATIONS = [
    condition for condition in CONDITIONS if condition.name in ("1 s", "2 s", "3 s", "6 s")
]


class Network:
    """A .tflite, or a network as float32, and what its embeddings are kept in."""

    def __init__(self, name: str, embeddings: str | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(assets.file(name))
            if not is_tflite(name):
                path = Path(folder) / "float32.tflite"
                export_float32(load_network(name), path)
            self._digest = hashlib.sha256(path.read_bytes()).hexdigest()
            try:
                self.encoder: Encoder = SpeakerEncoder(path, check_speech=False)
            except InputError:
                self.encoder = WaveformFile(path)
        self.name = name
        self._folder = embeddings and Path(embeddings, self._digest[:8])

    def embed(self, corpus: Corpus, keys: list[str], condition: Condition | None) -> Embeddings:
        name = condition.name if condition else CLEAN
        heard = Changed(self.encoder, condition) if condition else self.encoder
        kept = None
        if self._folder:
            kept = Cache(self._folder / name.replace("/", " "), f"{self._digest} {name}")
        return extract(heard, corpus, keys, cache=kept, progress=name).embeddings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help=".tflite, or a network: as float32")
    parser.add_argument("--train", required=True, help="corpus of speakers: thresholds")
    parser.add_argument("--test", required=True, help="corpus of other speakers: figures")
    parser.add_argument("--tests", type=int, default=3, help="tested recordings per speaker")
    parser.add_argument("--embeddings", help="folder that keeps embeddings from run to run")
    parser.add_argument("--durations", action="store_true", help="test those alone")
    options = parser.parse_args()
    train, test = Corpus.read(options.train), Corpus.read(options.test)
    columns, calibrated = [], []
    for path in options.models:
        network = Network(path, options.embeddings)
        threshold, calibration = chosen(network, train)
        conditions = DURATIONS if options.durations else CONDITIONS
        columns.append(measured(network, test, options.tests, threshold, conditions))
        calibrated.append(costs(scored(network, test), calibration))
    header = ["tested recording"]
    header += [f"{path}: {rate} %" for path in options.models for rate in ("EER", "FAR", "FRR")]
    print(
        f"\n{options.test}: {ENROLLED} recordings enrol, up to {options.tests} others are tested\n"
    )
    table = []
    for condition in columns[0]:
        cells = [
            (rows[condition].eer, rows[condition].far, rows[condition].frr) for rows in columns
        ]
        table.append([condition, *(str(rate) for three in cells for rate in three)])
    print("\n".join(markdown(header, table)))
    for path, rows in zip(options.models, calibrated, strict=True):
        print(f"\n{path}, calibrated on {options.train}, measured on {options.test}\n")
        print("\n".join(markdown(COSTS, rows)))


def chosen(network: Network, corpus: Corpus) -> tuple[float, Calibration]:
    """The threshold and the calibration that a corpus gives."""
    parts = scored(network, corpus)
    first = parts[CLEAN, 1]
    threshold = metrics.threshold_at_far(first.scores, first.labels, 1e-2)
    assert threshold is not None
    rates = error_rates(first.scores, first.labels, first.speakers, threshold)
    every = ScoredTrials.joined(list(parts.values()))
    cost, least = score_calibration.cross_checked(every)
    print(
        f"{network.name}: threshold {threshold:.4f} at FAR 1e-2 on {len(first.scores):,} pairs of "
        f"{corpus.root}, EER {rates.eer}, FRR {rates.frr}; calibration on {len(every.scores):,}, "
        f"all durations and 1 to 3 references: Cllr {cost:.4f}, least {least:.4f} by halves",
        flush=True,
    )
    return threshold, score_calibration.fit(every)


def scored(network: Network, corpus: Corpus) -> dict[tuple[str, int], ScoredTrials]:
    """Pairs of recordings, by the tested one's duration and the number of references."""
    keys = list(corpus.paths)
    trials = operating_points.every_pair(corpus)
    whole = network.embed(corpus, keys, None)
    parts = {}
    for condition in (None, *DURATIONS):
        tested = network.embed(corpus, keys, condition) if condition else whole
        seconds = speech(corpus, list(tested), condition)
        for count in REFERENCES:
            kept = with_references(tested_on(trials, tested), corpus, count)
            whose = kept.speakers(corpus)
            assert whose
            if len(set(whose[1])) >= LEAST_SPEAKERS and kept.labels.any():
                scores = pair_scores(whole, tested, kept)
                times = np.array([seconds[key] for key in kept.test])
                counts = np.full(len(kept), count)
                name = condition.name if condition else CLEAN
                parts[name, count] = ScoredTrials(scores, kept.labels, times, counts, whose)
    return parts


def speech(corpus: Corpus, keys: list[str], condition: Condition | None) -> dict[str, float]:
    """Net speech of each recording, or of its part."""
    return {key: _seconds(corpus.paths[key], condition) for key in keys}


@cache
def _seconds(path: Path, condition: Condition | None) -> float:
    samples = audio.read(path).samples
    return quality.measure(condition(samples) if condition else samples).seconds


def measured(
    network: Network,
    corpus: Corpus,
    tests: int,
    threshold: float,
    conditions: Sequence[Condition],
) -> dict[str, ErrorRates]:
    """Error rates by condition."""
    groups: dict[str, list[str]] = {}
    for key in sorted(corpus.paths):
        groups.setdefault(corpus.speakers[key], []).append(key)
    groups = {who: keys for who, keys in groups.items() if len(keys) > ENROLLED}
    enrolled = {who: keys[:ENROLLED] for who, keys in groups.items()}
    tested = [key for keys in groups.values() for key in keys[ENROLLED : ENROLLED + tests]]
    needed = [key for keys in enrolled.values() for key in keys]
    whole = network.embed(corpus, [*needed, *tested], None)
    rows = {}
    for condition in (None, *conditions):
        heard = network.embed(corpus, tested, condition) if condition else whole
        keys = [key for key in tested if key in heard]
        if len({corpus.speakers[key] for key in keys}) < LEAST_SPEAKERS:
            continue
        units = np.array([decision.unit(heard[key]) for key in keys])
        names = np.array(list(groups))
        who = np.array([corpus.speakers[key] for key in keys])
        labels = (names[:, None] == who).ravel()
        sides = np.repeat(names, len(who)).tolist(), np.tile(who, len(names)).tolist()
        scores = np.concatenate([against(whole, enrolled[name], units) for name in groups])
        name = condition.name if condition else CLEAN
        rows[name] = error_rates(scores, labels, sides, threshold)
    return rows


def costs(trials: dict[tuple[str, int], ScoredTrials], calibration: Calibration) -> list[list[str]]:
    """The cells of the table of costs."""
    rows = []
    for count in (1, ENROLLED):
        llrs = {
            name: (calibration.llr(part.scores, part.seconds, count), part.labels)
            for (name, references), part in trials.items()
            if references == count
        }
        each = [(name, [part]) for name, part in llrs.items()]
        for name, parts in [*each, ("all", list(llrs.values()))]:
            found, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
            least = metrics.min_cllr(found, labels)
            both = [metrics.cllr(some, labels) for some in (found, refitted(found, labels))]
            ratios = [*(cost / least if least else 0 for cost in both), perfect(parts)]
            above = [f"{100 * (ratio - 1):.1f}" if ratio else "no error" for ratio in ratios]
            rows.append([f"{name}, {count}", f"{both[0]:.4f}", f"{least:.4f}", *above])
    return rows


def perfect(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Cllr over the least, the mean of draws of LLRs that are what they say; 0 where none can err.

    Of each part's trials, the LLRs are Gaussian: of deviation d around d^2 / 2 for target trials
    and -d^2 / 2 for the others, so that the EER is that of a normal variable beyond d / 2.
    """
    rng, ratios = np.random.default_rng(0), []
    deviations = [-2 * norm.ppf(metrics.eer(llrs, labels)[0]) for llrs, labels in parts]
    known = [(d, labels) for d, (_, labels) in zip(deviations, parts, strict=True) if d < np.inf]
    for _ in range(DRAWS if known else 0):
        draws = [rng.normal(np.where(labels, d, -d) * d / 2, d) for d, labels in known]
        llrs, labels = np.concatenate(draws), np.concatenate([labels for _, labels in known])
        if least := metrics.min_cllr(llrs, labels):
            ratios.append(metrics.cllr(llrs, labels) / least)
    return float(np.mean(ratios)) if ratios else 0.0


def refitted(llrs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same LLRs with the scale and the offset that are best for these very trials."""
    weights = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    model = LogisticRegression(C=1e6).fit(llrs[:, np.newaxis], labels, sample_weight=weights)
    return model.decision_function(llrs[:, np.newaxis])


def against(whole: Embeddings, keys: list[str], units: np.ndarray) -> np.ndarray:
    """Scores of voices (N, embed_dim) against a speaker's references, as decisions have them."""
    mean = np.mean([decision.unit(whole[key]) for key in keys], axis=0, dtype=np.float64)
    scale = decision.enrolment_scale(len(keys))
    return units @ mean / np.linalg.norm(mean) * scale


if __name__ == "__main__":
    main()
