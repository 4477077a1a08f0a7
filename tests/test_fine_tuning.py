import numpy as np
import pytest
import tf_keras as keras

import tfq_sv
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.features import fbank_tensor
from tfq_sv.fine_tuning import FineTuningOptions


def distance(model: keras.Model, teacher: keras.Model, features: np.ndarray) -> float:
    a, b = (m(features).numpy() for m in (model, teacher))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return float(1 - np.mean(np.sum(a * b, axis=1)))


def test_fine_tuning_brings_two_bits_back_to_the_teacher(
    network: keras.Model, train_corpus: Corpus
) -> None:
    quantized = tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.uniform(network, bits=2))
    before = {name: book.centroids for name, book in tfq_sv.codebooks(quantized).items()}
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    options = FineTuningOptions(steps=30, follow_every=5)
    tfq_sv.finetune(quantized, dataset, teacher=network, options=options, progress=False)
    features = fbank_tensor(dataset[0][0])
    fresh = tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.uniform(network, bits=2))
    assert distance(quantized, network, features) < 0.7 * distance(fresh, network, features)
    books = tfq_sv.codebooks(quantized)
    assert any(np.abs(books[name].centroids - before[name]).max() > 0 for name in books)
    for book in books.values():
        scale, levels = book.grid()
        np.testing.assert_allclose(np.float32(scale) * levels, book.centroids, rtol=1e-6)


@pytest.mark.parametrize("kind", ["adaptive", "static"])
def test_fine_tuning_brings_one_bit_nearer_to_the_teacher(
    kind: str, network: keras.Model, train_corpus: Corpus
) -> None:
    recipe = tfq_sv.QuantizationRecipe.binary(network, kind)
    quantized, fresh = (tfq_sv.quantize(network, recipe) for _ in range(2))
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    options = FineTuningOptions(steps=30, follow_every=5)
    tfq_sv.finetune(quantized, dataset, teacher=network, options=options, progress=False)
    features = fbank_tensor(dataset[0][0])
    assert distance(quantized, network, features) < 0.7 * distance(fresh, network, features)
    before = tfq_sv.codebooks(fresh)
    moved = [
        np.any(book.centroids != before[name].centroids)
        for name, book in tfq_sv.codebooks(quantized).items()
    ]
    assert all(moved) if kind == "adaptive" else not any(moved)


def test_fine_tuning_refuses_what_cannot_work(network: keras.Model) -> None:
    quantized = tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.uniform(network))
    with pytest.raises(InputError, match="is not quantized"):
        tfq_sv.finetune(network, [], teacher=network)
    with pytest.raises(InputError, match="gave no batch"):
        tfq_sv.finetune(quantized, [], teacher=network, progress=False)
    other = tfq_sv.models.build("ResNet18", embed_dim=8, channels=16)
    with pytest.raises(InputError, match="they must be alike"):
        tfq_sv.finetune(quantized, [], teacher=other)
    with pytest.raises(InputError, match="freeze must be a share"):
        FineTuningOptions(freeze=2)
