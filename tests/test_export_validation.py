"""Files beside the Keras networks that they were made from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

import tfq_sv
from tfq_sv import metrics
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import KerasEncoder, evaluate
from tfq_sv.export import export_tflite, layer_noise, validate
from tfq_sv.features import fbank


@pytest.fixture
def quantized(network: keras.Model) -> Any:
    return tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=4), calibrate=False
    )


@pytest.fixture
def trials(test_corpus: Corpus) -> Trials:
    return Trials.read(test_corpus.root / "trials.txt", test_corpus)


@pytest.mark.slow
def test_float_compute_is_keras(
    quantized: Any, test_corpus: Corpus, trials: Trials, tmp_path: Path
) -> None:
    export_tflite(quantized, tmp_path / "a.tflite", compute="float32")
    found = validate(tmp_path / "a.tflite", quantized, test_corpus, trials)
    assert found.reference.eer == evaluate(KerasEncoder(quantized), test_corpus, trials).eer
    assert [parity.signature for parity in found.parities] == ["embed", "inflate"]
    for parity in found.parities:
        assert parity.score_change < 1e-4
        assert parity.cosines.shape == (len(trials.utterances),)
        assert parity.cosines.min() > 0.999999
        assert parity.difference[0] <= 0 <= parity.difference[1]
        decisions = [
            one.scores >= metrics.eer(one.scores, trials.labels)[1]
            for one in (parity.result, found.reference)
        ]
        assert parity.flips == np.sum(decisions[0] != decisions[1])
        if not parity.flips:
            assert parity.result.eer == pytest.approx(found.reference.eer, abs=1e-9)
    said = str(found).splitlines()
    assert len(said) == 5
    assert said[2].startswith(f"Keras             {100 * found.reference.eer:.3f}")


def test_another_network_is_told_from_it(
    network: keras.Model, quantized: Any, test_corpus: Corpus, trials: Trials, tmp_path: Path
) -> None:
    export_tflite(quantized, tmp_path / "a.tflite")
    (parity,) = validate(
        tmp_path / "a.tflite", network, test_corpus, trials, signatures=["inflate"]
    ).parities
    scores = evaluate(KerasEncoder(network), test_corpus, trials).scores
    assert parity.score_change == pytest.approx(np.abs(parity.result.scores - scores).max())
    assert 0.5 < parity.cosines.mean() < 0.9999
    assert parity.score_change > 1e-3
    thresholds = [metrics.eer(one, trials.labels)[1] for one in (parity.result.scores, scores)]
    decisions = [
        one >= t for one, t in zip((parity.result.scores, scores), thresholds, strict=True)
    ]
    assert parity.flips == np.sum(decisions[0] != decisions[1])


def test_the_layer_that_int8_compute_hurts_is_found(network: keras.Model) -> None:
    """One input channel far louder than the others leaves them few steps of an int8."""
    norm = network.get_layer("layer1.0.bn1")
    gamma, *rest = norm.get_weights()
    gamma[0] *= 1000
    norm.set_weights([gamma, *rest])
    kernel = network.get_layer("layer1.0.conv2").kernel
    weights = kernel.numpy()
    weights[:, :, 0] /= 1000
    kernel.assign(weights)
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=8), calibrate=False
    )
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    ratios = layer_noise(quantized, [fbank(noise)])
    assert next(iter(ratios)) == "layer1.0.conv2"
    assert list(ratios.values()) == sorted(ratios.values())
    assert "conv1" not in ratios  # its op sees the features, and stays float
    assert len(ratios) == 4
