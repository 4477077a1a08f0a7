"""Trial lists: which pairs of utterances are compared, and which are of one speaker."""

import itertools
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfq_sv.data import pairs
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.key_lookup import KeyLookup
from tfq_sv.data.lists import read_pairs
from tfq_sv.data.trial_check import check_labels
from tfq_sv.data.trial_list import read_list
from tfq_sv.errors import InputError
from tfq_sv.files import atomic


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
        notes: how the list was read, and doubts about it, for people.
    """

    enroll: list[str]
    test: list[str]
    labels: npt.NDArray[np.bool_]
    source: str
    models: Mapping[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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

    def speakers(self, corpus: Corpus) -> tuple[list[str], list[str]] | None:
        """The enrolled and the tested speaker of each trial, as intervals need them.

        None where the corpus does not know them all.
        """
        of = corpus.speakers
        first = {model: keys[0] for model, keys in self.models.items()}
        try:
            return [of[first.get(key, key)] for key in self.enroll], [of[key] for key in self.test]
        except KeyError:
            return None

    def without(self, utterances: Collection[str]) -> "Trials":
        """The trials that do without some utterances.

        An enrolment keeps the utterances that remain, and is dropped when none do.
        """
        utterances = frozenset(utterances)  # of a list, each look-up would go through all of it
        remaining = {
            model: [k for k in keys if k not in utterances] for model, keys in self.models.items()
        }
        lost = (
            {model for model, keys in remaining.items() if not keys}
            if remaining
            else set(utterances)
        )
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
            models={model: keys for model, keys in remaining.items() if keys},
        )

    def check(self) -> None:
        """Raises InputError if there is no target or no nontarget trial: no EER without both."""
        for kind, count in (("target", self.labels.sum()), ("nontarget", (~self.labels).sum())):
            if not count:
                raise InputError(
                    f"{self.source}: none of the {len(self)} trials is a {kind} trial; "
                    "error rates need both kinds"
                )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes `1 enroll test` lines, which `read` reads: drawn pairs, for another day.

        With tabs, where a name contains a space or another separator.
        """
        spaced = any(mark in name for name in self.utterances for mark in " ,;|")
        rows = zip(self.labels.tolist(), self.enroll, self.test, strict=True)
        gap = "\t" if spaced else " "
        with atomic(path) as temporary:
            temporary.write_text(
                "".join(f"{int(label)}{gap}{a}{gap}{b}\n" for label, a, b in rows), encoding="utf-8"
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
        """Reads `1 enroll test` (VoxCeleb), `enroll test target` (Kaldi), CSV, and their like.

        Args:
            path: the list; `trial_list.read_list` says what is understood.
            corpus: where its utterances are; names that differ from its keys by a suffix, `./` or
                the folders before them are found (`KeyLookup`), which `notes` says.
            enroll_map: list of `id utterance utterance ...`; the trials' first names are then ids.
            strict: refuse a list that names utterances which the corpus does not contain; else
                they stay in it, as long as one trial does without them.

        Raises:
            InputError: missing file, malformed line, a name that the corpus or the map does not
                contain, no trial, or labels that contradict themselves or nearly all speakers.
        """
        file = Path(path)
        lookup = KeyLookup(corpus)
        listed = read_list(file, lambda name: lookup.find(name) is not None)
        lookup.forget()  # those that were only tried
        models = _models(Path(enroll_map), file, listed.enroll, lookup) if enroll_map else {}
        enroll = listed.enroll if models else [lookup.find(name) or name for name in listed.enroll]
        test = [lookup.find(name) or name for name in listed.test]
        trials = cls(enroll, test, np.array(listed.labels), str(file), models)
        unknown = [key for key in trials.utterances if key not in corpus.paths]
        if unknown and (strict or not len(trials.without(set(unknown)))):
            raise InputError(
                f"{file} names {len(unknown)} utterances that {corpus.root} does not contain "
                f"(first: {unknown[0]})"
            )
        doubts = check_labels(trials.without(unknown) if unknown else trials, corpus)
        notes = [listed.note] if listed.note else []
        return replace(trials, notes=(*notes, *lookup.notes(file), *doubts))

    @classmethod
    def all_pairs(cls, corpus: Corpus, *, limit: int = 10_000, seed: int = 0) -> "Trials":
        """Pairs for a corpus without a list: up to `limit` target trials, as many nontarget ones.

        Raises:
            InputError: fewer than two speakers, or no speaker with two utterances.
        """
        keys = list(corpus.paths)
        place = {speaker: i for i, speaker in enumerate(corpus.speaker_ids)}
        whose = [place[corpus.speakers[key]] for key in keys] if place else []
        rng = np.random.default_rng(seed)
        same = pairs.same_speaker(whose, limit, rng) if len(place) > 1 else np.zeros((0, 2), int)
        if not len(same):
            raise InputError(
                f"{corpus.root} has {len(place)} speakers with {len(keys)} utterances; trials need "
                "two speakers, and two utterances of one"
            )
        other = pairs.different_speakers(whose, len(same), rng)
        drawn = np.concatenate([same, other])
        labels = np.arange(len(drawn)) < len(same)
        source = f"{len(drawn)} pairs drawn from {corpus.root} (seed {seed})"
        enroll, test = ([keys[i] for i in column] for column in drawn.T.tolist())
        return cls(enroll, test, labels, source)


def _models(
    path: Path, trials: Path, enroll: Iterable[str], lookup: KeyLookup
) -> dict[str, list[str]]:
    listed = read_pairs(path)
    needed = set(enroll)
    unknown = sorted(needed - listed.keys())
    if unknown:
        raise InputError(
            f"{trials} names {len(unknown)} enrolments that {path} does not contain "
            f"(first: {unknown[0]})"
        )
    return {
        model: [lookup.find(key) or key for key in listed[model].split()]
        for model in sorted(needed)
    }
