import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.scoring import cosine, cosine_scores


def test_scores_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(10, 7)).astype(np.float32)
    a, b = rng.integers(10, size=(2, 40))
    trials = Trials([str(i) for i in a], [str(i) for i in b], np.zeros(40, bool), "random")
    embeddings = {str(i): matrix[i] for i in range(10)}
    expected = cosine_similarity(matrix)[a, b]
    np.testing.assert_allclose(cosine_scores(embeddings, trials), expected, atol=1e-6)
    assert cosine(matrix[0], matrix[1]) == pytest.approx(cosine_similarity(matrix)[0, 1], abs=1e-6)


def test_bad_embeddings_are_named() -> None:
    trials = Trials(["a"], ["b"], np.array([True]), "one")
    with pytest.raises(InputError, match="1 utterances have no embedding, b first"):
        cosine_scores({"a": np.ones(3)}, trials)
    for broken in (np.zeros(3), np.full(3, np.nan)):
        with pytest.raises(InputError, match="b: an embedding of length"):
            cosine_scores({"a": np.ones(3), "b": broken}, trials)
