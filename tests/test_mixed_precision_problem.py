"""The best choice of every layer within a budget: brute force on small problems, large ones too."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq_sv.mixed_precision.problem import MixedPrecisionProblem


def random_problem(layers: int, choices: int, tables: int, seed: int) -> MixedPrecisionProblem:
    """Sizes and costs as networks have them; the tables that a choice uses differ by layer."""
    rng = np.random.default_rng(seed)
    bits = np.arange(1, choices + 1)
    weights = 2.0 ** rng.uniform(6, 21, layers)
    traces = 10 ** rng.uniform(-3, 3, layers)
    noise = rng.uniform(0.5, 1.5, (layers, choices))
    return MixedPrecisionProblem(
        costs=(traces * weights**0.5)[:, None] * 4.0**-bits * noise,
        bytes=(weights[:, None] * bits / 8 // 16).astype(np.int64) * 16 + 640,
        tables=rng.random((layers, choices, tables)) < 0.4,
        table_bytes=rng.integers(200, 3000, tables),
    )


def all_choices(problem: MixedPrecisionProblem) -> list[np.ndarray]:
    layers, choices = problem.costs.shape
    return [np.array(columns) for columns in itertools.product(range(choices), repeat=layers)]


@given(
    layers=st.integers(1, 4),
    choices=st.integers(1, 5),
    tables=st.integers(0, 5),
    seed=st.integers(0, 999),
    share=st.floats(-0.1, 1.1),
)
@settings(max_examples=100, deadline=None)
def test_exact_is_brute_force(
    layers: int, choices: int, tables: int, seed: int, share: float
) -> None:
    problem = random_problem(layers, choices, tables, seed)
    sizes = {problem.size(columns) for columns in all_choices(problem)}
    assert problem.size(problem.smallest()) == min(sizes)
    assert problem.size(problem.smallest_sections(range(layers))) == min(sizes)  # as below
    budget = int(min(sizes) + share * (max(sizes) - min(sizes)))
    fitting = [columns for columns in all_choices(problem) if problem.size(columns) <= budget]
    found, in_sections = problem.solve(budget), problem.solve_sections(budget, range(layers))
    if not fitting:
        assert found is None
        assert in_sections is None
        return
    least = min(map(problem.cost, fitting))
    assert problem.size(found) <= budget
    assert problem.cost(found) == pytest.approx(least, rel=1e-9, abs=1e-11 * problem.costs.max())
    assert problem.cost(in_sections) == pytest.approx(least)  # at most 4 layers: one per section


def test_a_layer_need_not_have_every_choice() -> None:
    problem = random_problem(3, 4, 2, seed=0)
    problem.costs[0, 0] = problem.costs[1, 1:] = np.inf
    fitting = [columns for columns in all_choices(problem) if np.isfinite(problem.cost(columns))]
    least = problem.size(problem.smallest())
    assert least == min(map(problem.size, fitting))
    assert problem.size(problem.solve(least)) == least
    assert problem.solve(least - 1) is None


def test_costs_may_all_be_zero() -> None:
    problem = random_problem(3, 4, 2, seed=0)
    problem.costs[:] = 0
    assert problem.size(problem.solve(problem.size(problem.smallest()))) == problem.size(
        problem.smallest()
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_as_large_as_resnet293(seed: int) -> None:
    """More bytes never cost more; no step that would help is left out."""
    problem = random_problem(297, 8, 12, seed)
    least, most = problem.size(problem.smallest()), int(problem.bytes.max(1).sum())
    costs = []
    for share in (0, 0.05, 0.5, 2):
        budget = int(least + share * (most - least))
        found = problem.solve(budget)
        cost = problem.cost(found)
        costs.append(cost)
        assert problem.size(found) <= budget
        for layer, column in itertools.product(range(0, 297, 7), range(8)):
            other = found.copy()
            other[layer] = column
            assert problem.cost(other) >= cost * (1 - 1e-9) or problem.size(other) > budget
        in_sections = problem.solve_sections(budget, range(297))
        if in_sections is not None:
            assert cost <= problem.cost(in_sections)
    assert costs == sorted(costs, reverse=True)


@pytest.mark.slow
def test_the_solver_prints_nothing() -> None:
    """HiGHS prints past sys.stdout, at some of these; threads' own lines are all kept."""
    program = """
import threading
from test_mixed_precision_problem import random_problem
from tfq_sv.mixed_precision.problem import MixedPrecisionProblem

def solve(seed):
    problem = random_problem(20, 8, 20, seed)
    budget = int(problem.size(problem.smallest()) * 1.5)
    print("solving", flush=True)
    problem.solve(budget)
    print("solved")

threads = [threading.Thread(target=solve, args=[seed]) for seed in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("end")
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=True,
    )
    assert sorted(done.stdout.split()) == ["end", *3 * ["solved"], *3 * ["solving"]]
