"""An encoder and a verifier under load: `python benchmarks/load.py --clips=20000 --soak=3600`.

Clips of noise, 0.3 to 3 s, are embedded one by one, from 8 threads that share one encoder, and in 4
processes that start on an empty cache of inflated files; and verified from 8 threads while others
come and go. Every answer must be that of one by one, bit for bit. The soak opens, embeds,
identifies, enrolls, saves and loads for so many seconds, with `--pause` seconds between rounds;
memory (RSS, and Python's by tracemalloc) must not grow after the first tenth. `--network` takes a
`.tflite` file.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import tfq_sv
from tfq_sv.export import SpeakerEncoder
from tfq_sv.verification import decision

FILE = Path(__file__).parents[1] / "tests/data/today/file.tflite"
THREADS, PROCESSES = 8, 4
KINDS = ("one by one", "8 threads", "4 processes", "8 threads, verifier")
GROWTH = 8.0  # MB, of pages that allocators keep


def main(clips: int, soak: float, network: Path = FILE, pause: float = 0.0) -> bool:
    """Returns whether every answer was right and memory stayed."""
    fine = not clips or _load(clips, network)
    return _soak(soak, network, pause) and fine if soak else fine


def _load(clips: int, network: Path) -> bool:
    """Returns whether every answer was that of one by one."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = place
        print(
            "| how | clips | wrong | s | MB at a tenth | MB at the end |\n|---|---|---|---|---|---|"
        )
        encoder = SpeakerEncoder(network, check_speech=False)
        wanted, fine = np.zeros((clips, encoder.about["embed_dim"]), np.float32), True

        def keep(number: int) -> bool:
            wanted[number] = encoder.embed(clip(number))
            return True

        fine &= _row(KINDS[0], clips, lambda: map(keep, range(clips)))
        with ThreadPoolExecutor(THREADS) as pool:

            def same(number: int) -> bool:
                return np.array_equal(encoder.embed(clip(number)), wanted[number])

            fine &= _row(KINDS[1], clips, lambda: pool.map(same, range(clips)))
        fine &= _row(KINDS[2], clips, lambda: _processes(clips, wanted, network, place))
        fine &= _row(KINDS[3], clips, lambda: _verified(clips, wanted, network))
    return fine


@contextmanager
def own_cache() -> Iterator[str]:
    """Keeps inflated files in a folder of their own."""
    with tempfile.TemporaryDirectory() as place, patch.dict(os.environ, XDG_CACHE_HOME=place):
        yield place


def clip(number: int) -> Any:
    """A clip, float32 (N,): the same for the same number."""
    rng = np.random.default_rng(number)
    size = int(rng.integers(4800, 48000))
    return (rng.uniform(0.01, 0.3) * rng.standard_normal(size, np.float32)).clip(-1, 1)


def _row(kind: str, clips: int, run: Callable[[], Any]) -> bool:
    """Runs, prints and returns whether all was right."""
    began, early, right = time.perf_counter(), 0.0, 0
    for done, good in enumerate(run(), start=1):
        right += bool(good)
        if done == max(1, clips // 10):
            early = rss()
    seconds = time.perf_counter() - began
    print(f"| {kind} | {clips:,} | {clips - right} | {seconds:.0f} ", end="")
    print(f"| {early:.0f} | {rss():.0f} |", flush=True)
    return right == clips


def _processes(clips: int, wanted: Any, network: Path, place: str) -> Any:
    for path in Path(place, "tfq-sv").iterdir():  # all four inflate, and keep it
        path.unlink()
    context = multiprocessing.get_context("spawn")
    shares = [range(first, clips, PROCESSES) for first in range(PROCESSES)]
    with context.Pool(PROCESSES) as pool:
        answers = pool.starmap(_share, [(share, network) for share in shares])
        for share, (found, early, end) in zip(shares, answers, strict=True):
            yield from (np.array_equal(x, wanted[n]) for n, x in zip(share, found, strict=True))
            if end - early > GROWTH:
                raise SystemExit(f"a process grew from {early:.0f} to {end:.0f} MB")
    (kept,) = Path(place, "tfq-sv").iterdir()
    assert kept.read_bytes() == tfq_sv.export.inflate(network)


def _share(numbers: range, network: Path) -> tuple[Any, float, float]:
    """What a process answers; MB at a tenth of it and at the end, answers aside."""
    encoder = SpeakerEncoder(network, check_speech=False)
    found = np.zeros((len(numbers), encoder.about["embed_dim"]), np.float32)
    early = 0.0
    for row, number in enumerate(numbers):
        found[row] = encoder.embed(clip(number))
        if row == len(numbers) // 10:
            early = rss()
    return found, early, rss()


def _verified(clips: int, wanted: Any, network: Path) -> Any:
    """Verifies clips against one speaker while others are enrolled and forgotten."""
    verifier = tfq_sv.SpeakerVerifier(network)
    verifier.enroll("ann", [clip(0), clip(1)], check=False)
    references = np.array([decision.unit(one) for one in wanted[:2]])

    def verify(number: int) -> bool:
        if number % 10 == 0:
            verifier.enroll(f"guest {number}", [clip(number)], check=False)
            return verifier.remove(f"guest {number}") and "ann" in verifier.names
        found = verifier.verify("ann", clip(number), 0.5).score
        return found == decision.score(references, decision.unit(wanted[number]))

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(verify, range(clips))


def _soak(seconds: float, network: Path, pause: float) -> bool:
    """Does everything again and again; prints memory ten times, and whether it grew."""
    print(f"\nsoak of {seconds:.0f} s on {network.name}, {pause:g} s between rounds of 3 clips")
    print("\n| s | clips | RSS, MB | Python's, MB |\n|---|---|---|---|", flush=True)
    tracemalloc.start()
    began, rounds, table = time.perf_counter(), 0, []
    with own_cache() as place:
        verifier = tfq_sv.SpeakerVerifier(network)
        verifier.enroll("ann", [clip(0), clip(1)], check=False)
        while len(table) < 10:
            while time.perf_counter() - began < seconds * (len(table) + 1) / 10:
                number = rounds % 1000
                verifier.enroll("bob", [clip(number)], check=False)
                verifier.identify(clip(number), 0.5)
                verifier.save(Path(place, "speakers.json"))
                verifier.load(Path(place, "speakers.json"))
                encoder = SpeakerEncoder(network, fast=bool(rounds % 2), check_speech=False)
                encoder.embed(clip(number))
                del encoder
                rounds += 1
                time.sleep(pause)
            gc.collect()
            table.append((rss(), tracemalloc.get_traced_memory()[0] / 1e6))
            print(f"| {time.perf_counter() - began:.0f} | {2 + 3 * rounds:,} ", end="")
            print(f"| {table[-1][0]:.1f} | {table[-1][1]:.2f} |", flush=True)
    tracemalloc.stop()
    return table[-1][0] - table[0][0] < GROWTH and table[-1][1] - table[0][1] < 1


def rss() -> float:
    """Resident memory of this process, MB of 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--soak", type=float, default=0.0, help="seconds")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds, in the soak")
    parser.add_argument("--network", type=Path, default=FILE, help=".tflite file")
    arguments = parser.parse_args()
    sys.exit(not main(arguments.clips, arguments.soak, arguments.network, arguments.pause))
