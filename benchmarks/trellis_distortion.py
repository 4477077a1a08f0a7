"""What rounding costs: k-means codebooks and trellis codes, in dB of signal over noise.

    python benchmarks/trellis_distortion.py campplus.keras resnet18-real --plot=docs/trellis.png

Kernels of networks, and random ones of Gaussian and Student's t weights, rounded without
calibration. Noise is relative to a kernel's own power; the mean over kernels is weighted by their
sizes. Kernels that cannot have a trellis are left out. "Bound" is a Gaussian's rate-distortion
function, 6.02 dB a bit, which no code for such weights exceeds. `--plot` draws the bits that each
weight comes from, and the figures of the first network.
"""

import argparse

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tfq_sv import codebook
from tfq_sv.files import atomic
from tfq_sv.quantization import trellis
from tfq_sv.reports.table import Table

BITS = (0.5, 1, 2, 4)
METHODS = ("k-means", "k-means, channel scales", "trellis")
Kernels = list[npt.NDArray[np.float32]]


def main(options: argparse.Namespace) -> None:
    """Prints a table per network, and draws."""
    sources = {name: kernels(name) for name in options.networks}
    found = {}
    sources |= {"Gaussian": random_kernels(np.inf), "Student's t, 5 degrees": random_kernels(5)}
    for name, matrices in sources.items():
        sizes = np.array([matrix.size for matrix in matrices])
        noises = {
            (bits, method): np.array([noise(matrix, bits, method) for matrix in matrices])
            for bits in BITS
            for method in METHODS
            if bits >= 1 or method == "trellis"
        }
        found[name] = {key: decibels(x @ sizes / sizes.sum()) for key, x in noises.items()}
        rows = []
        for bits in BITS:
            row = [f"{bits:g}"]
            for method in METHODS:
                own = noises.get((bits, method))
                mean = f"{found[name][bits, method]:.2f}" if own is not None else ""
                row += [mean, "" if own is None else f"{decibels(own.max()):.2f}"]
            rows.append([*row, f"{bound(bits):.2f}"])
        print(f"\n{name}: {len(matrices)} kernels, {sizes.sum():,} weights; dB, all and the worst")
        heads = ["k-means", "worst", "channel scales", "worst", "trellis", "worst"]
        print(Table(["bits", *heads, "bound"], rows), flush=True)
    if options.plot:
        draw(found[options.networks[0]], options.plot)


def kernels(name: str) -> Kernels:
    """Returns a network's kernels that can have a trellis, as (channels, inputs)."""
    from tfq_sv.cli.common import load_network
    from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
    from tfq_sv.quantization.trellis_quantizer import fits

    layers = quantizable(load_network(name)).values()
    own = [layer for layer in layers if all(fits(layer, bits) for bits in BITS)]
    return [trellis.as_matrix(getattr(x, str(kernel_attribute(x))).numpy()) for x in own]


def random_kernels(degrees: float) -> Kernels:
    """Returns kernels of Student's t weights; of Gaussian ones, if the degrees are infinite."""
    rng, shape = np.random.default_rng(0), (8, 128, 512)
    gaussian = np.isinf(degrees)
    return list(rng.normal(size=shape) if gaussian else rng.standard_t(degrees, shape))


def noise(kernel: npt.NDArray[np.floating], bits: float, method: str) -> float:
    """Returns a rounded kernel's noise, relative to its power."""
    if method == "trellis":
        codes, scales = trellis.fit(kernel, bits)
        rounded = trellis.decode(codes, trellis.table(bits)) * scales
    else:
        per_channel = method == "k-means, channel scales"
        power = np.mean(kernel**2, axis=1, keepdims=True) if per_channel else np.float64(1)
        scales = np.sqrt(np.where(power > 0, power, 1))
        centroids = codebook.fit_on_grid(kernel / scales, int(bits))
        rounded = centroids[codebook.assign(kernel / scales, centroids)] * scales
    return float(np.sum((kernel - rounded) ** 2) / np.sum(kernel**2))


def decibels(relative: float) -> float:
    """Signal over noise."""
    return float(-10 * np.log10(relative))


def bound(bits: float) -> float:
    """A Gaussian's, dB."""
    return float(20 * bits * np.log10(2))


def draw(found: dict[tuple[float, str], float], path: str) -> None:
    """The picture of docs/method.md."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    draw_word(left)
    for method, form in zip(METHODS, ("o-", "s--", "D-"), strict=True):
        widths = [bits for bits in BITS if (bits, method) in found]
        right.plot(widths, [found[bits, method] for bits in widths], form, label=method)
    right.plot(BITS, [bound(bits) for bits in BITS], ":", color="gray", label="bound (Gaussian)")
    right.set(xlabel="bits per weight", ylabel="signal over rounding noise, dB", xticks=BITS)
    right.set_xticklabels([f"{bits:g}" for bits in BITS])
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    right.set_title("The kernels of a network", fontsize=10)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def draw_word(axes: Axes) -> None:
    """Two bytes of a column, and the windows that four weights of 2 bits are read by."""
    bits = 0b1101_1000_0000_0111
    rows = trellis.rows(np.arange(1024)[:, None])[bits]
    for place in range(16):
        x, byte = 15 - place, place // 8
        color = ("#dbe9f6", "#fde5cd")[byte]
        axes.add_patch(_box(x, 0, 1, color))
        axes.text(
            x + 0.5, 0.5, str(bits >> place & 1), ha="center", va="center", family="monospace"
        )
    axes.text(4, 1.25, "channel c: its own byte, 4 weights", ha="center", fontsize=9)
    axes.text(12, 1.25, "channel c - 1: shared", ha="center", fontsize=9)
    for number, index in enumerate(rows):
        low, y = 2 * number, -0.9 - 0.85 * number
        x = 16 - low - 10
        axes.add_patch(_box(x, y, 10, f"C{number}", height=0.55, alpha=0.35))
        text = f"weight {number + 1}: 10 bits = {index}, one of 1,024 entries"
        axes.text(x + 5, y + 0.27, text, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.3, 16.3), ylim=(-3.8, 2))
    axes.set_axis_off()
    axes.set_title("2 bits per weight: each window moves on by 2 bits", fontsize=10)


def _box(
    x: float, y: float, width: float, color: str, height: float = 1, alpha: float = 1
) -> Rectangle:
    return Rectangle((x, y), width, height, facecolor=color, edgecolor="black", alpha=alpha)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", help="paths, or names of shipped networks")
    parser.add_argument("--plot", help="where the picture goes (.png)")
    main(parser.parse_args())
