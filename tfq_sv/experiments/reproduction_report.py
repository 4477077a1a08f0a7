"""The tables and the picture of a reproduction: every row that is done, and the paper's claims."""

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

NO_LOSS = 0.1
"""An EER that is higher by less than this part of the control's is called no loss."""

ALIKE = 0.05
"""Files whose sizes differ by no more than this part are compared as equally large."""


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
    places = {row["name"]: folder for row, folder in zip(rows, folders, strict=True)}
    differences = _Differences(places, trials, test, lost)
    lines += _networks(rows, differences)
    if claims := _claims(rows):
        lines += ["", *_verdicts(claims, differences)]
    text = "\n".join(lines) + "\n"
    with atomic(out / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    first = next(iter(trials))
    _picture(rows, first, f"{len(trials[first]):,} trials from {trials[first].source}", out)
    return text


def _networks(rows: Sequence[Any], differences: "_Differences") -> list[str]:
    """The table of sizes and error rates."""
    control = any(row["name"] == CONTROL for row in rows)
    header, cells = ["network", "MB", "smaller"], []
    for name in differences.trials:
        header += [f"{name} EER %", f"{name} minus {CONTROL}"]
        header += [f"{name} minDCF {p}" for p in P_TARGETS]
    for row in rows:
        smaller = f"{rows[0]['bytes'] / row['bytes']:.1f}x"
        found = [row["name"], f"{row['bytes'] / 1e6:.3f}", smaller]
        for name, rates in row["lists"].items():
            found.append(rate_text(rates))
            compared = control and row["name"] != CONTROL
            found.append(_points(differences(row["name"], CONTROL, name)) if compared else "")
            found += [f"{rates['min_dcf'][str(p)]:.3f}" for p in P_TARGETS]
        cells.append(found)
    return markdown(header, cells)


def _verdicts(claims: Sequence[tuple[str, Any, Any]], differences: "_Differences") -> list[str]:
    """The table of what the paper claims, and whether it is so here."""
    header, cells = ["the paper's claim", "EER of", "minus that of"], []
    for name in differences.trials:
        header += [f"{name}, points", "here"]
    for claim, row, other in claims:
        found = [claim, row["name"], other["name"]]
        for name in differences.trials:
            interval = differences(row["name"], other["name"], name)
            bound = NO_LOSS * other["lists"][name]["eer"] if other["name"] == CONTROL else 0.0
            found += [_points(interval), _verdict(interval, bound)]
        cells.append(found)
    return markdown(header, cells)


def _claims(rows: Sequence[Any]) -> list[tuple[str, Any, Any]]:
    """The paper's claims that these rows tell about: what is claimed, of which row against which.

    Source: Liu, Wang, Qian, arXiv 2406.05359.
    """
    named = {row["name"]: row for row in rows}
    pairs = [
        ("4 bits lose nothing", "4 bits, k-means", CONTROL),
        ("static binary beats 1-bit k-means", "1 bit, static binary", "1 bit, k-means"),
        ("adaptive binary beats 1-bit k-means", "1 bit, adaptive binary", "1 bit, k-means"),
    ]
    found = [(claim, named[a], named[b]) for claim, a, b in pairs if a in named and b in named]
    uniform = [row for row in rows if row["kind"] == "uniform"]
    for row in rows:
        if row["kind"] in ("mixed", "mixed, MSFT"):
            as_large = [x for x in uniform if abs(x["bytes"] / row["bytes"] - 1) <= ALIKE]
            found += [("mixed bits beat uniform ones of the size", row, x) for x in as_large]
        at_once = named.get(row["name"].removesuffix(", MSFT"))
        if row["kind"] == "mixed, MSFT" and at_once:
            found.append(("fine-tuning in stages beats fine-tuning at once", row, at_once))
    return found


def _verdict(interval: tuple[float, float] | str, bound: float) -> str:
    """What the interval of a difference in EER says of the claim that it is below a bound.

    >>> _verdict((-0.02, -0.01), 0.0), _verdict((0.01, 0.02), 0.0), _verdict((-0.01, 0.02), 0.0)
    ('holds', 'does not hold', 'cannot be told')
    >>> _verdict((0.0, 0.0), 0.0)  # two networks that are the same
    'does not hold'
    """
    if isinstance(interval, str):
        return "cannot be told"
    low, high = interval
    return "holds" if high < bound else "does not hold" if low >= bound else "cannot be told"


def rate_text(rates: Any) -> str:
    """Returns an EER in percent, with its interval where the speakers are known.

    >>> rate_text({"eer": 0.02, "interval": [0.01, 0.03]})
    '2.00 [1.00, 3.00]'
    """
    if rates["interval"] is None:
        return f"{100 * rates['eer']:.2f}"
    low, high = (100 * bound for bound in rates["interval"])
    return f"{100 * rates['eer']:.2f} [{low:.2f}, {high:.2f}]"


def _points(interval: tuple[float, float] | str) -> str:
    """An interval of fractions, or why there is none."""
    if isinstance(interval, str):
        return interval
    return "[{:+.2f}, {:+.2f}]".format(*(100 * bound for bound in interval))


class _Differences:
    """Intervals of one row's EER less another's, paired; kept, because they take a while."""

    def __init__(
        self,
        places: Mapping[str, Path],
        trials: Mapping[str, Trials],
        test: Corpus,
        lost: Sequence[str],
    ) -> None:
        self._places = places
        self.trials = {k: x.without(lost) if lost else x for k, x in trials.items()}
        self._speakers = {k: x.speakers(test) for k, x in self.trials.items()}

    def __call__(self, row: str, other: str, name: str) -> tuple[float, float] | str:
        """As fractions, on the list of that name; or why there is none."""
        folder, base = self._places[row], self._places[other]
        file = folder / f"difference-{name}-{base.name}.json"
        if not file.exists():
            labels, speakers = self.trials[name].labels, self._speakers[name]
            both = [np.load(x / f"scores-{name}.npy").astype(float) for x in (folder, base)]
            if any(len(scores) != len(labels) for scores in both):
                return "other recordings were bad"
            if speakers is None:
                return "speakers unknown"
            interval = eer_interval(both[0], labels, speakers, minus=both[1])
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(interval))
        low, high = json.loads(file.read_text())
        return low, high


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
                bounds = rates["interval"] or [rates["eer"]] * 2
                percent = [100 * x for x in (rates["eer"], *bounds)]
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
