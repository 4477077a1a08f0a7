"""Whether the recordings of an enrolment are of one voice. NumPy alone.

ENROLMENT.md has the rule; `Agreement.kt` and `agreement.js` keep the same one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def outsiders(units: npt.NDArray[np.floating], threshold: float) -> dict[int, float]:
    """Recordings that do not fit the others, and the best score of each with them.

    Two recordings are linked if their score reaches the threshold. The largest group that hangs
    together by links is the speaker's, of equally large ones the one whose recording comes first.

    Args:
        units: embeddings of length 1, (N, embed_dim).
        threshold: from which score on two recordings are of one voice.

    >>> outsiders(np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]]), threshold=0.7)
    {}
    >>> outsiders(np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), threshold=0.7)
    {1: 0.6}
    """
    scores = np.asarray(units, np.float64) @ np.asarray(units, np.float64).T
    group = max(_groups(scores >= threshold), key=len)  # of equal ones, the first
    return {i: float(max(scores[i, j] for j in group)) for i in range(len(units)) if i not in group}


def problem(labels: Sequence[str], units: npt.NDArray[np.floating], threshold: float | None) -> str:
    """Returns which recordings do not fit the others; empty where all do.

    Args:
        labels: what messages call each recording.
        units: embeddings of length 1, (N, embed_dim).
        threshold: the network's at the EER; None if not known, and then all fit.

    >>> problem(["a.wav", "b.wav"], np.eye(2), threshold=0.5)
    'b.wav does not fit the others: the best score is 0.00, and 0.50 is needed; record again'
    """
    odd = {} if threshold is None else outsiders(units, threshold)
    if not odd:
        return ""
    named = " and ".join(labels[i] for i in odd)
    figures = ", ".join(f"{score:.2f}" for score in odd.values())
    verb, best = ("does", "best score is") if len(odd) == 1 else ("do", "best scores are")
    return (
        f"{named} {verb} not fit the others: the {best} {figures}, and {threshold:.2f} is needed; "
        "record again"
    )


def _groups(linked: npt.NDArray[np.bool_]) -> list[list[int]]:
    """What hangs together, in the order of each group's first member."""
    groups: list[list[int]] = []
    seen: set[int] = set()
    for first in range(len(linked)):
        if first in seen:
            continue
        group = [first]
        for i in group:  # grows as links are found
            seen.add(i)
            group += [j for j in range(len(linked)) if linked[i, j] and j not in {*seen, *group}]
        groups.append(sorted(group))
    return groups
