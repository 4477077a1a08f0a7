"""Whether the recordings of an enrolment are of one voice. NumPy alone.

ENROLMENT.md has the rule; `Agreement.kt` and `agreement.js` keep the same one.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tfq_sv.verification.decision import score

LAXER = 0.1
"""Share of the threshold at the EER by which the one of agreement is lower: three right recordings
may raise a false alarm, and somebody else's is rare."""

_ROUNDING = 1e-6
"""Scores whose difference is rounding are equal."""


def least_score(threshold: float | None) -> float | None:
    """From which score on recordings of an enrolment count as one voice.

    Args:
        threshold: the network's at the EER; None if not known, and then all do.

    >>> least_score(0.5), least_score(-0.5), least_score(None)
    (0.45, -0.55, None)
    """
    return None if threshold is None else threshold - LAXER * abs(threshold)


def outsiders(units: npt.NDArray[np.floating], threshold: float) -> dict[int, float]:
    """Recordings that do not fit the others, and the score of each.

    While the recording that scores lowest against all others stays under the threshold, it is taken
    out; of equal ones, the last. So one is always left.

    Args:
        units: embeddings of length 1, (N, embed_dim).
        threshold: from which score on voices count as one.

    >>> outsiders(np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]]), threshold=0.6)
    {}
    >>> outsiders(np.array([[1.0, 0.0], [-0.6, 0.8], [0.8, 0.6]]), threshold=0.7)
    {1: -0.291...}
    """
    remaining, out = list(range(len(units))), {}
    while len(remaining) > 1:
        scores = {i: score(units[[j for j in remaining if j != i]], units[i]) for i in remaining}
        least = min(scores.values()) + _ROUNDING
        lowest = max(i for i in remaining if scores[i] <= least)
        if scores[lowest] >= threshold:
            break
        out[lowest] = scores[lowest]
        remaining.remove(lowest)
    return dict(sorted(out.items()))


def problem(labels: Sequence[str], units: npt.NDArray[np.floating], threshold: float | None) -> str:
    """Returns which recordings are there twice or do not fit the others; empty where all is well.

    Args:
        labels: what messages call each recording.
        units: embeddings of length 1, (N, embed_dim).
        threshold: see `least_score`; None if not known, and then all fit.

    >>> problem(["a.wav", "b.wav"], np.ones((2, 4)) / 2, threshold=None)
    'b.wav is the same recording as a.wav; give another'
    >>> problem(["a.wav", "b.wav"], np.eye(2), threshold=0.5)
    'b.wav does not fit the others: the score is 0.00, and 0.50 is needed; record again'
    """
    for i, j in combinations(range(len(units)), 2):
        if np.array_equal(units[i], units[j]):  # which says nothing new, and agrees with itself
            return f"{labels[j]} is the same recording as {labels[i]}; give another"
    odd = {} if threshold is None else outsiders(units, threshold)
    if not odd:
        return ""
    named = " and ".join(labels[i] for i in odd)
    figures = ", ".join(f"{figure:.2f}" for figure in odd.values())
    verb, what = ("does", "score is") if len(odd) == 1 else ("do", "scores are")
    return (
        f"{named} {verb} not fit the others: the {what} {figures}, and {threshold:.2f} is needed; "
        "record again"
    )
