"""What tests need that run several workers on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = 3600
"""Seconds after which a process hangs: far more than any takes on a busy machine."""
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
)


def cluster() -> list[dict[str, Any]]:
    """TF_CONFIG of two workers on this machine."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}} for i in (0, 1)
    ]


class Run:
    """A process that runs a script beside this file with a job, or Python with arguments."""

    def __init__(
        self, script: str, job: dict[str, Any] | list[str], config: dict[str, Any] | None = None
    ) -> None:
        environment = {
            **os.environ,
            **THREADS,
            "TF_USE_LEGACY_KERAS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        if config:
            environment["TF_CONFIG"] = json.dumps(config)
        arguments = [str(Path(__file__).with_name(script)), json.dumps(job)]
        if isinstance(job, list):
            arguments = [script, *job]
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ends(self, code: int = 0) -> list[dict[str, Any]]:
        """What it printed."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, err
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]
