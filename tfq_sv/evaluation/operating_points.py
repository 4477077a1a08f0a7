"""What a threshold does: FAR and FRR with intervals, on whole recordings and on short ones."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfq_sv.data import pairs
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.evaluation.scoring import cosine_scores, enrolment_scale

SECONDS = (1.0, 2.0, 3.0, 6.0)
"""Durations of test speech that are measured beside whole recordings."""

REFERENCES = (1, 2, 3)
"""Numbers of enrolled recordings that scores are calibrated for."""

LEAST_SPEAKERS = 10
"""With fewer, a bootstrap over speakers says nothing."""

SURE = 0.3
"""A rate is sure if its 95 % interval reaches at most this share of it to either side."""

MOST_REJECTED = 0.05
"""FRR up to which a stricter threshold is recommended."""

_LIMIT, _DRAWS = 30_000, 1000


@dataclass(frozen=True)
class Rate:
    """An error rate at a fixed threshold.

    Attributes:
        value: a fraction.
        low: of its 95 % interval.
        high: of its 95 % interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"

    def speakers_needed(self, speakers: int) -> int | None:
        """How many speakers make it sure, as widths shrink with the root of their number.

        None where no error was seen: then nothing is known about the width.

        >>> Rate(0.01, 0.004, 0.016).speakers_needed(50)
        200
        """
        if not self.value:
            return None
        share = max(self.high - self.value, self.value - self.low) / self.value
        return max(speakers, math.ceil(round(speakers * (share / SURE) ** 2, 6)))


def every_pair(corpus: Corpus, *, limit: int = _LIMIT, seed: int = 0) -> Trials:
    """Pairs of recordings: of each kind all, or `limit` drawn evenly over the speakers.

    Raises:
        InputError: fewer than `LEAST_SPEAKERS` speakers with two recordings.
    """
    check_speakers(corpus)
    keys = list(corpus.paths)
    place = {speaker: i for i, speaker in enumerate(corpus.speaker_ids)}
    whose = [place[corpus.speakers[key]] for key in keys]
    rng = np.random.default_rng(seed)
    same = pairs.same_speaker(whose, limit, rng)
    drawn = np.concatenate([same, pairs.different_speakers(whose, limit, rng)])
    enroll, test = ([keys[i] for i in column] for column in drawn.T.tolist())
    source = f"{len(drawn)} pairs of {corpus.root} (seed {seed})"
    return Trials(enroll, test, np.arange(len(drawn)) < len(same), source)


def check_speakers(corpus: Corpus) -> None:
    """Raises InputError if fewer than `LEAST_SPEAKERS` speakers have two recordings or more."""
    several = sum(count > 1 for count in Counter(corpus.speakers.values()).values())
    if several < LEAST_SPEAKERS:
        raise InputError(
            f"{corpus.root} has {several} speakers with two recordings or more; error rates of "
            f"fewer than {LEAST_SPEAKERS} say nothing: record {LEAST_SPEAKERS - several} more"
        )


def tested_on(trials: Trials, utterances: Collection[str]) -> Trials:
    """The trials of single recordings whose tested one is among some utterances."""
    chosen = np.array([key in utterances for key in trials.test], bool)
    enroll, test = (
        [key for key, keep in zip(keys, chosen, strict=True) if keep]
        for keys in (trials.enroll, trials.test)
    )
    return Trials(enroll, test, trials.labels[chosen], trials.source)


def with_references(trials: Trials, corpus: Corpus, count: int) -> Trials:
    """The trials with `count` recordings of the enrolled speaker instead of one.

    The one that the trial names is the first, those that follow it in the corpus are the others,
    without the tested one. Trials of speakers who have too few are left out.
    """
    if count == 1:
        return trials
    own: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    for key in sorted(corpus.paths):
        keys = own.setdefault(corpus.speakers[key], [])
        places[key] = len(keys)
        keys.append(key)
    models: dict[str, list[str]] = {}
    enroll, kept = [], np.zeros(len(trials), bool)
    for i, (first, test) in enumerate(zip(trials.enroll, trials.test, strict=True)):
        keys = own[corpus.speakers[first]]
        following = range(places[first], places[first] + min(len(keys), count + 1))
        around = [keys[place % len(keys)] for place in following]
        others = [key for key in around if key != test][:count]
        if len(others) == count:
            kept[i] = True
            enroll.append("\n".join(others))
            models[enroll[-1]] = others
    tested = [key for key, keep in zip(trials.test, kept, strict=True) if keep]
    return Trials(enroll, tested, trials.labels[kept], trials.source, models)


def pair_scores(
    enrolled: Embeddings, tested: Embeddings, trials: Trials
) -> npt.NDArray[np.float64]:
    """Scores, float64 (N,), of tested embeddings against enrolled ones: `decision.score`.

    >>> both = Embeddings(["a", "b"], np.array([[2.0, 0.0], [0.6, 0.8]]))
    >>> pair_scores(both, both, Trials(["a"], ["b"], np.array([True]), "an example")).round(4)
    array([0.6])
    """
    names = [f"enrolled {key}" for key in enrolled] + [f"tested {key}" for key in tested]
    with np.errstate(invalid="ignore", divide="ignore"):  # refused below, if it is needed
        units = enrolled.matrix / np.linalg.norm(enrolled.matrix, axis=1, keepdims=True)
    both = Embeddings(names, np.concatenate([units, tested.matrix]))
    enroll = [f"enrolled {key}" for key in trials.enroll]
    test = [f"tested {key}" for key in trials.test]
    models = {
        f"enrolled {model}": [f"enrolled {key}" for key in keys]
        for model, keys in trials.models.items()
    }
    cosines = cosine_scores(both, Trials(enroll, test, trials.labels, trials.source, models))
    return cosines * enrolment_scale([len(trials.models.get(key, (key,))) for key in trials.enroll])


def rates(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.bool_],
    speakers: tuple[Sequence[str], Sequence[str]],
    thresholds: Sequence[float],
    *,
    seed: int = 0,
) -> list[tuple[Rate, Rate]]:
    """FAR and FRR at fixed thresholds, with intervals by a bootstrap over speakers.

    Args:
        scores: (N,).
        labels: (N,), true for target trials.
        speakers: the enrolled and the tested speaker of each trial, as in `metrics.eer_interval`.
        thresholds: scores that reach them are accepted.
        seed: of the draws.

    >>> who = (["a", "b", "a", "b"], ["a", "b", "b", "a"])
    >>> far, frr = rates(np.array([0.9, 0.8, 0.1, 0.3]), np.array([1, 1, 0, 0]) > 0, who, [0.5])[0]
    >>> print(far, frr, sep="; ")
    0.00 [0.00, 0.00]; 0.00 [0.00, 0.00]
    """
    place = {name: i for i, name in enumerate(sorted({*speakers[0], *speakers[1]}))}
    first, second = (np.array([place[name] for name in names]) for names in speakers)
    second = np.where(first == second, len(place), second)  # within one speaker: once a draw
    accepted = scores[None] >= np.asarray(thresholds)[:, None]
    wrong = accepted != labels
    kinds = (~labels, labels)
    rng = np.random.default_rng(seed)
    size = len(place)
    drawn = [np.bincount(rng.integers(size, size=size), minlength=size) for _ in range(_DRAWS)]
    draws = np.array(drawn, np.float64)
    both = np.column_stack([draws, np.ones(_DRAWS)])

    def weighed(trials: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """How many there are in each draw: the speakers' counts on both sides of a matrix."""
        shape = (size, size + 1)
        from scipy import sparse

        counts = sparse.csr_array((trials.astype(np.float64), (first, second)), shape=shape)
        return np.einsum("ds,ds->d", draws @ counts, both)

    sums = [weighed(kind) for kind in kinds]
    useful = (sums[0] > 0) & (sums[1] > 0)  # a draw without a kind of trials has no rate
    shares = np.array([
        [weighed(one & kind)[useful] / total[useful] for one in wrong]
        for kind, total in zip(kinds, sums, strict=True)
    ])  # fmt: skip
    low, high = np.quantile(shares, [0.025, 0.975], axis=2)
    found = []
    for i in range(len(thresholds)):
        far, frr = (
            Rate(float(wrong[i, kind].mean()), float(low[k, i]), float(high[k, i]))
            for k, kind in enumerate(kinds)
        )
        found.append((far, frr))
    return found


def recommended(points: dict[str, tuple[Rate, Rate]]) -> tuple[str, str]:
    """Returns the name of the strictest bearable operating point, and the reason.

    Args:
        points: name -> (FAR, FRR), from the laxest to the strictest.

    >>> recommended({"eer": (Rate(0.02, 0.01, 0.03), Rate(0.02, 0.01, 0.03))})
    ('eer', 'the strictest that rejects at most 5 % of the right speakers: 2.00 [1.00, 3.00] %')
    """
    most = f"{100 * MOST_REJECTED:g}"
    for name, (_, frr) in reversed(points.items()):
        if frr.value <= MOST_REJECTED:
            return (
                name,
                f"the strictest that rejects at most {most} % of the right speakers: {frr} %",
            )
    return "eer", f"none rejects at most {most} % of the right speakers"
