"""YAML from elsewhere: what aliases of aliases make is counted before anything is made of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tfq_sv import yaml_files
from tfq_sv.cli import train
from tfq_sv.cli.config import apply_config
from tfq_sv.errors import InputError
from tfq_sv.models import checkpoint, speechbrain_files

LISTS = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 12)
)
MERGED = "a0: &a0 {a: 1, b: 2, c: 3}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 8)}]}}\n" for i in range(1, 12)
)
ITSELF = "a0: &a0 {b: *a0}\n"


@pytest.mark.parametrize("bomb", [LISTS, MERGED, ITSELF], ids=["lists", "merged", "itself"])
@pytest.mark.parametrize(
    "read",
    [
        checkpoint._read_config,
        speechbrain_files.read_hyperparams,
        lambda path: apply_config(train.FLAGS, str(path)),
    ],
    ids=["config.yaml", "hyperparams.yaml", "training recipe"],
)
def test_a_billion_laughs_are_one_clear_line(
    read: Callable[[Path], object], bomb: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(bomb + "model: {_target_: *a0}\n")
    with pytest.raises(InputError, match=r"a\.yaml repeats more than 100,000 values"):
        read(file)


@pytest.mark.parametrize("opening", ["[", "{", "[ {\n"])
def test_brackets_without_end_are_refused_at_once(opening: str, tmp_path: Path) -> None:
    """Found by mutation: PyYAML took more than 4 s to give up."""
    file = tmp_path / "a.yaml"
    file.write_text("steps: " + opening * 20_000)
    with pytest.raises(InputError, match="its brackets nest too deeply"):
        yaml_files.read(file)


def test_usual_aliases_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: &a {b: 1}\nc: [*a, *a, {<<: *a, d: 2}]\n")
    assert yaml_files.read(file) == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}, {"b": 1, "d": 2}]}


@pytest.mark.parametrize(
    "text", ["lr: 1\na: 2\nlr: 3\n", "a: {b: {c: 1, c: 1}}\n", "[{1: 2, 1: 3}]"]
)
def test_a_name_that_is_there_again_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml is not YAML: '(lr|c|1)' is a duplicate"):
        yaml_files.read(file)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(VALUES)
def test_reads_as_yaml_does(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    file = tmp_path_factory.mktemp("yaml") / "a.yaml"
    text = yaml.safe_dump(value, allow_unicode=True)
    file.write_text(text, encoding="utf-8")
    assert yaml_files.read(file) == yaml.safe_load(text)
