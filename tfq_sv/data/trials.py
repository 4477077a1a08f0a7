"""Trial lists: which pairs of utterances are compared, and which are of one speaker."""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import intern

import numpy as np
import numpy.typing as npt

from tfq_sv.data.corpus import Corpus, read_lines, read_pairs
from tfq_sv.errors import InputError

_LABELS = {"1": True, "0": False, "target": True, "nontarget": False}


@dataclass(frozen=True, eq=False)
class Trials:
    """Pairs of utterance keys.

    Attributes:
        enroll: key of the first utterance of each trial, or an enrolment's id.
        test: key of the second.
        labels: bool (N,), true where both are of one speaker.
        source: where they come from, for messages and reports.
        models: enrolment id -> its utterances, whose embeddings are averaged (CN-Celeb); empty
            where trials name utterances.
    """

    enroll: list[str]
    test: list[str]
    labels: npt.NDArray[np.bool_]
    source: str
    models: Mapping[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.enroll)

    @property
    def utterances(self) -> list[str]:
        """Every utterance that is needed, sorted."""
        enrolled = itertools.chain(*self.models.values()) if self.models else self.enroll
        return sorted({*enrolled, *self.test})

    @property
    def repeated(self) -> int:
        """How many trials stand in the list a second time."""
        return len(self) - len(set(zip(self.enroll, self.test, strict=True)))

    def speakers(self, corpus: Corpus) -> tuple[list[str], list[str]]:
        """The enrolled and the tested speaker of each trial, as intervals need them.

        Raises:
            InputError: an utterance that the corpus does not contain.
        """
        of = corpus.speakers
        if unknown := [key for key in self.utterances if key not in of]:
            raise InputError(
                f"{corpus.root} does not say who speaks in {len(unknown)} utterances of "
                f"{self.source} (first: {unknown[0]}), which the interval needs"
            )
        first = {model: keys[0] for model, keys in self.models.items()}
        return [of[first.get(key, key)] for key in self.enroll], [of[key] for key in self.test]

    def without(self, utterances: Collection[str]) -> "Trials":
        """The trials that do without some utterances.

        An enrolment goes on with the utterances that it has left, and goes when it has none.
        """
        left = {
            model: [k for k in keys if k not in utterances] for model, keys in self.models.items()
        }
        lost = {model for model, keys in left.items() if not keys} if left else set(utterances)
        kept = [
            i
            for i, (enroll, test) in enumerate(zip(self.enroll, self.test, strict=True))
            if enroll not in lost and test not in utterances
        ]
        return replace(
            self,
            enroll=[self.enroll[i] for i in kept],
            test=[self.test[i] for i in kept],
            labels=self.labels[kept],
            models={model: keys for model, keys in left.items() if keys},
        )

    def check(self) -> None:
        """Raises InputError if there is no target or no nontarget trial: no EER without both."""
        for kind, count in (("target", self.labels.sum()), ("nontarget", (~self.labels).sum())):
            if not count:
                raise InputError(
                    f"{self.source}: none of the {len(self)} trials is a {kind} trial; "
                    "error rates need both kinds"
                )

    @classmethod
    def read(
        cls,
        path: str | Path,
        corpus: Corpus,
        *,
        enroll_map: str | Path | None = None,
        strict: bool = True,
    ) -> "Trials":
        """Reads `1 enroll test` (VoxCeleb), `enroll test target` (Kaldi), `enroll test 1`.

        Args:
            path: the list.
            corpus: where its utterances are.
            enroll_map: list of `id utterance utterance ...`; the trials' first names are then ids.
            strict: refuse a list that names utterances which the corpus has not; else they stay
                in it, as long as one trial does without them.

        Raises:
            InputError: missing file, malformed line, a key that the corpus or the map has not, no
                trial, trials that are called both target and nontarget.
        """
        file = Path(path)
        rows = [_parse(file, number, line) for number, line in read_lines(file)]
        if not rows:
            raise InputError(f"{file} lists no trial")
        labels, enroll, test = zip(*rows, strict=True)
        models = _models(Path(enroll_map), file, enroll) if enroll_map else {}
        trials = cls(list(enroll), list(test), np.array(labels), str(file), models)
        disputed = len(set(rows)) - len(set(zip(enroll, test, strict=True)))
        if disputed:
            raise InputError(f"{file} calls {disputed} trials both target and nontarget")
        unknown = [key for key in trials.utterances if key not in corpus.paths]
        if unknown and (strict or not len(trials.without(set(unknown)))):
            raise InputError(
                f"{file} names {len(unknown)} utterances that {corpus.root} has not, "
                f"{unknown[0]} first"
            )
        return trials

    @classmethod
    def all_pairs(cls, corpus: Corpus, *, limit: int = 10_000, seed: int = 0) -> "Trials":
        """Pairs for a corpus without a list: up to `limit` target trials, as many nontarget ones.

        Raises:
            InputError: fewer than two speakers, or no speaker with two utterances.
        """
        by_speaker = defaultdict(list)
        for key, speaker in corpus.speakers.items():
            by_speaker[speaker].append(key)
        rng = np.random.default_rng(seed)
        same = _draw(
            (pair for keys in by_speaker.values() for pair in itertools.combinations(keys, 2)),
            limit,
            rng,
        )
        if len(by_speaker) < 2 or not same:
            raise InputError(
                f"{corpus.root} has {len(by_speaker)} speakers with {len(corpus.paths)} "
                "utterances; trials need two speakers, and two utterances of one"
            )
        keys = list(corpus.paths)
        nontarget: dict[tuple[str, str], None] = {}
        possible = len(keys) * (len(keys) - 1) // 2 - sum(
            len(k) * (len(k) - 1) // 2 for k in by_speaker.values()
        )
        while len(nontarget) < min(len(same), possible):
            a, b = sorted(rng.integers(len(keys), size=2))
            if corpus.speakers[keys[a]] != corpus.speakers[keys[b]]:
                nontarget[keys[a], keys[b]] = None
        pairs = [*same, *nontarget]
        labels = np.arange(len(pairs)) < len(same)
        source = f"{len(pairs)} pairs drawn from {corpus.root} (seed {seed})"
        return cls([p[0] for p in pairs], [p[1] for p in pairs], labels, source)


def _draw(
    pairs: Iterable[tuple[str, str]], limit: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    every = list(pairs)
    chosen = rng.permutation(len(every))[:limit]
    return [every[i] for i in sorted(chosen)]


def _models(path: Path, trials: Path, enroll: Iterable[str]) -> dict[str, list[str]]:
    models = {model: keys.split() for model, keys in read_pairs(path).items()}
    needed = set(enroll)
    unknown = sorted(needed - models.keys())
    if unknown:
        raise InputError(
            f"{trials} names {len(unknown)} enrolments that {path} has not, {unknown[0]} first"
        )
    return {model: models[model] for model in sorted(needed)}


def _parse(file: Path, number: int, line: str) -> tuple[bool, str, str]:
    fields = line.split()
    # Interned: a long list names every utterance many times.
    if len(fields) == 3 and fields[0] in _LABELS and fields[2] not in _LABELS:
        return _LABELS[fields[0]], intern(fields[1]), intern(fields[2])
    if len(fields) == 3 and fields[2] in _LABELS:
        return _LABELS[fields[2]], intern(fields[0]), intern(fields[1])
    raise InputError(
        f"{file}:{number}: expected `1 enroll test` or `enroll test target`, found {line!r}"
    )
