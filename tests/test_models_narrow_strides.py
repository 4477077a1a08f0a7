"""Gradients of narrow networks: what oneDNN crashes on is done in another way, to the same end."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import tf_keras as keras

import tfq_sv
from tfq_sv.models import narrow_strides

MALLOC = Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")
STEP = """
import sys
import tensorflow as tf
import tf_keras as keras
from tfq_sv.models import narrow_strides
layer = keras.layers.Conv2D(16, 1, strides=2, input_shape=(40, 50, 8))
model = keras.Sequential([layer, keras.layers.Conv2D(16, 1, strides=(2, 1))])
for _ in range(4):
    with narrow_strides.avoided(model), tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(tf.random.normal([2, 40, 50, 8])) ** 2)
    tape.gradient(loss, model.trainable_weights)
"""


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [(2, 2), (2, 1), (1, 3)])
def test_gradients_are_those_of_a_matrix_product(padding: str, strides: tuple[int, int]) -> None:
    layer = keras.layers.Conv2D(6, 1, strides, padding, use_bias=False, input_shape=(7, 10, 5))
    model = keras.Sequential([layer])
    inputs = tf.random.stateless_normal([3, 7, 10, 5], [1, 2])
    with narrow_strides.avoided(model), tf.GradientTape() as tape:
        outputs = model(inputs)
        loss = tf.reduce_sum(outputs**3)
    (found,) = tape.gradient(loss, model.trainable_weights)
    pixels = tf.reshape(inputs[:, :: strides[0], :: strides[1]], [-1, 5])
    slopes = tf.reshape(3 * outputs**2, [-1, 6])
    expected = tf.matmul(pixels, slopes, transpose_a=True)
    tf.debugging.assert_near(found[0, 0], expected, rtol=1e-4, atol=1e-3)
    tf.debugging.assert_near(model(inputs), outputs, rtol=1e-5, atol=1e-5)


def test_only_what_crashes_is_touched_and_comes_back() -> None:
    def conv(filters: int, size: int, strides: int) -> keras.layers.Layer:
        return keras.layers.Conv2D(filters, size, strides, padding="same")

    layers = [conv(4, 3, 2), conv(16, 1, 2), conv(4, 1, 1), conv(4, 1, 2)]
    model = keras.Sequential([keras.layers.Input((9, 9, 4)), *layers])
    names = [set(vars(layer)) for layer in layers]
    with contextlib.suppress(ZeroDivisionError), narrow_strides.avoided(model):
        changed = ["convolution_op" in vars(layer) for layer in layers]
        raise ZeroDivisionError
    assert changed == [False, True, False, True]
    assert [set(vars(layer)) for layer in layers] == names


def test_quantized_layers_count_too() -> None:
    model = keras.Sequential(
        [
            keras.layers.Input((9, 9, 4)),
            keras.layers.Conv2D(8, 1, 2, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="seg"),
        ]
    )
    recipe = tfq_sv.QuantizationRecipe.uniform(model, bits=2)
    small = tfq_sv.quantize(model, recipe, calibrate=False)
    inner = small.get_layer("quant_conv").layer
    inputs = tf.random.stateless_normal([2, 9, 9, 4], [1, 2])
    expected = small(inputs)
    with narrow_strides.avoided(small):
        assert "convolution_op" in vars(inner)
        tf.debugging.assert_near(small(inputs), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not MALLOC.exists(), reason="glibc's checks of the heap, on x86-64 alone")
def test_the_heap_stays_whole() -> None:
    checked = {**os.environ, "LD_PRELOAD": str(MALLOC), "MALLOC_CHECK_": "3"}
    done = subprocess.run([sys.executable, "-c", STEP], env=checked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
