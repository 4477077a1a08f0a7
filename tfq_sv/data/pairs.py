"""Drawing pairs of utterances, in a memory and a time that the number of pairs asked for bounds."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pairs = npt.NDArray[np.int64]
"""(N, 2), rows of two different numbers, the lower one first."""


def same_speaker(speakers: Sequence[int], limit: int, rng: np.random.Generator) -> Pairs:
    """Draws pairs of one speaker each, without repetition.

    A speaker of many utterances has most of all pairs; no speaker gives more than an equal share
    while others have pairs left.

    Args:
        speakers: each utterance's speaker, from 0.
        limit: as many pairs at most; all, if there are fewer.
        rng: of the draw.

    >>> same_speaker([0, 0, 1, 0], 9, np.random.default_rng(0)).tolist()
    [[0, 1], [0, 3], [1, 3]]
    """
    order, begins, counts = _grouped(speakers)
    possible = counts * (counts - 1) // 2
    parts = []
    for speaker, share in enumerate(_shares(possible, limit).tolist()):
        if share:
            ranks = rng.choice(possible[speaker], share, replace=False, shuffle=False)
            first, second = _unrank(ranks)
            parts.append(np.stack([first, second], axis=1) + begins[speaker])
    drawn = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    return _sorted(order[drawn])


def different_speakers(speakers: Sequence[int], limit: int, rng: np.random.Generator) -> Pairs:
    """Draws pairs of two speakers each, without repetition, all alike likely.

    Args:
        speakers: each utterance's speaker, from 0.
        limit: as many pairs at most; all, if there are fewer.
        rng: of the draw.

    >>> different_speakers([0, 0, 1], 9, np.random.default_rng(0)).tolist()
    [[0, 2], [1, 2]]
    """
    order, begins, counts = _grouped(speakers)
    # Utterances in the order of their speakers: each pairs with all those of later speakers.
    ends = np.repeat(begins + counts, counts)
    ranks = np.cumsum(len(order) - ends)
    total = int(ranks[-1]) if len(ranks) else 0
    if not total:
        return np.zeros((0, 2), np.int64)
    drawn = rng.choice(total, min(limit, total), replace=False, shuffle=False)
    first = np.searchsorted(ranks, drawn, side="right")
    second = len(order) - (ranks[first] - drawn)
    return _sorted(order[np.stack([first, second], axis=1)])


def _grouped(
    speakers: Sequence[int],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Utterances in the order of their speakers; where each speaker begins, and how many it has."""
    whose = np.asarray(speakers, np.int64)
    counts = np.bincount(whose).astype(np.int64) if len(whose) else np.zeros(0, np.int64)
    return np.argsort(whose, kind="stable"), np.cumsum(counts) - counts, counts


def _shares(possible: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    """How many each gives, the lowest the most equal: as water fills vessels."""
    if possible.sum() <= limit:
        return possible
    order = np.argsort(possible, kind="stable")
    shares, remaining = np.zeros_like(possible), limit
    for place, i in enumerate(order.tolist()):
        shares[i] = min(int(possible[i]), remaining // (len(order) - place))
        remaining -= int(shares[i])
    return shares


def _unrank(ranks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pairs (i, j), i < j, in the order (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    j = ((1 + np.sqrt(8.0 * ranks + 1)) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > ranks  # where the root was rounded up
    j += (j + 1) * j // 2 <= ranks
    return ranks - j * (j - 1) // 2, j


def _sorted(pairs: Pairs) -> Pairs:
    pairs = np.sort(pairs, axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
