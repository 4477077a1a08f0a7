"""The table and the picture of a comparison of networks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfq_sv.data.trials import Trials
from tfq_sv.experiments.reproduction_report import rate_text
from tfq_sv.files import atomic
from tfq_sv.reports.table import markdown


def write_report(out: Path, trials: Trials, about: str) -> str:
    """Writes `report.md` and `report.png` of all rows that are in a folder; returns the text.

    Args:
        out: the folder: results.json of each row, two levels down.
        trials: what was measured on.
        about: what the report is of.
    """
    files = sorted(out.glob("*/*/results.json"))
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    rows.sort(key=lambda row: (row["network"], -row["bytes"]))
    front = {id(row) for row in pareto([row for row in rows if row["kind"]])}
    cells = []
    for row in rows:
        cells.append(
            [
                f"{row['network']}, {row['row']}",
                f"{row['bytes'] / 1e6:.3f}",
                f"{row['macs'] / 1e9:.3f}",
                f"{row['ms']:.1f}",
                rate_text(row),
                f"{row['min_dcf']:.3f}",
                "yes" if id(row) in front else "",
            ]
        )
    head = ["network", "MB", "GMACs, 2 s", "ms, 3 s", "EER %, 95 %", "minDCF 0.01", "Pareto front"]
    lines = [
        about,
        "",
        "Times are of one thread, in the interpreter, the quantized files inflated.",
    ]
    lost = sorted({key for row in rows for key in row["skipped"]})
    if lost:
        lines += ["", f"Skipped, with their trials, as bad recordings: {', '.join(lost)}."]
    text = "\n".join([*lines, "", *markdown(head, cells)]) + "\n"
    with atomic(out / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _picture(rows, f"{len(trials):,} trials from {trials.source}", out)
    return text


def pareto(rows: Sequence[Any]) -> list[Any]:
    """Returns the rows that no other beats: none is smaller or as small, and has a lower EER.

    >>> rows = [{"bytes": b, "eer": e} for b, e in ((1, 0.3), (2, 0.1), (3, 0.2), (2, 0.4))]
    >>> [(row["bytes"], row["eer"]) for row in pareto(rows)]
    [(1, 0.3), (2, 0.1)]
    """
    front: list[Any] = []
    for row in sorted(rows, key=lambda row: (row["bytes"], row["eer"])):
        if not front or row["eer"] < front[-1]["eer"]:
            front.append(row)
    return front


def _picture(rows: Sequence[Any], title: str, out: Path) -> None:
    """Draws size against EER: a color per network, and the front as a line."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    networks = list(dict.fromkeys(row["network"] for row in rows))
    for number, network in enumerate(networks):
        points = [row for row in rows if row["network"] == network]
        sizes = [row["bytes"] / 1e6 for row in points]
        rates = [100 * row["eer"] for row in points]
        bounds = [row["interval"] or (row["eer"], row["eer"]) for row in points]
        errors = [
            [max(0.0, rate - 100 * low) for rate, (low, _) in zip(rates, bounds, strict=True)],
            [max(0.0, 100 * high - rate) for rate, (_, high) in zip(rates, bounds, strict=True)],
        ]
        form: dict[str, Any] = {
            "fmt": "os^Dv"[number % 5],
            "color": f"C{number % 10}",
            "capsize": 3,
            "alpha": 0.7,
        }
        axes.errorbar(sizes, rates, errors, label=network, **form)
    front = pareto([row for row in rows if row["kind"]])
    line = [row["bytes"] / 1e6 for row in front], [100 * row["eer"] for row in front]
    axes.step(*line, where="post", color="black", linewidth=1, label="Pareto front")
    axes.set(xlabel="file size, MB (10^6 bytes)", ylabel="EER, %, 95 % intervals")
    every = [row["bytes"] for row in rows]
    if max(every) > 3 * min(every):
        axes.set_xscale("log", subs=[])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=10)
    with atomic(out / "report.png") as temporary:
        figure.savefig(temporary, format="png", dpi=130)
