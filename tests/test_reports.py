"""Pictures and tables of systems: colours, bars, columns, and points that can be checked."""

import itertools
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.comparison import System
from tfq_sv.evaluation.measurement import Evaluation
from tfq_sv.metrics import eer
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe
from tfq_sv.reports import allocation, comparison


def system(name: str, apart: float, **known: Any) -> System:
    """Scores of two normal distributions, so far apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) < 200
    scores = rng.normal(size=400) / 5 + apart * labels
    rate, threshold = eer(scores, labels)
    trials = Trials(["a"] * 400, ["b"] * 400, labels, "made")
    result = Evaluation(rate, known.get("interval"), threshold, 0.5, scores, trials)
    return System(name, result, known.get("difference"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def kept(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


def test_a_system_has_one_colour_everywhere(drawn: list[Figure], tmp_path: Path) -> None:
    systems = [system("FP32", 0.6), system("4-bit", 0.5), system("1-bit", 0.4)]
    sizes = {"float32 .tflite": 4_000_000, "4-bit": 500_000, "1-bit": 200_000}
    comparison.comparison_figure(systems, sizes, tmp_path / "a.png", "made")
    comparison.size_figure(systems, sizes, tmp_path / "b.png", "made")
    left, right = drawn[0].axes
    curves = {line.get_label().split(":")[0]: line.get_color() for line in left.lines}
    bars = [to_hex(bar.get_facecolor()) for bar in right.patches]
    assert bars == [to_hex(curves[name]) for name in ("FP32", "4-bit", "1-bit")]
    points = {
        x.get_label().split(":")[0]: x.lines[0].get_color() for x in drawn[1].axes[0].containers
    }
    assert points == {name: curves[name] for name in ("4-bit", "1-bit")}
    assert len({curves[name] for name in ("FP32", "4-bit", "1-bit")}) == 3


def test_dots_of_det_curves_are_eers_on_the_curve(drawn: list[Figure], tmp_path: Path) -> None:
    one = system("4-bit", 0.4)
    comparison.det_figure([one], tmp_path / "det.png", "made")
    (axes,) = drawn[0].axes
    curve, dot = axes.lines[0], next(x for x in axes.lines if x.get_marker() == "o")
    (x,), (y,) = dot.get_data()
    assert x == y == pytest.approx(NormalDist().inv_cdf(one.result.eer))
    away = np.hypot(curve.get_xdata() - x, curve.get_ydata() - y)
    assert away.min() < 0.05
    text = axes.get_legend().get_texts()[0].get_text()
    assert f"EER {100 * one.result.eer:.2f} % at {one.result.threshold:.3f}" in text


@pytest.mark.parametrize("apart", [-0.1, 0.02, 0.1, 0.4, 3.0])
def test_every_eer_is_within_the_axes(apart: float, drawn: list[Figure], tmp_path: Path) -> None:
    one = system("a", apart)
    comparison.det_figure([one, system("b", 0.6)], tmp_path / "det.png", "made")
    (axes,) = drawn[0].axes
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert NormalDist().cdf(low) == pytest.approx(0.001)
        assert one.result.eer < NormalDist().cdf(high) < 1
        assert NormalDist().cdf(high) >= 0.4 - 1e-9


def test_a_single_curve_is_a_plain_line(drawn: list[Figure], tmp_path: Path) -> None:
    comparison.det_figure([system("a", 0.4)], tmp_path / "det.png", "630 pairs of made")
    (axes,) = drawn[0].axes
    assert axes.lines[0].get_linewidth() < 3
    assert axes.lines[0].get_alpha() > 0.8
    assert axes.get_title() == "630 pairs of made"


def test_error_rates_of_allocations_have_intervals(drawn: list[Figure], tmp_path: Path) -> None:
    recipe = QuantizationRecipe({"a": LayerRecipe("kmeans", 2)})
    answers = [SimpleNamespace(recipe=recipe, bytes=n, cost=0.1) for n in (1000, 2000)]
    rates = [system("x", 3.0, interval=(0.0, 0.1)).result, system("y", 0.5).result]
    allocation.allocation_figure({"a": 1.0}, answers, tmp_path / "a.png", "made", rates)
    axes = drawn[0].axes[2]
    assert axes.get_ylim()[0] == 0
    (_, _, (bars,)) = axes.containers[0]
    (first, second) = bars.get_segments()
    assert [y for _, y in first] == pytest.approx([0, 10])
    assert second[0][1] == second[1][1] == pytest.approx(100 * rates[1].eer)


def test_bits_are_bars(drawn: list[Figure], tmp_path: Path) -> None:
    widths = [[1, 2, 4], [2, 4, 8]]
    answers = [
        SimpleNamespace(
            recipe=QuantizationRecipe(
                {n: LayerRecipe("kmeans", b) for n, b in zip("abc", row, strict=True)}
            ),
            bytes=1000 * number,
            cost=0.1,
        )
        for number, row in enumerate(widths, start=1)
    ]
    traces = dict.fromkeys("abc", 1.0)
    allocation.allocation_figure(traces, answers, tmp_path / "bits.png", "made")
    bars = drawn[0].axes[1].containers
    assert [[bar.get_height() for bar in row] for row in bars] == widths
    edges = sorted((b.get_x(), b.get_x() + b.get_width()) for row in bars for b in row)
    for (_, end), (start, _) in itertools.pairwise(edges):
        assert end <= start + 1e-9  # none hides another


def test_tables_have_no_empty_columns() -> None:
    header = comparison.comparison_table([system("a", 0.5)]).header
    assert header == ["system", "EER %", "minDCF"]
    both = [
        system("a", 0.5, interval=(0.1, 0.2)),
        system("b", 0.4, interval=(0.1, 0.2), difference=(-0.1, 0.1)),
    ]
    table = comparison.comparison_table(both)
    assert table.header == ["system", "EER %", "95 %", "minus the first, 95 %", "minDCF"]
    assert table.rows[0][3] == ""
