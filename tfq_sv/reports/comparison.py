"""Tables and pictures that compare systems: error rates, file sizes, DET curves."""

import os
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from tfq_sv.data.corpus import printable
from tfq_sv.evaluation.comparison import System
from tfq_sv.files import atomic
from tfq_sv.reports.table import Table


def comparison_table(systems: Sequence[System]) -> Table:
    """The table of a comparison: EER with its interval, paired difference, minDCF.

    Without the columns that nothing is known for, such as the difference of a single system.
    """
    columns: dict[str, list[str]] = {
        "system": [system.name for system in systems],
        "EER %": [f"{100 * system.result.eer:.2f}" for system in systems],
        "95 %": [_percent(system.result.interval) for system in systems],
        "minus the first, 95 %": [_signed(system.difference) for system in systems],
        "minDCF": [f"{system.result.min_dcf:.3f}" for system in systems],
    }
    known = {name: cells for name, cells in columns.items() if any(cells)}
    return Table(list(known), list(map(list, zip(*known.values(), strict=True))))


def colour(number: int) -> str:
    """The colour of a system in every picture, by its place among the systems."""
    return f"C{number % 10}"


def size_table(files: Mapping[str, int]) -> Table:
    """The table of file sizes: name -> bytes, and how many times smaller than the first."""
    first = next(iter(files.values()))
    rows = [[name, f"{size:,}", f"{first / size:.2f}x"] for name, size in files.items()]
    return Table(["file", "bytes", "smaller"], rows)


def comparison_figure(
    systems: Sequence[System], files: Mapping[str, int], path: str | os.PathLike[str], title: str
) -> None:
    """Draws DET curves beside file sizes, as PNG.

    Args:
        systems: whose curves are drawn.
        files: name -> bytes.
        path: where the picture goes.
        title: names the corpus that the curves come from.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    det_curves(left, systems)
    megabytes = [size / 1e6 for size in files.values()]
    known = {system.name: colour(number) for number, system in enumerate(systems)}
    # The first is the float network's, whatever it is called as a file.
    colours = [known.get(name, colour(0)) for name in files]
    bars = right.barh(list(files), megabytes, color=colours, alpha=0.7)
    right.bar_label(bars, [f" {size:.2f} MB" for size in megabytes])
    right.invert_yaxis()
    right.set(xlabel="file size, MB (10^6 bytes)", title="Size on disk")
    right.set_xlim(0, max(megabytes) * 1.2)
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def size_figure(
    systems: Sequence[System], files: Mapping[str, int], path: str | os.PathLike[str], title: str
) -> None:
    """Draws EER, with its interval, against file size, as PNG.

    Args:
        systems: those that `files` knows are drawn; the first one's EER is a line across.
        files: system's name -> bytes.
        path: where the picture goes.
        title: names the corpus that the EERs come from.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    base = 100 * systems[0].result.eer
    axes.axhline(base, color=colour(0), linestyle="--", linewidth=1, label=systems[0].name)
    for number, system in enumerate(systems):
        if system.name not in files:
            continue
        rate = 100 * system.result.eer
        low, high = (100 * x for x in system.result.interval or 2 * [system.result.eer])
        size = files[system.name] / 1e6
        label = f"{system.name}: {size:.2f} MB, {rate:.2f} %"
        bars = [[rate - low], [high - rate]]
        marker = "os^Dv"[number % 5]
        axes.errorbar(size, rate, bars, label=label, fmt=marker, color=colour(number), capsize=4)
    axes.set(xlabel="file size, MB (10^6 bytes)", ylabel="EER, %, 95 % intervals", title=title)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def det_figure(systems: Sequence[System], path: str | os.PathLike[str], title: str) -> None:
    """Draws DET curves alone, as PNG; `title` names the trials."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.8, 5.0), layout="constrained")
    axes = figure.subplots()
    det_curves(axes, systems)
    axes.set_title(printable(title), fontsize=10, wrap=True)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def score_figure(system: System, path: str | os.PathLike[str]) -> None:
    """Draws histograms of target and nontarget scores with the threshold at the EER, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.8, 3.8), layout="constrained")
    axes = figure.subplots()
    labels, scores = system.result.trials.labels, system.result.scores
    for name, chosen in (("different speakers", ~labels), ("same speaker", labels)):
        axes.hist(scores[chosen], bins=60, density=True, alpha=0.6, label=name)
    threshold = system.result.threshold
    label = f"threshold at the EER, {threshold:.3f}"
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="score", ylabel="density")
    axes.legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def det_curves(axes: Any, systems: Sequence[System]) -> None:
    """Draws DET curves (Martin et al., 1997) from 0.1 % to 40 %, or more, into matplotlib axes.

    A dot marks the EER, where the curve meets the diagonal; its threshold is in the legend.
    """
    from sklearn.metrics import DetCurveDisplay

    # Curves that lie on each other are told apart by width and dash.
    styles = [("-", 6.0, 0.3), ("-", 2.0, 0.9), ("--", 1.8, 1.0), (":", 2.4, 1.0)]
    for i, system in enumerate(systems):
        dash, width, alpha = styles[1 if len(systems) == 1 else i % len(styles)]
        DetCurveDisplay.from_predictions(
            system.result.trials.labels,
            system.result.scores,
            ax=axes,
            name=f"{printable(system.name)}: EER {100 * system.result.eer:.2f} % "
            f"at {system.result.threshold:.3f}",
            color=colour(i),
            linestyle=dash,
            linewidth=width,
            alpha=alpha,
        )
        if 0 < system.result.eer < 1:
            place = NormalDist().inv_cdf(system.result.eer)
            axes.plot(place, place, "o", color=colour(i), markersize=7, markeredgecolor="white")
    rates = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4]
    worst = max(system.result.eer for system in systems)
    # Beyond 30 % little of a curve would be left.
    rates += [rate for rate, least in ((0.6, 0.3), (0.8, 0.5), (0.95, 0.7)) if worst > least]
    places = [NormalDist().inv_cdf(rate) for rate in rates]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(places, [f"{100 * rate:g}" for rate in rates])
    axes.plot(places, places, color="tab:gray", linewidth=0.8, linestyle=":")
    axes.set(xlim=(places[0], places[-1]), ylim=(places[0], places[-1]))
    axes.set(xlabel="false alarm rate, %", ylabel="miss rate, %", title="DET curves")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)


def _percent(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"


def _signed(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"
