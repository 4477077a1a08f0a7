import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import slow, tiny_resnet
from test_fine_tuning import distance

import tfq_sv
from tfq_sv import assets
from tfq_sv.data.chunks import Batches, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.features import fbank_tensor
from tfq_sv.quantization import calibration, gptq
from tfq_sv.quantization.equalization import equalize
from tfq_sv.quantization.folding import positive_gains
from tfq_sv.quantization.quantized_model import quantizers_of
from tfq_sv.quantization.quantizers import KMeans
from tfq_sv.training.fine_tuning import FineTuningOptions


@pytest.mark.slow
def test_calibration_keeps_far_more_than_rounding(train_corpus: Corpus) -> None:
    """Of a trained network, which the corpus' voices are new to."""
    network = assets.load("resnet18-small")
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=2)
    rounded, calibrated = (tfq_sv.quantize(network, recipe, calibrate=False) for _ in range(2))
    tfq_sv.reestimate_batch_norm(rounded, dataset, progress=False)
    assert tfq_sv.calibrate(calibrated, dataset, progress=False) is calibrated
    assert [x.calibrated for x in quantizers_of(calibrated).values()] == [True] * 21
    unseen = fbank_tensor(next(stream)[0])
    assert distance(calibrated, network, unseen) < 0.8 * distance(rounded, network, unseen)
    for book in tfq_sv.codebooks(calibrated).values():
        scale, levels = book.grid()
        np.testing.assert_allclose(np.float32(scale) * levels, book.centroids, rtol=1e-6)
        assert book.codes.max() <= 3
    # Codes hang on the latent weights alone.
    rounded.set_weights(calibrated.get_weights())
    np.testing.assert_array_equal(rounded(unseen), calibrated(unseen))
    # Nothing of calibration stays in the layers.
    assert not any("call" in vars(layer) for layer in calibrated.layers)


def plain_fit(kernel: Any, gram: Any, centroids: Any, damping: float) -> Any:
    return gptq.reconstruct(kernel, gram, centroids), centroids


@pytest.fixture(scope="module")
def calibrated_distance(train_corpus: Corpus) -> Callable[[], float]:
    """Calibrates a network at 2 bits; returns how far it is from the float one.

    On channels as they are: these random ones, once they are equalized, leave too little to gain.
    """
    network, stream = tiny_resnet(), batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    tfq_sv.reestimate_batch_norm(network, dataset, progress=False)
    unseen = fbank_tensor(next(stream)[0])
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=2)

    def measured() -> float:
        quantized = tfq_sv.quantize(network, recipe, calibrate=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calibration, "equalize", lambda model: None)
            tfq_sv.calibrate(quantized, dataset, progress=False)
        return distance(quantized, network, unseen)

    return measured


@pytest.fixture(scope="module")
def with_all_parts(calibrated_distance: Callable[[], float]) -> float:
    return calibrated_distance()


@pytest.mark.parametrize("part", ["correction", *slow("centroids", "importance", "statistics")])
def test_each_part_of_calibration_pays(
    part: str,
    calibrated_distance: Callable[[], float],
    with_all_parts: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each switched off by itself leaves the network farther from the float one."""
    if part == "correction":
        monkeypatch.setattr(calibration, "compensated_kernel", lambda kernel, gram, cross: kernel)
    elif part == "centroids":
        monkeypatch.setattr(calibration, "fit_to_output", plain_fit)
    elif part == "statistics":
        monkeypatch.setattr(calibration, "_set", lambda layer, moments: None)
    else:
        refit = KMeans.refit
        monkeypatch.setattr(
            KMeans, "refit", lambda self, strength: refit(self, np.ones_like(strength))
        )
    assert with_all_parts < 0.98 * calibrated_distance()


def test_a_network_of_two_inputs_is_refused() -> None:
    one, other = (keras.Input((40, 8), name=name) for name in ("one", "other"))
    outputs = keras.layers.Dense(2)(keras.layers.Concatenate()([one, other]))
    model = keras.Model([one, other], outputs, name="pair")
    small = tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, 2), calibrate=False)
    for dataset in (None, [np.zeros((1, 40, 8), np.float32)]):
        with pytest.raises(InputError, match=r"pair has 2 inputs; calibration feeds one"):
            tfq_sv.calibrate(small, dataset, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2])
def test_calibrated_codebooks_stay_in_fine_tuning(
    bits: int, network: keras.Model, train_corpus: Corpus, tmp_path: Path
) -> None:
    """Saved and loaded, too; that every format keeps the mark, the test of `once` proves."""
    stream = batches(train_corpus, batch_size=4, seconds=0.5)
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits)
    if bits == 1:
        recipe = tfq_sv.QuantizationRecipe.binary(network, "adaptive")
    rounded, calibrated = (tfq_sv.quantize(network, recipe, calibrate=False) for _ in range(2))
    tfq_sv.calibrate(calibrated, [next(stream)], progress=False)
    calibrated.save(tmp_path / "calibrated.keras")
    options = FineTuningOptions(steps=3, learning_rate=1e-2, update_every=1, freeze_fraction=0)
    moved = []
    for model in (rounded, calibrated, tfq_sv.load_model(tmp_path / "calibrated.keras")):
        before = tfq_sv.codebooks(model)
        tfq_sv.finetune(model, stream, teacher=network, options=options, progress=False)
        after = tfq_sv.codebooks(model)
        moved.append(any(np.any(after[n].centroids != b.centroids) for n, b in before.items()))
        assert any(np.any(after[n].codes != b.codes) for n, b in before.items())
    assert moved == [True, False, False]


@pytest.mark.parametrize("kind", ["adaptive", *slow("static")])
def test_one_bit_is_calibrated_too(kind: str, network: keras.Model, train_corpus: Corpus) -> None:
    dataset = [next(batches(train_corpus, batch_size=16, seconds=0.5))]
    tfq_sv.reestimate_batch_norm(network, dataset, progress=False)
    recipe = tfq_sv.QuantizationRecipe.binary(network, kind)
    rounded, calibrated = (tfq_sv.quantize(network, recipe, calibrate=False) for _ in range(2))
    tfq_sv.calibrate(calibrated, dataset, progress=False)
    features = fbank_tensor(dataset[0][0])
    assert distance(calibrated, network, features) < 0.7 * distance(rounded, network, features)


@pytest.mark.parametrize("trellis", [False, True])
def test_what_was_fitted_before_does_not_matter(trellis: bool) -> None:
    """`quantize` fits no codebook before calibration; rounding first gives the same."""
    rng = np.random.default_rng(0)
    entry = keras.Input((None, 8))
    x = keras.layers.Dense(16, "relu")(entry)
    model = keras.Model(entry, keras.layers.Dense(16)(x))
    kind = tfq_sv.QuantizationRecipe.trellis if trellis else tfq_sv.QuantizationRecipe.uniform
    recipe, features = kind(model, bits=2), rng.normal(size=(4, 40, 8)).astype(np.float32)
    at_once = tfq_sv.quantize(model, recipe, calibrate=[features])
    later = tfq_sv.quantize(model, recipe, calibrate=False)
    tfq_sv.calibrate(later, [features], progress=False)
    for one, other in zip(at_once.get_weights(), later.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_transposed_convolutions_are_fitted_all_the_same() -> None:
    """Calibration passes them by."""
    model = keras.Sequential([keras.layers.Conv1DTranspose(4, 3, input_shape=(9, 3), name="up")])
    recipe = tfq_sv.QuantizationRecipe.uniform(model, 2)
    found = [
        tfq_sv.codebooks(tfq_sv.quantize(model, recipe, calibrate=calibrate))["up"].decode()
        for calibrate in (True, False)
    ]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "recipe_of",
    [
        partial(tfq_sv.QuantizationRecipe.uniform, bits=2),
        partial(tfq_sv.QuantizationRecipe.trellis, bits=1),
        partial(tfq_sv.QuantizationRecipe.binary, kind="adaptive"),
        partial(tfq_sv.QuantizationRecipe.binary, kind="static"),
    ],
)
def test_how_a_network_is_scaled_does_not_matter(
    recipe_of: Callable[[keras.Model], tfq_sv.QuantizationRecipe],
) -> None:
    """Through a ReLU, a channel may be louder if what takes it turns it down."""
    rng = np.random.default_rng(0)
    loudness = np.exp(rng.normal(0, 1.5, 16)).astype(np.float32)
    features = rng.normal(size=(4, 40, 8)).astype(np.float32)
    answers = []
    for scale in (np.ones(16, np.float32), loudness):
        model = keras.Sequential(
            [
                keras.layers.Dense(16, "relu", input_shape=(None, 8), name="a"),
                keras.layers.Dense(16, name="b"),
            ]
        )
        rng = np.random.default_rng(1)
        first, second = (rng.normal(size=(n, 16)).astype(np.float32) for n in (8, 16))
        zeros = np.zeros(16, np.float32)
        model.set_weights([first * scale, zeros, second / scale[:, None], zeros])
        recipe = recipe_of(model)
        answers.append(tfq_sv.quantize(model, recipe, calibrate=[features])(features).numpy())
    np.testing.assert_allclose(*answers, rtol=0.02, atol=0.02 * np.abs(answers[0]).max())


@pytest.mark.parametrize("file", ["a.keras", *slow("a.h5", "a")])
@pytest.mark.parametrize("kind", ["adaptive", *slow("static")])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_calibration_is_done_once(
    kind: str, file: str, network: keras.Model, tmp_path: Path
) -> None:
    """Afterwards the latent weights are no longer the float network's."""
    speech = [np.random.default_rng(0).normal(size=(2, 40, 80)).astype(np.float32)]
    model = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.binary(network, kind), calibrate=False
    )
    tfq_sv.calibrate(model, speech, progress=False)
    model.save(tmp_path / file)
    for again in (model, tfq_sv.load_model(tmp_path / file)):
        with pytest.raises(InputError, match="is calibrated already; quantize the float network"):
            tfq_sv.calibrate(again, speech, progress=False)


def test_a_last_batch_norm_that_overflows() -> None:
    layers = [
        keras.layers.Dense(4, input_shape=(None, 8)),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.BatchNormalization(name="last"),
    ]
    model = keras.Sequential(layers)
    layers[0].set_weights([1e6 * x for x in layers[0].get_weights()])
    small = tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, 2), calibrate=False)
    speech = 1e16 * np.random.default_rng(0).normal(size=(2, 40, 8)).astype(np.float32)
    with pytest.raises(InputError, match=r"layer last: .* not finite"):
        tfq_sv.calibrate(small, [speech], progress=False)
    assert np.isfinite(small.get_layer("last").moving_variance).all()


def test_an_interrupted_calibration_leaves_the_model_as_it_was(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, 2), calibrate=False
    )
    before, fitted = quantized.get_weights(), []

    def fit_to_output(*arguments: Any, **options: Any) -> Any:
        if len(fitted) == 3:
            raise KeyboardInterrupt
        fitted.append(arguments)
        return gptq.fit_to_output(*arguments, **options)

    monkeypatch.setattr(calibration, "fit_to_output", fit_to_output)
    with pytest.raises(KeyboardInterrupt):
        tfq_sv.calibrate(quantized, progress=False)
    for a, b in zip(before, quantized.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.undo()
    assert tfq_sv.calibrate(quantized, progress=False) is quantized
    assert [x.calibrated for x in quantizers_of(quantized).values()] == [True] * 5


def test_a_failed_calibration_leaves_the_model_as_it_was(network: keras.Model) -> None:
    for speech in (None, []):
        with pytest.raises(InputError, match="is not quantized"):
            tfq_sv.calibrate(network, speech)
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network), calibrate=False
    )
    before, threads = quantized.get_weights(), set(threading.enumerate())
    bad = np.full([2, 40, 80], np.nan, np.float32)
    # Finite, but not what the first layers make of it.
    huge = np.full([2, 40, 80], 1e38, np.float32)
    good = np.ones([2, 40, 80], np.float32)
    for dataset, message in [
        ([], "gave no batch"),
        ([bad], "not finite"),
        ([huge], "not finite"),
        ([good[:0]], r"shape \(0, 40, 80\); expected some waveforms"),
        ([good[:, :0]], "expected some waveforms"),
        ([good[..., :40]], r"or features \(B, T, 80\)"),
        ([np.ones([2, 300], np.float32)], "N at least 400"),
        (Batches(lambda number: (good, np.zeros(2)), 0, workers=1), "never ends"),
    ]:
        with pytest.raises(InputError, match=message):
            tfq_sv.calibrate(quantized, dataset, progress=False)
        for a, b in zip(before, quantized.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert set(threading.enumerate()) <= threads  # the float network beside it has ended
        assert not any("call" in vars(layer) for layer in quantized.layers)


@pytest.mark.parametrize("kind", ["kmeans", "trellis"])
def test_the_noise_of_each_output_is_known(kind: str) -> None:
    """Of what comes in, however its channels are scaled; before calibration nobody knows it."""
    rng = np.random.default_rng(0)
    x = features = keras.Input((None, 16))
    for name in ("first", "second"):
        x = keras.layers.Conv1D(16, 1, use_bias=False, name=name)(x)
        x = keras.layers.BatchNormalization(name=f"bn_{name}")(x)
    model = keras.Model(features, keras.layers.GlobalAveragePooling1D()(x))
    model.get_layer("bn_first").gamma.assign(rng.choice([-3, 0.1, 2], 16))
    recipe = tfq_sv.QuantizationRecipe.uniform(model, 2)
    if kind == "trellis":
        recipe = tfq_sv.QuantizationRecipe.trellis(model, 2)
    speech = rng.normal(size=(4, 50, 16)).astype(np.float32)
    small = tfq_sv.quantize(model, recipe, calibrate=[speech])
    found = quantizers_of(small)
    kept = keras.models.clone_model(model)
    kept.set_weights(model.get_weights())
    positive_gains(kept)
    equalize(kept)
    kernel, rounded = kept.get_layer("first").kernel[0], found["first"].codebook().decode()[0]
    ratio = np.sum((speech @ kernel) ** 2) / np.sum((speech @ (kernel - rounded)) ** 2)
    assert found["first"].sqnr == pytest.approx(10 * np.log10(ratio), abs=0.01)
    assert 5 < found["second"].sqnr < 25
    plain = tfq_sv.quantize(model, recipe, calibrate=False)
    assert [x.sqnr for x in quantizers_of(plain).values()] == [None, None]
