"""JSON from elsewhere: Python, Kotlin and the page take and refuse the same documents.

`benchmarks/hostile_json.py --write` made tests/data/hostile.json; test_export_android.py runs
Kotlin's readers on it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import hostile_json

from tfq_sv import strict_json

CASES: dict[str, Any] = json.loads((Path(__file__).parent / "data/hostile.json").read_text())


@pytest.mark.parametrize("kind", hostile_json.GOOD)
def test_python_takes_what_the_others_do(kind: str) -> None:
    assert len(CASES[kind]) > 150
    for one in CASES[kind]:
        assert hostile_json.taken(kind, one["bytes"].encode("latin-1")) == one["taken"], one
    assert 20 < sum(one["taken"] for one in CASES[kind]) < len(CASES[kind]) - 20


def test_the_page_takes_what_python_does() -> None:
    assert not hostile_json.page(CASES)


def test_the_comparison_sees_a_difference() -> None:
    other = [{**one, "taken": not one["taken"]} for one in CASES["metadata"][:3]]
    assert len(hostile_json.page({**CASES, "metadata": other, "enrolled": []})) == 3


def nested(levels: int) -> str:
    return '{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        (nested(strict_json.LEVELS), True),
        (nested(strict_json.LEVELS + 1), False),
        (f'{{"a": {"9" * 5000}}}', True),
        (b'\xef\xbb\xbf{"a": 1}', False),
        ('{"a": 1}'.encode("utf-16"), False),
        (b'{"a": "\xed\xa0\x80"}', False),
        ('{"a": "\n"}', False),
        ('{"a": 01}', False),
        (" \t\r\n{} ", True),
        ("\u00a0{}", False),
    ],
)
def test_what_is_an_object(text: str | bytes, fine: bool) -> None:
    assert (strict_json.parse(text) is not None) == fine


@given(st.integers(-(2**60), 2**60))
def test_a_whole_number_is_one_however_it_is_written(number: int) -> None:
    for text in (f"{number}", f"{float(number)!r}", f"{number}e0"):
        found = strict_json.parse(f'{{"a": {text}}}')
        assert found is not None
        assert strict_json.as_integer(found["a"]) in (number, int(float(number)))
    assert strict_json.as_integer(number + 0.5) in (None, int(number + 0.5))
