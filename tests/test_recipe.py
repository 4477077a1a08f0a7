from pathlib import Path

import numpy as np
import pytest

from tfq_sv import QuantizationRecipe
from tfq_sv.errors import InputError
from tfq_sv.quantization.recipe import LayerRecipe


def test_json_round_trip_in_order(tmp_path: Path) -> None:
    recipe = QuantizationRecipe(
        {"b": LayerRecipe("kmeans", 3), "a": LayerRecipe("static_binary", 1)}
    )
    recipe.to_json(tmp_path / "recipe.json")
    read = QuantizationRecipe.from_json(tmp_path / "recipe.json")
    assert read == recipe
    assert list(read.layers) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not a recipe"),
        ("{}", "not a recipe"),
        ("[]", "not a recipe"),
        ('{"layers": {"a": 4}}', "not a recipe"),
        ('{"layers": {"a": {"kind": "kmeans", "bits": NaN}}}', "from 1 to 8, not nan"),
        (
            '{"layers": {"a": {"kind": "kmeans", "bits": 4}, "a": {"kind": "kmeans", "bits": 2}}}',
            "'a' is a duplicate",
        ),
        ('{"layers": {"a": {"kind": "kmeans", "bits": 9}}}', "from 1 to 8, not 9"),
        ('{"layers": {"a": {"kind": "kmeans", "bits": "4"}}}', "from 1 to 8, not '4'"),
        ('{"layers": {"a": {"kind": "uniform", "bits": 4}}}', "kind must be one of kmeans"),
    ],
)
def test_files_that_are_no_recipe(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        QuantizationRecipe.from_json(path)
    assert str(path) in str(caught.value)


def test_numpys_numbers_are_written_as_others(tmp_path: Path) -> None:
    layers = {"a": LayerRecipe("kmeans", np.int64(4)), "b": LayerRecipe("trellis", np.float64(2))}
    recipe = QuantizationRecipe(layers)
    recipe.to_json(tmp_path / "recipe.json")
    assert QuantizationRecipe.from_json(tmp_path / "recipe.json") == recipe


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        QuantizationRecipe.from_json(tmp_path / "recipe.json")
