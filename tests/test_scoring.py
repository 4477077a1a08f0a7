from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation import scoring
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.evaluation.scoring import (
    Cohort,
    as_norm,
    cosine,
    cosine_scores,
    to_scale,
    write_det,
    write_scores,
)


def drawn(count: int, dim: int = 7, seed: int = 0) -> Embeddings:
    matrix = np.random.default_rng(seed).normal(size=(count, dim))
    return Embeddings([str(i) for i in range(count)], matrix)


def pairs(utterances: int, count: int, seed: int = 1) -> Trials:
    a, b = np.random.default_rng(seed).integers(utterances, size=(2, count))
    return Trials([str(i) for i in a], [str(i) for i in b], np.arange(count) % 2 == 0, "random")


def test_scores_equal_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, trials = drawn(10), pairs(10, 40)
    a, b = np.array(trials.enroll, int), np.array(trials.test, int)
    expected = cosine_similarity(embeddings.matrix)
    np.testing.assert_allclose(cosine_scores(embeddings, trials), expected[a, b], atol=1e-6)
    monkeypatch.setattr(scoring, "_TRIALS", 7)  # many chunks, the last one short
    np.testing.assert_allclose(cosine_scores(dict(embeddings), trials), expected[a, b], atol=1e-6)
    assert cosine(embeddings["0"], embeddings["1"]) == pytest.approx(expected[0, 1], abs=1e-6)


def test_bad_embeddings_are_named() -> None:
    trials = Trials(["a"], ["b"], np.array([True]), "one")
    with pytest.raises(InputError, match=r"1 utterances have no embedding \(first: b\)"):
        cosine_scores({"a": np.ones(3)}, trials)
    for broken in (np.zeros(3), np.full(3, np.nan)):
        with pytest.raises(InputError, match="b: an embedding of length"):
            cosine_scores({"a": np.ones(3), "b": broken}, trials)


def test_enrolments_of_several_utterances_are_their_mean() -> None:
    embeddings = drawn(6)
    models = {"ann": ["0", "1", "2"], "5": ["3"]}  # an id may well be an utterance's name
    trials = Trials(["ann", "5"], ["5", "4"], np.array([True, False]), "map", models)
    ann = embeddings.matrix[:3].mean(axis=0)
    expected = [cosine(ann, embeddings["5"]), cosine(embeddings["3"], embeddings["4"])]
    np.testing.assert_allclose(cosine_scores(embeddings, trials), expected, atol=1e-6)


@pytest.mark.parametrize("top", [2, 5, 30, 300])
@pytest.mark.parametrize("with_models", [False, True])
def test_as_norm_equals_a_double_loop(
    top: int, with_models: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_UTTERANCES", 4)
    embeddings, cohort, trials = drawn(12), drawn(30, seed=2), pairs(12, 25)
    models = {name: [name, str((int(name) + 1) % 12)] for name in set(trials.enroll)}
    if with_models:
        trials = Trials(trials.enroll, trials.test, trials.labels, "map", models)
    result = as_norm(embeddings, trials, cohort, top=top)
    for i, (enroll, test) in enumerate(zip(trials.enroll, trials.test, strict=True)):
        members = [embeddings[key] for key in (models[enroll] if with_models else [enroll])]
        sides = [np.mean(members, axis=0), embeddings[test]]
        score, parts, means = cosine(*sides), [], []
        for side in sides:
            against = sorted((cosine(side, other) for other in cohort.values()), reverse=True)[:top]
            mean = sum(against) / len(against)
            std = (sum((x - mean) ** 2 for x in against) / len(against)) ** 0.5
            parts.append((score - mean) / std)
            means.append(mean)
        assert result.scores[i] == pytest.approx(sum(parts) / 2, rel=1e-4, abs=1e-4)
        assert [result.enroll_mean[i], result.test_mean[i]] == pytest.approx(means, abs=1e-6)
        lengths = [np.linalg.norm(side) for side in sides]
        assert [result.enroll_length[i], result.test_length[i]] == pytest.approx(lengths)


def test_a_cohort_that_tells_nothing_is_refused() -> None:
    embeddings, trials = drawn(4), pairs(4, 5)
    with pytest.raises(InputError, match="the cohort has 1"):
        as_norm(embeddings, trials, drawn(1))
    with pytest.raises(InputError, match="all the same"):
        as_norm(embeddings, trials, Embeddings(["a", "b"], np.ones((2, 7))))


def test_cohort_means() -> None:
    embeddings = drawn(5)
    speakers = {"0": "ann", "1": "bob", "2": "ann", "3": "ann", "4": "bob"}
    cohort = Cohort.of(embeddings, speakers)
    mean = embeddings.matrix.mean(axis=0)
    np.testing.assert_allclose(cohort.mean, mean, atol=1e-6)
    ann = embeddings.matrix[[0, 2, 3]].mean(axis=0) - mean
    np.testing.assert_allclose(cohort.speakers["ann"], ann, atol=1e-6)
    assert (cohort.utterances, list(cohort.speakers)) == (5, ["ann", "bob"])


def test_scales() -> None:
    np.testing.assert_array_equal(to_scale([-1, 0, 1], "half"), [0, 0.5, 1])
    np.testing.assert_array_equal(to_scale([-1, 0, 1], "cosine"), [-1, 0, 1])
    with pytest.raises(InputError, match="must be cosine or half, not 'per cent'"):
        to_scale([0.0], "per cent")


def test_det_files_hold_the_rates_at_each_threshold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(-5, 6, 200) / 8, rng.random(200) < 0.3  # with ties
    write_det(tmp_path / "det", scores, labels)
    for threshold, miss, alarm in np.loadtxt(tmp_path / "det"):
        accepted = scores >= threshold
        np.testing.assert_allclose(miss, np.mean(~accepted[labels]), atol=1e-7)
        np.testing.assert_allclose(alarm, np.mean(accepted[~labels]), atol=1e-7)
    assert len(np.loadtxt(tmp_path / "det")) == len(np.unique(scores)) + 1


def test_score_files_of_names_with_spaces_have_tabs(tmp_path: Path) -> None:
    trials = Trials(["Smith John/1.wav"], ["Doe Ann/2.wav"], np.array([True]), "made")
    write_scores(tmp_path / "scores", trials, [0.5])
    fields = (tmp_path / "scores").read_text().rstrip("\n").split("\t")
    assert fields == ["Smith John/1.wav", "Doe Ann/2.wav", "0.50000", "target"]


def test_score_files_have_the_fields_columns(tmp_path: Path) -> None:
    embeddings, trials = drawn(6), pairs(6, 4)
    scores = cosine_scores(embeddings, trials)
    write_scores(tmp_path / "plain", trials, scores)
    lines = (tmp_path / "plain").read_text().splitlines()
    assert lines[0] == f"{trials.enroll[0]} {trials.test[0]} {scores[0]:.5f} target"
    assert lines[1] == f"{trials.enroll[1]} {trials.test[1]} {scores[1]:.5f} nontarget"
    normalized = as_norm(embeddings, trials, drawn(9, seed=3))
    write_scores(tmp_path / "normalized", trials, normalized)
    fields = (tmp_path / "normalized").read_text().splitlines()[0].split()
    assert fields[2:4] == [f"{normalized.scores[0]:.5f}", "target"]
    columns = (
        normalized.enroll_length,
        normalized.test_length,
        normalized.enroll_mean,
        normalized.test_mean,
    )
    assert fields[4:] == [f"{column[0]:.4f}" for column in columns]
