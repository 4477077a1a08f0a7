"""Ctrl-C between two steps, so that a state is saved that no step has half changed."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed; a second time it ends at once.

    Other threads than the main one take no signals, and of several workers one must not stop
    alone: there nothing changes.

    >>> with deferred() as interrupted:  # Ctrl-C would make it True
    ...     interrupted()
    False
    """
    pressed = threading.Event()
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    main = threading.current_thread() is threading.main_thread()
    if not (default and main) or os.environ.get("TF_CONFIG"):
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
