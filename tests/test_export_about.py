"""What files say of themselves: one rule in Python, Kotlin and the page, by the same cases."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node import web

from tfq_sv.errors import InputError
from tfq_sv.export.about import check, parse

CASES = json.loads((Path(__file__).parent / "data" / "metadata.json").read_text())


def case(one: dict[str, Any]) -> dict[str, Any]:
    fields = {**CASES["base"], **one.get("change", {})}
    return {name: value for name, value in fields.items() if name not in one.get("without", ())}


@pytest.mark.parametrize("one", CASES["good"], ids=json.dumps)
def test_good_metadata_come_back(one: dict[str, Any]) -> None:
    about = case(one)
    assert parse(json.dumps(about).encode()) == about
    thresholds = about.get("thresholds") or {}
    assert thresholds.get("eer", {}).get("threshold") == one["eer"]


@pytest.mark.parametrize("one", CASES["bad"], ids=json.dumps)
def test_bad_metadata_are_refused_by_field(one: dict[str, Any]) -> None:
    for call in (check, lambda about, path: parse(json.dumps(about).encode(), path)):
        with pytest.raises(InputError, match=rf"^a\.tflite has wrong metadata: {one['field']} is "):
            call(case(one), "a.tflite")


TEXTS = [text.encode() for text in CASES["no_object"]]
DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"a": NaN}', b'{"a": -Infinity}']


@pytest.mark.parametrize("text", [*TEXTS, *DEEP], ids=lambda text: repr(text[:20]))
def test_what_is_no_json_object(text: bytes) -> None:
    with pytest.raises(InputError, match="no JSON object"):
        parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(CASES["base"])), JSON)
def test_any_value_is_taken_or_refused(field: str, value: Any) -> None:
    about = {**CASES["base"], field: value}
    with contextlib.suppress(InputError):
        assert check(about) == about


def test_the_page_agrees() -> None:
    """about.js alone, in node: it needs no browser."""
    texts = [json.dumps(case(one)) for one in (*CASES["good"], *CASES["bad"])]
    texts += [json.dumps(case({"change": {"input": "features"}})), *CASES["no_object"]]
    script = """
      const { parseAbout, threshold } = await import(at("about.js"));
      console.log(JSON.stringify(input.map((one) => {
        try {
          return threshold(parseAbout(one, "a.tflite"));
        } catch (error) {
          return `${error.constructor.name}: ${error.message}`;
        }
      })));
    """
    answers = iter(web(script, texts))
    for one in CASES["good"]:
        assert next(answers) == one["eer"], one
    for one in CASES["bad"]:
        wrong = f"InputError: a.tflite has wrong metadata: {one['field']} is "
        assert next(answers).startswith(wrong), one
    assert "--input=waveform" in next(answers)
    for text, answer in zip(CASES["no_object"], answers, strict=True):
        assert answer.startswith("InputError: a.tflite has wrong metadata: no JSON object"), text
