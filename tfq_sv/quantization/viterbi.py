"""The search for the best path through a trellis of bytes, compiled by numba."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_STATES = 256
_TAIL = 8
"""Rows on either side of the first that settle which byte closes a column. A word spans two."""


@numba.njit(cache=True)
def closed_paths(columns: Floats, tables: Floats, coupling: Floats, importance: Floats) -> Any:
    """Returns the closed path of each column with the least error.

    The byte of the last row, from which the first row starts, is that of the best open path around
    it; the path is the best of those through this byte.

    Args:
        columns: (C, T, W): C columns of T rows; a byte holds W weights.
        tables: (V, B, B, 256 / B): value v of a window, by the oldest code of the window, the
            newest, and what is between.
        coupling: (W, W). Weight j of a row is to be its target less the sum of coupling[j, i] times
            what weight i < j of that row is wrong by.
        importance: (W,): what a squared error counts.

    Returns:
        uint8 (C, T).
    """
    count, length, _ = columns.shape
    tail = min(_TAIL, length)
    codes = np.empty((count, length), np.uint8)
    for column in range(count):
        around = np.concatenate((columns[column, length - tail :], columns[column, :tail]))
        last = path(around, tables, coupling, importance, -1)[tail - 1]
        codes[column] = path(columns[column], tables, coupling, importance, last)
    return codes


@numba.njit(cache=True)
def path(targets: Floats, tables: Floats, coupling: Floats, importance: Floats, last: int) -> Any:
    """Returns the best path of one column: uint8 (T,).

    Args:
        targets: (T, W).
        tables: as in `closed_paths`.
        coupling: as in `closed_paths`.
        importance: as in `closed_paths`.
        last: the byte before the first row, and of the last row; -1 for any.
    """
    length, width = targets.shape
    values, branches, _, between = tables.shape
    cells, pair, coupled = width // values, values == 2, np.any(coupling)
    # A state is the last 8 bits: newest code * between + what is between, or, as the next code
    # drops the oldest, what is between * branches + oldest code.
    total = np.zeros((branches, between), np.float32)
    if last >= 0:
        total[:] = np.inf
        total[last // between, last % between] = 0
    before = np.empty((branches, between), np.float32)
    goals = np.empty((values, branches, between), np.float32)
    errors = np.zeros((width, branches, between), np.float32)  # by oldest code, as goals
    oldest = np.zeros((length, cells, branches, between), np.int32)
    for row in range(length):
        for cell in range(cells):
            first, survivor = cell * values, oldest[row, cell]
            _by_oldest(total, before)
            for value in range(values):
                goals[value] = targets[row, first + value]
                for earlier in range(first if coupled else 0):
                    goals[value] -= coupling[first + value, earlier] * errors[earlier]
            factor = coupling[first + values - 1, first]
            total[:] = np.inf
            for low in range(branches):
                for code in range(branches):
                    for i in range(between):
                        error = goals[0, low, i] - tables[0, low, code, i]
                        cost = before[low, i] + importance[first] * error * error
                        if pair:
                            second = goals[1, low, i] - factor * error - tables[1, low, code, i]
                            cost += importance[first + 1] * second * second
                        lower = cost < total[code, i]
                        survivor[code, i] = low if lower else survivor[code, i]
                        total[code, i] = cost if lower else total[code, i]
            if coupled and cell < cells - 1:
                _carry_errors(errors, goals, tables, factor, survivor, first)
        total -= total.min()
    state = last if last >= 0 else np.argmin(total)
    codes = np.empty(length, np.uint8)
    for row in range(length - 1, -1, -1):
        codes[row] = state
        for cell in range(cells - 1, -1, -1):
            code, i = state // between, state % between
            state = i * branches + oldest[row, cell, code, i]
    return codes


@numba.njit(cache=True)
def _by_oldest(states: Floats, output: Floats) -> None:
    """(newest code, rest) -> (oldest code, rest)."""
    branches, between = output.shape
    flat = states.reshape(_STATES)
    for low in range(branches):
        for i in range(between):
            output[low, i] = flat[i * branches + low]


@numba.njit(cache=True)
def _carry_errors(
    errors: Floats, goals: Floats, tables: Floats, factor: float, survivor: Any, first: int
) -> None:
    """Moves the errors of this row's weights on to the states that survive with them."""
    values, branches, _, between = tables.shape
    moved = np.empty((first + values, branches, between), np.float32)
    for code in range(branches):
        for i in range(between):
            low = survivor[code, i]
            for earlier in range(first):
                moved[earlier, code, i] = errors[earlier, low, i]
            error = goals[0, low, i] - tables[0, low, code, i]
            moved[first, code, i] = error
            if values == 2:
                second = goals[1, low, i] - factor * error - tables[1, low, code, i]
                moved[first + 1, code, i] = second
    for earlier in range(first + values):
        _by_oldest(moved[earlier], errors[earlier])
