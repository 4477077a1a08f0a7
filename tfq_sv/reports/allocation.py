"""Tables and pictures of bits that were allocated."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tfq_sv.evaluation.measurement import Evaluation
from tfq_sv.files import atomic
from tfq_sv.mixed_precision.allocation import Allocation, Sensitivity
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.quantization.recipe import LayerRecipe
from tfq_sv.reports.comparison import colour
from tfq_sv.reports.table import Table

SENSITIVITY = (
    "A layer's sensitivity says how far embeddings turn when its weights are disturbed, per unit "
    "of squared disturbance: the greater, the more its bits are worth. Where its standard error "
    "(+-) is nearly as large, measure with more --probes."
)
"""What the word means, for reports."""


def allocation_table(model: Any, traces: Sensitivity, answers: Sequence[Allocation]) -> Table:
    """Returns the table of layers: weights, sensitivity with its standard error, bits.

    Several answers have a column of bits each, under its size.
    """
    rows = []
    for name, layer in quantizable(model).items():
        kernel = getattr(layer, str(kernel_attribute(layer)))
        value = _value(traces[name])
        error = getattr(value, "standard_error", float("nan"))
        rows.append(
            [
                name,
                f"{kernel.shape.num_elements():,}",
                f"{value:.3g}",
                f"{error:.1g}",
                *(_bits(answer.recipe.layers[name]) for answer in answers),
            ]
        )
    sizes = [f"{answer.bytes / 1e6:.3f} MB" for answer in answers]
    bits = sizes if len(sizes) > 1 else ["bits"]
    return Table(["layer", "weights", "sensitivity", "+-", *bits], rows)


def allocation_figure(
    traces: Sensitivity,
    answers: Sequence[Allocation],
    path: str | os.PathLike[str],
    title: str,
    error_rates: Sequence[Evaluation] | None = None,
) -> None:
    """Draws sensitivity and bits per layer; for several answers their cost, or EER, against size.

    Args:
        traces: what the bits were allocated by.
        answers: one or several.
        path: where the PNG goes.
        title: says what of.
        error_rates: of each answer; their EERs are drawn in place of the cost.
    """
    from matplotlib.figure import Figure

    several = len(answers) > 1
    names = list(traces)
    width = min(max(8.0, 0.2 * len(names)), 40.0)
    figure = Figure(figsize=(width, 9.5 if several else 6.5), layout="constrained")
    axes = figure.subplots(3 if several else 2, 1)
    places = range(len(names))
    axes[0].bar(places, [_value(traces[name]) for name in names], color="tab:gray")
    axes[0].set(yscale="log", ylabel="sensitivity", xlim=(-0.6, len(names) - 0.4))
    axes[0].set_xticks([])
    thick, most = 0.8 / len(answers), 1.0
    for number, answer in enumerate(answers):
        bits = [answer.recipe.layers[name].bits for name in names]
        most = max([most, *bits])
        label = f"{answer.bytes / 1e6:.3f} MB"
        left = [place - 0.4 + thick * (number + 0.5) for place in places]
        axes[1].bar(left, bits, thick, color=colour(number), label=label)
    axes[1].set(ylabel="bits", ylim=(0, most + 0.5), xlim=(-0.6, len(names) - 0.4))
    axes[1].set_xticks(places, names, rotation=90, fontsize=7)
    axes[1].set_yticks(range(1, int(most) + 1))
    axes[1].grid(axis="y", alpha=0.3)
    # Above the axes: within, some line is always behind it.
    axes[1].legend(
        fontsize=8,
        ncols=min(8, len(answers)),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        frameon=False,
    )
    if several:
        sizes = [answer.bytes / 1e6 for answer in answers]
        if error_rates is None:
            axes[2].plot(sizes, [answer.cost for answer in answers], "o-")
            axes[2].set(ylabel="predicted cost", yscale="log")
        else:
            _draw_error_rates(axes[2], sizes, error_rates)
        axes[2].set(xlabel="file size, MB (10^6 bytes)")
        axes[2].grid(alpha=0.3)
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _draw_error_rates(axes: Any, sizes: Sequence[float], results: Sequence[Evaluation]) -> None:
    rates = [100 * result.eer for result in results]
    bounds = [result.interval or (result.eer, result.eer) for result in results]
    below = [max(0.0, rate - 100 * low) for rate, (low, _) in zip(rates, bounds, strict=True)]
    above = [max(0.0, 100 * high - rate) for rate, (_, high) in zip(rates, bounds, strict=True)]
    axes.errorbar(sizes, rates, [below, above], fmt="o-", capsize=4)
    axes.set(ylabel="EER, %, 95 % intervals", ylim=(0, max(1.0, axes.get_ylim()[1])))


def _value(given: Any) -> float:
    """A layer's trace; of a table of costs the first."""
    return next(iter(given.values())) if isinstance(given, Mapping) else given


def _bits(entry: LayerRecipe) -> str:
    return f"{entry.bits:g}{' trellis' * (entry.kind == 'trellis')}"
