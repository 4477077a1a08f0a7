"""The knapsack with one choice a layer: least cost within a budget of bytes. NumPy alone.

Costs and sizes are (L, W): what each of W widths costs layer l, and takes. A width that a layer
cannot have costs infinitely much. Written by hand: a mixed-integer solver stops at a gap to the
optimum; bounds and dynamic programming over bytes close it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.int64]

_HALVINGS = 80
_ROUNDS, _PRICES = 5, np.array([1, 0.5, 0.8, 1.25, 2])


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A knapsack whose bytes are not limited but paid for, at the price that keeps the limit.

    Attributes:
        price: cost of a byte.
        bound: no choice within the limit costs less.
        choice: one within the limit.
        regret: (L, W), what each width costs more than the layer's best, bytes paid.
    """

    price: float
    bound: float
    choice: npt.NDArray[np.int64]
    regret: Floats

    @classmethod
    def of(cls, costs: Floats, sizes: Bytes, budget: int) -> "Relaxation | None":
        """Finds the price; None if even the smallest widths are more than the budget."""
        layers = np.arange(len(costs))

        def cheapest(price: float) -> npt.NDArray[np.int64]:
            return np.argmin(costs + price * sizes, axis=1)

        choice = np.argmin(sizes, axis=1)
        if sizes[layers, choice].sum() > budget:
            return None
        low, high = 0.0, 0.0
        if sizes[layers, cheapest(low)].sum() > budget:
            high = float(costs[np.isfinite(costs)].max())  # a byte more than any layer is worth
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                fits = sizes[layers, cheapest(middle)].sum() <= budget
                low, high = (low, middle) if fits else (middle, high)
        found = cheapest(high)
        if sizes[layers, found].sum() <= budget:
            choice = found
        paid = costs + high * sizes
        least = paid.min(1)
        return cls(high, float(least.sum() - high * budget), choice, paid - least[:, None])


def solve(
    costs: Floats,
    sizes: Bytes,
    budget: int,
    relaxed: Relaxation,
    most: float = np.inf,
) -> npt.NDArray[np.int64]:
    """Returns the choice of least cost within the budget; any one if none costs less than `most`.

    A choice costs the bound, and what it loses beside: its regrets, and the price of the bytes that
    it leaves unused. All that lose little are looked through; if one is found, no other is better.
    """
    known = float(costs[np.arange(len(costs)), relaxed.choice].sum())
    rounding = 1e-12 * float(np.abs(costs[np.isfinite(costs)]).max())
    limit = min(known, most) - relaxed.bound + rounding
    for finer in range(_ROUNDS, -1, -1):
        found = _within(costs, sizes, budget, relaxed, relaxed.bound + limit / 4**finer)
        if found is not None:
            return found
    return relaxed.choice


def _within(
    costs: Floats, sizes: Bytes, budget: int, relaxed: Relaxation, most: float
) -> npt.NDArray[np.int64] | None:
    """Returns the choice of least cost within the budget; None if it costs more than `most`.

    Dynamic programming over bytes: layer by layer, a state is a sum of bytes with the least cost
    that reaches it, as long as a bound on the layers to come allows. That bound is the relaxation's
    at several prices: far from the middle another price bounds better (Dyer, 1984).
    """
    order = np.argsort(sizes.min(1), kind="stable")  # small layers first: their sums often meet
    prices = relaxed.price * _PRICES
    paid = np.array([(costs + price * sizes).min(1)[order] for price in prices])
    rest = np.append(np.cumsum(paid[:, ::-1], axis=1)[:, ::-1], np.zeros((len(prices), 1)), axis=1)
    smallest = np.append(np.cumsum(sizes.min(1)[order][::-1])[::-1], 0)
    regretted = most - relaxed.bound
    used, spent = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for done, layer in enumerate(order, start=1):
        columns = np.flatnonzero(relaxed.regret[layer] <= regretted)
        bytes = (sizes[layer, columns][:, None] + used).ravel()
        cost = (costs[layer, columns][:, None] + spent).ravel()
        index = np.flatnonzero(bytes + smallest[done] <= budget)
        for price, least in zip(prices, rest[:, done], strict=True):
            index = index[cost[index] + least - price * (budget - bytes[index]) <= most]
        # Each column's bytes rise already, which this sort makes use of.
        index = index[np.argsort(bytes[index], kind="stable")]
        before = np.minimum.accumulate(np.append(np.inf, cost[index]))[:-1]
        index = index[cost[index] < before]  # more bytes must cost less
        index = index[np.append(np.diff(bytes[index]) > 0, True)[: len(index)]]
        if not index.size:
            return None
        steps.append((index % len(used), columns[index // len(used)]))
        used, spent = bytes[index], cost[index]
    place = int(np.argmin(spent))
    if spent[place] > most:  # the bounds counted bytes that it leaves unused
        return None
    found = np.empty(len(sizes), np.int64)
    for layer, (parent, column) in zip(order[::-1], steps[::-1], strict=True):
        found[layer], place = column[place], parent[place]
    return found
