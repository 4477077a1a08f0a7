"""Measures enrolment and decisions on a corpus: three recordings enrol, the others test.

Thresholds are those of all pairs of --train's recordings; everything else is measured on --test,
other speakers. Printed: three ways to score several references; how often another person's
recording among three is noticed; and open-set identification among some enrolled speakers.
Intervals (95 %) are from a bootstrap over speakers.

example:
  python benchmarks/enrolment.py published/FP32/model.tflite published/4-speech/model.tflite \
      --train=speechocean762/train --test=speechocean762/test --embeddings=embedded

benchmarks/published.py makes the files. The embeddings are those of benchmarks/conditions.py.
"""

import argparse
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
from conditions import Network

from tfq_sv import metrics
from tfq_sv.data.corpus import Corpus
from tfq_sv.verification import agreement, decision

ENROLLED = 3
NEAREST = 10
DRAWS = 1000
RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mean of references, scaled": decision.score,
    "mean of the cosines": lambda references, test: float(np.mean(references @ test)),
    "best of the cosines": lambda references, test: float(np.max(references @ test)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help=".tflite")
    for name, what in (
        ("train", "corpus that thresholds come from"),
        ("test", "corpus of other speakers, that figures come from"),
    ):
        parser.add_argument(f"--{name}", required=True, help=what)
    parser.add_argument("--embeddings", help="folder that keeps embeddings from run to run")
    arguments = parser.parse_args()
    for path in arguments.models:
        network = Network(path, arguments.embeddings)
        thresholds = pair_thresholds(speakers(arguments.train, network))
        tested = speakers(arguments.test, network)
        recordings = sum(map(len, tested))
        print(f"\n{path}, {arguments.test}: {len(tested)} speakers, {recordings} recordings")
        for name, (threshold, far, frr) in thresholds.items():
            print(f"  {name}: {threshold:.4f}, on pairs of {arguments.train} {rates(far, frr)}")
        scoring(tested, thresholds)
        wrong_person(tested, agreement.least_score(thresholds["eer"][0]))
        identification(tested, thresholds)


def speakers(folder: str, network: Network) -> list[np.ndarray]:
    """Each speaker's embeddings, of length 1."""
    corpus = Corpus.read(folder)
    found = network.embed(corpus, list(corpus.paths), None)
    groups: dict[str, list[np.ndarray]] = {}
    for key in sorted(found):
        groups.setdefault(corpus.speakers[key], []).append(decision.unit(found[key]))
    return [np.array(group) for group in groups.values() if len(group) > ENROLLED]


def pair_thresholds(groups: list[np.ndarray]) -> dict[str, tuple[float, float, float]]:
    """Of all pairs: name -> (threshold, FAR, FRR)."""
    units = np.concatenate(groups)
    who = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    first, second = np.triu_indices(len(units), 1)
    scores, labels = (units @ units.T)[first, second], who[first] == who[second]
    found = {"eer": metrics.eer(scores, labels)[1]}
    for name, far in (("far_1e-2", 1e-2), ("far_1e-3", 1e-3)):
        threshold = metrics.threshold_at_far(scores, labels, far)
        if threshold is not None:
            found[name] = threshold
    return {
        name: (at, np.mean(scores[~labels] >= at).item(), np.mean(scores[labels] < at).item())
        for name, at in found.items()
    }


def scoring(groups: list[np.ndarray], thresholds: dict[str, tuple[float, float, float]]) -> None:
    tests = [group[ENROLLED:] for group in groups]
    print(f"\n  Scores against {ENROLLED} references")
    sides = [(i, j) for i in range(len(groups)) for j in range(len(groups)) for _ in tests[j]]
    labels = np.array([i == j for i, j in sides])
    names = tuple([f"{side[k]}" for side in sides] for k in (0, 1))
    for rule, score in RULES.items():
        scores = np.array(
            [score(one[:ENROLLED], test) for one in groups for some in tests for test in some]
        )
        eer, _ = metrics.eer(scores, labels)
        low, high = metrics.eer_interval(scores, labels, names)
        print(f"    {rule}: EER {100 * eer:.2f} % [{100 * low:.2f}, {100 * high:.2f}]")
        own = metrics.threshold_at_far(scores, labels, 1e-2)
        if own is not None:
            print(f"      FRR at FAR 1e-2: {100 * np.mean(scores[labels] < own):.2f} %")
        for name, (threshold, *_) in thresholds.items():
            accepted = np.zeros((2, len(groups), len(groups)))
            np.add.at(accepted[0], tuple(np.transpose(sides)), scores >= threshold)
            np.add.at(accepted[1], tuple(np.transpose(sides)), 1)
            print(f"      at {name}: {fixed_threshold(*accepted)}")


def fixed_threshold(accepted: np.ndarray, trials: np.ndarray) -> str:
    """FAR and FRR with intervals; both are (enrolled, tested) counts."""
    others = 1 - np.eye(len(trials))

    def found(drawn: np.ndarray) -> tuple[float, float]:
        weights = np.outer(drawn, drawn) * others
        far = (weights * accepted).sum() / (weights * trials).sum()
        return far, 1 - drawn @ np.diag(accepted) / (drawn @ np.diag(trials))

    bounds = bootstrap(found, len(trials))
    return rates(*found(np.ones(len(trials))), bounds)


def bootstrap(found: Callable[[np.ndarray], Iterable[float]], size: int) -> np.ndarray:
    """95 % bounds of figures, (2, figures), over draws of speakers."""
    rng = np.random.default_rng(0)
    draws = [
        list(found(np.bincount(rng.integers(size, size=size), minlength=size).astype(float)))
        for _ in range(DRAWS)
    ]
    return np.quantile(draws, [0.025, 0.975], axis=0)


def rates(far: float, frr: float, bounds: np.ndarray | None = None) -> str:
    parts = []
    for i, (name, rate) in enumerate((("FAR", far), ("FRR", frr))):
        ends = "" if bounds is None else " [{:.2f}, {:.2f}]".format(*100 * bounds[:, i])
        parts.append(f"{name} {100 * rate:.2f} %{ends}")
    return ", ".join(parts)


def wrong_person(groups: list[np.ndarray], threshold: float) -> None:
    """How often a recording of someone else among three is named, and a right one is."""
    rng = np.random.default_rng(0)
    means = np.array([decision.unit(group.mean(axis=0)) for group in groups])
    nearest = np.argsort(-(means @ means.T), axis=1)[:, 1 : NEAREST + 1]
    counts = np.zeros((3, len(groups)))
    for i, group in enumerate(groups):
        triples = [group[list(three)] for three in combinations(range(len(group)), ENROLLED)]
        counts[0, i] = np.mean([bool(agreement.outsiders(x, threshold)) for x in triples])
        anyone = np.delete(np.arange(len(groups)), i)
        for kind, choice in enumerate((anyone, nearest[i]), 1):
            caught = []
            for three in triples:
                wrong, place = groups[rng.choice(choice)], rng.integers(ENROLLED)
                mixed = three.copy()
                mixed[place] = wrong[rng.integers(len(wrong))]
                caught.append(set(agreement.outsiders(mixed, threshold)) == {place})
            counts[kind, i] = np.mean(caught)
    low, high = 100 * bootstrap(lambda drawn: counts @ drawn / drawn.sum(), len(groups))
    print(f"\n  Another person's recording among {ENROLLED}")
    labels = ("false alarms", "caught and named", f"the same, of the {NEAREST} most similar voices")
    for i, label in enumerate(labels):
        print(f"    {label}: {100 * counts[i].mean():.2f} % [{low[i]:.2f}, {high[i]:.2f}]")


def identification(
    groups: list[np.ndarray], thresholds: dict[str, tuple[float, float, float]]
) -> None:
    rng = np.random.default_rng(0)
    print("\n  Open-set identification, means of 40 draws of enrolled speakers")
    for size in (5, 20):
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in thresholds}
        for _ in range(40):
            order = rng.permutation(len(groups))
            people, strangers = order[:size], order[size:]
            scale = decision.enrolment_scale(ENROLLED)
            references = [decision.unit(groups[i][:ENROLLED].mean(axis=0)) for i in people]
            own = np.concatenate([groups[i][ENROLLED:] for i in people]) @ np.transpose(references)
            who = np.repeat(np.arange(size), [len(groups[i]) - ENROLLED for i in people])
            right, best = own.argmax(axis=1) == who, own.max(axis=1) * scale
            others = np.concatenate([groups[i] for i in strangers]) @ np.transpose(references)
            for name, (threshold, *_) in thresholds.items():
                named = np.mean(right & (best >= threshold)).item()
                wrong = np.mean(~right & (best >= threshold)).item()
                alarms = np.mean(others.max(axis=1) * scale >= threshold).item()
                found[name].append((named, wrong, alarms))
        for name, some in found.items():
            named, wrong, alarms = 100 * np.mean(some, axis=0)
            print(
                f"    {size} enrolled, at {name}: rightly named {named:.2f} %, taken for another "
                f"{wrong:.2f} %, strangers accepted {alarms:.2f} %"
            )


if __name__ == "__main__":
    main()
