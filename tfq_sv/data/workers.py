"""Jobs done by several processes, which may be interrupted or killed."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tfq_sv.errors import InputError

_JOBS = 100
"""Jobs of a worker before it makes way for a new one."""


def done_by(workers: int, work: Callable[[Any], None], jobs: Sequence[Any]) -> Iterator[None]:
    """Does the jobs in this process, or in several; yields after each, in any order.

    Args:
        workers: how many processes.
        work: a function that can be pickled; it may leave memory behind.
        jobs: what it is called with.

    Raises:
        InputError: the system killed a worker.

    >>> found = []
    >>> for _ in done_by(1, found.append, "ab"):
    ...     print(found)
    ['a']
    ['a', 'b']
    """
    if workers == 1 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    # Spawned, because a fork of a process with TensorFlow's threads can hang. The pool's own
    # max_tasks_per_child can hang too (CPython issue 115634).
    context = multiprocessing.get_context("spawn")
    for start in range(0, len(jobs), workers * _JOBS):
        some = jobs[start : start + workers * _JOBS]
        size = min(workers, len(some))
        with ProcessPoolExecutor(size, context, _ignore_interrupts) as pool:
            running = [pool.submit(work, job) for job in some]
            try:
                for done in as_completed(running):
                    yield done.result()
            except BrokenProcessPool:
                raise InputError(
                    "a worker was killed, perhaps as memory ran out; run the command again, which "
                    f"resumes, with fewer --workers than {workers}"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches the workers, too; the parent ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
