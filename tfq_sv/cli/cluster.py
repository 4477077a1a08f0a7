"""What commands share that train on several devices or machines."""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")


def on_all_devices(work: Callable[[Any], Result]) -> Result:
    """Returns what `work` makes of this process's strategy; restarts when a worker was lost."""
    from tfq_sv.training import devices

    try:
        return work(devices.find_strategy())
    except devices.LOST as error:
        if not os.environ.get("TF_CONFIG"):
            raise
        print(f"a worker was lost ({type(error).__name__}); waiting for it", file=sys.stderr)
        _start_again()


def _start_again() -> NoReturn:
    """Replaces this process by a new one: TensorFlow cannot join a cluster twice."""
    sys.stdout.flush()
    # Where errors go again, which the command line had pointed away from the native log.
    os.dup2(sys.stderr.fileno(), 2)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
