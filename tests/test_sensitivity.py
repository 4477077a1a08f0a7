"""Traces against exact Hessians and Jacobians; caches, stopping, and what cannot be used."""

import json
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from conftest import some

import tfq_sv
from tfq_sv.errors import InputError
from tfq_sv.mixed_precision.probes import Estimate, ProbeOptions, converged
from tfq_sv.mixed_precision.sensitivity import MEASURES
from tfq_sv.quantization.quantizers import kernel_attribute, quantizable
from tfq_sv.training.losses import AAMSoftmax, cosine_distillation

layers = keras.layers
RNG = np.random.default_rng(0)
BATCH = RNG.normal(size=(3, 8, 6)).astype(np.float32), np.array([0, 1, 1])


def tiny() -> keras.Model:
    """Each kind of kernel, BatchNorm in use, and a bend between them."""
    keras.utils.set_random_seed(1)
    entry = keras.Input((8, 6))
    x = layers.Conv1D(4, 3, activation="tanh", use_bias=False, name="conv1d")(entry)
    x = layers.Reshape((6, 4, 1))(x)
    x = layers.Conv2D(2, 3, strides=2, padding="same", name="conv2d")(x)
    norm = layers.BatchNormalization()
    x = layers.ReLU()(norm(x))
    x = layers.DepthwiseConv2D(2, use_bias=False, name="depthwise")(x)
    x = layers.Dense(3, name="dense")(layers.Flatten()(x))
    norm.set_weights(np.array([[1.5, 0.7], [0.3, 0.2], [0.1, -0.2], [0.8, 1.3]]))
    return keras.Model(entry, x)


def head() -> Any:
    aam = AAMSoftmax(2, scale=4.0)
    aam.build((None, 3))
    aam.margin.assign(0.2)
    return lambda embeddings, labels: aam(embeddings, tf.cast(labels, tf.int32))[0]


def exact_traces(model: keras.Model, loss: Any) -> dict[str, float]:
    """All second derivatives, one kernel at a time."""
    found = {}
    for name, layer in quantizable(model).items():
        kernel = getattr(layer, kernel_attribute(layer))
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                value = loss(model(BATCH[0], training=False))
            gradient = inner.gradient(value, kernel)
        hessian = outer.jacobian(gradient, kernel, experimental_use_pfor=False)
        found[name] = float(np.trace(np.reshape(hessian, [gradient.shape.num_elements()] * 2)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [False, True])
def test_hessian_traces_are_the_exact_ones(labelled: bool) -> None:
    model, aam = tiny(), head()
    exact = exact_traces(
        model,
        (lambda e: aam(e, BATCH[1]))
        if labelled
        else lambda e: cosine_distillation(e, tf.stop_gradient(e)),
    )
    traces = tfq_sv.hessian_traces(
        model,
        [BATCH],
        loss=aam if labelled else None,
        options=ProbeOptions(600, min_rank_correlation=1.1),
        progress=False,
    )
    assert list(traces) == ["conv1d", "conv2d", "depthwise", "dense"]
    for name, trace in traces.items():
        assert isinstance(trace, Estimate)
        assert abs(trace - exact[name]) < 4 * trace.standard_error, name
        assert trace.standard_error < 0.2 * max(exact.values())


@pytest.mark.slow
def test_without_labels_fisher_and_hessian_have_one_trace() -> None:
    model = tiny()
    exact = exact_traces(model, lambda e: cosine_distillation(e, tf.stop_gradient(e)))
    options = ProbeOptions(600, min_rank_correlation=1.1)
    traces = tfq_sv.fisher_traces(model, [BATCH], options=options, progress=False)
    for name, trace in traces.items():
        assert abs(trace - exact[name]) < 4 * trace.standard_error, name


@pytest.mark.slow
def test_the_empirical_fisher_is_the_mean_squared_gradient() -> None:
    model = tiny()

    def losses(embeddings: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.square(embeddings[:, 0]) * tf.cast(labels + 1, tf.float32)

    options = ProbeOptions(400, min_rank_correlation=1.1)
    traces = tfq_sv.fisher_traces(model, [BATCH], loss=losses, options=options, progress=False)
    for name, layer in quantizable(model).items():
        kernel, squares = getattr(layer, kernel_attribute(layer)), []
        for i in range(3):
            with tf.GradientTape() as tape:
                one = losses(model(BATCH[0][i : i + 1], training=False), BATCH[1][i : i + 1])
            squares.append(np.sum(np.square(tape.gradient(one, kernel))))
        assert abs(traces[name] - np.mean(squares)) <= 4 * traces[name].standard_error + 1e-6
    with pytest.raises(InputError, match="needs one loss per utterance"):
        tfq_sv.fisher_traces(model, [BATCH], loss=head(), progress=False)


def test_a_quadratic_has_no_noise_but_that_of_its_mixed_terms() -> None:
    model = keras.Sequential([layers.Dense(2, name="d", use_bias=False, input_shape=(1, 4))])
    speech = 3 * np.eye(4, dtype=np.float32)[:, None]
    traces = tfq_sv.hessian_traces(
        model,
        [(speech, np.zeros(4))],
        loss=lambda outputs, labels: tf.reduce_sum(outputs**2, axis=[1, 2]) / 2,
        progress=False,
    )
    assert traces["d"] == pytest.approx(2 * 9)
    assert traces["d"].standard_error == pytest.approx(0)


def test_distortion_is_that_of_one_layer_alone() -> None:
    model = tiny()
    before = model.get_weights()
    table = tfq_sv.embedding_distortions(
        model, [BATCH], bits=[2, 5], options=ProbeOptions(1), progress=False
    )
    assert [list(row) for row in table.values()] == [[2, 5]] * 4
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    from tfq_sv.quantization.recipe import LayerRecipe

    for layer in table:
        recipe = tfq_sv.QuantizationRecipe({layer: LayerRecipe("kmeans", 2)})
        quantized = tfq_sv.quantize(model, recipe, calibrate=False)
        wanted = cosine_distillation(quantized(BATCH[0]), model(BATCH[0]))
        assert table[layer][2] == pytest.approx(float(wanted), abs=1e-6)
        assert np.isnan(table[layer][2].standard_error)  # one batch tells of no spread


@pytest.mark.parametrize("measure", some(MEASURES, "fisher"))
def test_an_interrupted_run_ends_the_same(measure: str, tmp_path: Path) -> None:
    model, estimate = tiny(), MEASURES[measure]
    batches = [BATCH, (BATCH[0] + 1, BATCH[1])]
    whole = estimate(model, batches, options=ProbeOptions(5), progress=False)
    cache = tmp_path / "kept" / "probes.json"
    estimate(model, batches, options=ProbeOptions(3), cache=cache, progress=False)
    resumed = estimate(model, batches, options=ProbeOptions(5), cache=cache, progress=False)
    assert resumed == whole
    assert len(json.loads(cache.read_text())["probes"]) == 5
    fewer = estimate(model, batches, options=ProbeOptions(3), cache=cache, progress=False)
    assert fewer == estimate(model, batches, options=ProbeOptions(3), progress=False)
    for copy in (deepcopy(fewer), pickle.loads(pickle.dumps(fewer))):
        assert repr(copy) == repr(fewer)
        (name, value), *_ = copy.items()
        one, two = value, fewer[name]
        if measure == "distortion":
            one, two = one[8], two[8]
        assert one.standard_error == two.standard_error
    with pytest.raises(InputError, match=r"is of another run: its first batch is '\w+', not"):
        estimate(model, batches[::-1], cache=cache, progress=False)
    model.get_layer("dense").bias.assign_add([1.0, 0.0, 0.0])
    with pytest.raises(InputError, match="is of another run: its weights is"):
        estimate(model, batches, cache=cache, progress=False)
    cache.write_text("{}")
    with pytest.raises(InputError, match="holds no probes"):
        estimate(model, batches, cache=cache, progress=False)


def test_stops_when_the_order_is_stable() -> None:
    rng = np.random.default_rng(0)
    order = np.arange(20.0)
    clear, doubtful = (order + rng.normal(0, noise, (8, 20)) for noise in (0.1, 100))
    assert not converged(clear[:7], ProbeOptions(64))
    assert converged(clear, ProbeOptions(64))
    assert not converged(doubtful, ProbeOptions(64))
    assert converged(doubtful, ProbeOptions(8))


def test_what_cannot_be_used_says_why(network: keras.Model) -> None:
    model = tiny()
    trace = tfq_sv.hessian_traces
    with pytest.raises(InputError, match="ended after 0 batches; give some"):
        trace(model, [], progress=False)
    with pytest.raises(
        InputError, match="ended after 2 batches; give some, and a list or a stream"
    ):
        trace(model, iter([BATCH, BATCH]), progress=False)
    with pytest.raises(InputError, match=r"the shape \(0, 8, 6\); expected some"):
        trace(model, [BATCH[0][:0]], progress=False)
    with pytest.raises(InputError, match=r"the hessian of conv1d became nan at probe 0"):
        trace(model, [np.full_like(BATCH[0], np.nan)], progress=False)
    with pytest.raises(InputError, match="max_probes must be positive, not 0"):
        trace(model, [BATCH], options=ProbeOptions(0), progress=False)
    with pytest.raises(InputError, match="a loss needs labels"):
        trace(model, [BATCH[0]], loss=head(), progress=False)
    with pytest.raises(InputError, match="from 1 to 8, not 9"):
        tfq_sv.embedding_distortions(model, [BATCH], bits=[9], progress=False)
    with pytest.raises(InputError, match="is quantized already"):
        trace(
            tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.uniform(network), calibrate=False),
            [BATCH],
        )


def test_a_real_network_from_waveforms(network: keras.Model) -> None:
    waveforms = np.random.default_rng(0).normal(0, 0.1, (2, 8000)).astype(np.float32)
    traces = tfq_sv.hessian_traces(network, [waveforms], options=ProbeOptions(2), progress=False)
    assert len(traces) == 5
    fisher = tfq_sv.fisher_traces(network, [waveforms], options=ProbeOptions(2), progress=False)
    assert 0.2 < sum(traces.values()) / sum(fisher.values()) < 5
