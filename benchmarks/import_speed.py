"""How long a WeSpeaker checkpoint takes to import, and how much memory: one network a run.

    python benchmarks/import_speed.py ResNet293

Makes a checkpoint of random weights first, in a process of its own.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def make(name: str, path: Path) -> None:
    import numpy as np
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from checkpoints import state_like

    import tfq_sv

    state = {**state_like(tfq_sv.models.build(name)), "projection.weight": np.zeros((17982, 256))}
    torch.save({key: torch.from_numpy(np.float32(value)) for key, value in state.items()}, path)


def measure(name: str, path: Path) -> None:
    import tfq_sv

    start = time.perf_counter()
    tfq_sv.models.build(name)
    built = time.perf_counter()
    tfq_sv.models.load_wespeaker(path)
    loaded = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # ru_maxrss is in KB on Linux
    print(f"{name}: build {built - start:.1f} s, import {loaded - built:.1f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        {"make": make, "measure": measure}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    for network in sys.argv[1:] if len(sys.argv) != 4 else []:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("make", "measure"):
                subprocess.run(
                    [sys.executable, __file__, step, network, f"{folder}/avg_model.pt"], check=True
                )
