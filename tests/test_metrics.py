import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_curve

from tfq_sv import metrics
from tfq_sv.errors import InputError

scores_and_labels = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        # Few distinct values, so that ties are common.
        hnp.arrays(np.float64, n, elements=st.integers(-5, 5).map(float)),
        hnp.arrays(bool, n),
    )
)


@given(scores_and_labels)
def test_eer_and_min_dcf_agree_with_scikit_learns_curve(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = drawn
    assume(labels.any() and not labels.all())
    alarms, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    misses = 1 - hits
    # The crossing of two piecewise linear functions, found on a fine grid.
    position = np.linspace(0, len(alarms) - 1, 200 * (len(alarms) - 1) + 1)
    index = np.arange(len(alarms))
    gap = np.interp(position, index, misses) - np.interp(position, index, alarms)
    expected = np.interp(position[np.argmin(np.abs(gap))], index, alarms)
    assert metrics.eer(scores, labels)[0] == pytest.approx(expected, abs=6e-3)
    cost = np.min(0.01 * misses + 0.99 * alarms) / 0.01
    assert metrics.min_dcf(scores, labels) == pytest.approx(cost)


def test_threshold_is_where_both_errors_are_equal() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30000) < 10000
    scores = rng.normal(np.where(labels, 2.0, 0.0), 1.0)
    rate, threshold = metrics.eer(scores, labels)
    assert np.mean(scores[labels] < threshold) == pytest.approx(rate, abs=2e-4)
    assert np.mean(scores[~labels] >= threshold) == pytest.approx(rate, abs=2e-4)
    assert rate == pytest.approx(0.1587, abs=0.006)  # two Gaussians 2 sigma apart


@given(
    nontargets=st.integers(10, 400),
    values=st.sampled_from([3, 40, 10_000]),
    far=st.sampled_from([0.1, 0.07, 0.29, 0.3, 0.57, 0.99, 1 / 3]),
    seed=st.integers(0, 99),
)
def test_threshold_at_far_by_brute_force(
    nontargets: int, values: int, far: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(values, size=nontargets + 20) / values  # few values: many ties
    labels = np.arange(len(scores)) < 20
    found = metrics.threshold_at_far(scores, labels, far)
    rate = Fraction(str(far))
    if rate * nontargets < 10:
        assert found is None
        return
    assert found is not None
    others = scores[~labels]
    assert np.sum(others >= found) <= rate * nontargets
    # A lower threshold, at the next score below, would accept too many.
    for lower in scores[scores < found]:
        assert np.sum(others >= lower) > rate * nontargets


def test_threshold_at_far_accepts_all_that_it_may() -> None:
    for number, far, may in ((10_000, 1e-2, 100), (10_000, 1e-3, 10), (100, 0.29, 29)):
        scores = np.append(np.arange(number), number)
        labels = np.arange(number + 1) == number
        threshold = metrics.threshold_at_far(scores, labels, far)
        assert np.sum(scores[~labels] >= threshold) == may


def test_a_threshold_between_neighbours_rejects_the_lower() -> None:
    low = 1.0
    for _ in range(4):
        high = np.nextafter(low, 2)
        scores = np.array([low] * 90 + [high] * 11)
        threshold = metrics.threshold_at_far(scores, np.arange(101) == 100, 0.1)
        assert threshold is not None
        assert low < threshold <= high
        low = high


def test_threshold_at_far_keeps_its_promise() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30000) < 10000
    scores = rng.normal(np.where(labels, 2.0, 0.0), 1.0)
    threshold = metrics.threshold_at_far(scores, labels, 1e-2)
    assert threshold is not None
    assert 0.0095 <= np.mean(scores[~labels] >= threshold) <= 0.01
    assert metrics.threshold_at_far(scores, labels, 1e-4) is None


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([1.0, 0.0], [1, 0], 0.0),
        ([0.0, 1.0], [1, 0], 1.0),
        ([0.5, 0.5], [1, 0], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.5),
    ],
)
def test_tiny_sets(scores: list[float], labels: list[int], expected: float) -> None:
    assert metrics.eer(scores, labels)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [1, 1], "none of the 2 trials is a nontarget"),
        ([1.0, 2.0], [0, 0], "none of the 2 trials is a target"),
        ([1.0, np.nan], [0, 1], "1 of 2 scores are NaN"),
        ([1.0], [0, 1], "do not match"),
    ],
)
def test_bad_sets_are_refused(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics.eer(scores, labels)


def speakers_and_scores(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[list[str], list[str]]]:
    rng = np.random.default_rng(seed)
    voices = rng.normal(0, 1, (40, 8))
    who = np.repeat(np.arange(40), 5)
    points = voices[who] + rng.normal(0, 0.9, (200, 8))
    a, b = rng.integers(200, size=(2, 4000))
    scores = -np.linalg.norm(points[a] - points[b], axis=1)
    return scores, who[a] == who[b], ([str(x) for x in who[a]], [str(x) for x in who[b]])


def test_interval_holds_the_eer_and_repeats() -> None:
    scores, labels, speakers = speakers_and_scores(0)
    low, high = metrics.eer_interval(scores, labels, speakers, resamples=200)
    assert 0 <= low < metrics.eer(scores, labels)[0] < high <= 1
    assert (low, high) == metrics.eer_interval(scores, labels, speakers, resamples=200)


def test_paired_interval_is_narrower_and_sees_no_difference_where_there_is_none() -> None:
    scores, labels, speakers = speakers_and_scores(1)
    noisy = scores + np.random.default_rng(0).normal(0, 0.01, scores.size)
    low, high = metrics.eer_interval(noisy, labels, speakers, minus=scores, resamples=200)
    assert low <= 0 <= high
    alone = metrics.eer_interval(scores, labels, speakers, resamples=200)
    assert high - low < (alone[1] - alone[0]) / 2
    same = metrics.eer_interval(scores, labels, speakers, minus=scores, resamples=20)
    assert same == (0.0, 0.0)


def test_seeds_of_one_system_are_averaged() -> None:
    scores, labels, speakers = speakers_and_scores(1)
    noise = np.random.default_rng(0).normal(0, 0.5, (4, scores.size))
    seeds = scores + noise
    low, high = metrics.eer_interval(seeds, labels, speakers, resamples=200)
    mean = np.mean([metrics.eer(seed, labels)[0] for seed in seeds])
    assert low < mean < high
    alone = metrics.eer_interval(scores, labels, speakers, resamples=200)
    assert metrics.eer_interval([scores, scores], labels, speakers, resamples=200) == alone
    same = metrics.eer_interval(seeds, labels, speakers, minus=seeds[::-1], resamples=20)
    np.testing.assert_allclose(same, 0, atol=1e-12)
    # Noise of its own makes each seed worse than the system without it.
    assert metrics.eer_interval(seeds, labels, speakers, minus=scores, resamples=200)[0] > 0


def test_weighting_by_speakers_equals_repeating_their_trials() -> None:
    scores, labels, (enrolled, tested) = speakers_and_scores(2)
    drawn = np.random.default_rng(0).integers(0, 3, 41)
    drawn[-1] = 1
    first, second = np.array(enrolled, int), np.array(tested, int)
    second[first == second] = 40
    resampler = metrics._Resampler(metrics._Curve(scores, labels), first, second)
    weighted = resampler.eer(drawn.astype(float))
    counts = drawn[first] * drawn[second]
    repeated = metrics.eer(np.repeat(scores, counts), np.repeat(labels, counts))[0]
    assert weighted == pytest.approx(repeated, abs=1e-9)


def test_few_operating_points_give_nearly_the_same_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, labels, speakers = speakers_and_scores(3)
    every = metrics.eer_interval(scores, labels, speakers, resamples=100)
    monkeypatch.setattr(metrics, "_POINTS", 500)
    few = metrics.eer_interval(scores, labels, speakers, resamples=100)
    np.testing.assert_allclose(few, every, atol=1e-3)


def test_draws_without_a_nontarget_trial_are_drawn_again() -> None:
    low, high = metrics.eer_interval([0.9, 0.1, 0.5], [1, 1, 0], (list("aba"), list("abb")))
    assert 0 <= low <= high <= 1


one_sided = st.sampled_from(["same", "above", "below", "infinite"])


@given(scores_and_labels, one_sided)
def test_both_measures_equal_brute_force(drawn: tuple[np.ndarray, np.ndarray], shape: str) -> None:
    """Every threshold tried one by one: tied, separated, inverted and infinite scores."""
    scores, labels = drawn
    assume(labels.any() and not labels.all())
    shift = {"same": 0.0, "above": 20.0, "below": -20.0, "infinite": np.inf}[shape]
    scores = np.where(labels, scores + shift, scores)
    points = []
    for threshold in [*np.unique(scores), None]:  # None rejects everything
        accept = scores >= threshold if threshold is not None else np.zeros(len(scores), bool)
        points.append((np.mean(~accept[labels]), np.mean(accept[~labels])))
    for p_target, c_miss, c_fa in [(0.01, 1, 1), (0.05, 1, 1), (0.5, 10, 1)]:
        costs = [c_miss * p_target * m + c_fa * (1 - p_target) * a for m, a in points]
        expected = min(costs) / min(c_miss * p_target, c_fa * (1 - p_target))
        found = metrics.min_dcf(scores, labels, p_target, c_miss, c_fa)
        assert found == pytest.approx(expected)
    after = next(i for i, (m, a) in enumerate(points) if m >= a)
    (m0, a0), (m1, a1) = points[after - 1], points[after]
    # Where the segment between the two points crosses misses = alarms.
    share = (a0 - m0) / ((m1 - m0) + (a0 - a1))
    assert metrics.eer(scores, labels)[0] == pytest.approx(m0 + share * (m1 - m0))


@given(scores_and_labels)
def test_cllr_by_its_definition(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    llrs, labels = drawn
    assume(labels.any() and not labels.all())
    misses = [math.log2(1 + math.exp(-x)) for x in llrs[labels]]
    alarms = [math.log2(1 + math.exp(x)) for x in llrs[~labels]]
    expected = (sum(misses) / len(misses) + sum(alarms) / len(alarms)) / 2
    assert metrics.cllr(llrs, labels) == pytest.approx(expected)
    least = metrics.min_cllr(llrs, labels)
    assert 0 <= least <= min(expected, 1) + 1e-12
    assert metrics.min_cllr(np.exp(llrs), labels) == pytest.approx(least, abs=1e-12)


@given(st.data())
def test_min_cllr_by_brute_force(data: st.DataObject) -> None:
    """The best of all ways to cut the scores into steps, each with its own rate of targets."""
    size = data.draw(st.integers(2, 9))
    scores = data.draw(hnp.arrays(np.float64, size, elements=st.integers(0, 6).map(float)))
    labels = data.draw(hnp.arrays(bool, size))
    assume(labels.any() and not labels.all())
    right, wrong = labels / labels.sum(), ~labels / (~labels).sum()
    values, best = np.unique(scores), np.inf
    for cuts in itertools.product([False, True], repeat=len(values) - 1):
        block = np.cumsum([0, *cuts])[np.searchsorted(values, scores)]
        p, q = (np.bincount(block, share) for share in (right, wrong))
        with np.errstate(divide="ignore"):
            llrs = np.log(p) - np.log(q)
        if (llrs[1:] > llrs[:-1]).all():
            best = min(best, metrics.cllr(llrs[block], labels))
    assert metrics.min_cllr(scores, labels) == pytest.approx(best, abs=1e-9)


def test_cllr_of_true_ratios_is_near_its_least() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) < 10_000
    llrs = 2 * rng.normal(np.where(labels, 1.0, -1.0))  # of two Gaussians 2 sigma apart
    assert metrics.cllr(llrs, labels) == pytest.approx(metrics.min_cllr(llrs, labels), rel=0.01)
    assert metrics.cllr(3 * llrs, labels) > 1.3 * metrics.min_cllr(llrs, labels)
    with pytest.raises(InputError, match="NaN"):
        metrics.cllr([math.nan, 1.0], [1, 0])
