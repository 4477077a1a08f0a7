"""Keras networks as people build them: each works, or one line names the layer and the way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras as keras3
import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tf_keras as keras
from conftest import some
from train_small import small

import tfq_sv
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import KerasEncoder
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.export import SpeakerEncoder, export_tflite
from tfq_sv.features import fbank
from tfq_sv.quantization import quantizers_of
from tfq_sv.training import TrainingOptions, train
from tfq_sv.training.fine_tuning import FineTuningOptions

layers = keras.layers
WAVEFORM = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)


def quantized(model: keras.Model) -> keras.Model:
    return tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, bits=4), calibrate=False)


def pooled(x: Any) -> Any:
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3, name="conv")(x))
    return layers.Dense(8, name="seg")(x)


def frames(outputs: Callable[[Any], Any] = lambda x: x) -> keras.Model:
    features = keras.Input((None, 80), name="features")
    return keras.Model(features, outputs(pooled(features)), name="net")


def turned() -> keras.Model:
    features = keras.Input((80, None))
    return keras.Model(features, pooled(layers.Permute((2, 1))(features)))


def image(*shape: int | None) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        features = keras.Input((*shape, 1))
        x = layers.Conv2D(8, (3, 5), name="conv", activation="relu")(features)
        return keras.Model(features, layers.Dense(8)(layers.GlobalAveragePooling2D()(x)))

    return build


def raw() -> keras.Model:
    waveform = keras.Input((None,))
    x = layers.Conv1D(8, 400, 160, name="frames")(layers.Reshape((-1, 1))(waveform))
    return keras.Model(waveform, pooled(layers.ReLU()(x)))


def mixed() -> keras.Model:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return quantized(small())
    finally:
        keras.mixed_precision.set_global_policy("float32")


def part() -> keras.Model:
    """The embedding of a network that was quantized with its classifier."""
    whole = quantized(frames(lambda x: layers.Dense(3, name="logits")(x)))
    return keras.Model(whole.input, whole.get_layer("quant_seg").output)


DOORS: dict[str, Callable[[], keras.Model]] = {
    "dictionary": lambda: frames(lambda x: {"embedding": x}),
    "list": lambda: frames(lambda x: [x]),
    "(B, 80, T)": turned,
    "(B, T, 80, 1)": image(None, 80),
    "(B, 80, T, 1)": image(80, None),
    "(B, N)": raw,
    "mixed_float16": mixed,
    "part": part,
    "LSTM": lambda: keras.Sequential(
        [keras.Input((None, 80)), layers.Conv1D(8, 3), layers.LSTM(8), layers.Dense(8)]
    ),
}


UNLIKE = ("dictionary", "(B, N)")
"""Doors that `make quick` tries."""
FLOAT = [x for x in DOORS if x not in ("mixed_float16", "part")]


@pytest.mark.filterwarnings("ignore:left float")
@pytest.mark.parametrize("door", some(FLOAT, "dictionary"))
def test_every_step_takes_waveforms(door: str) -> None:
    """Whatever axes the network wants, a dataset of waveforms is enough."""
    keras.utils.set_random_seed(0)
    teacher = DOORS[door]()
    dataset = [np.stack([WAVEFORM, WAVEFORM[::-1]])]
    options = tfq_sv.mixed_precision.ProbeOptions(max_probes=1)
    for measure in (tfq_sv.hessian_traces, tfq_sv.fisher_traces, tfq_sv.embedding_distortions):
        found = measure(teacher, dataset, options=options, progress=False)
        assert found.keys() == tfq_sv.QuantizationRecipe.uniform(teacher, bits=4).layers.keys()
    recipe = tfq_sv.QuantizationRecipe.uniform(teacher, bits=2)
    calibrated = tfq_sv.quantize(teacher, recipe, calibrate=[*dataset, dataset[0][:, :12000]])
    assert all(x.calibrated for x in quantizers_of(calibrated).values())
    model = tfq_sv.quantize(teacher, recipe, calibrate=False)
    before = KerasEncoder(model).embed(WAVEFORM)
    steps = FineTuningOptions(steps=30, learning_rate=1e-3, batch_norm_batches=0)
    tfq_sv.finetune(model, dataset, teacher=teacher, options=steps, progress=False)
    wanted = KerasEncoder(teacher).embed(WAVEFORM)
    assert cosine(KerasEncoder(model).embed(WAVEFORM), wanted) > cosine(before, wanted)


@pytest.mark.parametrize("door", some(FLOAT, *UNLIKE))
def test_every_network_trains(door: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for speaker in ("ann", "bob"):
        (tmp_path / speaker).mkdir()
        soundfile.write(tmp_path / speaker / "1.wav", rng.normal(0, 0.1, 8000), 16000)
    model = DOORS[door]()
    before = [weight.copy() for weight in model.get_weights()]
    options = TrainingOptions(steps=2, batch_size=2, seconds=0.4)
    result = train(model, Corpus.read(tmp_path), options=options, progress=False)
    assert np.isfinite(result.loss)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.filterwarnings("ignore:left float")
@pytest.mark.parametrize("door", some(DOORS, *UNLIKE))
def test_the_file_answers_as_keras_does(door: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = DOORS[door]()
    if not any("QuantizeWrapper" in type(layer).__name__ for layer in model.layers):
        expected = KerasEncoder(model).embed(WAVEFORM)
        entry = fbank(WAVEFORM)[None]
        if "80, T" in door:
            entry = entry.transpose(0, 2, 1)
        if door.endswith("1)"):
            entry = entry[..., None]
        if door == "(B, N)":
            entry = WAVEFORM[None]
        np.testing.assert_allclose(expected, tf.nest.flatten(model(entry))[0][0], atol=1e-4)
        model = quantized(model)
        tfq_sv.calibrate(model, progress=False)
    model_answer = KerasEncoder(model).embed(WAVEFORM)
    assert model_answer.dtype == np.float32
    for compute, least in (("float32", 0.99999), ("int8", 0.99)):
        export_tflite(model, tmp_path / "a.tflite", compute=compute)
        found = SpeakerEncoder(tmp_path / "a.tflite").embed(WAVEFORM)
        assert cosine(found, model_answer) > (0.999 if door == "mixed_float16" else least)
    if door == "(B, N)":
        with pytest.raises(InputError, match=r"takes waveforms \(B, N\); export it with input="):
            export_tflite(model, tmp_path / "a.tflite", "features")
    else:
        export_tflite(model, tmp_path / "a.tflite", "features", compute="float32")
        found = SpeakerEncoder(tmp_path / "a.tflite").embed(WAVEFORM)
        assert cosine(found, model_answer) > 0.999


class Bessel(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return tf.math.bessel_i0(inputs)


def each_frame(features: Any) -> Any:
    """A sequence of bands for each frame, whose number the converter does not know."""
    inner = layers.LSTM(4)
    return layers.TimeDistributed(inner, name="odd")(layers.Reshape((-1, 80, 1))(features))


def with_layer(layer: Any) -> keras.Model:
    features = keras.Input((None, 80), name="features")
    return keras.Model(features, pooled(layer(features)), name="net")


def dead(**options: Any) -> keras.Model:
    features = keras.Input((None, 80))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3)(features))
    return keras.Model(features, layers.Dense(8, name="dead", **options)(x), name="net")


def negative_variance() -> keras.Model:
    model = with_layer(layers.BatchNormalization(name="bn"))
    bn = model.get_layer("bn")
    bn.moving_variance.assign(-bn.moving_variance)
    return model


REFUSED: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "masks": (lambda: with_layer(layers.Masking(name="mask")), r"layer conv gets a mask \(of mask"),
    "operations": (lambda: with_layer(Bessel(name="odd")), r"layer odd \(Bessel\) computes Bessel"),
    "operations in a loop": (
        lambda: with_layer(each_frame),
        r"layer odd \(TimeDistributed\) computes TensorListReserve",
    ),
    "several": (
        lambda: frames(lambda x: {"embedding": x, "logits": layers.Dense(3)(x)}),
        r"outputs embedding, logits; .* model.output\['embedding'\]",
    ),
    "zeros": (
        lambda: dead(kernel_initializer="zeros"),
        r"from layer dead \(Dense\) on all is zero",
    ),
    "NaN": (negative_variance, r"net answers NaN to noise: from layer bn .*on all is NaN"),
    "dead ReLUs": (
        lambda: dead(bias_initializer=keras.initializers.Constant(-99), activation="relu"),
        r"net answers zero to noise: from layer dead \(Dense\)",
    ),
}


@pytest.mark.filterwarnings("ignore:left float")
@pytest.mark.parametrize("case", some(REFUSED, *(REFUSED.keys() - {"operations in a loop"})))
def test_one_line_says_what_is_wrong(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        export_tflite(quantized(build()), tmp_path / "a.tflite")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert "loc(" not in capfd.readouterr().err  # MLIR
    assert not (tmp_path / "a.tflite").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("form", ["t.h5", "t.keras"])
def test_a_fine_tuned_network_is_saved_with_its_optimizer(form: str, tmp_path: Path) -> None:
    model = quantized(small())
    features = np.random.default_rng(0).normal(size=(4, 50, 80)).astype(np.float32)
    for _ in range(2):  # as it was quantized, and as it was loaded
        model.compile("adam", "mse")
        model.fit(features, np.ones((4, 8)), verbose=0)
        model.save(tmp_path / form)
        loaded = tfq_sv.load_model(tmp_path / form)
        np.testing.assert_array_equal(loaded(features), model(features))
        model = loaded


class Nameless(layers.Layer):
    """Its configuration does not say what it was given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = layers.Dense(80)

    def get_config(self) -> dict[str, Any]:
        return {}

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(80, name="odd", activation=lambda x: 2 * x),
        layers.Dense(80, name="odd", kernel_initializer=lambda shape, dtype: tf.ones(shape, dtype)),
        Nameless(name="odd"),
        keras.Sequential([keras.Input((None, 80)), Nameless(name="odd")], name="block"),
    ],
)
def test_layers_that_cannot_be_copied_are_named(layer: Any) -> None:
    with pytest.raises(
        InputError, match=r"layer (block\.)?odd \(\w+\) cannot be copied .*without lambda"
    ):
        quantized(with_layer(layer))


def test_files_of_keras_3_say_so(tmp_path: Path) -> None:
    model = keras3.Sequential([keras3.layers.Input((None, 80)), keras3.layers.Conv1D(4, 3)])
    model.save(tmp_path / "a.keras")
    with h5py.File(tmp_path / "a.h5", "w") as file:  # as Keras 3 writes it
        file.attrs["keras_version"] = keras3.__version__
        file.attrs["model_config"] = model.to_json()
    for name in ("a.keras", "a.h5"):
        with pytest.raises(InputError, match=rf"{name} is a file of Keras 3\.\d.*set_weights"):
            tfq_sv.load_model(tmp_path / name)


def test_shapes_that_say_too_little() -> None:
    model = keras.Sequential([keras.Input((None, None)), layers.ReLU()])
    with pytest.raises(InputError, match=r"takes \(None, None, None\); expected features"):
        KerasEncoder(model)
