"""Trial scores from embeddings. NumPy alone."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError


def cosine(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Cosine of the angle between two embeddings (D,), in [-1, 1].

    >>> cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])).__round__(4)
    0.7071
    """
    return float(np.dot(_unit(a), _unit(b)))


def cosine_scores(
    embeddings: Mapping[str, npt.NDArray[np.floating]], trials: Trials
) -> npt.NDArray[np.float64]:
    """Raw cosine of every trial, float64 (N,).

    Args:
        embeddings: utterance key -> (D,).
        trials: pairs of those keys.

    Raises:
        InputError: an embedding is missing, zero or not finite.
    """
    keys = trials.utterances
    missing = [key for key in keys if key not in embeddings]
    if missing:
        raise InputError(f"{len(missing)} utterances have no embedding, {missing[0]} first")
    matrix = np.stack([_unit(embeddings[key], key) for key in keys])
    place = {key: i for i, key in enumerate(keys)}
    enroll = [place[key] for key in trials.enroll]
    test = [place[key] for key in trials.test]
    return np.einsum("nd,nd->n", matrix[enroll], matrix[test])


def _unit(embedding: npt.NDArray[np.floating], name: str = "embedding") -> npt.NDArray[np.float64]:
    vector = np.asarray(embedding, np.float64)
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        raise InputError(f"{name}: an embedding of length {length} has no direction")
    return vector / length
