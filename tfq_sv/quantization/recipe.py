"""The recipe: which layer gets which codebook. Plain JSON that people can read and edit."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfq_sv.codebook import check_bits
from tfq_sv.errors import InputError
from tfq_sv.files import atomic, existing

KINDS = ("kmeans", "static_binary", "adaptive_binary")


@dataclass(frozen=True)
class LayerRecipe:
    """How one layer is quantized.

    Attributes:
        kind: "kmeans", "static_binary" or "adaptive_binary".
        bits: 1-8; 1 for the binary kinds.
    """

    kind: str
    bits: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if check_bits(self.bits) != 1 and self.kind != "kmeans":
            raise InputError(f"{self.kind} has 1 bit, not {self.bits}")


@dataclass(frozen=True)
class QuantizationRecipe:
    """Layer name -> how it is quantized. Layers that are not named stay float.

    >>> recipe = QuantizationRecipe({"conv1": LayerRecipe("kmeans", 4)})
    >>> recipe.layers["conv1"].bits
    4
    """

    layers: Mapping[str, LayerRecipe]

    @classmethod
    def uniform(cls, model: Any, bits: int = 4) -> "QuantizationRecipe":
        """Every convolution and dense kernel at the same bit width.

        Raises:
            InputError: bits out of range, or a model without such layers.
        """
        from tfq_sv.quantization.quantizers import (
            quantizable,  # needs TensorFlow; reading JSON does not
        )

        layer = LayerRecipe("kmeans", check_bits(bits))
        return cls(dict.fromkeys(quantizable(model), layer))

    @classmethod
    def binary(cls, model: Any, kind: str = "adaptive") -> "QuantizationRecipe":
        """Every convolution and dense kernel in one bit.

        Args:
            model: a network.
            kind: "adaptive" (levels follow the weights in fine-tuning, unless calibrated) or
                "static" (they stay).

        Raises:
            InputError: another kind, or a model without such layers.
        """
        from tfq_sv.quantization.quantizers import quantizable

        if kind not in ("adaptive", "static"):
            raise InputError(f'kind must be "adaptive" or "static", not {kind!r}')
        return cls(dict.fromkeys(quantizable(model), LayerRecipe(f"{kind}_binary", 1)))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> "QuantizationRecipe":
        """Reads what `to_json` wrote.

        Raises:
            InputError: missing, not JSON, or not a recipe.
        """
        file = existing(path, "recipe")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            layers = {name: LayerRecipe(**entry) for name, entry in content["layers"].items()}
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f'{file} is not a recipe ({error}); expected {{"layers": '
                '{"conv1": {"kind": "kmeans", "bits": 4}, ...}}'
            ) from None
        return cls(layers)

    def check_layers(self, names: Collection[str]) -> None:
        """Refuses a recipe for another network.

        Args:
            names: of the network's quantizable layers.

        Raises:
            InputError: the recipe names a layer that is none of them.
        """
        for name in self.layers:
            if name not in names:
                raise InputError(
                    f"the recipe names {name!r}, which is no quantizable layer of the network; "
                    f"those are {', '.join(names)}"
                )

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe, a layer a line."""
        entries = [
            f"    {json.dumps(name)}: {json.dumps(vars(entry))}"
            for name, entry in self.layers.items()
        ]
        with atomic(path) as temporary:
            Path(temporary).write_text(
                '{\n  "layers": {\n' + ",\n".join(entries) + "\n  }\n}\n", encoding="utf-8"
            )
