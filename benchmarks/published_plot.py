"""Draws what `published.py` printed: EER against file size, with the intervals.

    python benchmarks/published_plot.py docs/benchmarks/published{,_1bit,_mixed,_noise}.txt \
        --out=docs/published.png

Where two printouts have the same row, the first one's is drawn.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from tfq_sv.files import atomic

TITLE = "CAM++ on the 125 speakers of speechocean762's test half (not VoxCeleb)"
ROW = re.compile(
    r"\| (?P<kind>trellis|mixed|)(?P<bits>[\d.]+) \| (?P<made>\w+) \| (?P<mb>[\d.]+) "
    r"\| [\d.-]+ \| (?P<eer>[\d.]+) \| (?P<low>[\d.]+) to (?P<high>[\d.]+) \|"
)
FLOAT = re.compile(r"FP32: ([\d.]+) MB, EER ([\d.]+) % \(([\d.]+) to ([\d.]+)\)")
KINDS = {"": ("k-means", "tab:blue"), "trellis": ("trellis", "tab:orange")}
KINDS["mixed"] = ("mixed trellis", "tab:green")
MADE = {"noise": (":", "no speech"), "speech": ("--", "3 min of speech")}
MADE["distilled"] = ("-", "distilled")
Point = tuple[float, float, float, float]
"""MB, EER, and its interval, in percent."""


def points(texts: Sequence[str]) -> dict[tuple[str, str], list[Point]]:
    """Returns (kind of codes, how they were made) -> points, by size.

    >>> points(["| trellis2 | speech | 2.35 | 0.8 | 2.43 | 1.79 to 3.26 | +59.7% |"])
    {('trellis', 'speech'): [(2.35, 2.43, 1.79, 3.26)]}
    """
    found: dict[tuple[str, str], dict[str, Point]] = defaultdict(dict)
    for match in (match for text in texts for match in ROW.finditer(text)):
        mb, eer, low, high = (float(match[name]) for name in ("mb", "eer", "low", "high"))
        found[match["kind"], match["made"]].setdefault(match["bits"], (mb, eer, low, high))
    return {key: sorted(series.values()) for key, series in found.items()}


def main(options: argparse.Namespace) -> None:
    """Writes the picture."""
    texts = [path.read_text(encoding="utf-8") for path in options.printouts]
    match = FLOAT.search(texts[0])
    assert match, f"{options.printouts[0]} names no FP32"
    float_mb, eer, low, high = map(float, match.groups())
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(low, high, color="0.9")
    axes.axhline(eer, color="0.4", label=f"FP32, {float_mb:.1f} MB, with its interval")
    for (kind, made), series in sorted(points(texts).items()):
        (codes, color), (line, how) = KINDS[kind], MADE[made]
        sizes, rates, lows, highs = zip(*series, strict=True)
        errors = [[r - x for r, x in zip(rates, lows, strict=True)]]
        errors.append([x - r for r, x in zip(rates, highs, strict=True)])
        axes.errorbar(
            sizes, rates, errors, color=color, linestyle=line, marker="o", markersize=4,
            elinewidth=0.8, capsize=2, label=f"{codes}, {how}",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="file, MB", ylabel="EER, %", title=TITLE)
    for axis, ticks in (
        (axes.xaxis, (1, 1.5, 2, 3, 4, 7)),
        (axes.yaxis, (1, 1.5, 2, 3, 5, 10, 20)),
    ):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_locator(NullLocator())
    axes.grid(color="0.9")
    axes.legend(fontsize="small")
    with atomic(options.out) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
    print(f"wrote {options.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("printouts", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    main(parser.parse_args())
