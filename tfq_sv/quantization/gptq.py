"""Codes that keep a layer's output, not its weights: rounding errors cancel out (GPTQ). NumPy.

A layer that sums `kernel[k] * x[k]` over its inputs k errs by the squared size of
`sum_k error[k] * x[k]`. With the inputs' second moments (the gram matrix) that error is known for
any choice of codes, and what rounding one weight does can be made up for by those that follow.
"""

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from tfq_sv.codebook import snap

Array = npt.NDArray[np.float64]

DAMPING = 0.01  # of the mean of the gram's diagonal, as in GPTQ
_BLOCK = 128
_RIDGE = 0.1  # of the mean of the gram's diagonal: a minute of speech is not all speech
_TURNS = 10
_FEW = 4  # centroids, 1 and 2 bits: latent weights stand where the kernel says
_FITTED = 8  # centroids, up to 3 bits, that are worth fitting to a layer's output


def reconstruct(
    kernel: Array, gram: Array, centroids: npt.NDArray[np.float32], *, damping: float = DAMPING
) -> Array:
    """Returns a kernel on the centroids, whose output on the gram's inputs is near the kernel's.

    Inputs are rounded to centroids one after the other, the strongest first; each one's error is
    spread over those that are left, in the way that least squares has it.

    Args:
        kernel: (G, K, O): G groups of K inputs and O outputs. Plain layers have one group, a
            depthwise convolution has one per channel.
        gram: (G, K, K), the inputs' second moments E[x x^T], finite.
        centroids: sorted.
        damping: share of the mean of the gram's diagonal that is added to it. With more, errors
            are spread less: for a gram whose correlations are not those of the inputs to come.

    Returns:
        Float64 (G, K, O); every value is one of the centroids.

    Source: Frantar et al., GPTQ, ICLR 2023, with a codebook in the grid's place as in CLAQ (Wang
    et al., 2024).

    >>> x = np.array([[1.0, 0.9], [0.9, 1.0]])  # two inputs that nearly say the same
    >>> reconstruct(np.full([1, 2, 1], 0.4), x[None], np.float32([0, 1])).ravel().tolist()
    [0.0, 1.0]
    """
    return _Rounding(gram, damping)(kernel, centroids)


def fit_to_output(
    kernel: Array, gram: Array, centroids: npt.NDArray[np.float32], *, damping: float = DAMPING
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Returns a kernel on centroids, and these, fitted to the layer's output in alternation.

    Codes as in `reconstruct`; then centroids by least squares, for these codes, on the int8 grid;
    then codes again, as long as the output's error falls.

    Args:
        kernel: (G, K, O), as in `reconstruct`.
        gram: (G, K, K), as in `reconstruct`.
        centroids: to start from, sorted. More than 8 of them stay: there is nothing to win.
        damping: as in `reconstruct`.

    Returns:
        Float64 (G, K, O), and sorted float32 centroids that its values are on.

    >>> kernel, gram = np.array([[[0.0], [0.2], [1.0]]]), np.eye(3)[None]
    >>> rounded, centroids = fit_to_output(kernel, gram, np.float32([0, 1]))
    >>> centroids.round(2)
    array([0.1, 1. ], dtype=float32)
    """
    rounding = _Rounding(gram, damping)
    best = rounding(kernel, centroids)
    error = output_error(kernel, best, gram)
    for _ in range(_TURNS if centroids.size <= _FITTED else 0):
        moved = snap(np.sort(_least_squares(kernel, gram, best, centroids)))
        rounded = rounding(kernel, moved)
        found = output_error(kernel, rounded, gram)
        if found >= error:
            break
        best, centroids, error = rounded, moved, found
    return best, centroids


def compensated_kernel(
    kernel: Array, gram: Array, cross: Array, *, damping: float = DAMPING
) -> Array:
    """Returns the kernel that makes up best for what went wrong in the layers before.

    Of its own inputs x it makes, by least squares, what `kernel` makes of the float network's
    inputs y. Where the inputs do not say enough for that, it stays as it was.

    Args:
        kernel: (G, K, O), as in `reconstruct`.
        gram: E[x x^T], (G, K, K).
        cross: E[x (y - x)^T], (G, K, K).

    Source: Li et al., GPTAQ, ICML 2025, with a ridge.

    >>> x = np.array([[[2.0]]])  # twice what the float network has
    >>> compensated_kernel(np.array([[[1.0]]]), x * x, x * (1 - x)).round(2).item()
    0.55
    """
    ridge = _RIDGE * np.einsum("gkk->g", gram) / gram.shape[1] + 1e-12
    damped = gram + ridge[:, None, None] * np.eye(gram.shape[1])
    return kernel + np.linalg.solve(damped, cross @ kernel)


def latent_weights(
    kernel: Array, rounded: Array, centroids: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Returns weights that have the codes of `rounded`, and keep them in fine-tuning's first steps.

    Where rounding chose another code than the nearest, the weight nearest to the kernel would stand
    a hair's breadth from a midpoint, and the first steps would undo the choice. At 1 and 2 bits it
    is mirrored at that midpoint. With more bits, midpoints are so near to all weights that all go
    half the way to their centroids; with fewer, that is too far to come back from.

    Args:
        kernel: any shape.
        rounded: values on the centroids, the kernel's shape.
        centroids: sorted.

    >>> kernel, rounded = np.array([0.4, 0.4, 1.2]), np.array([0.0, 1.0, 0.0])
    >>> latent_weights(kernel, rounded, np.float32([0, 1])).round(2)
    array([ 0.4 ,  0.61, -0.21], dtype=float32)
    >>> latent_weights(kernel, rounded, np.arange(8, dtype=np.float32)).round(2)
    array([0.2 , 0.75, 0.25], dtype=float32)
    """
    table = np.asarray(centroids, np.float64)
    # A hundredth of the way inside, which no rounding crosses.
    inside = np.diff(table) / 200
    middles = (table[1:] + table[:-1]) / 2
    codes = np.searchsorted(middles, rounded)
    low = np.concatenate([[-np.inf], middles + inside])[codes]
    high = np.concatenate([middles - inside, [np.inf]])[codes]
    near = np.clip(kernel, low, high)  # the kernel itself where it has the code
    if table.size > _FEW:
        return ((near + table[codes]) / 2).astype(np.float32)
    return np.clip(2 * near - kernel, low, high).astype(np.float32)


def output_error(kernel: Array, rounded: Array, gram: Array) -> float:
    """Returns the squared error of the layer's output, summed over outputs.

    >>> output_error(np.ones([1, 1, 1]), np.zeros([1, 1, 1]), np.full([1, 1, 1], 4.0))
    4.0
    """
    difference = kernel - rounded
    return float(np.einsum("gko,gkj,gjo->", difference, gram, difference, optimize=True))


class _Rounding:
    """`reconstruct` for one gram matrix and any centroids."""

    def __init__(self, gram: Array, damping: float) -> None:
        self._order = np.argsort(-np.einsum("gkk->gk", gram), axis=1, kind="stable")
        moments = np.take_along_axis(gram, self._order[:, :, None], axis=1)
        moments = np.take_along_axis(moments, self._order[:, None, :], axis=2)
        self._spread = error_spread(moments, damping)

    def __call__(self, kernel: Array, centroids: npt.NDArray[np.float32]) -> Array:
        table = np.asarray(centroids, np.float64)
        midpoints = (table[1:] + table[:-1]) / 2
        spread, inputs = self._spread, kernel.shape[1]
        left = np.take_along_axis(kernel, self._order[:, :, None], axis=1)
        rounded = np.empty_like(left)
        for start in range(0, inputs, _BLOCK):
            stop = min(start + _BLOCK, inputs)
            errors = np.empty_like(left[:, start:stop])
            for k in range(start, stop):
                weight = left[:, k]
                rounded[:, k] = table[np.searchsorted(midpoints, weight)]
                error = (weight - rounded[:, k]) / spread[:, k, k, None]
                left[:, k + 1 : stop] -= spread[:, k, k + 1 : stop, None] * error[:, None]
                errors[:, k - start] = error
            # The rest of the inputs hear of a whole block at once, in one matrix product.
            left[:, stop:] -= spread[:, start:stop, stop:].transpose(0, 2, 1) @ errors
        result = np.empty_like(rounded)
        np.put_along_axis(result, self._order[:, :, None], rounded, axis=1)
        return result


def _least_squares(
    kernel: Array, gram: Array, rounded: Array, centroids: npt.NDArray[np.float32]
) -> Array:
    """The centroids with the least output error, for the codes that `rounded` has."""
    codes = np.searchsorted(centroids, rounded.astype(np.float32))
    chosen = [(codes == k).astype(np.float64) for k in range(centroids.size)]
    outputs = [gram @ each for each in chosen]
    products = np.array([[np.vdot(each, output) for output in outputs] for each in chosen])
    wanted = np.array([np.vdot(output, kernel) for output in outputs])
    # Where nothing says otherwise, as with a centroid that no weight has, or inputs that are all
    # zero, they stay.
    ridge = max(1e-6 * np.trace(products) / centroids.size, 1e-30)
    stay = ridge * np.eye(centroids.size)
    return np.linalg.solve(products + stay, wanted + ridge * centroids)


def error_spread(moments: Array, damping: float) -> Array:
    """Returns the upper Cholesky factor of the damped gram's inverse, (G, K, K) both."""
    diagonal = np.einsum("gkk->gk", moments)
    added = damping * diagonal.mean(axis=1) + 1e-12
    damped = moments + added[:, None, None] * np.eye(moments.shape[1])
    # From the last input to the first, damped = upper @ upper.T; the factor is upper's inverse,
    # which needs no inverse of the whole.
    upper = np.linalg.cholesky(damped[:, ::-1, ::-1])[:, ::-1, ::-1]
    return np.stack([lapack.dtrtri(each)[0] for each in upper])
