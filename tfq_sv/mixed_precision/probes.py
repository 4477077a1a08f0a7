"""Probes: measurements that are repeated, a batch each, until their means are known well enough.

They are kept in a file as they come, so that a run that was broken goes on.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfq_sv.data.stream import Stream
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.models import front_end, network_input
from tfq_sv.progress import tqdm
from tfq_sv.run_folder import digest
from tfq_sv.training.devices import each_device, gathered, is_chief

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


def make_probes(
    probe: Callable[[Any, Any, Any], Any],
    names: Sequence[str],
    model: keras.Model,
    batches: Iterable[Any],
    settings: Mapping[str, Any],
    labelled: bool,
    max_probes: int,
    stable: float,
    strategy: tf.distribute.Strategy,
    cache: str | os.PathLike[str] | None,
    progress: bool,
) -> Values:
    """Makes probes until they are enough, or at the limit.

    Args:
        probe: features (B, T, F), labels (B,), number of the probe, on each device its own ->
            one value a name, on each device.
        names: of what is measured.
        model: the network; a file of another one's probes is refused.
        batches: one a probe, begun again when they end.
        settings: what the run is, "measure" first; values for JSON.
        labelled: whether batches must come with labels.
        max_probes: the limit.
        stable: see `enough`.
        strategy: whose devices make a probe each at a time; their number changes no value.
        cache: JSON file that keeps every probe; none if None. Several workers need one that all
            of them see.
        progress: show a bar.

    Returns:
        float64 (probes, len(names)).

    Raises:
        InputError: no batch or an empty one; no labels; a value that is not finite; a cache of
            another run.
    """
    if max_probes < 1:
        raise InputError(f"max_probes must be positive, not {max_probes}")
    fbank, stream = front_end(model), Stream.of(batches, "the sensitivity")
    first = next(stream)
    run = {
        **settings,
        "network": model.name,
        "weights": digest(model.get_weights()),
        "first batch": digest([network_input(first, fbank).numpy()]),
    }
    values = _kept(cache, run, len(names))[:max_probes]
    stream.skip(max(0, len(values) - 1))
    left = stream if len(values) else itertools.chain([first], stream)
    with tqdm(
        total=max_probes,
        initial=len(values),
        desc=settings["measure"],
        unit="probe",
        disable=not progress,
    ) as shown:
        while not enough(values, max_probes, stable):
            number = len(values)
            batch = list(itertools.islice(left, strategy.num_replicas_in_sync))
            speech = [network_input(x, fbank) for x in batch]
            numbers = range(number, number + len(batch))
            arguments = (speech, [_labels(x, labelled) for x in batch], numbers)
            found = probe(*(each_device(strategy, values) for values in arguments))
            for row in gathered(strategy, found):
                for name, value in zip(names, row, strict=True):
                    if not np.isfinite(value):
                        raise InputError(
                            f"the {settings['measure']} of {name} became {value} at probe "
                            f"{len(values)}; look for NaN in the network's weights and in the "
                            "batches"
                        )
                if not enough(values, max_probes, stable):  # as one device would have ended
                    values = np.concatenate([values, row[None]])
                    shown.update()
            if cache is not None and is_chief(strategy):
                with atomic(cache) as temporary:
                    temporary.write_text(json.dumps({**run, "probes": values.tolist()}))
    return values


def _kept(cache: str | os.PathLike[str] | None, run: Mapping[str, Any], count: int) -> Values:
    """The probes that a file keeps; none without one."""
    if cache is None or not Path(cache).exists():
        return np.empty((0, count))
    try:
        found = json.loads(Path(cache).read_text(encoding="utf-8"))
        values = np.array(found.pop("probes"), np.float64).reshape(-1, count)
    except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
        raise InputError(f"{cache} holds no probes of a sensitivity; delete it") from None
    for name, value in run.items():
        if found.get(name) != value:
            raise InputError(
                f"{cache} is of another run: its {name} is {found.get(name)!r}, not {value!r}; "
                "give that run's network and data, or another file"
            )
    return values


def enough(values: Values, limit: int, stable: float) -> bool:
    """Whether the limit is reached, or the order of the means is stable.

    Stable: in 95 of 100 bootstrap draws of the probes, the Spearman correlation of the order with
    the one found is at least `stable`.

    >>> enough(np.tile([1.0, 2.0, 3.0], (8, 1)), limit=64, stable=0.99)
    True
    """
    if len(values) >= limit or len(values) < _MIN_PROBES:
        return len(values) >= limit
    if values.shape[1] < 2:
        return False
    rng = np.random.default_rng(len(values))
    shares = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), _DRAWS)
    drawn = shares @ values  # (draws, layers): sums over probes drawn with replacement
    ranks = drawn.argsort(axis=1).argsort(axis=1)
    own = values.sum(0).argsort().argsort()
    correlations = [np.corrcoef(rank, own)[0, 1] for rank in ranks]
    return float(np.quantile(correlations, 0.05)) >= stable


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
