"""Tables and pictures for people."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tfq_sv.evaluation import Evaluation
from tfq_sv.files import atomic


@dataclass(frozen=True)
class System:
    """One row of a comparison.

    Attributes:
        name: what it is.
        bytes: size of its file; None if it is no file.
        result: its error rates.
        difference: 95 % interval of its EER less the first system's; None for the first.
    """

    name: str
    bytes: int | None
    result: Evaluation
    difference: tuple[float, float] | None = None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns text in columns: the first to the left, the others to the right.

    >>> print(table(["name", "bits"], [["conv1", "4"]]))
    name   bits
    -----  ----
    conv1     4
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def comparison(systems: Sequence[System]) -> str:
    """The table of a comparison: size, ratio, EER with interval, paired difference, minDCF."""
    largest = max(system.bytes or 0 for system in systems)
    rows = []
    for system in systems:
        low, high = (100 * bound for bound in system.result.interval)
        rows.append(
            [
                system.name,
                f"{system.bytes:,}" if system.bytes else "",
                f"{largest / system.bytes:.2f}x" if system.bytes else "",
                f"{100 * system.result.eer:.2f}",
                f"[{low:.2f}, {high:.2f}]",
                _signed(system.difference),
                f"{system.result.min_dcf:.3f}",
            ]
        )
    header = ["system", "bytes", "smaller", "EER %", "95 %", "minus FP32, 95 %", "minDCF"]
    return table(header, rows)


def comparison_figure(systems: Sequence[System], path: str | os.PathLike[str], title: str) -> None:
    """Draws DET curves beside file sizes, as PNG.

    Args:
        systems: what is compared.
        path: where the picture goes.
        title: names the corpus the figures come from.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import DetCurveDisplay

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    curves, sizes = figure.subplots(1, 2)
    # Curves that lie on each other are told apart by width and dash.
    styles = [("-", 5.0, 0.35), ("-", 2.0, 0.9), ("--", 1.8, 1.0), (":", 2.2, 1.0)]
    for i, system in enumerate(systems):
        dash, width, alpha = styles[i % len(styles)]
        DetCurveDisplay.from_predictions(
            system.result.trials.labels,
            system.result.scores,
            ax=curves,
            name=f"{system.name}: EER {100 * system.result.eer:.2f} %",
            linestyle=dash,
            linewidth=width,
            alpha=alpha,
        )
    curves.set(xlabel="false alarm rate", ylabel="miss rate", title="DET curves")
    curves.grid(alpha=0.3)
    curves.legend(loc="upper right", fontsize=8)
    files = [system for system in systems if system.bytes]
    megabytes = [(system.bytes or 0) / 1e6 for system in files]
    bars = sizes.barh([system.name for system in files], megabytes, color="tab:blue", alpha=0.7)
    sizes.bar_label(bars, [f" {size:.2f} MB" for size in megabytes])
    sizes.invert_yaxis()
    sizes.set(xlabel="file size, MB (10^6 bytes)", title="Size on disk")
    sizes.set_xlim(0, max(megabytes) * 1.2)
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _signed(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"
