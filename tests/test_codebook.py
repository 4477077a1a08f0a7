import itertools
from pathlib import Path

import kmeans1d
import numpy as np
import pytest
from conftest import slow
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans

from tfq_sv import codebook
from tfq_sv import grid as grid_module
from tfq_sv.codebook import Codebook
from tfq_sv.errors import InputError

finite = st.floats(-100, 100, width=32)


def squared_error(weights: np.ndarray, centroids: np.ndarray) -> float:
    return float(np.sum((weights - centroids[codebook.assign(weights, centroids)]) ** 2.0))


def best_error(values: np.ndarray, count: int) -> float:
    """Brute force over all ways to cut sorted values into `count` groups."""
    values = np.sort(values.astype(np.float64))
    return min(
        sum(np.sum((g - g.mean()) ** 2) for g in np.split(values, cuts) if g.size)
        for cuts in itertools.combinations_with_replacement(range(values.size + 1), count - 1)
    )


@pytest.mark.parametrize("seed", range(10))
def test_two_and_four_centroids_are_the_optimum(seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=14).astype(np.float32)
    for bits in (1, 2):
        found = squared_error(weights, codebook.fit(weights, bits))
        assert found == pytest.approx(best_error(weights, 2**bits), rel=1e-5)


def kernels() -> dict[str, np.ndarray]:
    """A trained one, (3, 3, 64, 64) of the small ResNet18's, and one of heavier tails."""
    trained = np.load(Path(__file__).parent / "data" / "trained_kernel.npy").reshape(-1)
    return {"trained": trained, "heavy": np.random.default_rng(0).standard_t(5, 20_000)}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["trained", "heavy"])
@pytest.mark.parametrize("bits", [*range(1, 7), *slow(7, 8)])
def test_within_a_thousandth_of_the_optimum(bits: int, kind: str, weighted: bool) -> None:
    """The optimum is found by kmeans1d: exact, but too slow and too large for whole networks."""
    weights = kernels()[kind].astype(np.float32)[: 10_000 if weighted else None]
    times = np.random.default_rng(1).integers(1, 9, weights.size) if weighted else 1
    every = np.repeat(weights, times)
    best = np.float32(kmeans1d.cluster(every.astype(np.float64), 2**bits).centroids)
    found = codebook.fit(weights, bits, times if weighted else None)
    assert squared_error(every, found) <= 1.001 * squared_error(every, best)


@pytest.mark.parametrize("bits", range(1, 9))
def test_no_worse_than_scikit_learn_on_a_kernel(bits: int) -> None:
    weights = np.random.default_rng(bits).normal(0, 0.05, 5000).astype(np.float32)
    ours = squared_error(weights, codebook.fit(weights, bits))
    theirs = KMeans(2**bits, n_init=1, random_state=0).fit(weights[:, None]).inertia_
    assert ours <= 1.0001 * theirs


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=finite), st.integers(1, 8))
def test_fit_gives_sorted_centroids_within_the_weights(weights: np.ndarray, bits: int) -> None:
    centroids = codebook.fit(weights, bits)
    assert centroids.shape == (2**bits,)
    assert centroids.dtype == np.float32
    assert np.all(np.diff(centroids) >= 0)
    assert weights.min() - 1e-4 <= centroids[0]
    assert centroids[-1] <= weights.max() + 1e-4


@given(hnp.arrays(np.float32, 50, elements=finite), hnp.arrays(np.float32, 8, elements=finite))
def test_assign_finds_the_nearest(weights: np.ndarray, centroids: np.ndarray) -> None:
    centroids = np.sort(centroids)
    codes = codebook.assign(weights, centroids)
    distance = np.abs(weights[:, None].astype(np.float64) - centroids)
    chosen = np.take_along_axis(distance, codes[:, None].astype(np.int64), 1)[:, 0]
    # A weight halfway between two centroids may round to either.
    assert np.all(chosen <= distance.min(axis=1) + 1e-4)


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=finite), st.integers(1, 8))
def test_the_grid_gives_snapped_centroids_back(weights: np.ndarray, bits: int) -> None:
    centroids = codebook.fit_on_grid(weights, bits)
    scale, levels = Codebook(centroids, codebook.assign(weights, centroids)).grid()
    assert levels.dtype == np.int8
    np.testing.assert_allclose(np.float32(scale) * levels, centroids, rtol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_levels_are_the_best_there_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside all choices of four from a grid of nine levels, with the step that was found."""
    monkeypatch.setattr(grid_module, "GRID_LEVELS", 4)
    monkeypatch.setattr(grid_module, "_CROWD", 4)
    rng = np.random.default_rng(seed)
    weights, importance = rng.laplace(size=30), rng.uniform(0.1, 2, 30)

    def error(centroids: np.ndarray) -> float:
        lost = weights - centroids[codebook.assign(weights, centroids)]
        return float(np.sum(importance * lost**2))

    found = codebook.fit_on_grid(weights, 2, importance)
    grid = codebook.grid_scale(found) * np.arange(-4, 5)
    choices = itertools.combinations(grid, 4)
    best = min(error(np.array(each)) for each in choices if {each[0], each[3]} & {*grid[[0, 8]]})
    assert error(found) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("kind", ["trained", "heavy"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_are_better_than_rounded_centroids_from_five_bits_on(bits: int, kind: str) -> None:
    weights = kernels()[kind].astype(np.float32)
    centroids, rounded = (
        codebook.fit_on_grid(weights, bits),
        codebook.snap(codebook.fit(weights, bits)),
    )
    lost = squared_error(weights, centroids)
    if bits <= 4 and kind == "trained":
        np.testing.assert_array_equal(centroids, rounded)
    elif bits <= 4:
        assert lost <= squared_error(weights, rounded)
    else:
        assert lost < 0.999 * squared_error(weights, rounded)
    np.testing.assert_array_equal(codebook.snap(centroids), centroids)
    if bits == 8:  # and beside equal steps up to the greatest weight
        step = np.max(np.abs(weights)) / 127
        assert lost < np.sum((weights - np.rint(weights / step) * step) ** 2.0)
        assert np.unique(centroids).size == 255


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_kernels_of_one_value_stay_as_they_are(bits: int) -> None:
    for value in (0.0, -3.0, 1e-30, 1e30):
        weights = np.full(7, value, np.float32)
        centroids = codebook.fit_on_grid(weights, bits)
        found = centroids[codebook.assign(weights, centroids)]
        np.testing.assert_allclose(found, weights, rtol=1e-6)


def test_fewer_distinct_weights_than_centroids_are_kept_exactly() -> None:
    weights = np.float32([3, 1, 1, 2])
    centroids = codebook.fit(weights, 4)
    np.testing.assert_array_equal(centroids[codebook.assign(weights, centroids)], weights)


def test_refine_never_makes_it_worse() -> None:
    weights = np.random.default_rng(0).laplace(size=4000).astype(np.float32)
    centroids = np.sort(np.random.default_rng(1).normal(size=8)).astype(np.float32)
    errors = [squared_error(weights, centroids)]
    for _ in range(10):
        centroids = codebook.refine(weights, centroids, steps=1)
        errors.append(squared_error(weights, centroids))
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("bits", range(1, 9))
def test_codebooks_that_follow_stay_on_the_grid_and_near_the_best(bits: int) -> None:
    """Weights of which some have moved, as in fine-tuning."""
    before = kernels()["trained"]
    weights = before + np.random.default_rng(0).normal(0, 0.3 * before.std(), before.size)
    start = codebook.fit_on_grid(before, bits)
    found = codebook.refine_on_grid(weights, start, steps=3)
    np.testing.assert_array_equal(codebook.snap(found), found)
    assert squared_error(weights, found) < squared_error(weights, start)
    best = codebook.fit_on_grid(weights, bits)
    assert squared_error(weights, found) < 1.2 * squared_error(weights, best)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="1 to 8, not 9"):
        codebook.fit(np.ones(3), 9)
    with pytest.raises(InputError, match="2 of 3 weights are NaN"):
        codebook.fit(np.array([1.0, np.nan, np.inf]), 2)
    with pytest.raises(InputError, match="1 of 2 weights"):
        codebook.fit(np.array([1.0, -np.inf]), 2)
    with pytest.raises(InputError, match="empty"):
        codebook.fit(np.array([]), 2)


@pytest.mark.parametrize("bits", [1, 2])
def test_importance_is_how_often_a_weight_counts(bits: int) -> None:
    rng = np.random.default_rng(bits)
    weights, times = rng.normal(size=40), rng.integers(1, 6, 40)
    weighted = codebook.fit(weights, bits, importance=times)
    np.testing.assert_allclose(weighted, codebook.fit(np.repeat(weights, times), bits), rtol=1e-6)


def test_importance_that_makes_no_sense() -> None:
    for importance, message in [
        (np.ones(3), "importance is"),
        (np.array([1, -1, 1, 1]), "not negative"),
        (np.zeros(4), "not zero everywhere"),
        (np.array([1, np.nan, 1, 1]), "must be finite"),
    ]:
        with pytest.raises(InputError, match=message):
            codebook.fit(np.arange(4.0), 1, importance)
    # A weight that counts nothing still has a code near it when all others have theirs.
    centroids = codebook.fit(np.array([0.0, 1.0, 9.0]), 2, np.array([1, 1, 0]))
    assert centroids.tolist() == [0, 1, 9, 9]


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=finite), st.integers(1, 5))
def test_equal_counts_are_never_better(weights: np.ndarray, bits: int) -> None:
    start = codebook.fit_equal_count(weights, bits)
    assert start.shape == (2**bits,)
    assert np.all(np.diff(start) >= 0)
    ours = squared_error(weights, codebook.fit(weights, bits))
    assert ours <= squared_error(weights, start) * 1.001 + 1e-4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_weights_of_no_importance_beside_important_ones(bits: int) -> None:
    """Dead inputs, as published networks have: their weights count next to nothing, not nothing."""
    rng = np.random.default_rng(0)
    weights = rng.standard_t(3, 50_000)
    alive = weights < 2  # so some bins hold nothing but dead weights
    importance = np.where(alive, 1.0, 1e-30)
    centroids = codebook.fit_on_grid(weights, bits, importance)
    alone = codebook.fit_on_grid(weights[alive], bits, importance[alive])

    def error(table: np.ndarray) -> float:
        rounded = table[codebook.assign(weights, table)]
        return float(np.sum(importance * (weights - rounded) ** 2))

    assert np.isfinite(centroids).all()
    assert error(centroids) <= 1.01 * error(alone) + 1e-6


def squared(weights: np.ndarray, centroids: np.ndarray) -> float:
    return float(np.sum((weights - centroids[codebook.assign(weights, centroids)]) ** 2))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("tail", ["3 degrees of freedom", "2 degrees of freedom", "one far out"])
def test_far_weights_do_not_spoil_the_grid(tail: str, bits: int) -> None:
    """What the grid costs. From 5 bits on no one grid serves both outliers and the rest."""
    rng = np.random.default_rng(0)
    weights = {
        "3 degrees of freedom": rng.standard_t(3, 50_000),
        "2 degrees of freedom": rng.standard_t(2, 50_000),
        "one far out": np.append(rng.normal(size=50_000), 64),
    }[tail]
    free = codebook.fit(weights, bits)
    on_grid = codebook.fit_on_grid(weights, bits)
    np.testing.assert_array_equal(codebook.snap(on_grid), on_grid)
    assert squared(weights, on_grid) <= squared(weights, codebook.snap(free)) * (1 + 1e-6)
    if tail.startswith("3"):
        most = {1: 1.01, 2: 1.01, 3: 1.01, 4: 1.03, 5: 1.08}
        assert squared(weights, on_grid) < most.get(bits, 3) * squared(weights, free)
