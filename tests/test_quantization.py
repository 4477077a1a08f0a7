from pathlib import Path

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from conftest import slow
from learned_scale import with_learned_scales

import tfq_sv
from tfq_sv.errors import InputError
from tfq_sv.quantization.quantized_model import quantizers_of
from tfq_sv.quantization.recipe import LayerRecipe

LAYERS = keras.layers
FORMS = ["model.keras", *slow("model.h5", "saved")]
FEATURES = np.random.default_rng(0).normal(size=(2, 60, 80)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        *(("network", bits) for bits in (1, 3, 8)),
        *(pytest.param("network", bits, marks=pytest.mark.slow) for bits in (2, 4, 5, 6, 7)),
        pytest.param("resnet18", 4, marks=pytest.mark.slow),
    ],
)
def test_every_kernel_becomes_a_codebook(
    name: str, bits: int, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(name)
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=bits)
    assert len(recipe.layers) == (21 if name == "resnet18" else 5)
    before = network(FEATURES).numpy()
    quantized = tfq_sv.quantize(network, recipe, calibrate=False)
    np.testing.assert_array_equal(network(FEATURES), before)  # the model given stays as it is
    books = tfq_sv.codebooks(quantized)
    assert books.keys() == recipe.layers.keys()
    for name, book in books.items():
        kernel = network.get_layer(name).kernel.numpy()
        assert book.bits == bits
        assert book.codes.shape == kernel.shape
        scale, levels = book.grid()
        np.testing.assert_allclose(np.float32(scale) * levels, book.centroids, rtol=1e-6)


def test_the_model_computes_with_the_codebooks(network: keras.Model) -> None:
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=3), calibrate=False
    )
    for name, book in tfq_sv.codebooks(quantized).items():
        layer = network.get_layer(name)
        layer.set_weights([book.decode(), *layer.get_weights()[1:]])
    expected = network(FEATURES)
    np.testing.assert_allclose(quantized(FEATURES), expected, rtol=1e-5, atol=1e-5)
    plain = tfq_sv.dequantize(quantized)
    assert not any(isinstance(layer, LAYERS.Wrapper) for layer in plain.layers)
    np.testing.assert_allclose(plain(FEATURES), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saves_and_loads(network: keras.Model, form: str, tmp_path: Path) -> None:
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=2), calibrate=False
    )
    quantized.save(tmp_path / form)
    loaded = tfq_sv.load_model(tmp_path / form)
    np.testing.assert_array_equal(loaded(FEATURES), quantized(FEATURES))
    books = tfq_sv.codebooks(quantized)
    for name, book in tfq_sv.codebooks(loaded).items():
        np.testing.assert_array_equal(book.codes, books[name].codes)
        np.testing.assert_array_equal(book.centroids, books[name].centroids)


@pytest.mark.parametrize("kind", ["adaptive", *slow("static", "learned scale")])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_binary_networks_save_and_load(
    network: keras.Model, kind: str, form: str, tmp_path: Path
) -> None:
    if kind == "learned scale":
        quantized = with_learned_scales(network)
    else:
        quantized = tfq_sv.quantize(
            network, tfq_sv.QuantizationRecipe.binary(network, kind), calibrate=False
        )
    quantized.save(tmp_path / form)
    loaded = tfq_sv.load_model(tmp_path / form)
    np.testing.assert_array_equal(loaded(FEATURES), quantized(FEATURES))
    books = tfq_sv.codebooks(quantized)
    for name, book in tfq_sv.codebooks(loaded).items():
        np.testing.assert_array_equal(book.centroids, books[name].centroids)
    plain = tfq_sv.dequantize(quantized)
    np.testing.assert_allclose(plain(FEATURES), quantized(FEATURES), rtol=1e-4, atol=1e-5)


def test_static_levels_are_mean_plus_and_minus_the_mean_distance(network: keras.Model) -> None:
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.binary(network, "static"), calibrate=False
    )
    before = tfq_sv.codebooks(quantized)
    for name, book in before.items():
        kernel = network.get_layer(name).kernel.numpy()
        distance = np.abs(kernel - kernel.mean()).mean()
        wanted = [kernel.mean() - distance, kernel.mean() + distance]
        grid_step = np.abs(wanted).max() / 127
        np.testing.assert_allclose(book.centroids, wanted, atol=grid_step)
        # Of all pairs around the mean, this distance has the least squared error.
        error = np.sum((kernel - book.decode()) ** 2)
        for factor in (0.9, 1.1):
            levels = kernel.mean() + factor * distance * np.where(kernel < kernel.mean(), -1, 1)
            assert error < np.sum((kernel - levels) ** 2)
    for quantizer in quantizers_of(quantized).values():
        quantizer.latent.assign_add(0.05 * tf.ones_like(quantizer.latent))
        quantizer.update(steps=3)
    for name, book in tfq_sv.codebooks(quantized).items():
        np.testing.assert_array_equal(book.centroids, before[name].centroids)


def test_a_learned_scale_gets_its_gradient_and_leaves_the_others() -> None:
    model = keras.Sequential([LAYERS.Dense(3, use_bias=False, input_shape=(4,))])
    quantized = with_learned_scales(model)
    (quantizer,) = quantizers_of(quantized).values()
    quantizer.scale.assign(2.0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantized(tf.eye(4)) * np.arange(12.0).reshape(4, 3))
    by_scale, by_kernel = tape.gradient(loss, [quantizer.scale, quantizer.latent])
    decoded = quantizer.codebook().decode()
    np.testing.assert_allclose(by_scale, np.sum(decoded / 2 * np.arange(12.0).reshape(4, 3)), 1e-5)
    np.testing.assert_allclose(by_kernel, np.arange(12.0).reshape(4, 3))
    quantizer.scale.assign(-1.0)
    with pytest.raises(InputError, match=r"learned scale became -1\.0"):
        quantizer.codebook()


def test_unknown_binary_kinds(network: keras.Model) -> None:
    with pytest.raises(InputError, match='must be "adaptive" or "static", not \'sign\''):
        tfq_sv.QuantizationRecipe.binary(network, "sign")
    with pytest.raises(InputError, match="static_binary has 1 bit, not 2"):
        LayerRecipe("static_binary", 2)


def test_loading_fits_nothing(
    network: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit costs up to half a second a layer, and the file holds the centroids already."""
    tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.uniform(network), calibrate=False).save(
        tmp_path / "m.keras"
    )

    def never(*args: object) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr("tfq_sv.codebook.fit", never)
    assert len(tfq_sv.codebooks(tfq_sv.load_model(tmp_path / "m.keras"))) == 5


def test_layers_that_the_recipe_does_not_name_stay_float(network: keras.Model) -> None:
    recipe = tfq_sv.QuantizationRecipe(
        {"conv1": LayerRecipe("kmeans", 8), "seg_1": LayerRecipe("kmeans", 2)}
    )
    books = tfq_sv.codebooks(tfq_sv.quantize(network, recipe, calibrate=False))
    assert {name: book.bits for name, book in books.items()} == {"conv1": 8, "seg_1": 2}


def test_tfmots_own_functions_on_any_model() -> None:
    """People annotate and apply themselves; the kernels they trained start the codebooks."""
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    trained = keras.Sequential(
        [
            LAYERS.Conv1D(8, 3, activation="relu", input_shape=(None, 6)),
            LAYERS.Conv1D(8, 3, dilation_rate=2, use_bias=False),
            LAYERS.BatchNormalization(),
            LAYERS.GlobalAveragePooling1D(),
            LAYERS.Dense(4),
        ]
    )
    config = tfq_sv.KMeansQuantizeConfig(bits=8)
    annotated = keras.models.clone_model(
        trained,
        clone_function=lambda layer: (
            annotate(type(layer).from_config(layer.get_config()), config)
            if isinstance(layer, LAYERS.Conv1D)
            else type(layer).from_config(layer.get_config())
        ),
    )
    annotated.set_weights(trained.get_weights())
    model = tfmot.quantization.keras.quantize_apply(annotated, tfq_sv.WeightOnlyScheme())
    assert len(tfq_sv.codebooks(model)) == 2
    frames = np.random.default_rng(0).normal(size=(3, 20, 6)).astype(np.float32)
    np.testing.assert_allclose(model(frames), trained(frames), atol=0.02)
    model.compile("adam", "mse")
    before = model.get_weights()
    model.fit(frames, np.ones((3, 4)), epochs=1, verbose=0)
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("kind", ["uniform", "binary", "trellis"])
def test_layers_are_wrapped_as_tfmot_wraps_them(kind: str) -> None:
    """Layers, variables, weights and configuration are those of tfmot's `quantize_apply`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 8), name="features")
    twice = LAYERS.Conv1D(8, 3, padding="causal", name="twice")
    x = LAYERS.BatchNormalization()(twice(twice(inputs)))
    x = LAYERS.DepthwiseConv1D(3, use_bias=False, name="depthwise")(
        LAYERS.PReLU(shared_axes=[1])(x)
    )
    x = LAYERS.GlobalAveragePooling1D()(LAYERS.Conv1D(16, 1, activation="relu")(x))
    frozen = LAYERS.Dense(16, kernel_regularizer="l2", trainable=False, name="frozen")
    trained = keras.Model(inputs, frozen(x), name="net")
    recipe = getattr(tfq_sv.QuantizationRecipe, kind)(
        trained, **({} if kind == "binary" else {"bits": 2})
    )
    config = {
        "kmeans": tfq_sv.KMeansQuantizeConfig,
        "trellis": tfq_sv.TrellisQuantizeConfig,
        "adaptive_binary": lambda bits: tfq_sv.AdaptiveBinaryQuantizeConfig(),
    }

    def annotated(layer: LAYERS.Layer) -> LAYERS.Layer:
        copy = type(layer).from_config(layer.get_config())
        if layer.name not in recipe.layers:
            return copy
        copy.trainable = True
        entry = recipe.layers[layer.name]
        return tfmot.quantization.keras.quantize_annotate_layer(
            copy, config[entry.kind](entry.bits)
        )

    model = keras.models.clone_model(trained, clone_function=annotated)
    model.set_weights(trained.get_weights())
    wanted = tfmot.quantization.keras.quantize_apply(model, tfq_sv.WeightOnlyScheme())
    quantized = tfq_sv.quantize(trained, recipe, calibrate=False)
    assert quantized.to_json() == wanted.to_json()
    for group in ("weights", "trainable_weights"):
        ours, theirs = getattr(quantized, group), getattr(wanted, group)
        names = [[weight.name.split("/")[-1] for weight in group] for group in (ours, theirs)]
        assert names[0] == names[1]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("own", [True, *slow(False)])
def test_frozen_layers_get_the_same_codebooks(own: bool, network: keras.Model) -> None:
    """Teachers are often frozen; what they know counts all the same."""

    def quantize() -> keras.Model:
        if own:
            return tfq_sv.quantize(
                network, tfq_sv.QuantizationRecipe.uniform(network, 2), calibrate=False
            )
        config = tfq_sv.KMeansQuantizeConfig(bits=2)
        copy = keras.models.clone_model(
            network,
            clone_function=lambda layer: (
                tfmot.quantization.keras.quantize_annotate_layer(
                    type(layer).from_config(layer.get_config()), config
                )
                if isinstance(layer, LAYERS.Conv2D)
                else type(layer).from_config(layer.get_config())
            ),
        )
        copy.set_weights(network.get_weights())
        with tfmot.quantization.keras.quantize_scope(
            {type(x).__name__: type(x) for x in network.layers}
        ):
            return tfmot.quantization.keras.quantize_apply(copy, tfq_sv.WeightOnlyScheme())

    wanted = tfq_sv.codebooks(quantize())
    network.trainable = False
    frozen = quantize()
    for name, book in tfq_sv.codebooks(frozen).items():
        np.testing.assert_array_equal(book.centroids, wanted[name].centroids)
    if own:
        trained = {id(weight) for weight in frozen.trainable_weights}
        last = frozen.get_layer("quant_seg_1").layer
        assert {id(last.bias), id(quantizers_of(frozen)["seg_1"].latent)} <= trained


def test_a_model_of_mixed_precision(tmp_path: Path) -> None:
    """Trained with Keras under a mixed policy, saved, and loaded where none is in force."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layers = [LAYERS.Conv1D(8, 3, input_shape=(None, 6)), LAYERS.BatchNormalization()]
        model = keras.Sequential([*layers, LAYERS.GlobalAveragePooling1D(), LAYERS.Dense(4)])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    model.save(tmp_path / "mixed.keras")
    loaded = tfq_sv.load_model(tmp_path / "mixed.keras")
    small = tfq_sv.quantize(
        loaded, tfq_sv.QuantizationRecipe.uniform(loaded, bits=8), calibrate=False
    )
    frames = np.random.default_rng(0).normal(size=(3, 20, 6)).astype(np.float32)
    assert small(frames).dtype == tf.float32
    np.testing.assert_allclose(small(frames), loaded(frames), atol=0.03)


def test_gradients_pass_straight_through() -> None:
    from tfq_sv.quantization.quantizers import straight_through

    weights = tf.Variable([[-0.9, 0.2], [0.4, 3.0]])
    centroids = tf.constant([-1.0, 0.0, 0.5, 1.0])
    with tf.GradientTape() as tape:
        values = straight_through(weights, centroids)
        loss = tf.reduce_sum(values * [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(values, [[-1.0, 0.0], [0.5, 1.0]])
    np.testing.assert_array_equal(tape.gradient(loss, weights), [[1, 2], [3, 4]])


def nested() -> keras.Model:
    entry = keras.Input((3,))
    return keras.Model(entry, Subclassed(name="inner")(entry))


class Subclassed(keras.Model):
    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)
        self.dense = LAYERS.Dense(2)
        self.build((None, 3))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.dense(inputs)


def test_models_that_cannot_be_quantized_say_why(network: keras.Model) -> None:
    uniform = tfq_sv.QuantizationRecipe.uniform
    with pytest.raises(InputError, match="inner is a model inside"):
        uniform(nested())
    with pytest.raises(InputError, match="TF_USE_LEGACY_KERAS=1"):
        uniform(keras3.Sequential([keras3.layers.Input((3,)), keras3.layers.Dense(2)]))
    with pytest.raises(InputError, match="is no graph of layers"):
        uniform(keras.Sequential([LAYERS.Dense(2)], name="unbuilt"))
    with pytest.raises(InputError, match="is no graph of layers"):
        uniform(Subclassed())
    with pytest.raises(InputError, match="no convolution or dense layer"):
        uniform(keras.Sequential([LAYERS.ReLU(input_shape=(3,))]))
    with pytest.raises(InputError, match="'conv9', which is no quantizable layer"):
        tfq_sv.quantize(
            network, tfq_sv.QuantizationRecipe({"conv9": LayerRecipe("kmeans", 4)}), calibrate=False
        )
    with pytest.raises(InputError, match="is not quantized"):
        tfq_sv.codebooks(network)
    with pytest.raises(InputError, match="is quantized already"):
        uniform(tfq_sv.quantize(network, uniform(network), calibrate=False))
    kernel = network.get_layer("conv1").kernel
    for bad in (np.nan, np.inf):
        kernel.assign(np.full(kernel.shape, bad, np.float32))
        for recipe in (uniform(network), uniform(network, bits=8)):
            with pytest.raises(InputError, match="layer conv1: 72 of 72 weights are NaN or inf"):
                tfq_sv.quantize(network, recipe, calibrate=False)


def test_layers_that_cannot_be_annotated_say_why() -> None:
    """By tfmot's own calls, as people know them."""
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    layer = annotate(LAYERS.ReLU(input_shape=(3,)), tfq_sv.KMeansQuantizeConfig(bits=4))
    with pytest.raises(InputError, match=r"\(ReLU\) has no kernel to quantize; annotate dense"):
        tfmot.quantization.keras.quantize_apply(
            keras.Sequential([layer]), scheme=tfq_sv.WeightOnlyScheme()
        )


@pytest.mark.parametrize("value", [0.0, 0.25])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_constant_kernels_stay_as_they_are(bits: int, value: float) -> None:
    """Down to a layer whose inputs are then all alike. A sigmoid, so that no channel is scaled."""
    keras.utils.set_random_seed(0)
    entry = keras.Input((None, 16))
    x = LAYERS.Conv1D(8, 3, padding="same", activation="sigmoid", name="frames")(entry)
    network = keras.Model(entry, LAYERS.Dense(4, name="seg")(LAYERS.GlobalAveragePooling1D()(x)))
    kernel = network.get_layer("frames").kernel
    kernel.assign(np.full(kernel.shape, value, np.float32))
    model = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=bits), calibrate=False
    )
    tfq_sv.calibrate(model, progress=False)
    books = tfq_sv.codebooks(model)
    np.testing.assert_allclose(books["frames"].decode(), kernel.numpy(), rtol=1e-6)
    assert np.isfinite(books["seg"].decode()).all()


@pytest.mark.parametrize("name", ["missing.keras", "text.keras", "text.h5"])
def test_files_that_are_no_model(name: str, tmp_path: Path) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("hello")
    with pytest.raises(InputError, match=name):
        tfq_sv.load_model(tmp_path / name)
