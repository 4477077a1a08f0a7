"""Statistics of BatchNorm, estimated again for the weights that quantization has left."""

import numpy as np
import pytest
import tf_keras as keras
from test_fine_tuning import distance

import tfq_sv
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.features import fbank_tensor
from tfq_sv.quantization.batch_norm import moved


def test_statistics_are_means_over_the_batches() -> None:
    model = keras.Sequential([keras.layers.BatchNormalization(input_shape=(5, 3), name="norm")])
    rng = np.random.default_rng(0)
    dataset = [rng.normal(i, 1 + i, (8, 5, 3)).astype(np.float32) for i in range(4)]
    assert tfq_sv.reestimate_batch_norm(model, dataset, progress=False) is model
    norm = model.get_layer("norm")
    assert norm.momentum == 0.99
    np.testing.assert_allclose(
        norm.moving_mean, np.mean([x.mean((0, 1)) for x in dataset], axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        norm.moving_variance, np.mean([x.var((0, 1)) for x in dataset], axis=0), rtol=0.05
    )


def test_two_bits_come_nearer_to_the_float_network(
    network: keras.Model, train_corpus: Corpus
) -> None:
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    # Statistics that fit the data, as a trained network has them.
    tfq_sv.reestimate_batch_norm(network, dataset, progress=False)
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=2), calibrate=False
    )
    books = tfq_sv.codebooks(quantized)
    features = fbank_tensor(dataset[0][0])
    before = distance(quantized, network, features)
    tfq_sv.reestimate_batch_norm(quantized, dataset, progress=False)
    assert distance(quantized, network, features) < 0.9 * before
    for name, book in tfq_sv.codebooks(quantized).items():
        np.testing.assert_array_equal(book.codes, books[name].codes)
        np.testing.assert_array_equal(book.centroids, books[name].centroids)


def test_a_kernel_twice_as_large_gives_four_times_the_variance() -> None:
    """Of all training data, too: ratios carry over, differences do not."""
    layer = keras.layers.BatchNormalization(epsilon=0.0)
    layer.build((None, 2))
    layer.moving_mean.assign([1.0, -1.0])
    layer.moving_variance.assign([2.0, 0.5])
    was = np.array([0.5, 0.0]), np.array([3.0, 0.1])
    mean, variance = moved(layer, was, (was[0] + 0.25, 4 * was[1]))
    np.testing.assert_allclose(mean, [1.25, -0.75])
    np.testing.assert_allclose(variance, [8.0, 2.0], rtol=1e-6)


@pytest.mark.slow
def test_a_reference_keeps_what_few_batches_cannot_tell(
    network: keras.Model, train_corpus: Corpus
) -> None:
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    many = [next(stream) for _ in range(6)]
    tfq_sv.reestimate_batch_norm(network, many, progress=False)
    few = [many[0][0][:3]]
    same = keras.models.clone_model(network)
    same.set_weights(network.get_weights())
    tfq_sv.reestimate_batch_norm(same, few, reference=network, progress=False)
    for a, b in zip(same.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=5)
    plain, moved, calibrated = (tfq_sv.quantize(network, recipe, calibrate=False) for _ in range(3))
    before = network.get_weights()
    tfq_sv.reestimate_batch_norm(plain, few, progress=False)
    tfq_sv.reestimate_batch_norm(moved, few, reference=network, progress=False)
    tfq_sv.calibrate(calibrated, few, progress=False)
    unseen = fbank_tensor(next(stream)[0])
    assert distance(moved, network, unseen) < 0.7 * distance(plain, network, unseen)
    assert distance(calibrated, network, unseen) < distance(moved, network, unseen)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = keras.Sequential([keras.layers.BatchNormalization(input_shape=(5, 80), name="norm")])
    with pytest.raises(InputError, match="has other BatchNorms"):
        tfq_sv.reestimate_batch_norm(network, few, reference=other, progress=False)


def test_a_failure_leaves_the_model_as_it_was(network: keras.Model) -> None:
    before = network.get_weights()
    bad = np.full([2, 40, 80], np.nan, np.float32)
    for dataset, message in [([], "gave no batch"), ([bad], "not finite")]:
        with pytest.raises(InputError, match=message):
            tfq_sv.reestimate_batch_norm(network, dataset, progress=False)
        for a, b in zip(before, network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    plain = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    with pytest.raises(InputError, match="has no BatchNorm"):
        tfq_sv.reestimate_batch_norm(plain, [], progress=False)


def test_calibrated_statistics_are_not_moved_again(
    network: keras.Model, train_corpus: Corpus
) -> None:
    """Calibration has scaled channels: the float network's statistics are no longer theirs."""
    dataset = [next(batches(train_corpus, batch_size=8, seconds=0.5))]
    small = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=4), calibrate=False
    )
    tfq_sv.calibrate(small, dataset, progress=False)
    before = small.get_weights()
    with pytest.raises(InputError, match=r"is calibrated: .* leave out the reference"):
        tfq_sv.reestimate_batch_norm(small, dataset, reference=network, progress=False)
    for one, other in zip(before, small.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    tfq_sv.reestimate_batch_norm(small, dataset, progress=False)
    assert any((a != b).any() for a, b in zip(before, small.get_weights(), strict=True))
