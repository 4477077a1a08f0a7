"""The rows of the paper's experiment table: which networks it has, and what is done to each."""

from collections.abc import Sequence
from dataclasses import dataclass

import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.experiments.reproduction_report import CONTROL
from tfq_sv.mixed_precision import allocation
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.quantization.recipe import QuantizationRecipe
from tfq_sv.training.multi_stage import stages


@dataclass(frozen=True)
class Row:
    """One network of the table.

    Attributes:
        name: what it is.
        kind: which curve of the picture it is on; "" for the float networks.
        recipe: its bits; None for the float networks.
        staged: whether bit widths are fine-tuned one after the other (MSFT).
        tuned: whether it is fine-tuned.
        speech: whether it is calibrated to speech; to noise otherwise.
    """

    name: str
    kind: str = ""
    recipe: QuantizationRecipe | None = None
    staged: bool = False
    tuned: bool = True
    speech: bool = True

    @property
    def folder(self) -> str:
        """Its name as a file's.

        >>> Row("mixed, 0.25 MB, MSFT").folder
        'mixed-0.25-MB-MSFT'
        """
        return self.name.replace(",", "").replace(" ", "-")


def uniform_rows(model: keras.Model) -> list[Row]:
    """Returns the rows that need no search.

    Float; 8, 4, 3, 2 and 1 bits, both binary forms, and trellises: fine-tuned. K-means and
    trellises also calibrated alone, to speech and without.
    """
    rows = [Row("FP32", tuned=False), Row(CONTROL)]
    for bits in (8, 4, 3, 2, 1):
        recipe = QuantizationRecipe.uniform(model, bits)
        rows.append(Row(f"{bits} bit{'s' * (bits > 1)}, k-means", "uniform", recipe))
    for kind in ("static", "adaptive"):
        recipe = QuantizationRecipe.binary(model, kind)
        rows.append(Row(f"1 bit, {kind} binary", f"{kind} binary", recipe))
    for width in (4, 2, 1, 0.5):
        recipe = QuantizationRecipe.trellis(model, width)
        if any(layer.kind == "trellis" for layer in recipe.layers.values()):
            name = f"{width:g} bit{'s' * (width > 1)}, trellis"
            rows.append(Row(name, "trellis", recipe))
            kind = "trellis, calibrated"
            rows.append(Row(f"{name}, calibrated", kind, recipe, tuned=False))
            kind += " without speech"
            rows.append(
                Row(f"{name}, calibrated without speech", kind, recipe, tuned=False, speech=False)
            )
    for bits in (4, 3, 2, 1):
        recipe = QuantizationRecipe.uniform(model, bits)
        name = f"{bits} bit{'s' * (bits > 1)}, k-means"
        rows.append(Row(f"{name}, calibrated", "calibrated", recipe, tuned=False))
        kind = "calibrated without speech"
        rows.append(Row(f"{name}, {kind}", kind, recipe, tuned=False, speech=False))
    return rows


def size_names(targets: Sequence[int]) -> list[str]:
    """Returns what rows call file sizes; raises InputError for two of one name.

    >>> size_names([1_500_000, 250_000])
    ['1.5 MB', '0.25 MB']
    """
    names = [f"{target / 1e6:.4g} MB" for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two of the target sizes are {name}; give one of them")
    return names


def mixed_rows(
    model: keras.Model, traces: allocation.Sensitivity, targets: Sequence[int], input: str
) -> list[Row]:
    """Returns the rows of each file size: fine-tuned at once, in stages, and with trellises."""
    rows: list[Row] = []
    megabytes = size_names(targets)
    sizes = FileSize.of(model, input)
    costs = allocation.quantization_costs(model, traces, trellis=True)
    answers = allocation.sweep(model, costs, targets, sizes=sizes)
    coded = allocation.sweep(model, costs, targets, sizes=sizes, trellis=True)
    for size, answer, other in zip(megabytes, answers, coded, strict=True):
        name = f"mixed, {size}"
        rows.append(Row(name, "mixed", answer.recipe))
        if len(stages(answer.recipe)) > 1:
            rows.append(Row(f"{name}, MSFT", "mixed, MSFT", answer.recipe, staged=True))
        if other.recipe != answer.recipe:
            rows.append(Row(f"{name}, trellis", "mixed, trellis", other.recipe))
    return rows
