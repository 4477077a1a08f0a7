"""Probes: measurements that are repeated, one batch each, until their means are known well enough.

They are cached in a file as they come, so that an interrupted run resumes.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.stream import Stream
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.models import model_input
from tfq_sv.progress import tqdm
from tfq_sv.run_folder import digest
from tfq_sv.training.devices import gather, is_chief, per_replica

Values = npt.NDArray[np.float64]

_MIN_PROBES, _DRAWS = 8, 100


class Estimate(float):
    """A mean over probes: a float with its standard error.

    >>> Estimate(2.0, 0.5).standard_error
    0.5
    """

    standard_error: float

    def __new__(cls, value: float, standard_error: float) -> "Estimate":
        """Makes the float."""
        estimate = super().__new__(cls, value)
        estimate.standard_error = standard_error
        return estimate

    def __getnewargs__(self) -> tuple[float, float]:  # type: ignore[override]
        """For pickle and copy."""
        return float(self), self.standard_error


@dataclass(frozen=True)
class ProbeOptions:
    """When probes end, and what they draw.

    Attributes:
        max_probes: the limit.
        min_rank_correlation: ends earlier, after 8 probes or more, where the layers' order is
            stable: in 95 of 100 bootstrap draws of the probes, its Spearman correlation with the
            order of all probes reaches this. Above 1, only the limit counts.
        seed: of the random vectors.

    Raises:
        InputError: a limit below 1.
    """

    max_probes: int = 64
    min_rank_correlation: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_probes < 1:
            raise InputError(f"max_probes must be positive, not {self.max_probes}")


@dataclass(frozen=True, eq=False)
class ProbeRun:
    """A network and the speech that it is measured on, one batch per probe.

    Attributes:
        model: the network; a cache of another one's probes is refused.
        batches: restarted when they end.
        options: when to stop.
        strategy: devices that make one probe each at a time; their number changes no value.
        cache: JSON file that keeps every probe; none if None. Several workers need one that all
            of them see.
        progress: show bars.
    """

    model: keras.Model
    batches: Iterable[Any]
    options: ProbeOptions
    strategy: tf.distribute.Strategy
    cache: str | os.PathLike[str] | None
    progress: bool

    def make(
        self,
        probe: Callable[[Any, Any, Any], Any],
        names: Sequence[str],
        settings: Mapping[str, Any],
        *,
        labelled: bool = False,
    ) -> Values:
        """Makes probes until their order is stable, or at the limit.

        Args:
            probe: features (B, T, F), labels (B,), number of the probe, on each device its own ->
                one value per name, on each device.
            names: of what is measured.
            settings: what identifies the run, "measure" first; values for JSON.
            labelled: whether batches must come with labels.

        Returns:
            float64 (probes, len(names)).

        Raises:
            InputError: no batch or an empty one; no labels; a value that is not finite; a cache of
                another run.
        """
        stream = Stream.of(self.batches, "the sensitivity")
        first = next(stream)
        run = {
            **settings,
            "network": self.model.name,
            "weights": digest(self.model.get_weights()),
            "first batch": digest([model_input(self.model, first).numpy()]),
        }
        limit = self.options.max_probes
        values = _cached(self.cache, run, len(names))[:limit]
        stream.skip(max(0, len(values) - 1))
        further = stream if len(values) else itertools.chain([first], stream)
        with tqdm(
            total=limit,
            initial=len(values),
            desc=settings["measure"],
            unit="probe",
            disable=not self.progress,
        ) as bar:
            while not converged(values, self.options):
                batch = list(itertools.islice(further, self.strategy.num_replicas_in_sync))
                arguments = (
                    [model_input(self.model, x) for x in batch],
                    [_labels(x, labelled) for x in batch],
                    range(len(values), len(values) + len(batch)),
                )
                measured = probe(*(per_replica(self.strategy, x) for x in arguments))
                for row in gather(self.strategy, measured):
                    _check_finite(row, names, f"{settings['measure']} of", len(values))
                    if not converged(values, self.options):  # as one device would have ended
                        values = np.concatenate([values, row[None]])
                        bar.update()
                if self.cache is not None and is_chief(self.strategy):
                    with atomic(self.cache) as temporary:
                        temporary.write_text(json.dumps({**run, "probes": values.tolist()}))
        return values


def _check_finite(row: Values, names: Sequence[str], what: str, number: int) -> None:
    for name, value in zip(names, row, strict=True):
        if not np.isfinite(value):
            raise InputError(
                f"the {what} {name} became {value} at probe {number}; look for NaN in the "
                "network's weights and in the batches"
            )


def _cached(cache: str | os.PathLike[str] | None, run: Mapping[str, Any], count: int) -> Values:
    """The probes in the file; none without a file."""
    if cache is None or not Path(cache).exists():
        return np.empty((0, count))
    try:
        content = json.loads(Path(cache).read_text(encoding="utf-8"))
        values = np.array(content.pop("probes"), np.float64).reshape(-1, count)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{cache} holds no probes of a sensitivity; delete it") from None
    for name, value in run.items():
        if content.get(name) != value:
            raise InputError(
                f"{cache} is of another run: its {name} is {content.get(name)!r}, not {value!r}; "
                "delete it to measure again, or repeat that run with its own settings"
            )
    return values


def converged(values: Values, options: ProbeOptions) -> bool:
    """Whether the limit is reached, or the order of the means is stable.

    Args:
        values: (probes, names).
        options: what stable means.

    >>> converged(np.tile([1.0, 2.0, 3.0], (8, 1)), ProbeOptions())
    True
    """
    if len(values) >= options.max_probes or len(values) < _MIN_PROBES:
        return len(values) >= options.max_probes
    if values.shape[1] < 2:
        return False
    rng = np.random.default_rng(len(values))
    shares = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), _DRAWS)
    drawn = shares @ values  # (draws, layers): sums over probes drawn with replacement
    ranks = drawn.argsort(axis=1).argsort(axis=1)
    own = values.sum(0).argsort().argsort()
    correlations = [np.corrcoef(rank, own)[0, 1] for rank in ranks]
    return float(np.quantile(correlations, 0.05)) >= options.min_rank_correlation


def estimates(values: Values) -> list[Estimate]:
    """Returns each column's mean over the probes, with its standard error (NaN of one probe)."""
    spread = values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    errors = spread / np.sqrt(len(values))
    return [Estimate(*pair) for pair in zip(values.mean(0), errors, strict=True)]


def _labels(batch: Any, wanted: bool) -> tf.Tensor:
    if not wanted:
        return tf.zeros([0])
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise InputError("a loss needs labels: batches must be tuples (speech, labels)")
    return tf.convert_to_tensor(batch[1])
