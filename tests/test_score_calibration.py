"""Calibration of scores to log-likelihood ratios."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfq_sv import metrics
from tfq_sv.errors import InputError
from tfq_sv.evaluation import score_calibration
from tfq_sv.evaluation.score_calibration import Calibration, ScoredTrials


def drawn(speakers: int, trials: int, seed: int) -> tuple[ScoredTrials, np.ndarray]:
    """Trials whose spread shrinks with the time, and their true LLRs."""
    rng = np.random.default_rng(seed)
    labels = rng.random(trials) < 0.3
    seconds = rng.choice([1.0, 2.0, 4.0], trials)
    spread = 0.2 / np.sqrt(1 + np.log(seconds))  # a slope that is linear in the logarithm
    scores = rng.normal(np.where(labels, 0.5, 0.1), spread)
    true = (np.square(scores - 0.1) - np.square(scores - 0.5)) / (2 * spread**2)
    first = rng.integers(speakers, size=trials)
    second = np.where(labels, first, (first + rng.integers(1, speakers, trials)) % speakers)
    names = [f"s{i}" for i in first], [f"s{i}" for i in second]
    return ScoredTrials(scores, labels, seconds, np.ones(trials, int), names), true


def test_llrs_are_near_the_true_ones_at_every_duration() -> None:
    trials, true = drawn(40, 20_000, 0)
    found = score_calibration.fit(trials)
    llrs = found.llr(trials.scores, trials.seconds)
    assert metrics.cllr(llrs, trials.labels) < 1.03 * metrics.cllr(true, trials.labels)
    for seconds in (1.0, 2.0, 4.0):
        at = trials.seconds == seconds
        cost = metrics.cllr(llrs[at], trials.labels[at])
        assert cost < 1.1 * metrics.min_cllr(trials.scores[at], trials.labels[at])
    # One second says less than four.
    assert abs(found.llr(0.5, 1.0)) < 0.5 * abs(found.llr(0.5, 4.0))


def test_scale_and_shift_of_the_scores_change_nothing() -> None:
    trials, _ = drawn(20, 2000, 1)
    moved = replace(trials, scores=7 * trials.scores - 3)
    np.testing.assert_allclose(
        score_calibration.fit(trials).llr(trials.scores, trials.seconds),
        score_calibration.fit(moved).llr(moved.scores, moved.seconds),
        atol=0.01,
    )


def test_several_references_have_an_offset_and_a_slope_of_their_own() -> None:
    """Three draws: as they are, and twice with scores of another place and spread."""
    parts, truth = [], []
    for count, (slope, offset) in {1: (1.0, 0.0), 2: (0.9, -0.04), 3: (0.8, -0.06)}.items():
        trials, true = drawn(40, 20_000, count)
        scores = slope * trials.scores + offset
        parts.append(replace(trials, scores=scores, references=np.full(20_000, count)))
        truth.append(metrics.cllr(true, trials.labels))
    joint = score_calibration.fit(ScoredTrials.joined(parts))
    single = score_calibration.fit(parts[0])
    assert (single.most_references, joint.most_references) == (1, 3)
    for part, best in zip(parts, truth, strict=True):
        count = int(part.references[0])
        arguments = part.scores, part.seconds, part.references
        cost = metrics.cllr(joint.llr(*arguments), part.labels)
        assert cost < 1.03 * best
        if count > 1:
            assert cost < metrics.cllr(single.llr(*arguments), part.labels)
    np.testing.assert_array_equal(joint.llr(0.3, 2.0, 9), joint.llr(0.3, 2.0, 3))
    np.testing.assert_allclose(single.llr(0.3, 2.0, 3), single.llr(0.3, 2.0, 1))


def test_other_speakers_tell_how_good_it_is() -> None:
    trials, true = drawn(40, 8000, 2)
    cost, least = score_calibration.cross_checked(trials)
    assert least <= cost < 1.1 * least
    assert cost == pytest.approx(metrics.cllr(true, trials.labels), rel=0.2)
    half = trials.among(frozenset(f"s{i}" for i in range(20)))
    assert {*half.speakers[0], *half.speakers[1]} <= {f"s{i}" for i in range(20)}


def test_too_few_errors_are_refused() -> None:
    trials, _ = drawn(20, 12, 3)
    with pytest.raises(InputError, match="10 of each are needed"):
        score_calibration.fit(trials)
    trials, _ = drawn(20, 500, 3)
    apart = replace(trials, scores=trials.scores + 3 * trials.labels)
    with pytest.raises(InputError, match="0 target and 0 nontarget trials lie on the wrong side"):
        score_calibration.fit(apart)


CASES = json.loads((Path(__file__).parent / "data" / "calibration.json").read_text())


def test_the_cases_that_kotlin_and_the_page_are_tested_by() -> None:
    for one in CASES["good"]:
        found = Calibration.of_file({"calibration": changed(one)})
        assert found
        for score, seconds, references, llr in one["llrs"]:
            assert found.llr(score, seconds, references) == pytest.approx(llr, abs=1e-6)
    for one in CASES["bad"]:
        assert Calibration.of_file({"calibration": changed(one)}) is None, one
    for text in CASES["none"]:
        assert Calibration.of_file({"calibration": json.loads(text)}) is None
    assert Calibration.of_file({}) is None


def changed(case: dict[str, Any]) -> dict[str, Any]:
    fields = {**CASES["base"], **case.get("change", {})}
    return {name: value for name, value in fields.items() if name not in case.get("without", [])}


def test_a_file_keeps_it() -> None:
    calibration = Calibration(-4.0, 10.0, -1.0, 2.0, 1.0, 6.0, 0.5, -1.0, 3.0)
    about = {"calibration": {**calibration.about(), "cllr": 0.1}}
    assert Calibration.of_file(json.loads(json.dumps(about))) == calibration
