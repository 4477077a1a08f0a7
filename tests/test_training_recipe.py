"""The field's recipe: schedules, optimizers, averaging, precision, the large-margin stage."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from train_small import small

from tfq_sv import training
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.features import WESPEAKER, fbank_tensor
from tfq_sv.training import AAMSoftmax, TrainingOptions, schedules
from tfq_sv.training.classifier import (
    class_names,
    classifier_path,
    load_classifier,
    save_classifier,
)
from tfq_sv.training.devices import BatchSharding
from tfq_sv.training.precision import in_precision
from tfq_sv.training.step import TrainingStep

SHORT: dict[str, Any] = {"num_epochs": 3, "batch_size": 6, "seconds": 0.4, "warm_up_epoch": 0}


def test_the_learning_rate_is_wespeakers() -> None:
    """Written out from its definition: warm-up from zero times an exponential from step 0."""
    schedule = schedules.WarmUpExponential(0.1, 5e-5, steps=1500, warm_up=60)
    for step in (0, 1, 30, 60, 700, 1499):
        expected = min(1, step / 60) * 0.1 * math.exp(step / 1500 * math.log(5e-5 / 0.1))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)
    again = schedules.WarmUpExponential(**schedule.get_config())
    assert float(again(99)) == float(schedule(99))


def test_the_margin_is_wespeakers() -> None:
    for step in range(0, 500, 7):
        margin = schedules.exponential_margin(step, 190, 390, 0.0, 0.2)
        ratio = 1 - math.exp((step - 190) / 200 * math.log(1e-3))
        assert margin == pytest.approx(0.2 * ratio if 190 <= step < 390 else 0.2 * (step >= 390))
    assert schedules.exponential_margin(0, 0, 0, 0.5, 0.5) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_optimizers_are_pytorchs(name: str) -> None:
    """At a constant rate; when it changes, Keras's momentum keeps the rates it was built with."""
    torch = pytest.importorskip("torch")
    keras.utils.set_random_seed(1)
    network, head = small(), AAMSoftmax(3)
    head.build(network.output_shape)
    options = TrainingOptions(
        **{**SHORT, "batch_size": 8}, optimizer=name, learning_rate=0.01, final_lr=0.02,
        base_batch_size=4, weight_decay=0.05, increase_start_epoch=1, fix_start_epoch=1,
    )  # fmt: skip
    options = TrainingOptions(**{**vars(options), "final_lr": 0.01})
    sharding = BatchSharding(tf.distribute.get_strategy(), 8)
    step = TrainingStep(network, WESPEAKER, head, options, 5, sharding)
    variables = [*network.trainable_variables, *head.trainable_variables]
    twins = [torch.nn.Parameter(torch.tensor(v.numpy())) for v in variables]
    reference = (
        torch.optim.SGD(twins, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.05)
        if name == "SGD"
        else torch.optim.AdamW(twins, lr=0.02, weight_decay=0.05)
    )
    rng = np.random.default_rng(0)
    for number in range(4):
        waveforms = rng.normal(0, 0.1, (8, 6400)).astype(np.float32)
        labels = rng.integers(3, size=8).astype(np.int32)
        head.margin.assign(0.2)
        with tf.GradientTape() as tape:
            dithered = waveforms + step._dither(tf.constant(number), tf.constant(waveforms))
            loss, _ = head(network(fbank_tensor(dithered), training=True), labels)
        for twin, gradient in zip(twins, tape.gradient(loss, variables), strict=True):
            twin.grad = torch.tensor(gradient.numpy())
        reference.step()
        values = step(number, (waveforms, labels))
        assert values["loss"] == pytest.approx(float(loss), rel=1e-5)
        assert values["learning_rate"] == pytest.approx(0.02)  # for 8 chunks, not 4
        assert values["margin"] == 0.2
    for variable, twin in zip(variables, twins, strict=True):
        np.testing.assert_allclose(variable, twin.detach().numpy(), atol=2e-4)


def test_the_last_epochs_are_averaged(
    train_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[list[np.ndarray]] = []
    real = TrainingStep.__call__

    def noted(self: Any, number: int, batch: Any) -> dict[str, float]:
        values = real(self, number, batch)
        kept.append(self._network.get_weights())
        return values

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    model = small()
    options = TrainingOptions(**SHORT, num_avg=2, optimizer="SGD")
    training.train(model, train_corpus, options, progress=False)
    assert len(kept) == 9  # 18 utterances, 6 per batch, 3 epochs
    for weight, a, b in zip(model.get_weights(), kept[5], kept[8], strict=True):
        np.testing.assert_allclose(weight, (a + b) / 2, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mixed_precision(train_corpus: Corpus, precision: str) -> None:
    losses, models = {}, {}
    for kind in ("fp32", precision):
        keras.utils.set_random_seed(0)
        models[kind] = small()
        options = TrainingOptions(**SHORT, learning_rate=1e-3, precision=kind)
        result = training.train(models[kind], train_corpus, options, progress=False)
        losses[kind] = result.loss
    # In float16, the first steps only find the scale of the loss.
    tolerance = 0.02 if precision == "bf16" else 0.5
    assert losses[precision] == pytest.approx(losses["fp32"], rel=tolerance)
    assert losses[precision] != losses["fp32"]
    model = models[precision]
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    kernel = models["fp32"].get_layer("conv2").kernel
    np.testing.assert_allclose(model.get_layer("conv2").kernel, kernel, atol=0.02)
    twin = in_precision(model, precision)
    assert twin.get_layer("conv1").compute_dtype != "float32"
    assert all(twin.get_layer(name).compute_dtype == "float32" for name in ("pool", "seg_1"))
    assert {weight.dtype for weight in twin.weights} == {tf.float32}
    features = tf.random.stateless_normal([2, 50, 80], [0, 0])
    np.testing.assert_allclose(twin(features), model(features), atol=0.1)


def test_curves_for_tensorboard(
    train_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfq_sv.training.loop.LOG_EVERY", 4)
    options = TrainingOptions(
        **SHORT, learning_rate=0.1, final_lr=0.05, optimizer="SGD", margin=0.3,
        increase_start_epoch=3, fix_start_epoch=3,
    )  # fmt: skip
    training.train(small(), train_corpus, options, tensorboard=tmp_path, progress=False)
    points: dict[str, dict[int, float]] = {}
    (file,) = tmp_path.glob("events.*")
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            points.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    assert set(points) == {"loss", "accuracy", "margin", "learning_rate"}
    assert points["margin"] == pytest.approx({0: 0, 4: 0, 8: 0.3})
    assert points["learning_rate"] == pytest.approx(
        {step: 0.1 * 0.5 ** (step / 9) for step in (0, 4, 8)}
    )
    assert all(math.isfinite(loss) for loss in points["loss"].values())


def test_a_classifier_is_kept_by_name(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, {}, {"a": "ann", "b": "bob", "c": "cyd"})
    names = class_names(corpus, (1.0, 0.9))
    head = AAMSoftmax(6)
    head.build((None, 4))
    path = classifier_path(tmp_path / "model.keras")
    save_classifier(path, head, names)
    centers = dict(zip(names, head.centers.numpy().T, strict=True))
    again, order = load_classifier(path, ["cyd", "ann"], 4, scale=20.0)
    assert order == ["cyd", "ann", "bob", "sp0.9-ann", "sp0.9-bob", "sp0.9-cyd"]
    assert again.scale == 20.0
    for name, center in zip(order, again.centers.numpy().T, strict=True):
        np.testing.assert_array_equal(center, centers[name])
    with pytest.raises(InputError, match=r"lacks 1 of 2 speakers \(first: dan\)"):
        load_classifier(path, ["ann", "dan"], 4)
    with pytest.raises(InputError, match=r"centers \(4, 6\); expected \(8, 6\)"):
        load_classifier(path, ["ann"], 8)
    with path.open("wb") as file:
        np.savez(file, speakers=np.array(names), centers=np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"centers \(4, 2\); expected \(4, 6\)"):
        load_classifier(path, ["ann"], 4)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    whole = path.read_bytes()
    for content in (b"hello", b"", whole):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not a classifier that"):
            load_classifier(path, ["ann"], 4)


def test_a_head_of_too_few_classes_is_refused(train_corpus: Corpus) -> None:
    with pytest.raises(InputError, match="has 5 classes; 6 are needed"):
        training.train(small(), train_corpus, TrainingOptions(**SHORT), head=AAMSoftmax(5))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_epochs": 0}, "num_epochs must be positive, not 0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive, not nan"),
        ({"margin": -0.1}, "margin must not be negative, as -0.1 is"),
        ({"momentum": 1.0}, "momentum must be from 0 to below 1"),
        ({"optimizer": "Lion"}, "optimizer must be one of Adam, AdamW, SGD, not 'Lion'"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"weight_decay": 0.1}, "weight_decay needs the optimizer AdamW or SGD"),
        ({"num_avg": 2}, "num_avg is 2, but there are no epochs"),
        ({"fix_start_epoch": 3}, "fix_start_epoch 3 is before increase_start_epoch 20"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(**wrong)
