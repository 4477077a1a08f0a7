"""The paper's experiment table from one trained network: every way of quantizing it, beside it.

Each row is fine-tuned, exported, and measured as a `.tflite` in the interpreter. Rows are kept as
they are done, each in a folder of its own: an interrupted run resumes.
"""

import hashlib
import itertools
import json
import math
import os
import shutil
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import Batches, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.extraction import Cache, extract
from tfq_sv.evaluation.measurement import Encoder, KerasEncoder, measure
from tfq_sv.experiments.reproduction_report import write_report
from tfq_sv.experiments.reproduction_rows import Row, mixed_rows, uniform_rows
from tfq_sv.export.convert import export_tflite
from tfq_sv.export.encoder import SpeakerEncoder
from tfq_sv.export.float32 import export_float32
from tfq_sv.files import atomic
from tfq_sv.metrics import P_TARGETS, min_dcf
from tfq_sv.mixed_precision import allocation
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.mixed_precision.forms import forms
from tfq_sv.mixed_precision.probes import ProbeOptions
from tfq_sv.mixed_precision.sensitivity import fisher_traces
from tfq_sv.quantization.calibration import quantize
from tfq_sv.quantization.quantized_model import load_model, recipe_of
from tfq_sv.quantization.quantizers import quantizable
from tfq_sv.quantization.recipe import QuantizationRecipe
from tfq_sv.run_folder import (
    LABEL,
    check_settings,
    corpus_identity,
    digest,
    remove,
    trials_identity,
)
from tfq_sv.training.devices import is_chief
from tfq_sv.training.fine_tuning import FineTuningOptions, finetune
from tfq_sv.training.multi_stage import multi_stage_finetune, stages


@dataclass(frozen=True)
class ReproductionOptions:
    """Settings of a run.

    Attributes:
        steps: of fine-tuning for every row, all stages of a row together.
        batch_size: chunks per step.
        seconds: length of a chunk.
        learning_rate: peak of each schedule.
        precision: as in `FineTuningOptions`.
        seed: of chunks and probes.
        probes: most batches that sensitivities are measured on.
        target_bytes: sizes of the mixed rows; none: those of the files of 3 and of 2 bits, and one
            half-way between.
        input: of the exported files, as in `export_tflite`.
    """

    steps: int = 3000
    batch_size: int = 32
    seconds: float = 2.0
    learning_rate: float = 1e-3
    precision: str = "fp32"
    seed: int = 0
    probes: int = 32
    target_bytes: tuple[int, ...] = ()
    input: str = "waveform"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps must be positive, not {self.steps}")
        self.fine_tuning()  # these refuse what they cannot take
        ProbeOptions(self.probes, seed=self.seed)

    def fine_tuning(self, stages: int = 1) -> FineTuningOptions:
        """Returns the options of each of so many stages.

        >>> ReproductionOptions(steps=900).fine_tuning(stages=3).steps
        300
        """
        steps = max(1, self.steps // stages)
        return FineTuningOptions(
            steps=steps, learning_rate=self.learning_rate, precision=self.precision
        )


@dataclass(frozen=True)
class Reproduction:
    """What a run has made.

    Attributes:
        report: Markdown; nothing on workers other than the chief, who writes.
        skipped: recordings of both corpora that could not be read -> why.
    """

    report: str
    skipped: Mapping[str, BadAudioError]


def reproduce(
    model: keras.Model,
    train: Corpus,
    test: Corpus,
    trials: Mapping[str, Trials],
    out: str | os.PathLike[str],
    options: ReproductionOptions | None = None,
    *,
    strategy: tf.distribute.Strategy | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Reproduction:
    """Makes every row of the table that is not there yet, and writes `report.md` and `report.png`.

    Args:
        model: the trained FP32 network.
        train: speech to fine-tune on; no labels are used.
        test: where the trials' utterances are.
        trials: name of the list -> its trials; the picture shows the first.
        out: folder of all results.
        options: settings; the defaults if None.
        strategy: devices or workers that share fine-tuning and sensitivities; every worker must
            see the folder.
        strict: raise the first bad recording instead of leaving it out.
        progress: show bars, and the table after each row.

    Returns:
        The report, and the recordings that were skipped.

    Raises:
        InputError: a folder of another run; two target sizes that are one; what `finetune`,
            `allocate_bits` and `evaluate` raise.

    Source: Liu, Wang, Qian, arXiv 2406.05359: the rows. Its figures are not repeated here.
    """
    options = options or ReproductionOptions()
    run = _Run(model, train, test, trials, Path(out), options, strategy, strict, progress)
    if options.target_bytes:
        # A size that cannot be reached is an error now, not after the hours of the first rows.
        alike = {name: dict.fromkeys(forms(trellis=True), 1.0) for name in quantizable(model)}
        mixed_rows(model, alike, options.target_bytes, options.input)
    rows = uniform_rows(model)
    run.make(rows)
    rows += mixed_rows(model, run.traces(), run.targets(), options.input)
    run.make(rows)
    report = run.report(rows) if is_chief(run.strategy) else ""
    return Reproduction(report, run.skipped)


class _Run:
    """The state of a run: what is given, and a folder of what is done."""

    def __init__(
        self,
        model: keras.Model,
        train: Corpus,
        test: Corpus,
        trials: Mapping[str, Trials],
        out: Path,
        options: ReproductionOptions,
        strategy: tf.distribute.Strategy | None,
        strict: bool,
        progress: bool,
    ) -> None:
        self._model, self._train, self._test, self._trials = model, train, test, trials
        self._out, self._options, self._strict = out, options, strict
        self.strategy = strategy or tf.distribute.get_strategy()
        self._streams: list[Batches] = []
        self._unmeasured: dict[str, BadAudioError] = {}
        self._progress = progress and is_chief(self.strategy)
        settings = {
            "network": model.name,
            "weights": digest(model.get_weights()),
            "train": corpus_identity(train),
            "test": corpus_identity(test),
            "trials": {name: trials_identity(each) for name, each in trials.items()},
            **asdict(options),
        }
        begun = (out / LABEL).exists() and any(out.glob("*/*"))
        check_settings(out, settings, begun=begun, write=is_chief(self.strategy))

    @property
    def skipped(self) -> dict[str, BadAudioError]:
        """Recordings of both corpora that could not be read so far -> why."""
        return dict(ChainMap(self._unmeasured, *(stream.skipped for stream in self._streams)))

    def _chunks(self) -> Batches:
        options = self._options
        stream = batches(
            self._train,
            batch_size=options.batch_size,
            seconds=options.seconds,
            seed=options.seed,
            strict=self._strict,
        )
        self._streams.append(stream)
        return stream

    def _minute(self) -> list[Any]:
        """The first minute of the training speech."""
        seconds = self._options.batch_size * self._options.seconds
        return list(itertools.islice(self._chunks(), math.ceil(60 / seconds)))

    def traces(self) -> allocation.Sensitivity:
        """The sensitivities of all layers."""
        return fisher_traces(
            self._model,
            self._chunks(),
            options=ProbeOptions(self._options.probes, seed=self._options.seed),
            strategy=self.strategy,
            cache=self._out / "fisher.json",
            progress=self._progress,
        )

    def targets(self) -> list[int]:
        """The sizes of the mixed rows, bytes."""
        if self._options.target_bytes:
            return list(self._options.target_bytes)
        sizes = FileSize.of(self._model, self._options.input)
        three, two = (sizes.total(QuantizationRecipe.uniform(self._model, bits)) for bits in (3, 2))
        return [three, (three + two) // 2, two]

    def make(self, rows: Sequence[Row]) -> None:
        """Makes the rows that are not there, and the report after each."""
        for row in rows:
            folder = self._out / row.folder
            if (folder / "results.json").exists():
                continue
            if self._progress:
                print(f"{row.name}")
            model = self._tuned(row, folder)
            for stream in self._streams:
                stream.skip(0)  # ends its threads
            if is_chief(self.strategy):
                self._measure(row, model, folder)
                text = self.report(rows)
                if self._progress:
                    print(f"\n{text}")

    def _tuned(self, row: Row, folder: Path) -> keras.Model:
        if row.recipe is None and not row.tuned:
            return self._model
        kept, state = folder / "model.keras", folder / "state"
        if kept.exists():
            return load_model(kept)
        options, model = self._options, self._model
        common = {
            "teacher": self._model,
            "strategy": self.strategy,
            "checkpoint_dir": state,
            "progress": self._progress,
        }
        if row.staged and row.recipe:
            each = options.fine_tuning(len(stages(row.recipe)))
            model = multi_stage_finetune(model, row.recipe, self._chunks(), options=each, **common)
        else:
            if row.recipe:
                speech, bars = self._minute() if row.speech else True, self._progress
                model = quantize(model, row.recipe, calibrate=speech, progress=bars)
            else:
                model = keras.models.clone_model(model)
                model.set_weights(self._model.get_weights())
            if row.tuned:
                finetune(model, self._chunks(), options=options.fine_tuning(), **common)
        if is_chief(self.strategy):
            with atomic(kept) as temporary:
                model.save(temporary)
            remove(state)
        return model

    def _measure(self, row: Row, model: keras.Model, folder: Path) -> None:
        file = folder / "model.tflite"
        if row.recipe:
            size = export_tflite(model, file, input=self._options.input).bytes
        else:
            size = export_float32(model, file, input=self._options.input)
        encoder = SpeakerEncoder(file, check_speech=False) if row.recipe else KerasEncoder(model)
        found = self._rates(encoder, folder, row.name)
        bits = {n: x.bits for n, x in recipe_of(model).layers.items()} if row.recipe else {}
        result = {"name": row.name, "kind": row.kind, "bytes": size, "bits": bits, **found}
        with atomic(folder / "results.json") as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder / "embeddings")

    def _rates(self, encoder: Encoder, folder: Path, name: str) -> dict[str, Any]:
        file = (folder / "model.tflite").read_bytes()
        cache = Cache(folder / "embeddings", hashlib.sha256(file).hexdigest())
        keys = dict.fromkeys(
            itertools.chain.from_iterable(trials.utterances for trials in self._trials.values())
        )
        bar = f"  {name}: embedding" if self._progress else None
        extraction = extract(
            encoder, self._test, list(keys), cache=cache, strict=self._strict, progress=bar
        )
        self._unmeasured.update(extraction.skipped)
        found = {}
        for kind, trials in self._trials.items():
            result = measure(extraction, self._test, trials)
            found[kind] = {
                "eer": result.eer,
                "interval": result.interval,
                "min_dcf": {p: min_dcf(result.scores, result.trials.labels, p) for p in P_TARGETS},
            }
            with atomic(folder / f"scores-{kind}.npy") as temporary:
                np.save(temporary, result.scores.astype(np.float32))
        return {"lists": found, "skipped": sorted(extraction.skipped)}

    def report(self, rows: Sequence[Row]) -> str:
        """Writes the report of all rows that are there; returns its text."""
        folders = [self._out / row.folder for row in rows]
        about = (
            f"{self._model.name}, fine-tuned on {len(self._train.paths):,} utterances of "
            f"{self._train.root.name}, {self._options.steps:,} steps per row, by distillation. "
            "Quantized rows were first calibrated to a minute of it, those in stages (MSFT) in "
            "each stage; rows that are called calibrated were not fine-tuned. "
            f"Test speech: {self._test.root.name}."
        )
        done = [folder for folder in folders if (folder / "results.json").exists()]
        return write_report(self._out, done, self._trials, self._test, about)
