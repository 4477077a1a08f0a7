"""Enrolment and decisions by ENROLMENT.md, in Python and, by node, in the page's modules."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node import web
from signals import signal

from tfq_sv.data.speech_check import no_speech
from tfq_sv.errors import InputError
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.verification import agreement, decision, enrolment_file, quality
from tfq_sv.verification.decision import Threshold
from tfq_sv.verification.enrolment_file import Reference

ROOT = Path(__file__).parents[1]
CASES = json.loads((ROOT / "tests/data/enrolment.json").read_text())
SPEECH = json.loads((ROOT / "tests/data/speech_check.json").read_text())["cases"]
NETWORK, SIZE = CASES["base"]["network"], CASES["base"]["embed_dim"]


def case(one: dict[str, Any]) -> str:
    fields = {**CASES["base"], **one.get("change", {})}
    return json.dumps({name: fields[name] for name in fields if name not in one.get("without", ())})


def loads(text: str) -> dict[str, list[Reference]]:
    return enrolment_file.loads(text, NETWORK, SIZE, "a.json")


REFUSED = [
    *[(case(one), f"a.json is damaged: {one['field']} is ") for one in CASES["bad"]],
    *[(case(one), "another network") for one in CASES["other_network"]],
    *[(case(one), "a.json has version 2") for one in CASES["newer"]],
    *[(text, "a.json is not a file of enrolled speakers") for text in CASES["no_file"]],
    *[(text, "; enroll again") for text in CASES["damaged"]],
]


@pytest.mark.parametrize("one", CASES["good"], ids=lambda one: json.dumps(one)[:60])
def test_good_files_are_read_and_come_back(one: dict[str, Any]) -> None:
    found = loads(case(one))
    assert list(found) == one["names"]
    again = loads(enrolment_file.dumps(found, NETWORK, SIZE))
    assert list(again) == list(found)
    for name, references in found.items():
        for old, new in zip(references, again[name], strict=True):
            np.testing.assert_array_equal(old.embedding, new.embedding)
            assert old.seconds == new.seconds


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=lambda text: text[-60:])
def test_other_files_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        loads(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), st.floats(0, 1e6))
def test_embeddings_come_back_to_the_last_bit(values: list[float], seconds: float) -> None:
    if not any(values):
        return
    try:
        embedding = decision.unit(values)
    except InputError:
        return
    text = enrolment_file.dumps({"ann": [Reference(embedding, seconds)]}, NETWORK, SIZE)
    (found,) = loads(text)["ann"]
    np.testing.assert_array_equal(found.embedding, embedding)
    assert found.seconds == pytest.approx(seconds, abs=1e-3)


def speakers() -> dict[str, np.ndarray]:
    found = loads(json.dumps(CASES["base"]))
    return {name: np.array([one.embedding for one in some]) for name, some in found.items()}


@pytest.mark.parametrize("one", CASES["decisions"], ids=lambda one: str(one["speaker"]))
def test_decisions(one: dict[str, Any]) -> None:
    test = np.float32(one["embedding"])
    found = decision.best(speakers(), test, Threshold(one["threshold"], "given"))
    assert (found.name, found.runner_up) == (one["best"], one["runner_up"])
    assert found.speaker == one["speaker"]
    assert found.accepted == (one["speaker"] is not None)
    assert found.margin == pytest.approx(one["margin"], abs=1e-6)
    for name, references in speakers().items():
        assert decision.score(references, test) == pytest.approx(one["scores"][name], abs=1e-6)


def test_one_reference_scores_as_its_cosine_and_many_equal_ones_never_higher() -> None:
    rng = np.random.default_rng(0)
    a, b = (decision.unit(rng.normal(size=16)) for _ in range(2))
    assert decision.score(a[None], b) == pytest.approx(cosine(a, b), abs=1e-6)
    scores = [abs(decision.score(np.repeat(a[None], n, 0), b)) for n in (1, 2, 3, 10)]
    assert scores == sorted(scores, reverse=True)
    assert decision.score(np.array([a, -a]), b) == 0


def test_equal_scores_go_to_the_first() -> None:
    both = {"zoe": np.eye(2)[:1], "ann": np.eye(2)[:1]}
    found = decision.best(both, np.array([1.0, 0.0]), Threshold(0.5, "given"))
    assert (found.speaker, found.runner_up, found.margin) == ("zoe", "ann", 0)


@pytest.mark.parametrize("one", CASES["agreement"], ids=lambda one: json.dumps(one["outsiders"]))
def test_agreement(one: dict[str, Any]) -> None:
    units = np.float32(one["embeddings"])
    found = agreement.outsiders(units, one["threshold"])
    assert found == {int(i): pytest.approx(x, abs=1e-5) for i, x in one["outsiders"].items()}
    said = agreement.problem([f"{i}.wav" for i in range(len(units))], units, one["threshold"])
    assert [f"{i}.wav" in said for i in range(len(units))] == [
        i in found for i in range(len(units))
    ]
    assert not agreement.problem(["a"] * len(units), units, None)


def test_a_recording_given_twice_is_named() -> None:
    script = """
      const { problem } = await import(at("agreement.js"));
      const units = ({ embeddings }) => embeddings.map((one) => Float32Array.from(one));
      console.log(JSON.stringify(input.map((one) => problem(units(one), null))));
    """
    for one, said in zip(CASES["repeated"], web(script, CASES["repeated"]), strict=True):
        labels = [f"{i}.wav" for i in range(len(one["embeddings"]))]
        found = agreement.problem(labels, np.float32(one["embeddings"]), None)
        assert [i for i, label in enumerate(labels) if label in found] == one["again"]
        assert [i for i in range(len(labels)) if f"recording {i + 1}" in said] == one["again"]


@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_what_agreement_leaves_agrees(size: int, seed: int) -> None:
    """Each that is left would be accepted against the others; of two groups the larger is left."""
    rng = np.random.default_rng(seed)
    units = np.array([decision.unit(v) for v in rng.normal(size=(size, 3))])
    found = agreement.outsiders(units, 0.6)
    left = [i for i in range(size) if i not in found]
    assert left
    for i in left if len(left) > 1 else ():
        assert decision.score(units[[j for j in left if j != i]], units[i]) >= 0.6
    voices = np.eye(2)[[0] * (size + 1) + [1] * size]
    order = rng.permutation(len(voices))
    odd = set(agreement.outsiders(voices[order], 0.6))
    assert odd == set(np.flatnonzero(voices[order, 1]))


@pytest.mark.parametrize("one", SPEECH, ids=lambda one: one["name"])
def test_recordings(one: dict[str, Any]) -> None:
    samples = signal(one["signal"])
    found = quality.measure(samples)
    assert found.seconds == pytest.approx(one["seconds"], abs=1e-6)
    assert found.clipped == pytest.approx(one["clipped"], abs=1e-4)
    if one["level"] is not None:
        assert found.level == pytest.approx(one["level"], abs=0.01)
    assert no_speech(samples) == one["no_speech"]
    assert quality.problem(samples) == one["problem"]


def test_the_page_reads_the_same_files() -> None:
    script = """
      const { readEnrolment, writeEnrolment } = await import(at("enrolment.js"));
      const { network, size, texts } = input;
      const read = (text) => readEnrolment(text, network, size, "a.json");
      console.log(JSON.stringify(texts.map((text) => {
        try {
          return { text: writeEnrolment(read(text), network, size) };
        } catch (error) {
          return { error: `${error.constructor.name}: ${error.message}` };
        }
      })));
    """
    texts = [*map(case, CASES["good"]), *(text for text, _ in REFUSED)]
    answers = web(script, {"network": NETWORK, "size": SIZE, "texts": texts})
    for one, answer in zip(CASES["good"], answers[: len(CASES["good"])], strict=True):
        expected, found = loads(case(one)), loads(answer["text"])
        assert list(found) == one["names"]
        for name in found:
            for old, new in zip(expected[name], found[name], strict=True):
                np.testing.assert_array_equal(old.embedding, new.embedding)
    for (text, said), answer in zip(REFUSED, answers[len(CASES["good"]) :], strict=True):
        assert answer.get("error", "").startswith("InputError: "), text
        assert said in answer["error"], text


def test_agreement_is_laxer_than_the_eer() -> None:
    script = """
      const { leastScore } = await import(at("agreement.js"));
      console.log(JSON.stringify(input.map(leastScore)));
    """
    at_eer, expected = np.transpose(CASES["agreement_thresholds"]).tolist()
    assert [agreement.least_score(one) for one in at_eer] == pytest.approx(expected)
    assert agreement.least_score(None) is None
    *found, unknown = web(script, [*at_eer, None])
    assert found == pytest.approx(expected)
    assert unknown is None


def test_the_page_decides_alike() -> None:
    script = """
      const { best, score } = await import(at("decision.js"));
      const { outsiders } = await import(at("agreement.js"));
      const speakers = new Map(input.base.speakers.map((one) => [
        one.name, one.references.map((reference) => Float32Array.from(reference.embedding)),
      ]));
      console.log(JSON.stringify({
        decisions: input.decisions.map(({ embedding, threshold }) => ({
          ...best(speakers, Float32Array.from(embedding), threshold),
          scores: [...speakers.values()].map((some) => score(some, Float32Array.from(embedding))),
        })),
        agreement: input.agreement.map(({ embeddings, threshold }) =>
          [...outsiders(embeddings.map((one) => Float32Array.from(one)), threshold)]),
      }));
    """
    answers = web(script, CASES)
    for one, found in zip(CASES["decisions"], answers["decisions"], strict=True):
        assert (found["name"], found["runnerUp"]) == (one["best"], one["runner_up"])
        assert found["speaker"] == one["speaker"]
        assert found["margin"] == pytest.approx(one["margin"], abs=1e-6)
        assert found["scores"] == pytest.approx(list(one["scores"].values()), abs=1e-6)
    for one, found in zip(CASES["agreement"], answers["agreement"], strict=True):
        assert {str(i): pytest.approx(x, abs=1e-5) for i, x in found} == one["outsiders"]


def test_the_page_calibrates_alike() -> None:
    script = """
      const { llr } = await import(at("calibration.js"));
      const changed = ({ change, without = [] }) => Object.fromEntries(
        Object.entries({ ...input.base, ...change }).filter(([name]) => !without.includes(name)),
      );
      const llrs = (calibration, points) => points.map((point) => llr({ calibration }, ...point));
      const points = input.good[0].llrs;
      console.log(JSON.stringify({
        good: input.good.map((one) => llrs(changed(one), one.llrs)),
        bad: input.bad.map((one) => llrs(changed(one), points)),
        none: [...input.none, "0"].map((text) => llrs(JSON.parse(text), points)),
      }));
    """
    cases = json.loads((ROOT / "tests/data/calibration.json").read_text())
    answers = web(script, cases)
    for one, found in zip(cases["good"], answers["good"], strict=True):
        assert found == pytest.approx([llr for *_, llr in one["llrs"]], abs=1e-6)
    for found in answers["bad"] + answers["none"]:
        assert {*found} == {None}


@pytest.mark.slow
def test_the_page_judges_recordings_alike() -> None:
    script = """
      const { measure, problem } = await import(at("quality.js"));
      const { noSpeech } = await import(at("speech_check.js"));
      console.log(JSON.stringify(input.map((values) => {
        const samples = Float32Array.from(values);
        return { ...measure(samples), noSpeech: noSpeech(samples), problem: problem(samples) };
      })));
    """
    answers = web(script, [signal(one["signal"]).tolist() for one in SPEECH])
    for one, found in zip(SPEECH, answers, strict=True):
        assert found["noSpeech"] == one["no_speech"], one["name"]
        assert found["problem"] == one["problem"], one["name"]
        assert found["seconds"] == pytest.approx(one["seconds"], abs=1e-6)
        if one["level"] is not None:
            assert found["level"] == pytest.approx(one["level"], abs=0.01)
