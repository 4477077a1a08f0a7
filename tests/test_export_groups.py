"""Layers that a file decodes together: exact in both signatures, and few bytes per layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import slow
from hypothesis import given
from hypothesis import strategies as st
from test_export_convert import check, quantized
from test_export_trellis import decoded

from tfq_sv import codec
from tfq_sv.codebook import Codebook
from tfq_sv.export import convert, flatbuffer
from tfq_sv.export.filters import Filter

layers = keras.layers


def random_filter(shape: tuple[int, ...], bits: int, seed: int) -> Filter:
    rng = np.random.default_rng(seed)
    axis = 3 if shape[0] == 1 else 0
    kernel = (*shape[1:], 1) if axis else (*shape[1:], shape[0])
    levels = np.sort(rng.choice(np.arange(-127, 128), 2**bits, replace=False))
    codes = rng.integers(0, 2**bits, kernel).astype(np.uint8)
    book = Codebook(levels.astype(np.float32) / 127, codes)
    return Filter(f"layer{seed}", book, shape, axis, np.ones(shape[axis], np.float32))


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("kind", [flatbuffer.INT8, flatbuffer.UINT8])
def test_the_ops_decode_exactly(bits: int, kind: int) -> None:
    shapes = [(16, 3, 3, 16), (8, 1, 1, 128), (7, 3, 3, 1), (32, 32), (64, 1, 3, 32)]
    shapes += [(1, 3, 3, 128), (1, 3, 3, 64), (1, 3, 3, 192), (32, 3, 3, 32), (32, 1, 5, 32)]
    filters = [random_filter(shape, bits, seed) for seed, shape in enumerate(shapes)]
    other = [3, 5, 4][bits % 3]
    filters += [random_filter((16, 64), other, seed) for seed in range(20, 24)]
    for levels, filter in zip(decoded(filters, kind), filters, strict=True):
        np.testing.assert_array_equal(levels.view(np.int8), filter.levels())


@given(st.lists(st.sampled_from([1, 63, 64, 288, 1024, 9216, 16_384, 16_448, 131_072, 132_096])))
def test_segments_are_small_and_in_order(weights: list[int]) -> None:
    found = codec.segments(weights)
    assert len(found) == len(weights)
    for long in (False, True):
        numbers = [x[0] for x in found if x is not None and x[1] == long]
        assert numbers == sorted(numbers)
    for segment in set(found) - {None}:
        members = [w for w, x in zip(weights, found, strict=True) if x == segment]
        assert sum(members) <= 1 << 19
        assert len(members) <= 64
        assert all(count % (1024 if segment[1] else 64) == 0 for count in members)


def deep(depth: int) -> Any:
    """A residual chain of narrow convolutions, each with a BatchNorm after it."""
    features = layers.Input((None, 16))
    x = layers.Reshape((1, -1, 16))(features)
    x = layers.Conv2D(32, 1, name="stem")(x)
    for index in range(depth):
        y = layers.Conv2D(32, (1, 3), padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(features, layers.Dense(8, name="seg")(x))


def file_bytes(depth: int, bits: int) -> tuple[int, int]:
    keras.utils.set_random_seed(0)
    model = deep(depth)
    books = quantized(model, [bits])
    codes = sum(book.codes.size * bits // 8 for book in books.values())
    return len(convert.build(model, books, "features").data), codes


@pytest.mark.parametrize("bits", [1, *slow(4, 7)])
def test_one_more_layer_costs_few_bytes_beside_its_codes(bits: int) -> None:
    (small, few), (large, more) = file_bytes(8, bits), file_bytes(24, bits)
    vectors = 2 * 4 * 32  # scales and biases
    assert (large - small - (more - few)) / 16 - vectors < 900


def test_a_deep_network_answers_as_its_float_model(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = deep(12)
    check(tmp_path / "a.tflite", model, quantized(model, [4, 4, 4, 3]), "float32")
