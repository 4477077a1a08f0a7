"""Signals by formula, as tests/data/speech_check.json describes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def signal(parts: Sequence[dict[str, Any]]) -> np.ndarray:
    """float32 (N,) at 16 kHz."""
    lengths = [round(16000 * part["seconds"]) for part in parts]
    n = np.arange(sum(lengths))
    random, state = np.empty(len(n)), 1
    for i in range(len(n)):
        state = (1664525 * state + 1013904223) % 2**32
        random[i] = 2 * state / 2**32 - 1
    values, start = np.zeros(len(n)), 0
    for part, length in zip(parts, lengths, strict=True):
        here = slice(start, start + length)
        for hertz, amplitude in part.get("sines", ()):
            values[here] += amplitude * np.sin(2 * np.pi * hertz * n[here] / 16000)
        values[here] += part.get("noise", 0) * random[here] + part.get("offset", 0)
        start += length
    return np.clip(values, -1, 1).astype(np.float32)
