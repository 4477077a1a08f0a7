import itertools
from random import Random

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tfq_sv
from tfq_sv import codebook
from tfq_sv.quantization import patches, trellis_feedback
from tfq_sv.quantization.gptq import (
    compensated_kernel,
    fit_to_output,
    latent_weights,
    output_error,
    reconstruct,
)


def problem(groups: int, inputs: int, outputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(groups, inputs, inputs))
    gram = mix @ mix.transpose(0, 2, 1) / inputs
    return rng.normal(size=(groups, inputs, outputs)), gram


def nearest(kernel: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return codebook.Codebook(centroids, codebook.assign(kernel, centroids)).decode()


def test_inputs_that_share_nothing_are_rounded_to_the_nearest() -> None:
    kernel, _ = problem(3, 9, 4)
    centroids = codebook.fit(kernel, 2)
    gram = np.eye(9) * np.arange(1, 4)[:, None, None]
    np.testing.assert_array_equal(
        reconstruct(kernel, gram, centroids), nearest(kernel, centroids).astype(np.float64)
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_outputs_are_nearer_than_with_rounding(bits: int) -> None:
    kernel, gram = problem(2, 300, 16)
    centroids = codebook.fit(kernel, bits)
    rounded = reconstruct(kernel, gram, centroids)
    assert np.isin(rounded, centroids.astype(np.float64)).all()
    error = output_error(kernel, rounded, gram)
    assert error < 0.8 * output_error(kernel, nearest(kernel, centroids), gram)


def test_near_the_best_of_all_codes() -> None:
    centroids = np.float32([-1, 1])
    ours, best, plain = 0.0, 0.0, 0.0
    for seed in range(30):
        kernel, gram = problem(1, 8, 1, seed)
        ours += output_error(kernel, reconstruct(kernel, gram, centroids), gram)
        plain += output_error(kernel, nearest(kernel, centroids), gram)
        best += min(
            output_error(kernel, np.reshape(codes, (1, 8, 1)), gram)
            for codes in itertools.product([-1.0, 1.0], repeat=8)
        )
    assert best <= ours
    assert ours - best < 0.5 * (plain - best)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_by_turns_codes_and_centroids_fit_better(bits: int) -> None:
    kernel, _ = problem(1, 108, 16)
    # Inputs as after a ReLU: smooth over 3 x 3 taps, and 12 channels of one sign.
    taps = np.stack(np.unravel_index(np.arange(9), (3, 3)), axis=1)
    near = 0.8 ** np.abs(taps[:, None] - taps).sum(axis=-1)
    gram = (0.15 + 0.85 * np.kron(near, np.eye(12)))[None]
    start = codebook.snap(codebook.fit(kernel, bits))
    once = output_error(kernel, reconstruct(kernel, gram, start), gram)
    rounded, centroids = fit_to_output(kernel, gram, start)
    assert output_error(kernel, rounded, gram) < 0.95 * once
    assert np.isin(rounded, centroids.astype(np.float64)).all()
    assert np.all(np.diff(centroids) >= 0)
    np.testing.assert_array_equal(codebook.snap(centroids), centroids)


def test_by_turns_near_the_best_codes_and_centroids() -> None:
    ours, best, once = 0.0, 0.0, 0.0
    for seed in range(20):
        kernel, gram = problem(1, 8, 1, seed)
        start = codebook.snap(codebook.fit(kernel, 1))
        ours += output_error(kernel, fit_to_output(kernel, gram, start)[0], gram)
        once += output_error(kernel, reconstruct(kernel, gram, start), gram)
        errors = []
        for codes in itertools.product([0.0, 1.0], repeat=8):
            chosen = np.stack([codes, 1 - np.array(codes)], axis=1)
            levels = np.linalg.pinv(chosen.T @ gram[0] @ chosen) @ chosen.T @ gram[0] @ kernel[0]
            errors.append(output_error(kernel, (chosen @ levels)[None], gram))
        best += min(errors)
    assert best <= ours
    assert ours - best < 0.6 * (once - best)


def test_damping_leads_to_plain_rounding() -> None:
    kernel, gram = problem(1, 24, 16)
    start = codebook.snap(codebook.fit(kernel, 2))
    plain = nearest(kernel, start).astype(np.float64)
    errors = []
    for damping in (0.01, 0.1, 1e4):
        rounded = reconstruct(kernel, gram, start, damping=damping)
        errors.append(output_error(kernel, rounded, gram))
    assert max(errors[:2]) < 0.8 * errors[2]  # spreading pays, less or more of it
    np.testing.assert_array_equal(rounded, plain)
    codes, _ = trellis_feedback.reconstruct(kernel[0], gram[0], 2, damping=1e4)
    alone, _ = trellis_feedback.reconstruct(kernel[0], np.eye(24), 2)
    np.testing.assert_array_equal(codes, alone)


def test_a_centroid_that_no_weight_has_is_no_hindrance() -> None:
    kernel = np.array([[[0.0], [0.1], [1.0]]])
    rounded, centroids = fit_to_output(kernel, np.eye(3)[None], np.float32([0, 1, 1, 1]))
    assert np.isfinite(centroids).all()
    assert np.isin(rounded, centroids.astype(np.float64)).all()


def test_inputs_that_are_all_zero_leave_the_nearest_codes() -> None:
    """As of a layer after a ReLU that is never positive."""
    kernel, centroids = np.array([[[0.1], [0.9]]]), np.float32([0, 1])
    rounded, found = fit_to_output(
        compensated_kernel(kernel, *2 * [np.zeros((1, 2, 2))]), np.zeros((1, 2, 2)), centroids
    )
    assert rounded.ravel().tolist() == [0, 1]
    assert found.tolist() == [0, 1]


@pytest.mark.parametrize("size", [2, 4, 8])
@given(
    hnp.arrays(np.float32, 50, elements=st.floats(-3, 3, width=32)),
    hnp.arrays(np.float32, 8, elements=st.integers(-128, 128).map(lambda n: n / 64), unique=True),
    st.randoms(use_true_random=False),
)
def test_latent_weights_have_the_codes(
    size: int, kernel: np.ndarray, table: np.ndarray, random: Random
) -> None:
    centroids = np.sort(table[:size])
    codes = np.array([random.randrange(size) for _ in kernel])
    rounded = centroids[codes]
    latent = latent_weights(kernel, rounded, centroids)
    np.testing.assert_array_equal(codebook.assign(latent, centroids), codes)
    if size > 4:
        assert np.all(np.abs(latent - kernel) <= np.abs(rounded - kernel) + 1e-5)
        return
    # The kernel itself, where it has the code.
    moved = np.abs(latent - kernel)[codebook.assign(kernel, centroids) == codes]
    assert np.all(moved <= 0.01 * np.diff(centroids).max() + 1e-6)


@pytest.mark.parametrize("repeated", [[0.0, 0.0], [-1.0, 0.0, 0.0, 1.0], [0.0] * 4 + [1.0] * 4])
def test_latent_weights_where_centroids_are_the_same(repeated: list[float]) -> None:
    """As where a kernel has fewer values than a codebook."""
    centroids = np.float32(repeated)
    kernel = np.random.default_rng(0).normal(size=200)
    rounded = np.random.default_rng(1).choice(centroids, 200)
    latent = latent_weights(kernel, rounded, centroids)
    assert np.isfinite(latent).all()
    np.testing.assert_array_equal(nearest(latent, centroids), rounded)


def test_latent_weights_of_other_codes_are_as_far_from_the_midpoint() -> None:
    kernel = np.random.default_rng(0).normal(size=1000)
    centroids = np.float32([-0.6, 1.0])
    other = centroids[1 - codebook.assign(kernel, centroids)]
    latent = latent_weights(kernel, other, centroids)
    np.testing.assert_allclose(latent - 0.2, 0.2 - kernel, atol=0.02)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, gram = problem(2, 50, 3)
    centroids = codebook.fit(kernel, 3)
    whole = reconstruct(kernel, gram, centroids)
    monkeypatch.setattr("tfq_sv.quantization.gptq._BLOCK", 7)
    np.testing.assert_array_equal(reconstruct(kernel, gram, centroids), whole)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (keras.layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False), (9, 8, 4)),
        (keras.layers.Conv2D(6, (1, 3), padding="valid", dilation_rate=2), (9, 8, 4)),
        (keras.layers.Conv2D(6, 3, groups=2, use_bias=False), (9, 8, 4)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 8, 4)),
        (keras.layers.Conv1D(6, 3, padding="causal", dilation_rate=2), (20, 4)),
        (keras.layers.Conv1D(6, 3, strides=2, padding="same", groups=2), (20, 4)),
        (keras.layers.Dense(6), (4,)),
        (keras.layers.Dense(6), (7, 4)),
    ],
)
def test_the_gram_foretells_a_layers_output(
    layer: keras.layers.Layer, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gram says a change of the kernel does is what it does to Keras' own output."""
    monkeypatch.setattr(patches, "_ROWS_PER_INPUT", 10_000)  # every position
    layer = type(layer).from_config(layer.get_config())
    inputs = tf.constant(np.random.default_rng(0).normal(size=(5, *shape)), tf.float32)
    before = layer(inputs).numpy()
    name = tfq_sv.quantization.quantizers.kernel_attribute(layer)
    variable = getattr(layer, name)
    kernel = variable.numpy()
    changed = np.random.default_rng(1).normal(size=kernel.shape)
    variable.assign(changed)
    found = np.mean(np.sum((layer(inputs).numpy() - before) ** 2, axis=-1))
    a, b = (patches.grouped(k.astype(np.float64), layer) for k in (kernel, changed))
    np.testing.assert_array_equal(patches.ungrouped(a, layer, kernel.shape), kernel)
    gram, cross = patches.second_moments(layer, inputs, 3 * inputs, *a.shape[:2])
    np.testing.assert_allclose(cross, 2 * gram, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(output_error(a, b, gram), found, rtol=1e-4)


def test_corrected_is_ridge_regression_on_the_wanted_outputs() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(2, 60, 5))
    found = wanted + rng.normal(scale=0.3, size=wanted.shape)
    kernel = rng.normal(size=(2, 5, 3))
    gram = np.einsum("gnk,gnj->gkj", found, found) / 60
    cross = np.einsum("gnk,gnj->gkj", found, wanted - found) / 60
    result = compensated_kernel(kernel, gram, cross)
    for x, y, before, after, moments in zip(found, wanted, kernel, result, gram, strict=True):
        # As many more rows that ask for no change.
        ridge = np.sqrt(60 * 0.1 * np.trace(moments) / 5) * np.eye(5)
        rows, goal = np.vstack([x, ridge]), np.vstack([y @ before, ridge @ before])
        np.testing.assert_allclose(after, np.linalg.lstsq(rows, goal)[0], rtol=1e-6)
        assert np.sum((x @ after - y @ before) ** 2) < np.sum((x @ before - y @ before) ** 2)


def test_a_dense_layer_of_very_many_inputs_is_taken_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = keras.layers.Dense(3)
    kernel = np.random.default_rng(0).normal(size=(20_480, 3))
    pieces = patches.in_pieces(kernel, layer)
    assert pieces.shape == (20, 1024, 3)
    np.testing.assert_array_equal(patches.ungrouped(pieces, layer, kernel.shape), kernel)
    # Each piece's moments are those of its own inputs; calibration still gains on rounding.
    monkeypatch.setattr(patches, "_MOST_INPUTS", 16)
    monkeypatch.setattr(patches, "_PIECE", 8)
    rng = np.random.default_rng(1)
    inputs = (rng.normal(size=(2000, 6)) @ rng.normal(size=(6, 24))).astype(np.float32)
    model = keras.Sequential([keras.layers.Dense(32, input_shape=(None, 24), name="wide")])
    inputs = inputs[None]
    moments, _ = patches.second_moments(model.layers[0], inputs, inputs, 3, 8)
    second = inputs[0, :, 8:16]
    np.testing.assert_allclose(moments[1], second.T @ second / 2000, rtol=0.3, atol=1.0)
    small = tfq_sv.quantize(
        model, tfq_sv.QuantizationRecipe.uniform(model, bits=2), calibrate=False
    )
    wanted, rounded = model(inputs), small(inputs)
    tfq_sv.calibrate(small, [inputs], progress=False)
    assert np.mean((small(inputs) - wanted) ** 2) < 0.8 * np.mean((rounded - wanted) ** 2)
