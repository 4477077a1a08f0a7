"""Trial lists: which pairs of utterances are compared, and which are of one speaker."""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfq_sv.data.corpus import Corpus, read_lines
from tfq_sv.errors import InputError

_LABELS = {"1": True, "0": False, "target": True, "nontarget": False}


@dataclass(frozen=True, eq=False)
class Trials:
    """Pairs of utterance keys.

    Attributes:
        enroll: key of the first utterance of each trial.
        test: key of the second.
        labels: bool (N,), true where both are of one speaker.
        source: where they come from, for messages and reports.
    """

    enroll: list[str]
    test: list[str]
    labels: npt.NDArray[np.bool_]
    source: str

    def __len__(self) -> int:
        return len(self.enroll)

    @property
    def utterances(self) -> list[str]:
        """Every key that occurs, sorted."""
        return sorted({*self.enroll, *self.test})

    def speakers(self, corpus: Corpus) -> tuple[list[str], list[str]]:
        """The enrolled and the tested speaker of each trial, as intervals need them."""
        of = corpus.speakers
        return [of[key] for key in self.enroll], [of[key] for key in self.test]

    @classmethod
    def read(cls, path: str | Path, corpus: Corpus) -> "Trials":
        """Reads VoxCeleb (`1 enroll test`) or Kaldi (`enroll test target`) trials.

        Raises:
            InputError: missing file, malformed line, a key that the corpus has not, no trial.
        """
        file = Path(path)
        rows = [_parse(file, number, line) for number, line in read_lines(file)]
        if not rows:
            raise InputError(f"{file} lists no trial")
        labels, enroll, test = zip(*rows, strict=True)
        unknown = sorted({*enroll, *test} - corpus.paths.keys())
        if unknown:
            raise InputError(
                f"{file} names {len(unknown)} utterances that {corpus.root} has not, "
                f"{unknown[0]} first"
            )
        return cls(list(enroll), list(test), np.array(labels), str(file))

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


def _parse(file: Path, number: int, line: str) -> tuple[bool, str, str]:
    fields = line.split()
    if len(fields) == 3 and fields[0] in _LABELS and fields[2] not in _LABELS:
        return _LABELS[fields[0]], fields[1], fields[2]
    if len(fields) == 3 and fields[2] in _LABELS:
        return _LABELS[fields[2]], fields[0], fields[1]
    raise InputError(
        f"{file}:{number}: expected `1 enroll test` or `enroll test target`, found {line!r}"
    )
