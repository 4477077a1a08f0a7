"""The table and the picture of a reproduction: size and error rates of every row that is done."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.files import atomic
from tfq_sv.metrics import P_TARGETS, eer_interval
from tfq_sv.reports.table import markdown

CONTROL = "FP32, fine-tuned"
"""The row that others are compared with: the same steps, in float."""


def write_report(
    out: Path, folders: Sequence[Path], trials: Mapping[str, Trials], test: Corpus, about: str
) -> str:
    """Writes `report.md` and `report.png`.

    Args:
        out: where they go.
        folders: one a row, the float network's first: `results.json`, and the scores of each list.
        trials: name of the list -> its trials; the picture shows the first.
        test: where the trials' utterances are.
        about: what the report is of.

    Returns:
        The text, Markdown.
    """
    rows = [json.loads((x / "results.json").read_text(encoding="utf-8")) for x in folders]
    control = next(
        (f for f, row in zip(folders, rows, strict=True) if row["name"] == CONTROL), None
    )
    lines = [about, ""]
    lines += [f"- {name}: {len(x):,} trials from {x.source}" for name, x in trials.items()]
    lost = sorted({key for row in rows for key in row["skipped"]})
    if lost:
        lines.append(f"- skipped, with their trials, as bad recordings: {', '.join(lost)}")
    lines += [
        "",
        "EERs with 95 % intervals, a bootstrap over speakers; codebooks as `.tflite` in the "
        "interpreter.",
        "",
    ]
    header = ["network", "MB", "smaller"]
    for name in trials:
        header += [f"{name} EER %", f"{name} minus {CONTROL}"]
        header += [f"{name} minDCF {p}" for p in P_TARGETS]
    cells = []
    for folder, row in zip(folders, rows, strict=True):
        found = [
            row["name"],
            f"{row['bytes'] / 1e6:.3f}",
            f"{rows[0]['bytes'] / row['bytes']:.1f}x",
        ]
        for name, rates in row["lists"].items():
            low, high = (100 * bound for bound in rates["interval"])
            found.append(f"{100 * rates['eer']:.2f} [{low:.2f}, {high:.2f}]")
            against = control if control and control != folder else None
            found.append(_difference(folder, against, name, trials[name], test, row["skipped"]))
            found += [f"{rates['min_dcf'][str(p)]:.3f}" for p in P_TARGETS]
        cells.append(found)
    text = "\n".join([*lines, *markdown(header, cells)]) + "\n"
    with atomic(out / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    first = next(iter(trials))
    _picture(rows, first, f"{len(trials[first]):,} trials from {trials[first].source}", out)
    return text


def _difference(
    folder: Path,
    control: Path | None,
    name: str,
    trials: Trials,
    test: Corpus,
    skipped: Sequence[str],
) -> str:
    """The interval of a row's EER less the control's, paired; kept, because it takes a while."""
    if control is None:
        return ""
    file = folder / f"difference-{name}.json"
    if not file.exists():
        own, base = (np.load(x / f"scores-{name}.npy").astype(float) for x in (folder, control))
        kept = trials.without(skipped) if skipped else trials
        if not len(own) == len(base) == len(kept):
            return "other recordings were bad"
        whose = kept.speakers(test)
        if whose is None:
            return "speakers unknown"
        interval = eer_interval(own, kept.labels, whose, minus=base)
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(interval))
    low, high = json.loads(file.read_text())
    return f"[{100 * low:+.2f}, {100 * high:+.2f}]"


def _picture(rows: Sequence[Any], name: str, title: str, out: Path) -> None:
    """Draws size against EER: a curve for each kind of rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if row["name"] == CONTROL or len(rows) == 1:
            label = f"{row['name']}, {rows[0]['bytes'] / 1e6:.3g} MB"
            rate = 100 * row["lists"][name]["eer"]
            axes.axhline(rate, color="black", linestyle="--", linewidth=1, label=label)
    kinds = dict.fromkeys(row["kind"] for row in rows if row["kind"])
    for kind, marker in zip(kinds, "os^Dv<>PpX*", strict=False):  # points that lie on each other
        points = []
        for row in rows:
            if row["kind"] == kind:
                rates = row["lists"][name]
                percent = [100 * x for x in (rates["eer"], *rates["interval"])]
                points.append([row["bytes"] / 1e6, *percent])
        sizes, rate, low, high = np.array(sorted(points)).T
        errors = [rate - low, high - rate]
        bars = axes.errorbar(
            sizes, rate, errors, label=kind, fmt=f"{marker}-", capsize=3, alpha=0.7
        )
        bars[-1][0].set_alpha(0.35)
    axes.set(xlabel="file size, MB (10^6 bytes)", ylabel=f"EER, % ({name}), 95 % intervals")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(title, fontsize=10)
    with atomic(out / "report.png") as temporary:
        figure.savefig(temporary, format="png", dpi=130)
