"""A picture of codebooks: a layer's weights, and the centroids that stand for them."""

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tfq_sv.codebook import Codebook
from tfq_sv.files import atomic


def codebook_figure(
    kernel: npt.NDArray[np.floating],
    books: Mapping[str, Codebook],
    path: str | os.PathLike[str],
    title: str,
) -> None:
    """Draws, for each codebook, the weights' histogram, and how many weights each centroid has.

    Args:
        kernel: the float weights, any shape.
        books: name -> a codebook of such a kernel.
        path: where the PNG goes.
        title: names the layer.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(books), 3.4), layout="constrained")
    grid = figure.subplots(1, len(books), sharey=True, squeeze=False)[0]
    flat = np.asarray(kernel, np.float64).ravel()
    low, high = np.quantile(flat, [0.001, 0.999])
    edges = np.linspace(low, high, 61)
    for axes, (name, book) in zip(grid, books.items(), strict=True):
        axes.hist(flat, edges, color="tab:gray", alpha=0.5, label="float weights")
        counts = np.bincount(book.codes.ravel(), minlength=len(book.centroids))
        shown = counts * (edges[1] - edges[0]) / _widths(book.centroids, edges)
        axes.vlines(book.centroids, 0, shown, color="tab:red", linewidth=1.5, label="centroids")
        axes.plot(book.centroids, shown, "o", color="tab:red", markersize=3)
        axes.set(xlabel="weight", title=f"{name}: {len(book.centroids)} centroids")
        axes.set_xlim(edges[0], edges[-1])
    grid[0].set_ylabel("weights per bin")
    grid[0].legend(fontsize=8)
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _widths(
    centroids: npt.NDArray[np.floating], edges: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """How wide the stretch is whose weights each centroid stands for, within the histogram."""
    between = (centroids[1:] + centroids[:-1]) / 2
    bounds = np.clip([edges[0], *between, edges[-1]], edges[0], edges[-1])
    return np.maximum(np.diff(bounds), edges[1] - edges[0])
