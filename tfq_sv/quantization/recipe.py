"""The recipe: which layer gets which codebook. Plain JSON that people can read and edit."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfq_sv.codebook import check_bits
from tfq_sv.errors import InputError
from tfq_sv.files import atomic, require_file
from tfq_sv.quantization import trellis

KINDS = ("kmeans", "static_binary", "adaptive_binary", "trellis")


@dataclass(frozen=True)
class LayerRecipe:
    """How one layer is quantized.

    Attributes:
        kind: "kmeans", "static_binary", "adaptive_binary" or "trellis".
        bits: 1-8; 1 for the binary kinds; 0.5, 1, 2 or 4 for a trellis.
    """

    kind: str
    bits: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        bits = trellis.check_bits(self.bits) if self.kind == "trellis" else check_bits(self.bits)
        if bits != 1 and "binary" in self.kind:
            raise InputError(f"{self.kind} has 1 bit, not {bits}")
        object.__setattr__(self, "bits", bits)  # NumPy's numbers are not for JSON


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
    def trellis(cls, model: Any, bits: float = 2) -> "QuantizationRecipe":
        """Trellis codes for every kernel that gains by them, k-means codebooks for the others.

        The others (depthwise and grouped convolutions, the first one, fewer than 16 channels) have
        codebooks of as many bits, of 1 if that is less.

        Args:
            model: a network.
            bits: 0.5, 1, 2 or 4.

        Raises:
            InputError: other bits, or a model without such layers.
        """
        from tfq_sv.quantization.quantizers import quantizable
        from tfq_sv.quantization.trellis_quantizer import fits

        coded = LayerRecipe("trellis", trellis.check_bits(bits))
        other = LayerRecipe("kmeans", max(1, int(bits)))
        layers = quantizable(model)
        return cls({name: coded if fits(x, bits) else other for name, x in layers.items()})

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> "QuantizationRecipe":
        """Reads what `to_json` wrote.

        Raises:
            InputError: missing, not JSON, or not a recipe.
        """
        file = require_file(path, "recipe")
        try:
            content = json.loads(
                file.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_names
            )
            layers = {name: LayerRecipe(**entry) for name, entry in content["layers"].items()}
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                f'{file} is not a recipe ({error!s:.200}); expected {{"layers": '
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
        """Writes the recipe, one layer per line."""
        entries = [
            f"    {json.dumps(name)}: {json.dumps(vars(entry))}"
            for name, entry in self.layers.items()
        ]
        with atomic(path) as temporary:
            Path(temporary).write_text(
                '{\n  "layers": {\n' + ",\n".join(entries) + "\n  }\n}\n", encoding="utf-8"
            )


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a name that is there again, the last value would count, unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        again = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise InputError(f"{again!r} is a duplicate")
    return found
