"""Several networks, each at several widths and file sizes, measured on one corpus.

What is done is kept: a folder per network, and in it one per row, with the file, its embeddings and
its figures. The same call resumes; further networks, widths and sizes are added to what is there.
"""

import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import Batches, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.extraction import Cache
from tfq_sv.evaluation.measurement import evaluate
from tfq_sv.experiments.network_comparison_report import write_report
from tfq_sv.experiments.reproduction_rows import Row, size_names
from tfq_sv.export.convert import export_tflite
from tfq_sv.export.encoder import SpeakerEncoder
from tfq_sv.export.float32 import export_float32
from tfq_sv.files import atomic
from tfq_sv.mixed_precision import allocation
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.mixed_precision.probes import ProbeOptions
from tfq_sv.mixed_precision.sensitivity import fisher_traces
from tfq_sv.quantization.calibration import quantize
from tfq_sv.quantization.recipe import QuantizationRecipe
from tfq_sv.reports.complexity import layer_complexity
from tfq_sv.run_folder import check_settings, corpus_identity, digest, trials_identity
from tfq_sv.training.fine_tuning import FineTuningOptions, finetune

_TIMED_SECONDS, _TIMED_RUNS = 3.0, 11


@dataclass(frozen=True)
class ComparisonOptions:
    """Settings of a comparison.

    Attributes:
        bits: widths of the uniform rows, 1-8.
        target_bytes: sizes of the mixed rows; a network that cannot be so small has no such row.
        steps: of fine-tuning by distillation for every row; 0: rows are calibrated alone.
        learning_rate: peak of fine-tuning.
        batch_size: chunks per batch.
        seconds: length of a chunk.
        minutes: speech to calibrate on.
        probes: most batches that sensitivities are measured on.
        seed: of chunks and probes.
    """

    bits: tuple[int, ...] = (8, 4, 3, 2)
    target_bytes: tuple[int, ...] = ()
    steps: int = 0
    learning_rate: float = 1e-3
    batch_size: int = 32
    seconds: float = 2.0
    minutes: float = 1.0
    probes: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"steps must not be negative, as {self.steps} is")
        size_names(self.target_bytes)
        self.fine_tuning()  # these refuse what they cannot take
        ProbeOptions(self.probes, seed=self.seed)

    def fine_tuning(self) -> FineTuningOptions:
        """Returns the options of a row's fine-tuning."""
        return FineTuningOptions(steps=max(1, self.steps), learning_rate=self.learning_rate)


def compare_networks(
    models: Mapping[str, keras.Model],
    train: Corpus,
    test: Corpus,
    trials: Trials,
    out: str | os.PathLike[str],
    options: ComparisonOptions | None = None,
    *,
    strict: bool = False,
    progress: bool = True,
) -> tuple[str, dict[str, BadAudioError]]:
    """Makes every row that is not there yet; writes `report.md` and `report.png` after each.

    Args:
        models: name -> float network.
        train: speech to calibrate and fine-tune on; no labels are used.
        test: where the trials' utterances are.
        trials: what is compared.
        out: folder of all results.
        options: settings; the defaults if None.
        strict: raise the first bad recording instead of leaving it out.
        progress: show bars.

    Returns:
        The report, Markdown, and the recordings that were skipped with the reason.

    Raises:
        InputError: a folder of another comparison; what `calibrate`, `allocate_bits` and
            `evaluate` raise.

    Source: Liu, Wang, Qian, arXiv 2406.05359: its last comparison, for any networks and corpus.
    """
    options = options or ComparisonOptions()
    run = _Run(train, test, trials, Path(out), options, strict, progress)
    text = ""
    for name, model in models.items():
        text = run.make(name, model)
    return text, run.skipped


class _Run:
    """What is given, and a folder of what is done."""

    def __init__(
        self,
        train: Corpus,
        test: Corpus,
        trials: Trials,
        out: Path,
        options: ComparisonOptions,
        strict: bool,
        progress: bool,
    ) -> None:
        self._train, self._test, self._trials = train, test, trials
        self._out, self._options, self._strict, self._progress = out, options, strict, progress
        self.skipped: dict[str, BadAudioError] = {}
        settings = {
            "train": corpus_identity(train),
            "test": corpus_identity(test),
            "trials": trials_identity(trials),
            **{k: v for k, v in asdict(options).items() if k not in ("bits", "target_bytes")},
        }
        check_settings(out, settings, begun=any(out.glob("*/*/results.json")))

    def make(self, name: str, model: keras.Model) -> str:
        """Makes a network's rows; returns the report so far."""
        folder = self._out / name
        weights = {"weights": digest(model.get_weights())}
        check_settings(folder, weights, begun=any(folder.glob("*/results.json")))
        text = ""
        for row in self._rows(model, folder):
            if not (folder / row.folder / "results.json").exists():
                if self._progress:
                    print(f"{name}: {row.name}")
                self._measure(name, row, self._quantized(model, row), folder / row.folder)
            text = write_report(self._out, self._trials, self._about())
        return text

    def _rows(self, model: keras.Model, folder: Path) -> list[Row]:
        options, uniform = self._options, QuantizationRecipe.uniform
        rows = [Row("FP32", tuned=False)]
        rows += [Row(f"{b} bits", "uniform", uniform(model, b)) for b in options.bits]
        if not options.target_bytes:
            return rows
        with self._chunks() as chunks:
            traces = fisher_traces(
                model,
                chunks,
                options=ProbeOptions(options.probes, seed=options.seed),
                cache=folder / "fisher.json",
                progress=self._progress,
            )
        sizes, costs = FileSize.of(model), allocation.quantization_costs(model, traces)
        for target, size in zip(
            options.target_bytes, size_names(options.target_bytes), strict=True
        ):
            try:
                (answer,) = allocation.sweep(model, costs, [target], sizes=sizes)
            except InputError as error:
                print(f"{model.name} has no row of {size}: {error}")
            else:
                rows.append(Row(f"mixed, {size}", "mixed", answer.recipe))
        return rows

    @contextmanager
    def _chunks(self) -> Iterator[Batches]:
        """Gives chunks of the training speech; notes its bad recordings."""
        options = self._options
        stream = batches(
            self._train,
            batch_size=options.batch_size,
            seconds=options.seconds,
            seed=options.seed,
            strict=self._strict,
        )
        yield stream
        stream.skip(0)  # ends its threads
        self.skipped |= stream.skipped

    def _quantized(self, model: keras.Model, row: Row) -> keras.Model:
        options = self._options
        if row.recipe is None:
            return model
        count = math.ceil(60 * options.minutes / (options.batch_size * options.seconds))
        with self._chunks() as chunks:
            speech = list(itertools.islice(chunks, count))
        quantized = quantize(model, row.recipe, calibrate=speech, progress=self._progress)
        if options.steps:
            tuning = options.fine_tuning()
            with self._chunks() as chunks:
                finetune(quantized, chunks, options=tuning, teacher=model, progress=self._progress)
        return quantized

    def _measure(self, name: str, row: Row, model: keras.Model, folder: Path) -> None:
        file = folder / "model.tflite"
        if row.recipe:
            export_tflite(model, file)
            encoder: Any = SpeakerEncoder(file, check_speech=False)
        else:
            export_float32(model, file)
            encoder = WaveformFile(file)
        cache = Cache(folder / "embeddings", hashlib.sha256(file.read_bytes()).hexdigest())
        bar = f"  {row.name}: embedding" if self._progress else None
        result = evaluate(
            encoder, self._test, self._trials, cache=cache, strict=self._strict, progress=bar
        )
        bad = result.extraction.skipped if result.extraction else {}
        self.skipped.update(bad)
        costs = layer_complexity(model)
        found = {
            "network": name,
            "row": row.name,
            "kind": row.kind,
            "bytes": file.stat().st_size,
            "macs": sum(cost.macs for cost in costs.values()),
            "ms": _milliseconds(encoder),
            "eer": result.eer,
            "interval": result.interval,
            "min_dcf": result.min_dcf,
            "skipped": sorted(bad),
        }
        with atomic(folder / "results.json") as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    def _about(self) -> str:
        options = self._options
        tuned = f", then fine-tuned for {options.steps:,} steps by distillation"
        return (
            f"Quantized rows were calibrated to {options.minutes:g} min of "
            f"{self._train.root.name}{tuned if options.steps else ''}. {len(self._trials):,} "
            f"trials from {self._trials.source}, speech of {self._test.root.name}."
        )


class WaveformFile:
    """A plain `.tflite` whose signature `embed` takes a waveform."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from tfq_sv.export.encoder import interpreter

        self._run = interpreter(Path(path).read_bytes()).get_signature_runner("embed")

    def embed(self, waveform: Any) -> Any:
        """Samples in [-1, 1] at 16 kHz, (N,) -> (embed_dim,)."""
        answer = self._run(waveform=np.asarray(waveform, np.float32)[None])
        return np.array(answer["embedding"][0], np.float32)


def _milliseconds(encoder: Any) -> float:
    """The median time for three seconds of noise, on one thread."""
    noise = np.random.default_rng(0).normal(0, 0.1, int(16000 * _TIMED_SECONDS)).astype(np.float32)
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        encoder.embed(noise)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[1:]))


def names_of(paths: Sequence[str]) -> list[str]:
    """Returns short names for networks by their paths; numbered where they are equal.

    >>> names_of(["resnet-2.keras", "a/resnet.keras", "b/resnet.keras", "campplus.pt"])
    ['resnet-2', 'resnet', 'resnet-3', 'campplus']
    """
    names: list[str] = []
    for path in paths:
        stem = Path(path).stem
        stem = stem if stem.strip(".") else "network"
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        names.append(next(x for x in itertools.chain([stem], numbered) if x not in names))
    return names
