"""Calibration without speech: what noise stands for, and how far it is trusted."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from test_fine_tuning import distance

import tfq_sv
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.features import FbankOptions, fbank_tensor
from tfq_sv.models import FrontEnd
from tfq_sv.quantization import calibration, gptq
from tfq_sv.quantization.batch_norm import batch_norms
from tfq_sv.quantization.equalization import equalize
from tfq_sv.quantization.folding import positive_gains
from tfq_sv.quantization.quantized_model import quantizers_of


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_noise_stands_for_speech_that_is_not_there(
    bits: int, request: pytest.FixtureRequest, train_corpus: Corpus
) -> None:
    network = request.getfixturevalue("resnet18" if bits == 2 else "network")
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    tfq_sv.reestimate_batch_norm(network, dataset, progress=False)
    unseen = fbank_tensor(next(stream)[0])
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits)
    rounded, kept = (tfq_sv.quantize(network, recipe, calibrate=False) for _ in range(2))
    tfq_sv.reestimate_batch_norm(rounded, dataset, progress=False)
    assert tfq_sv.calibrate(kept, progress=False) is kept
    assert [x.calibrated for x in quantizers_of(kept).values()] == [True] * len(recipe.layers)
    # Better than rounding, even if that has its BatchNorms fitted to speech.
    assert distance(kept, network, unseen) < 0.9 * distance(rounded, network, unseen)
    with pytest.raises(InputError, match="is calibrated already"):
        tfq_sv.calibrate(kept, dataset, progress=False)


def test_correlations_of_noise_are_trusted_less_than_those_of_speech(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    dampings: list[float] = []

    def fit_to_output(*arguments: Any, damping: float) -> Any:
        dampings.append(damping)
        return gptq.fit_to_output(*arguments, damping=damping)

    monkeypatch.setattr(calibration, "fit_to_output", fit_to_output)
    recipe = tfq_sv.QuantizationRecipe.uniform(network, 1)
    speech = np.random.default_rng(0).normal(size=(2, 40, 80)).astype(np.float32)
    for dataset in (True, [speech]):
        tfq_sv.quantize(network, recipe, calibrate=dataset)
    layers = len(recipe.layers)
    assert dampings == [10 * gptq.DAMPING] * layers + [gptq.DAMPING] * layers


def test_noise_leaves_no_statistics_of_its_own(network: keras.Model) -> None:
    """At 8 bits, which change next to nothing, BatchNorms keep what they know of speech."""
    small = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=8), calibrate=False
    )
    tfq_sv.calibrate(small, progress=False)
    norms = batch_norms(small)
    positive_gains(network)  # as calibration does
    equalize(network)
    for name, layer in batch_norms(network).items():
        np.testing.assert_allclose(norms[name].moving_mean, layer.moving_mean, atol=0.05)
        np.testing.assert_allclose(norms[name].moving_variance, layer.moving_variance, rtol=0.1)


@pytest.mark.parametrize("shape", [(None, 40), (8,), (None, 12, 3)])
def test_noise_is_as_smooth_and_as_loud_as_said(shape: tuple[int | None, ...]) -> None:
    model = keras.Sequential([keras.layers.ReLU(input_shape=shape)])
    noise = calibration._noise(model).numpy()
    assert noise.shape == (10, *(size or 200 for size in shape))
    if shape == (None, 40):
        assert noise.std() == pytest.approx(2, rel=0.1)
        assert noise[:, 0].std() == pytest.approx(2, rel=0.2)
        np.testing.assert_allclose(noise.mean(axis=1), 0, atol=1e-6)
        for axis, near in ((1, 0.87), (2, 0.77)):
            one, other = (np.delete(noise, end, axis).ravel() for end in (0, -1))
            assert np.corrcoef(one, other)[0, 1] == pytest.approx(near, abs=0.02)
    np.testing.assert_array_equal(noise, calibration._noise(model))


def test_noise_is_the_same_in_any_order_of_axes() -> None:
    noise = {}
    for shape in ((None, 40), (40, None), (None, 40, 1), (40, None, 1)):
        model = keras.Sequential([keras.layers.ReLU(input_shape=shape)])
        noise[shape] = calibration._noise(model).numpy()
    plain = noise[None, 40]
    np.testing.assert_array_equal(noise[40, None], plain.transpose(0, 2, 1))
    np.testing.assert_array_equal(noise[None, 40, 1], plain[..., None])
    np.testing.assert_array_equal(noise[40, None, 1], plain.transpose(0, 2, 1)[..., None])


def test_noise_is_as_loud_as_speech_where_no_mean_is_subtracted() -> None:
    loud = FbankOptions(subtract_mean=False, num_bins=40)
    shape, noise = (None, 40), {}
    for fbank in (loud, replace(loud, sample_scale=1.0), replace(loud, subtract_mean=True)):
        model = keras.Sequential([FrontEnd(fbank, input_shape=shape)])
        noise[fbank] = calibration._noise(model).numpy()
    means = [values.mean() for values in noise.values()]
    assert means[0] == pytest.approx(14, abs=1)  # of log mel energies in int16's scale
    assert means[0] - means[1] == pytest.approx(2 * np.log(32768), abs=1e-3)
    assert means[2] == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_every_kind_of_layer_without_speech() -> None:
    layers = keras.layers
    image = keras.Sequential(
        [
            layers.Conv2D(4, (3, 1), input_shape=(8, 8, 2)),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.Conv2D(4, 3, groups=2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    series = keras.Sequential([layers.Conv1D(4, 5, input_shape=(9, 3)), layers.Dense(2)])
    for model, count in ((image, 4), (series, 2)):
        for recipe in (
            tfq_sv.QuantizationRecipe.uniform(model, 2),
            tfq_sv.QuantizationRecipe.binary(model, "adaptive"),
            tfq_sv.QuantizationRecipe.binary(model, "static"),
        ):
            small = tfq_sv.quantize(model, recipe, calibrate=False)
            assert tfq_sv.calibrate(small, progress=False) is small
            assert [x.calibrated for x in quantizers_of(small).values()] == [True] * count
            for book in tfq_sv.codebooks(small).values():
                scale, levels = book.grid()
                np.testing.assert_allclose(np.float32(scale) * levels, book.centroids, rtol=1e-6)
