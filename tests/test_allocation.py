"""Allocations against brute force on random instances, and against files really exported."""

import itertools
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import randomize, slow, tiny_resnet

import tfq_sv
from tfq_sv import codebook, models
from tfq_sv.codebook import Codebook
from tfq_sv.errors import InputError
from tfq_sv.export import convert
from tfq_sv.mixed_precision import allocation
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.mixed_precision.forms import Form, form, forms, recipe_for
from tfq_sv.mixed_precision.probes import Estimate
from tfq_sv.quantization import trellis
from tfq_sv.quantization.folding import positive_gains
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe
from tfq_sv.quantization.trellis import TrellisCodebook
from tfq_sv.quantization.trellis_quantizer import fits


def some_traces(model: keras.Model) -> dict[str, float]:
    rng = np.random.default_rng(0)
    return {name: 10 ** rng.uniform(-1, 3) for name in quantizable(model)}


def some_costs(model: keras.Model) -> dict[str, dict[Form, float]]:
    """A table, where a fit of every codebook would take long."""
    gain = {form: 4.0**-form for form in forms()}
    gain |= {f"trellis_{bits:g}": 4.0 ** -(1.2 * bits) for bits in trellis.WIDTHS}
    return {
        name: {form: trace * lost for form, lost in gain.items()}
        for name, trace in some_traces(model).items()
    }


def exported_bytes(model: keras.Model, recipe: tfq_sv.QuantizationRecipe, input: str) -> int:
    """The file of a recipe with any codes: as large as that of the right ones."""
    rng = np.random.default_rng(0)
    books: dict[str, Codebook | TrellisCodebook] = {}
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    positive_gains(copy)  # as calibration does
    for name, entry in recipe.layers.items():
        layer = copy.get_layer(name)
        kernel = getattr(layer, str(kernel_attribute(layer)))
        if entry.kind == "trellis":
            inputs = int(np.prod(kernel.shape[:-1]))
            codes = rng.integers(0, 256, (kernel.shape[-1], int(inputs * entry.bits / 8)))
            scales = rng.uniform(5e-4, 1.5e-3, kernel.shape[-1]).astype(np.float32)
            if isinstance(layer, keras.layers.Dense):  # its scales are equal
                scales[:] = scales[0]
            books[name] = TrellisCodebook(
                codes.astype(np.uint8), scales, entry.bits, tuple(kernel.shape)
            )
            kernel.assign(books[name].decode())
            continue
        centroids = codebook.snap(np.sort(rng.normal(0, 0.05, 2**entry.bits)))
        codes = rng.integers(0, 2**entry.bits, kernel.shape).astype(np.uint8)
        books[name] = Codebook(centroids, codes)
        kernel.assign(books[name].decode())
    return len(convert.build(copy, books, input).data)


def check_target(
    model: keras.Model, costs: Any, target: int, input: str, sizes: FileSize, **options: Any
) -> None:
    answer = allocation.sweep(model, costs, [target], sizes=sizes, **options)[0]
    real = exported_bytes(model, answer.recipe, input)
    assert real <= target
    # Mixed with trellises, more tables of few layers are estimated.
    assert abs(answer.bytes - real) <= (3e-3 if options else 1e-3) * real
    at_most = all(entry.bits == 8 for entry in answer.recipe.layers.values())
    assert real >= 0.99 * target or at_most


def trained(name: str, **options: Any) -> keras.Model:
    """A network with statistics, biases and signs as training leaves them."""
    keras.utils.set_random_seed(0)
    model = randomize(models.build(name, **options))
    model.get_layer("seg_1").bias.assign(
        np.random.default_rng(0).normal(size=model.output_shape[1])
    )
    return model


@pytest.mark.parametrize("input", ["waveform", *slow("features")])
def test_files_keep_to_their_target(input: str) -> None:
    model = trained("ResNet18", channels=16)
    target = {"waveform": 300_000, "features": 700_000}[input]
    check_target(model, some_costs(model), target, input, FileSize.of(model, input))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet18", "DF_ResNet56"])
def test_files_with_trellises_keep_to_their_target(name: str) -> None:
    model = trained(name, channels=16)
    sizes = FileSize.of(model, "features")
    for share in (1.1, 1.8):
        target = int(share * sizes.total(tfq_sv.QuantizationRecipe.trellis(model, 1)))
        check_target(model, some_costs(model), target, "features", sizes, trellis=True)


@pytest.mark.slow
def test_trellises_and_codebooks_together_are_brute_force() -> None:
    """All recipes of four layers: none that is a little smaller, as groups go, costs less."""
    layers = keras.layers
    x = features = keras.Input((None, 16))
    for number, channels in enumerate((256, 8, 256)):
        x = layers.Conv1D(channels, 3, use_bias=False, name=f"conv{number}")(x)
    model = keras.Model(features, layers.Dense(256, name="seg")(layers.GlobalMaxPool1D()(x)))
    rng = np.random.default_rng(0)
    for layer in quantizable(model).values():  # as trained
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    sizes, options = FileSize.of(model, "features"), {"bits": [0.5, 1, 2], "trellis": True}
    costs = allocation.quantization_costs(model, some_traces(model), **options)
    assert list(costs["seg"]) == [1, 2, "trellis_0.5", "trellis_1", "trellis_2"]
    assert costs["conv1"]["trellis_2"] == costs["conv1"][2]  # of 8 channels: it has a codebook
    assert costs["seg"]["trellis_2"] < costs["seg"][2]
    found = quantizable(model)
    answers = []
    for choice in itertools.product(costs["seg"], repeat=4):
        parts = list(zip(found.items(), choice, strict=True))
        recipe = tfq_sv.QuantizationRecipe(
            {name: recipe_for(layer, picked) for (name, layer), picked in parts}
        )
        answers.append((sizes.total(recipe), sum(costs[n][picked] for (n, _), picked in parts)))
    least, most = min(answers)[0], max(answers)[0]
    kinds = set()
    for share in (0.1, 0.4, 0.7, 1):
        target = int(least + share * (most - least)) + 2500
        answer = allocation.sweep(model, costs, [target], sizes=sizes, **options)[0]
        kinds |= {entry.kind for entry in answer.recipe.layers.values()}
        at_most = (1 - 5e-4) * target - 256
        assert answer.cost <= 1.0001 * min(cost for size, cost in answers if size <= at_most - 1500)
        assert answer.bytes <= at_most
    assert kinds == {"kmeans", "trellis"}


@pytest.mark.parametrize("method", allocation.METHODS)
def test_layers_without_a_trellis_keep_codebooks(network: keras.Model, method: str) -> None:
    costs = some_costs(network)
    recipe = tfq_sv.allocate_bits(
        network, costs, target_bytes=110_000, trellis=True, method=method, bits=[1, 2, 4]
    )
    coded = {name for name, entry in recipe.layers.items() if entry.kind == "trellis"}
    assert coded
    for name, layer in quantizable(network).items():
        assert fits(layer, 2) or name not in coded
        assert recipe_for(layer, form(recipe.layers[name])) == recipe.layers[name]


FAMILIES = {"ECAPA_TDNN_GLOB_c512": 64, "DF_ResNet56": 8, "CAMPPlus": 8}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_of_layers_that_are_decoded_together(name: str) -> None:
    """Their number differs by width, so that some groups are large and some too small to be one."""
    keras.utils.set_random_seed(0)
    model = models.build(name, channels=FAMILIES[name])
    for layer in model.layers:  # as trained: no two vectors are alike, and no gain is negative
        for weight in layer.weights:
            if weight.shape.rank == 1:
                weight.assign(keras.backend.random_uniform(weight.shape, 0.5, 1.5))
    names = list(quantizable(model))
    bits = {layer: 2 if i in (3, 40) else 3 if i % 9 == 0 else 4 for i, layer in enumerate(names)}
    recipe = QuantizationRecipe({layer: LayerRecipe("kmeans", b) for layer, b in bits.items()})
    real = exported_bytes(model, recipe, "features")
    assert abs(tfq_sv.predict_bytes(model, recipe, input="features") - real) <= 3e-3 * real


@pytest.mark.slow
def test_trellises_take_few_bytes_more_than_codebooks() -> None:
    """The codes are as many; the rest is the table, and the ops of each number of channels."""
    model = models.build("ResNet34")
    recipes = (
        tfq_sv.QuantizationRecipe.trellis(model, 2),
        tfq_sv.QuantizationRecipe.uniform(model, 2),
    )
    coded, plain = (exported_bytes(model, recipe, "features") for recipe in recipes)
    assert coded - plain <= 5_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "input"), [("ResNet34", "features"), ("DF_ResNet56", "waveform")])
def test_files_of_full_networks_keep_to_their_targets(name: str, input: str) -> None:
    model = models.build(name) if name == "ResNet34" else trained(name)
    sizes = FileSize.of(model, input)
    uniform = tfq_sv.QuantizationRecipe.uniform
    least, most = (sizes.total(uniform(model, bits)) for bits in (1, 8))
    for target in (1.002 * least, (least + most) / 2):
        check_target(model, some_costs(model), int(target), input, sizes)


def test_one_real_file_sets_a_prediction_right() -> None:
    """For networks whose ops the prediction does not know."""
    layers = keras.layers
    features = keras.Input((None, 16))
    x = layers.Reshape((-1, 16, 1))(features)
    for i in range(3):
        x = layers.Conv2D(16, 3, padding="same", activation="sigmoid", name=f"c{i}")(x)
        x = layers.MaxPooling2D((1, 2))(layers.Multiply()([x, x]))
    model = keras.Model(features, layers.Dense(8)(layers.GlobalAveragePooling2D()(x)))
    uniform = tfq_sv.QuantizationRecipe.uniform(model, 4)
    sizes = FileSize.of(model, "features")
    sizes = sizes.corrected_by(uniform, exported_bytes(model, uniform, "features"))
    for bits in (1, 2, 7, 8):
        recipe = tfq_sv.QuantizationRecipe.uniform(model, bits)
        assert abs(sizes.total(recipe) - exported_bytes(model, recipe, "features")) < 600


def test_costs_are_traces_times_squared_errors(network: keras.Model) -> None:
    traces = some_traces(network)
    costs = allocation.quantization_costs(network, traces, [4, 2, 2])
    kernel = network.get_layer("conv1").kernel.numpy()
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=2)
    book = tfq_sv.codebooks(tfq_sv.quantize(network, recipe, calibrate=False))["conv1"]
    wanted = traces["conv1"] / kernel.size * np.sum((kernel - book.decode()) ** 2) / 2
    assert costs["conv1"][2] == pytest.approx(wanted, rel=1e-6)
    assert list(costs["conv1"]) == [2, 4]
    assert allocation.quantization_costs(network, costs, [2, 4]) == costs


def test_no_layer_is_free_because_few_probes_were_made(network: keras.Model) -> None:
    traces = some_traces(network) | {"conv1": Estimate(-3.0, 2.0)}
    costs = allocation.quantization_costs(network, traces, [2])
    assert costs == allocation.quantization_costs(network, traces | {"conv1": 2.0}, [2])
    single = traces | {"conv1": Estimate(-2.0, np.nan)}
    assert costs == allocation.quantization_costs(network, single, [2])


def test_sensitive_layers_get_more_bits() -> None:
    network = tiny_resnet(channels=24)
    traces = dict.fromkeys(quantizable(network), 1.0) | {"layer1.0.conv1": 1e4}
    options: Any = {"target_bytes": 70_000, "bits": [1, 2, 4]}
    recipe = tfq_sv.allocate_bits(network, traces, **options)
    bits = [entry.bits for entry in recipe.layers.values()]
    assert recipe.layers["layer1.0.conv1"].bits == max(bits) > np.mean(bits)
    in_sections = tfq_sv.allocate_bits(network, traces, **options, method="sections")
    assert len({entry.bits for entry in in_sections.layers.values()}) <= 4
    cut = np.array_split(sorted(traces, key=lambda name: -traces[name]), 4)
    assert all(len({in_sections.layers[name].bits for name in section}) == 1 for section in cut)


def test_what_cannot_be_allocated_says_why(network: keras.Model) -> None:
    good: Any = some_costs(network)
    allocate = tfq_sv.allocate_bits

    def fails(message: str, traces: Any = good, **options: Any) -> None:
        with pytest.raises(InputError, match=message):
            allocate(network, traces, **({"target_bytes": 300_000} | options))

    with pytest.raises(InputError, match="is possible: the least target is") as caught:
        allocate(network, good, target_bytes=1000)
    least = int(str(caught.value).split("least target is ")[1].split()[0].replace(",", ""))
    recipe = allocate(network, good, target_bytes=least)
    assert {entry.bits for entry in recipe.layers.values()} <= {1, 8}  # 8 need no decoding
    fails("is possible", target_bytes=least - 20)
    fails("or allow fewer bits", target_bytes=1000, bits=[3, 4])
    fails("no trace is given for layer 'conv1'", {k: v for k, v in good.items() if k != "conv1"})
    fails("a trace is given for 'conv9'", good | {"conv9": 1.0})
    fails("sensitivity of layer 'conv1' is nan", good | {"conv1": np.nan})
    fails("sensitivity of layer 'conv1' is -1.0", good | {"conv1": -1.0})
    fails("from 1 to 8, not 9", bits=[9])
    fails("no bit width", bits=[])
    fails("layer 'conv1' has no cost at 1 bits", {name: {2: 1.0} for name in good})
    fails("method must be one of exact, sections", method="greedy")
    for order in (["conv1"], [*list(good)[1:], "conv9"]):
        with pytest.raises(InputError, match="order must have every layer once"):
            allocation.sweep(network, good, [300_000], method="sections", order=order)


@pytest.mark.parametrize(
    "options", [{"method": "sections"}, {"trellis": True}, {"trellis": True, "bits": [0.5, 2]}]
)
def test_the_least_target_can_be_had(options: Any) -> None:
    """Sections mix no widths within themselves, and groups of trellises are more than predicted."""
    network = models.build("ResNet18", embed_dim=64, channels=32)
    costs = {name: dict.fromkeys(forms(trellis=True), 1.0) for name in quantizable(network)}
    with pytest.raises(InputError, match="the least target is") as caught:
        tfq_sv.allocate_bits(network, costs, target_bytes=1000, **options)
    least = int(str(caught.value).split("least target is ")[1].split()[0].replace(",", ""))
    recipe = tfq_sv.allocate_bits(network, costs, target_bytes=least, **options)
    assert 0.998 * least < FileSize.of(network).total(recipe) <= least


def test_predictions_of_recipes(network: keras.Model) -> None:
    recipe = tfq_sv.QuantizationRecipe.uniform(network, 3)
    assert tfq_sv.predict_bytes(network, recipe) == FileSize.of(network).total(recipe)
    float32 = tfq_sv.predict_bytes(network, recipe, compute="float32", input="features")
    assert float32 < tfq_sv.predict_bytes(network, recipe)
    wrong = tfq_sv.QuantizationRecipe({"conv9": recipe.layers["conv1"]})
    with pytest.raises(InputError, match="names 'conv9', which is no quantizable layer"):
        tfq_sv.predict_bytes(network, wrong)
