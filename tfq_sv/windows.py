"""Long speech is embedded in windows: the mean of the windows' embeddings stands for all of it.

The rule, which `export/FORMAT.md` states for every language: while more than 60 s are left, the
first 40 s of these are a window; what is left then, 20 to 60 s, is the last window. So speech of up
to 60 s is one window, itself. Windows that are a constant (digital silence) are left out. The mean
is that of the embeddings as the network gives them, without length normalization.
`tests/data/windows.json` has borders for all readers to agree on.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

WHOLE_SECONDS, WINDOW_SECONDS = 60, 40
CONSTANT = 2.0**-15
"""The range of a constant, at most: a step of int16."""

Floats = npt.NDArray[np.float32]


def borders(length: int, rate: int) -> list[tuple[int, int]]:
    """Returns where the windows of speech begin and end.

    Args:
        length: how many samples, or frames of features.
        rate: how many of them per second.

    >>> borders(60, rate=1), borders(61, rate=1), borders(120, rate=1)
    ([(0, 60)], [(0, 40), (40, 61)], [(0, 40), (40, 80), (80, 120)])
    """
    found, start = [], 0
    while length - start > WHOLE_SECONDS * rate:
        found.append((start, start + WINDOW_SECONDS * rate))
        start += WINDOW_SECONDS * rate
    return [*found, (start, length)]


def embed(network: Callable[[Floats], Floats], values: Floats, rate: int) -> Floats:
    """Embeds speech of any length; warns (UserWarning) where it takes windows.

    Args:
        network: embeds one window.
        values: samples (N,), or features (T, F).
        rate: samples or frames per second.

    Returns:
        float32 (embed_dim,).

    >>> embed(lambda window: window[:1], np.arange(100, dtype="float32"), rate=1)
    array([20.], dtype=float32)
    """
    places = borders(len(values), rate)
    if len(places) == 1:
        return network(values)
    seconds, taken = len(values) / rate, f"{len(places)} windows, whose mean is taken"
    warnings.warn(f"{seconds:.1f} s of speech are embedded in {taken}", UserWarning, stacklevel=3)
    parts = [values[first:last] for first, last in places]
    parts = [part for part in parts if not is_constant(part)] or parts[:1]
    return mean([network(part) for part in parts])


def mean(embeddings: list[Floats]) -> Floats:
    """Returns the mean of windows' embeddings, float32 (embed_dim,)."""
    if len(embeddings) == 1:
        return embeddings[0]
    found = np.stack(embeddings).mean(axis=0, dtype=np.float64)
    return np.asarray(found, np.float32)


def is_constant(window: npt.NDArray[Any]) -> bool:
    """Whether a window holds nothing but digital silence, or a constant."""
    return float(window.max()) - float(window.min()) <= CONSTANT


class Splitter:
    """The windows of speech that comes in blocks; it holds a minute and a block at most.

    >>> splitter = Splitter(rate=1)
    >>> [len(part) for part in splitter.add(np.zeros(130, np.float32))]
    [40, 40]
    >>> len(splitter.end())
    50
    """

    def __init__(self, rate: int) -> None:
        self._rate, self._blocks, self._length = rate, list[Floats](), 0

    def add(self, block: Floats) -> Iterator[Floats]:
        """Takes the next samples (N,); yields the windows that are complete by now."""
        self._blocks.append(block)
        self._length += len(block)
        if self._length > WHOLE_SECONDS * self._rate:
            samples = np.concatenate(self._blocks)
            *whole, (start, _) = borders(len(samples), self._rate)
            self._blocks, self._length = [samples[start:].copy()], len(samples) - start
            yield from (samples[first:last] for first, last in whole)

    def end(self) -> Floats:
        """Returns the last window."""
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.float32)
