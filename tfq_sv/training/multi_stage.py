"""Multi-stage fine-tuning: the layers of a recipe are quantized one bit width after the other."""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.stream import Stream
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.quantization.calibration import calibrate_rest
from tfq_sv.quantization.quantized_model import load_model, quantizers_of, rounded, unwrapped
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.quantization.recipe import QuantizationRecipe
from tfq_sv.run_folder import check_settings, digest
from tfq_sv.training.devices import is_chief
from tfq_sv.training.fine_tuning import FineTuningOptions, finetune

_DRAWN = "drawn.json"  # how many batches were drawn at each finished stage's end
_CALIBRATION_SECONDS, _CALIBRATION_BATCHES = 60.0, 32
_SAMPLES, _FRAMES = 16_000, 100  # per second
ORDERS = ("lowest_first", "highest_first")


def multi_stage_finetune(
    model: keras.Model,
    recipe: QuantizationRecipe,
    dataset: Iterable[Any],
    *,
    teacher: keras.Model | None = None,
    options: FineTuningOptions | None = None,
    order: str = "lowest_first",
    strategy: tf.distribute.Strategy | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> keras.Model:
    """Quantizes a network by a recipe in stages, and fine-tunes all of it in each.

    The recipe's bit widths are sorted; stage k quantizes the layers of the first k widths, while
    the others are still float and can make up for what these lost. Weights and codebooks of one
    stage are what the next starts with; optimizer and learning rate start again. Each stage
    calibrates its new layers first, to the next minute of the dataset.

    Args:
        model: the float network; it stays as it is.
        recipe: bits per layer, of at least one width; as many stages as it has different widths.
        dataset: as for `finetune`. It continues from stage to stage.
        teacher: as for `finetune`; `model` itself if None.
        options: of each stage; the defaults if None.
        order: "lowest_first": the fewest bits first, as in the paper; "highest_first".
        strategy: as for `finetune`.
        checkpoint_dir: keeps each finished stage as `stage-1.keras` and so on, and the state
            within a stage. A run that finds a state there resumes from it and ends as it would
            have without the break.
        progress: show bars.

    Returns:
        The quantized model, ready to export.

    Raises:
        InputError: as `quantize` and `finetune`; an unknown order; a folder of another run.

    Source: Liu, Wang, Qian, arXiv 2406.05359, mixed precision with multi-stage fine-tuning.

    >>> from tfq_sv.quantization.recipe import LayerRecipe
    >>> mixed = {"a": LayerRecipe("kmeans", 4), "b": LayerRecipe("kmeans", 2)}
    >>> [list(stage.layers) for stage in stages(QuantizationRecipe(mixed))]
    [['b'], ['a', 'b']]
    """
    options = options or FineTuningOptions()
    parts = stages(recipe, order)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    strategy = strategy or tf.distribute.get_strategy()
    stream = Stream.of(dataset, "fine-tuning")
    teacher = model if teacher is None else teacher
    quantizable(model)  # refuses a quantized one
    model = plain_layers(model)
    drawn: list[int] = []
    if folder is not None:
        settings = {
            "network": model.name,
            "weights": digest(model.get_weights()),
            "teacher": digest(teacher.get_weights()),
            "recipe": {name: [layer.kind, layer.bits] for name, layer in recipe.layers.items()},
            "order": order,
            **asdict(options),
        }
        begun = any(folder.glob("stage-*.keras")) or any(folder.glob("stage-*/checkpoint"))
        check_settings(folder, settings, begun=begun, write=is_chief(strategy))
        if begun:
            drawn = _batches_drawn(folder, sum(1 for _ in folder.glob("stage-*.keras")))
    student, done = model, 0
    for number, part in enumerate(parts, start=1):
        finished = folder / f"stage-{number}.keras" if folder is not None else None
        if finished is not None and finished.exists():
            student = load_model(finished)
            done = drawn[number - 1]
            continue
        student = _next_stage(model, student, part)
        stream.skip(max(0, done - stream.drawn))
        calibrate_rest(student, _minute(stream), progress=progress)
        finetune(
            student,
            stream,
            teacher=teacher,
            options=options,
            strategy=strategy,
            checkpoint_dir=None if folder is None else folder / f"stage-{number}",
            progress=progress,
        )
        if folder is not None and finished is not None and is_chief(strategy):
            drawn = [*drawn[: number - 1], stream.drawn]
            with atomic(folder / _DRAWN) as temporary:
                temporary.write_text(json.dumps(drawn), encoding="utf-8")
            with atomic(finished) as temporary:
                student.save(temporary)
    return student


def stages(recipe: QuantizationRecipe, order: str = "lowest_first") -> list[QuantizationRecipe]:
    """Returns the recipe of each stage; the last is the whole one.

    Raises:
        InputError: an unknown order, or a recipe without layers.
    """
    if order not in ORDERS:
        raise InputError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
    if not recipe.layers:
        raise InputError("the recipe names no layer")
    widths = sorted({layer.bits for layer in recipe.layers.values()})
    if order == "highest_first":
        widths = widths[::-1]
    return [
        QuantizationRecipe({n: x for n, x in recipe.layers.items() if x.bits in widths[:count]})
        for count in range(1, len(widths) + 1)
    ]


def _minute(stream: Stream) -> list[Any]:
    """The next minute of speech, as far as a few batches hold it."""
    batches: list[Any] = []
    seconds = 0.0
    while seconds < _CALIBRATION_SECONDS and len(batches) < _CALIBRATION_BATCHES:
        batches.append(next(stream))
        first = batches[-1][0] if isinstance(batches[-1], tuple | list) else batches[-1]
        shape = np.shape(first)
        seconds += math.prod(shape[:2]) / (_SAMPLES if len(shape) == 2 else _FRAMES)
    return batches


def _next_stage(
    model: keras.Model, student: keras.Model, recipe: QuantizationRecipe
) -> keras.Model:
    """Quantizes by the next stage's recipe what the last one, `student`, has become."""
    before = quantizers_of(student)
    latent = keras.models.clone_model(model)
    names = {unwrapped(layer).name: layer for layer in student.layers}
    for layer in (layer for layer in latent.layers if layer.weights):
        old = names[layer.name]
        if layer.name not in before:
            layer.set_weights(old.get_weights())
            continue
        getattr(layer, str(kernel_attribute(layer))).assign(before[layer.name].latent)
        if layer.use_bias:
            layer.bias.assign(old.layer.bias)
    after = rounded(latent, recipe, fit=False)  # calibration fits what is new
    for name, quantizer in quantizers_of(after).items():
        if name in before:
            quantizer.inherit(before[name])
    return after


def _batches_drawn(folder: Path, finished: int) -> list[int]:
    """At the end of each finished stage."""
    if not finished:
        return []
    try:
        counts = [int(n) for n in json.loads((folder / _DRAWN).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        counts = []
    if len(counts) < finished:
        raise InputError(f"{folder / _DRAWN} is damaged or missing; delete that folder")
    return counts
