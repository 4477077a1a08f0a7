"""Trellis codes that keep a layer's output: `gptq.reconstruct` for trellises. NumPy."""

import numpy as np
import numpy.typing as npt

from tfq_sv.quantization import trellis
from tfq_sv.quantization.gptq import DAMPING, error_spread

Array = npt.NDArray[np.float64]


def reconstruct(
    kernel: Array, gram: Array, bits: float, *, per_channel: bool = True, damping: float = DAMPING
) -> tuple[trellis.Bytes, trellis.Floats]:
    """Returns codes and scales, whose output on the gram's inputs is near the kernel's.

    The columns of codes are found one after the other (first: the strongest inputs). What a column
    errs by is spread over the inputs that are left, as least squares has it; within a column, the
    search does so along each path that it follows. At last each channel's scale is fitted to its
    output.

    Args:
        kernel: (K, O): K inputs and O outputs, K a multiple of `trellis.block(bits)`.
        gram: (K, K), the inputs' second moments E[x x^T], finite.
        bits: see `trellis.WIDTHS`.
        per_channel: False for scales that are all equal.
        damping: as in `gptq.reconstruct`.

    Returns:
        uint8 (O, K * bits / 8), float32 (O, 1), as `trellis.fit`.

    Source: Frantar et al., GPTQ, ICLR 2023; in blocks with a trellis as in QTIP, Tseng et al.,
    NeurIPS 2024.

    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 32))
    >>> kernel, gram = rng.normal(size=(32, 64)), inputs.T @ inputs / 500
    >>> def error(codes, scales):
    ...     rounded = (trellis.decode(codes, trellis.table(2)) * scales).T
    ...     return np.sum(np.square(inputs @ (kernel - rounded)))
    >>> bool(error(*reconstruct(kernel, gram, 2)) < 0.2 * error(*trellis.fit(kernel.T, 2)))
    True
    """
    table, width = trellis.table(bits), trellis.block(bits)
    rows = trellis.rows(table)
    codes, scales = trellis.fit(kernel.T, bits, per_channel=per_channel)
    strength = np.diagonal(gram).reshape(-1, width).sum(axis=1)
    columns = np.argsort(-strength, kind="stable")
    order = (columns[:, None] * width + np.arange(width)).ravel()
    (spread,) = error_spread(gram[np.ix_(order, order)][None], damping)
    left = (kernel.T / scales)[:, order]
    values = np.empty(left.shape, np.float32)
    codes = np.empty_like(codes)
    for column, start in zip(columns, range(0, len(gram), width), strict=True):
        own, later = slice(start, start + width), slice(start + width, None)
        diagonal = np.diagonal(spread)[own]
        coupling = (spread[own, own] / diagonal[:, None]).T
        importance = np.square(diagonal.min() / diagonal)
        found = trellis.encode(left[:, own], table, np.tril(coupling, -1), importance)
        codes[:, column] = found[:, 0]
        values[:, own] = rows[trellis.words(found)[:, 0]]
        # What is left of weight j is less what coupling says of the errors before it: solved at
        # once, coupling has a diagonal of ones.
        errors = np.linalg.solve(coupling, (left[:, own] - values[:, own]).T).T
        left[:, later] -= errors / diagonal @ spread[own, later]
    back = np.empty_like(values)
    back[:, order] = values
    return codes, _output_scales(kernel.T, back.astype(np.float64), gram, scales, per_channel)


def _output_scales(
    kernel: Array, values: Array, gram: Array, scales: trellis.Floats, per_channel: bool
) -> trellis.Floats:
    """The scales with the least output error for values; where these say nothing, those given."""
    outputs = values @ gram
    power = np.sum(outputs * values, axis=1, keepdims=True)
    product = np.sum(outputs * kernel, axis=1, keepdims=True)
    if not per_channel:
        power, product = (np.full_like(sums, sums.sum()) for sums in (power, product))
    found = product / np.where(power > 0, power, 1)
    return np.where(found > 0, found, scales).astype(np.float32)
