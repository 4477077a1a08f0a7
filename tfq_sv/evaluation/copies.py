"""Recordings that are in a corpus under several names, told by their embeddings, which are equal.

A copy within a speaker makes target trials too easy, one under another speaker's name makes
nontarget trials that no network can tell.
"""

from collections.abc import Iterator

import numpy as np

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.embeddings import Embeddings


def copies(embeddings: Embeddings, corpus: Corpus, trials: Trials) -> list[str]:
    """Returns what copies there are, for people; an empty list where there are none.

    Args:
        embeddings: of the utterances.
        corpus: who speaks; nobody where that is not known.
        trials: utterances that are compared.

    >>> from pathlib import Path
    >>> both = Embeddings(["ann/1", "bob/1"], np.ones((2, 4)))
    >>> corpus = Corpus(Path("c"), {}, {"ann/1": "ann", "bob/1": "bob"})
    >>> trials = Trials(["ann/1"], ["bob/1"], np.array([False]), "list")
    >>> for note in copies(both, corpus, trials):
    ...     print(note)
    warning: 1 recordings are of several speakers at once (first: bob/1 is ann/1); remove the copies
    warning: list: 1 trials compare a recording with its copy, which scores 1 (0 target)
    """
    first: dict[int, int] = {}
    same = [first.setdefault(one, i) for i, one in enumerate(_hashes(embeddings))]
    again = [i for i, original in enumerate(same) if i != original]
    if not again:
        return []
    notes, names = [], embeddings.names
    who = [corpus.speakers.get(name) for name in names]
    several = [i for i in again if who[i] != who[same[i]]]
    if several:
        pair = f"{names[several[0]]} is {names[same[several[0]]]}"
        notes.append(
            f"warning: {len(several):,} recordings are of several speakers at once "
            f"(first: {pair}); remove the copies"
        )
    of = {names[i]: names[same[i]] for i in again}
    pairs = zip(trials.enroll, trials.test, strict=True)
    equal = np.array([a != b and of.get(a, a) == of.get(b, b) for a, b in pairs], bool)
    if equal.any():
        targets = int((equal & trials.labels).sum())
        notes.append(
            f"warning: {trials.source}: {int(equal.sum()):,} trials compare a recording with its "
            f"copy, which scores 1 ({targets:,} target)"
        )
    return notes


def overlap(cohort: Embeddings, embeddings: Embeddings) -> list[str]:
    """Says how many of a cohort's recordings are among those that are tested, if any are.

    >>> same = Embeddings(["a", "b"], np.eye(2))
    >>> overlap(same, same)[0][:60]
    "warning: 2 of the cohort's 2 recordings are among the tested"
    """
    known = set(_hashes(embeddings))
    count = sum(one in known for one in _hashes(cohort))
    if not count:
        return []
    return [
        f"warning: {count:,} of the cohort's {len(cohort):,} recordings are among the tested ones, "
        "which makes scores better than they are; take other speakers"
    ]


def _hashes(embeddings: Embeddings) -> Iterator[int]:
    return (hash(row.tobytes()) for row in embeddings.matrix)
