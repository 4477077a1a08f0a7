"""Size, load time, latency, memory and error rate of `.tflite` files beside each other.

Memory and load time are measured in a fresh process each; latencies in one process per thread
count, with the files interleaved, so that other load on the machine meets all of them alike.
`python -m tfq_sv.experiments.benchmark` is that process: a job as JSON on stdin, its result on
stdout.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import evaluate
from tfq_sv.features import FbankOptions, fbank
from tfq_sv.files import atomic
from tfq_sv.progress import tqdm
from tfq_sv.reports.table import Table

_LOADS = 5
_WARM_UP = 3


@dataclass(frozen=True)
class Benchmark:
    """What one file takes.

    Attributes:
        name: the form.
        bytes: of the file.
        load_ms: from its path to an interpreter that is ready to run; the median.
        inflate_ms: from its path to the inflated bytes; None without that signature.
        latency_ms: threads -> each timed run, in the same order for all files.
        peak_mb: the most memory held from before loading to after a run, 10^6 bytes.
        cosine: mean cosine of its embeddings with the first file's.
        eer: on trials, a fraction; None if none were given.
    """

    name: str
    bytes: int
    load_ms: float
    inflate_ms: float | None
    latency_ms: Mapping[int, Sequence[float]]
    peak_mb: float
    cosine: float
    eer: float | None = None


@dataclass(frozen=True)
class NetworkBenchmark:
    """What a network takes in all its forms.

    Attributes:
        forms: of the network.
        skipped: recordings that could not be read -> why; the EERs are measured without them.
    """

    forms: Sequence[Benchmark]
    skipped: Mapping[str, BadAudioError]


class FileEncoder:
    """Runs any `.tflite` with a signature `embed` that takes features."""

    def __init__(self, path: str | os.PathLike[str], options: FbankOptions) -> None:
        self._run = _runner(path, 1)
        self._options = options

    def embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Samples in [-1, 1] at 16 kHz, (N,) -> (embed_dim,)."""
        features = fbank(waveform, self._options)[None]
        return np.array(self._run(features=features)["embedding"][0], np.float32)


def benchmark_network(
    model: Any,
    quantized: Mapping[str, Any],
    features: Sequence[npt.NDArray[np.float32]],
    folder: str | os.PathLike[str],
    *,
    corpus: Corpus | None = None,
    trials: Trials | None = None,
    rounds: int = 30,
) -> NetworkBenchmark:
    """Measures a network in the converter's forms, ai-edge-quantizer's if installed, and ours.

    All of them take features: the front end is the same for all.

    Args:
        model: the float Keras network.
        quantized: name -> what `tfq_sv.quantize` made of it.
        features: as in `benchmark_files`; they calibrate the converter's full int8 too.
        folder: where the files go, and stay.
        corpus: of test speech, for the EER.
        trials: what is compared.
        rounds: as in `benchmark_files`.
    """
    from tfq_sv.experiments import baselines
    from tfq_sv.models import front_end

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    forms = baselines.converter_forms(model, place, features)
    forms |= baselines.our_forms(quantized, place, features)
    rates: dict[str, float] = {}
    skipped: dict[str, BadAudioError] = {}
    if corpus and trials:
        for name, path in forms.items():
            encoder = FileEncoder(path, front_end(model))
            result = evaluate(encoder, corpus, trials, progress=name)
            rates[name] = result.eer
            if result.extraction:
                skipped.update(result.extraction.skipped)
    measured = benchmark_files(forms, features, rounds=rounds, error_rates=rates)
    return NetworkBenchmark(measured, skipped)


def benchmark_files(
    forms: Mapping[str, Path],
    features: Sequence[npt.NDArray[np.float32]],
    *,
    threads: Sequence[int] = (1, 2),
    rounds: int = 30,
    error_rates: Mapping[str, float] | None = None,
) -> list[Benchmark]:
    """Measures files, all with a signature `embed` that takes features.

    Args:
        forms: name -> file; the first is what the others are compared with.
        features: some utterances' features, (T, feat_dim) each. The first is what is timed.
        threads: thread counts.
        rounds: timed runs of each file.
        error_rates: name -> EER, for the table.
    """
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "features.npy"
        np.save(speech, features[0])
        paths = {name: str(path) for name, path in forms.items()}
        alone = {
            name: _in_own_process("memory", path=path, speech=str(speech))
            for name, path in tqdm(paths.items(), desc="memory", unit="file")
        }
        latency = {
            count: _in_own_process(
                "latency", paths=paths, speech=str(speech), threads=count, rounds=rounds
            )
            for count in tqdm(threads, desc="latency", unit="thread count")
        }
    embeddings = {name: _embeddings(path, features) for name, path in forms.items()}
    first = embeddings[next(iter(forms))]
    return [
        Benchmark(
            name=name,
            bytes=path.stat().st_size,
            latency_ms={count: times[name] for count, times in latency.items()},
            cosine=_cosine(embeddings[name], first),
            eer=(error_rates or {}).get(name),
            **alone[name],
        )
        for name, path in forms.items()
    ]


def benchmark_table(found: Sequence[Benchmark]) -> Table:
    """Formats the results as a table. Latencies: median, and quartiles in brackets."""
    threads = list(found[0].latency_ms)
    rates = any(one.eer is not None for one in found)
    header = ["file", "MB", "load ms", "inflate ms"]
    header += [f"ms, {count} thread{'s' * (count > 1)}" for count in threads]
    header += ["peak MB", "cosine", *(["EER %"] * rates)]
    rows = []
    for one in found:
        times = [np.quantile(one.latency_ms[count], [0.25, 0.5, 0.75]) for count in threads]
        rows.append(
            [
                one.name,
                f"{one.bytes / 1e6:.2f}",
                f"{one.load_ms:.1f}",
                "" if one.inflate_ms is None else f"{one.inflate_ms:.1f}",
                *(f"{median:.1f} [{low:.1f}, {high:.1f}]" for low, median, high in times),
                f"{one.peak_mb:.1f}",
                f"{one.cosine:.4f}",
                *(["" if one.eer is None else f"{100 * one.eer:.2f}"] * rates),
            ]
        )
    return Table(header, rows)


def benchmark_figure(found: Sequence[Benchmark], path: str | os.PathLike[str], title: str) -> None:
    """Draws file sizes and latencies side by side, as PNG. Whiskers are quartiles."""
    from matplotlib.figure import Figure

    names = [one.name for one in found]
    figure = Figure(figsize=(11, 1.6 + 0.32 * len(found)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    megabytes = [one.bytes / 1e6 for one in found]
    bars = left.barh(names, megabytes, color="tab:gray")
    left.bar_label(bars, [f" {size:.2f}" for size in megabytes])
    left.set(xlabel="file size, MB (10^6 bytes)", xlim=(0, 1.15 * max(megabytes)))
    left.invert_yaxis()
    threads = list(found[0].latency_ms)
    thick, longest = 0.8 / len(threads), 0.0
    for number, count in enumerate(threads):
        times = np.array([np.quantile(x.latency_ms[count], [0.25, 0.5, 0.75]) for x in found])
        low, median, high = times.T
        places = np.arange(len(found)) + thick * (number - (len(threads) - 1) / 2)
        label = f"{count} thread{'s' * (count > 1)}"
        drawn = right.barh(places, median, thick, xerr=[median - low, high - median], label=label)
        right.bar_label(drawn, [f" {time:.1f}" for time in median], fontsize=7)
        longest = max(longest, high.max())
    right.set(xlabel="latency, ms", xlim=(0, 1.15 * longest))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=4)
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _embeddings(path: Path, features: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    run = _runner(path, 1)
    return np.stack([run(features=x[None])["embedding"][0] for x in features])


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.clip((a * b).sum(1) / norms, -1, 1).mean())


def _in_own_process(what: str, **job: Any) -> Any:
    command = [sys.executable, "-m", "tfq_sv.experiments.benchmark"]
    text = json.dumps({"what": what, **job})
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{what} of {job} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def _runner(path: str | os.PathLike[str], threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    # By path, as apps do: the file is mapped into memory, not read into it.
    return Interpreter(model_path=str(path), num_threads=threads).get_signature_runner("embed")


def _memory(path: str, speech: str) -> dict[str, float | None]:
    from ai_edge_litert.interpreter import Interpreter

    features = np.load(speech)[None]
    before = _start_peak()
    _runner(path, 1)(features=features)
    peak = _peak() - before
    loads, inflations = [], []
    for _ in range(_LOADS):
        start = time.perf_counter()
        interpreter = Interpreter(model_path=path, num_threads=1)
        interpreter.allocate_tensors()
        loads.append(time.perf_counter() - start)
        if "inflate" in interpreter.get_signature_list():
            start = time.perf_counter()
            packed = Interpreter(model_path=path, num_threads=1)
            packed.get_signature_runner("inflate")(request=np.zeros(1, np.int32))
            inflations.append(time.perf_counter() - start)
    return {
        "peak_mb": peak / 1e6,
        "load_ms": 1e3 * float(np.median(loads)),
        "inflate_ms": 1e3 * float(np.median(inflations)) if inflations else None,
    }


def _latency(
    paths: dict[str, str], speech: str, threads: int, rounds: int
) -> dict[str, list[float]]:
    features = np.load(speech)[None]
    runners = {name: _runner(path, threads) for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(_WARM_UP + rounds):
        for name, run in runners.items():
            start = time.perf_counter()
            run(features=features)
            if number >= _WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def _start_peak() -> int:
    """Forgets the peak so far, where the system can; returns the bytes held now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS") or _peak()


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int | None:
    """A field of Linux's account of this process, in bytes; None where there is none.

    getrusage would not do: it counts what the process that started this one held.
    """
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(f"{field}:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def _main() -> None:
    job = json.load(sys.stdin)
    kinds: dict[str, Callable[..., Any]] = {"memory": _memory, "latency": _latency}
    print(json.dumps(kinds[job.pop("what")](**job)))


if __name__ == "__main__":
    _main()
