"""Bits for every layer, so that the file has a wanted size and the network suffers least."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.mixed_precision.forms import Form, form_text, forms, recipe_for, rounded
from tfq_sv.mixed_precision.problem import Columns, MixedPrecisionProblem
from tfq_sv.progress import tqdm
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.quantization.recipe import QuantizationRecipe

Sensitivity = Mapping[str, float] | Mapping[str, Mapping[Form, float]]

METHODS = ("exact", "sections")

# What the prediction of sizes may err by: a share of the target, and bytes.
_MARGIN, _MARGIN_BYTES = 5e-4, 256


@dataclass(frozen=True)
class Allocation:
    """One answer.

    Attributes:
        recipe: bits per layer.
        bytes: predicted size of the exported file.
        cost: the objective, the sum of the layers' costs.
    """

    recipe: QuantizationRecipe
    bytes: int
    cost: float


def allocate_bits(
    model: keras.Model,
    traces: Sensitivity,
    *,
    target_bytes: int,
    bits: Iterable[float] | None = None,
    trellis: bool = False,
    method: str = "exact",
    sizes: FileSize | None = None,
) -> QuantizationRecipe:
    """Chooses each layer's bits for a file of at most so many bytes.

    The size is that of the finished file, graph and all, as `file_size` predicts it; a twentieth
    of a percent and 256 bytes are kept back, because predictions err.

    Args:
        model: the float network.
        traces: layer -> trace, from `hessian_traces` or `fisher_traces`; or layer -> form -> cost,
            from `embedding_distortions`. See `quantization_costs`.
        target_bytes: the most that the exported file may have.
        bits: the widths to choose from; if None, 1-8, and 0.5 with `trellis`.
        trellis: whether each layer may have trellis codes in place of a k-means codebook, of
            those widths that trellises have, where it can have them.
        method: "exact": the least cost over all layers and widths. "sections": the
            paper's search (arXiv 2406.05359): layers sorted by trace in 4 sections, one width a
            section, all combinations.
        sizes: what files take; `FileSize.of(model)` if None, which is for waveform input.

    Returns:
        A recipe of k-means codebooks, and trellis codes if asked for.

    Raises:
        InputError: no recipe is small enough (it says the least size); traces of other layers, or
            not finite, or negative; bits out of range; no such method.

    >>> from tfq_sv import models
    >>> network = models.build("ResNet18", channels=16)
    >>> traces = dict.fromkeys(quantizable(network), 1.0)
    >>> recipe = allocate_bits(network, traces, target_bytes=400_000, bits=[1, 2, 4])
    >>> sorted({layer.bits for layer in recipe.layers.values()})
    [1, 2, 4]
    """
    answers = sweep(
        model, traces, [target_bytes], bits=bits, trellis=trellis, method=method, sizes=sizes
    )
    return answers[0].recipe


def sweep(
    model: keras.Model,
    traces: Sensitivity,
    targets: Iterable[int],
    *,
    bits: Iterable[float] | None = None,
    trellis: bool = False,
    method: str = "exact",
    order: Sequence[str] | None = None,
    sizes: FileSize | None = None,
) -> list[Allocation]:
    """Chooses bits for several sizes at once: the Pareto curve of predicted cost against bytes.

    Arguments and errors are those of `allocate_bits`, but for the list of targets, and `order`: the
    layers as sections take them, `sensitivity_order(traces)` if None.

    Returns:
        One answer per target, in their order.

    Raises:
        InputError: as `allocate_bits`; an order that does not contain every layer once.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    costs = quantization_costs(model, traces, bits, trellis=trellis)
    layers, choices = quantizable(model), list(next(iter(costs.values())))
    names = list(costs)
    sizes = sizes or FileSize.of(model)
    problem = MixedPrecisionProblem.from_layers(costs, sizes.layers)
    order = sensitivity_order(traces) if order is None else order
    if sorted(order) != sorted(names):
        raise InputError(f"order must have every layer once: {', '.join(names)}")
    numbers = [names.index(name) for name in order]
    exact = method == "exact"

    def allocation(columns: Columns) -> Allocation:
        chosen = zip(names, (choices[column] for column in columns), strict=True)
        recipe = QuantizationRecipe({n: recipe_for(layers[n], form) for n, form in chosen})
        return Allocation(recipe, sizes.total(recipe), problem.cost(columns))

    answers = []
    for target in targets:
        most = int((1 - _MARGIN) * target) - _MARGIN_BYTES
        budget = most - sizes.fixed
        while True:
            columns = problem.solve(budget) if exact else problem.solve_sections(budget, numbers)
            if columns is None:
                smallest = problem.smallest() if exact else problem.smallest_sections(numbers)
                answer = allocation(smallest)
                break
            answer = allocation(columns)
            if answer.bytes <= most:
                break
            budget -= answer.bytes - most  # groups of layers are not linear in the choices
        if answer.bytes > most:
            least = (answer.bytes + _MARGIN_BYTES) / (1 - _MARGIN)
            raise InputError(
                f"no file of {target:,} bytes is possible: the least target is "
                f"{int(np.ceil(least)) + 1:,} bytes; raise it"
                + (" or allow fewer bits" if choices[0] != 1 else "")
            )
        answers.append(answer)
    return answers


def quantization_costs(
    model: keras.Model,
    traces: Sensitivity,
    bits: Iterable[float] | None = None,
    *,
    trellis: bool = False,
) -> dict[str, dict[Form, float]]:
    """Returns what each form costs each layer: layer -> form -> cost; see `forms.forms`.

    With H the Hessian of the loss and d the change of n weights by quantization, the loss grows by
    d'Hd / 2; for d of no special direction that is trace(H) / n x |d|^2 / 2 (HAWQ-V2, Dong et al.,
    2020). |d|^2 is the squared error of the codes that the layer would get. A trace that was
    estimated as less than its standard error, negative perhaps, counts as that.

    Args:
        model: the float network.
        traces: layer -> trace. A table of layer -> form -> cost is checked and returned as it is.
        bits: as in `allocate_bits`.
        trellis: as in `allocate_bits`.

    Raises:
        InputError: as `allocate_bits`.
    """
    layers, choices = quantizable(model), forms(bits, trellis=trellis)
    for name in layers:
        if name not in traces:
            raise InputError(f"no trace is given for layer {name!r} of {model.name}")
    for name in traces:
        if name not in layers:
            raise InputError(
                f"a trace is given for {name!r}, which is no quantizable layer of {model.name}; "
                f"those are {', '.join(layers)}"
            )
    for name in layers:
        given = traces[name]
        values = given if isinstance(given, Mapping) else dict.fromkeys(choices, _cautious(given))
        for choice in choices:
            if choice not in values:
                raise InputError(f"layer {name!r} has no cost at {form_text(choice)}")
            if not np.isfinite(values[choice]) or values[choice] < 0:
                raise InputError(
                    f"the sensitivity of layer {name!r} is {values[choice]}; it must be 0 or more"
                )
    table: dict[str, dict[Form, float]] = {}
    for name, layer in tqdm(layers.items(), desc="codebooks", unit="layer", disable=None):
        given = traces[name]
        if isinstance(given, Mapping):
            table[name] = {choice: float(given[choice]) for choice in choices}
        else:
            kernel = getattr(layer, str(kernel_attribute(layer)))
            weight = _cautious(given) / int(kernel.shape.num_elements()) / 2
            table[name] = {choice: weight * kernel_error(layer, choice) for choice in choices}
    return table


def kernel_error(layer: keras.layers.Layer, form: Form) -> float:
    """Returns the squared error |W - Q(W)|^2 of a layer's kernel, rounded to a form.

    >>> layer = keras.layers.Dense(1, use_bias=False)
    >>> layer.build([None, 4])
    >>> layer.set_weights([np.float32([[0], [1], [10], [11]])])
    >>> round(kernel_error(layer, 1), 2)
    1.0
    """
    kernel = getattr(layer, str(kernel_attribute(layer))).numpy()
    return float(np.sum(np.square(kernel - rounded(layer, form), dtype=np.float64)))


def _cautious(trace: float) -> float:
    """No layer is free because few probes were made."""
    error = getattr(trace, "standard_error", trace)
    if np.isnan(error):  # of a single probe
        error = abs(trace)
    return float(error) if error > trace else float(trace)


def sensitivity_order(traces: Sensitivity) -> list[str]:
    """Returns the layers, the most sensitive first; of a table, by its first costs.

    >>> sensitivity_order({"a": 1.0, "b": 2.0})
    ['b', 'a']
    """

    def key(name: str) -> float:
        value = traces[name]
        return -float(next(iter(value.values())) if isinstance(value, Mapping) else value)

    return sorted(traces, key=key)
