"""Quantized models in the ways that people train Keras models."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfq_sv


def tdnn() -> keras.Model:
    """A plain 1-D network with squeeze-excitation, as ECAPA has it; nothing of ours."""
    features = keras.Input((None, 24))
    x = keras.layers.Conv1D(32, 5, padding="same", name="frame1")(features)
    x = keras.layers.BatchNormalization()(keras.layers.ReLU()(x))
    y = keras.layers.Conv1D(32, 3, dilation_rate=2, padding="causal", groups=4, name="res2")(x)
    y = keras.layers.BatchNormalization()(keras.layers.ReLU()(y))
    squeezed = keras.layers.GlobalAveragePooling1D(keepdims=True)(y)
    squeezed = keras.layers.Dense(8, activation="relu", name="squeeze")(squeezed)
    y = keras.layers.Multiply()([y, keras.layers.Dense(32, "sigmoid", name="excite")(squeezed)])
    x = keras.layers.Add()([x, y])
    pooled = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(features, keras.layers.Dense(10, name="speakers")(pooled))


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 64)
    voices = rng.normal(size=(10, 1, 24))
    return (voices[labels] + rng.normal(size=(64, 40, 24))).astype(np.float32), labels


def fit(model: keras.Model, *, jit: bool = False) -> tuple[float, float]:
    """Trains with plain compile and fit; returns the first and the last loss."""
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    features, labels = data()
    codebooks = tfq_sv.UpdateCodebooks()
    history = model.fit(features, labels, 16, epochs=8, verbose=0, callbacks=[codebooks])
    return history.history["loss"][0], history.history["loss"][-1]


def two_layers() -> keras.Model:
    """For XLA, which compiles each layer for seconds; the test below has every kind of layer."""
    features = keras.Input((None, 24))
    x = keras.layers.Conv1D(32, 3, padding="same", activation="relu", name="frame1")(features)
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.BatchNormalization()(x))
    return keras.Model(features, keras.layers.Dense(10, name="speakers")(pooled))


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "jit"), [(1, False), (3, False), (3, True)])
def test_compile_and_fit(bits: int, jit: bool) -> None:
    keras.utils.set_random_seed(0)
    model = two_layers() if jit else tdnn()
    quantized = tfq_sv.quantize(
        model, tfq_sv.QuantizationRecipe.uniform(model, bits), calibrate=False
    )
    before = tfq_sv.codebooks(quantized)
    first, last = fit(quantized, jit=jit)
    assert last < 0.5 * first
    for name, book in tfq_sv.codebooks(quantized).items():
        assert np.any(book.centroids != before[name].centroids)
        assert len(np.unique(book.codes)) <= 2**bits


def test_jit_computes_what_plain_tensorflow_does() -> None:
    keras.utils.set_random_seed(0)
    model = tdnn()
    quantized = tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, 4), calibrate=False)
    features, _ = data()
    fast = tf.function(quantized, jit_compile=True)(features)
    np.testing.assert_allclose(fast, quantized(features), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_mixed_float16_keeps_codebooks_in_float32() -> None:
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = tdnn()
        quantized = tfq_sv.quantize(
            model, tfq_sv.QuantizationRecipe.uniform(model, 3), calibrate=False
        )
        features, _ = data()
        assert quantized(features).dtype == tf.float16
        first, last = fit(quantized)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert last < 0.5 * first
    for book in tfq_sv.codebooks(quantized).values():
        scale, levels = book.grid()
        np.testing.assert_allclose(np.float32(scale) * levels, book.centroids, rtol=1e-6)


TWO_DEVICES = """
import sys
sys.path.insert(0, sys.argv[1])
import tfq_sv
import tensorflow as tf
import tf_keras as keras
from test_frameworks import fit, tdnn
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
keras.utils.set_random_seed(0)
with strategy.scope():
    model = tdnn()
    quantized = tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, 3), calibrate=False)
    first, last = fit(quantized)
assert last < 0.5 * first, (first, last)
for book in tfq_sv.codebooks(quantized).values():
    assert book.codes.max() < 8
print("trained on", strategy.num_replicas_in_sync)
"""


@pytest.mark.slow
def test_two_devices() -> None:
    # Logical devices must be set before TensorFlow starts: another process.
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "trained on 2" in done.stdout, done.stderr[-2000:]
