"""Stages carry over what was learned, and a broken run ends as a whole one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import some

import tfq_sv
from tfq_sv.errors import InputError
from tfq_sv.quantization.quantized_model import quantizers_of
from tfq_sv.quantization.recipe import LayerRecipe
from tfq_sv.training import multi_stage
from tfq_sv.training.fine_tuning import FineTuningOptions
from tfq_sv.training.multi_stage import _next_stage, stages

OPTIONS = FineTuningOptions(steps=4, update_every=2, batch_norm_batches=2)
MIXED = {"c": ("adaptive_binary", 1), "d": ("kmeans", 3), "e": ("kmeans", 2)}


def small() -> keras.Model:
    layers = keras.layers
    keras.utils.set_random_seed(0)
    entry = keras.Input((None, 8))
    x = layers.Conv1D(12, 3, name="c")(entry)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(10, activation="relu", name="d")(x)
    x = layers.Dense(4, name="e")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(entry, x, name="small")


def recipe() -> tfq_sv.QuantizationRecipe:
    return tfq_sv.QuantizationRecipe({n: LayerRecipe(*entry) for n, entry in MIXED.items()})


def data() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(4, 9, 8)).astype(np.float32) for _ in range(200)]


def tune(model: keras.Model, dataset: Any, **options: Any) -> keras.Model:
    return tfq_sv.multi_stage_finetune(
        model, recipe(), dataset, **({"options": OPTIONS, "progress": False} | options)
    )


def test_stages_of_a_recipe() -> None:
    assert [set(stage.layers) for stage in stages(recipe())] == [{"c"}, {"c", "e"}, {"c", "d", "e"}]
    highest = stages(recipe(), "highest_first")
    assert [set(stage.layers) for stage in highest] == [{"d"}, {"d", "e"}, {"c", "d", "e"}]
    assert stages(recipe())[-1] == recipe() == highest[-1]


@pytest.mark.parametrize("order", some(multi_stage.ORDERS, "lowest_first"))
def test_all_stages_train_and_the_model_exports(order: str, tmp_path: Path) -> None:
    model, features = small(), data()[0]
    before = model.get_weights()
    tuned = tune(model, data(), order=order)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {n: b.bits for n, b in tfq_sv.codebooks(tuned).items()} == {"c": 1, "d": 3, "e": 2}
    plain = tfq_sv.quantize(model, recipe(), calibrate=False)
    for name, quantizer in quantizers_of(tuned).items():
        assert np.any(quantizer.latent.numpy() != quantizers_of(plain)[name].latent.numpy())
    from tfq_sv.export import export_tflite

    export_tflite(tuned, tmp_path / "x.tflite", "features")
    tfq_sv.dequantize(tuned)(features)


def test_the_next_stage_starts_with_what_the_last_one_learned() -> None:
    model = small()
    first, second = stages(recipe())[:2]
    student = _next_stage(model, model, first)
    quantizer = quantizers_of(student)["c"]
    quantizer.latent.assign_add(0.1 * np.ones(quantizer.latent.shape))
    quantizer.centroids.assign([-0.25, 0.5])
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign_add(np.ones(12))
    quantized = [layer for layer in student.layers if hasattr(layer, "quantize_config")]
    quantized[0].layer.bias.assign(np.ones(12))
    after = _next_stage(model, student, second)
    book, old = quantizers_of(after)["c"].codebook(), quantizer.codebook()
    np.testing.assert_array_equal(book.codes, old.codes)
    np.testing.assert_array_equal(book.centroids, old.centroids)
    np.testing.assert_array_equal(quantizers_of(after)["c"].latent, quantizer.latent)
    assert "d" not in quantizers_of(after)
    # But for the layer that is quantized now, both compute the same.
    dense = after.layers[-1].layer
    kernel = tfq_sv.codebooks(after)["e"].decode()
    student.get_layer("e").set_weights([kernel, dense.bias.numpy()])
    features = data()[0]
    np.testing.assert_allclose(after(features), student(features), rtol=1e-5, atol=1e-6)


def test_a_wrapper_of_keras_own_is_no_hindrance() -> None:
    layers = keras.layers
    x = entry = keras.Input((None, 8))
    x = layers.Conv1D(12, 3, name="c")(x)
    x = layers.Bidirectional(layers.LSTM(3, name="inner"), name="outer")(x)
    model = keras.Model(entry, layers.Dense(4, name="e")(x))
    mixed = tfq_sv.QuantizationRecipe(
        {"c": LayerRecipe("kmeans", 3), "e": LayerRecipe("kmeans", 2)}
    )
    student = model
    for stage in stages(mixed):
        student = _next_stage(model, student, stage)
    outer = student.get_layer("outer").get_weights()
    for a, b in zip(outer, model.get_layer("outer").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(quantizers_of(student)) == ["c", "e"]


@pytest.mark.slow
def test_each_stage_starts_from_calibrated_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its new layers; those of earlier stages keep what fine-tuning made of them."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    x = entry = keras.Input((None, 16))
    for name in ("a", "b", "c"):
        x = layers.ReLU()(layers.Conv1D(16, 1, name=name)(x))
    model = keras.Model(entry, layers.GlobalAveragePooling1D()(x))
    kinds = {"a": ("kmeans", 3), "b": ("trellis", 1), "c": ("trellis", 2)}
    mixed = tfq_sv.QuantizationRecipe({n: LayerRecipe(*entry) for n, entry in kinds.items()})
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 16))  # inputs that say much about each other, as speech's do
    speech = [(rng.normal(size=(8, 20, 4)) @ mixing).astype(np.float32) for _ in range(40)]
    stages, before = [], {}
    real = multi_stage.finetune

    def finetune(student: Any, stream: Any, **options: Any) -> float:
        quantizers = quantizers_of(student)
        assert all(quantizer.calibrated for quantizer in quantizers.values())
        for name, decoded in before.items():
            np.testing.assert_array_equal(quantizers[name].codebook().decode(), decoded)
        stages.append(list(quantizers))
        # What the new layer gives is nearer to what it gave than rounding is.
        new = next(name for name in quantizers if name not in before)
        wanted = calibration_reference[-1](speech[0])
        rough = tfq_sv.quantization.quantized_model.rounded(
            calibration_reference[-1], tfq_sv.QuantizationRecipe({new: mixed.layers[new]})
        )
        errors = [np.linalg.norm(x(speech[0]) - wanted) for x in (student, rough)]
        assert errors[0] < errors[1]
        loss = real(student, stream, **options)
        before.update({n: book.decode() for n, book in tfq_sv.codebooks(student).items()})
        return loss

    calibration_reference = []
    rest = multi_stage.calibrate_rest

    def calibrate_rest(student: Any, *given: Any, **options: Any) -> None:
        copies = tfq_sv.quantization.quantized_model.before_calibration(student)
        reference = keras.models.clone_model(
            student, clone_function=lambda layer: copies.get(layer, layer)
        )
        calibration_reference.append(reference)
        rest(student, *given, **options)

    monkeypatch.setattr(multi_stage, "finetune", finetune)
    monkeypatch.setattr(multi_stage, "calibrate_rest", calibrate_rest)
    tfq_sv.multi_stage_finetune(model, mixed, speech, options=OPTIONS, progress=False)
    assert stages == [["b"], ["b", "c"], ["a", "b", "c"]]


class BrokenError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("form", [list, iter])
@pytest.mark.parametrize("after", [6, 8])
def test_a_broken_run_ends_as_a_whole_one(
    form: Any, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken within the second stage, or between the second and the third."""
    monkeypatch.setattr("tfq_sv.training.loop.CHECKPOINT_EVERY", 1)
    whole = tune(small(), form(data()), checkpoint_dir=tmp_path / "whole")
    original, calls = multi_stage.finetune, []

    def breaking(model: Any, stream: Any, **options: Any) -> float:
        def some() -> Any:
            for batch in stream:
                calls.append(1)
                if len(calls) - 1 == after:
                    raise BrokenError
                yield batch

        class Some:
            def __iter__(self) -> Any:
                return some()

        return original(model, Some(), **options)

    monkeypatch.setattr(multi_stage, "finetune", breaking)
    with pytest.raises(BrokenError):
        tune(small(), form(data()), checkpoint_dir=tmp_path / "broken")
    assert (tmp_path / "broken" / "stage-1.keras").exists()
    assert not (tmp_path / "broken" / "stage-3.keras").exists()
    monkeypatch.setattr(multi_stage, "finetune", original)
    ended = tune(small(), form(data()), checkpoint_dir=tmp_path / "broken")
    for a, b in zip(whole.get_weights(), ended.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # All stages are there: nothing is left to do but to load.
    monkeypatch.setattr(multi_stage, "finetune", None)
    again = tune(small(), [], checkpoint_dir=tmp_path / "broken")
    np.testing.assert_array_equal(again(data()[0]), ended(data()[0]))
    (tmp_path / "broken" / "drawn.json").write_text("[]")
    with pytest.raises(InputError, match=r"drawn\.json is damaged or missing; delete that folder"):
        tune(small(), [], checkpoint_dir=tmp_path / "broken")


@pytest.mark.slow
def test_what_cannot_be_tuned_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="order must be one of lowest_first, highest_first"):
        tune(small(), data(), order="random")
    with pytest.raises(InputError, match="names no layer"):
        tfq_sv.multi_stage_finetune(small(), tfq_sv.QuantizationRecipe({}), data())
    wrong = tfq_sv.QuantizationRecipe({"z": LayerRecipe("kmeans", 2)})
    with pytest.raises(InputError, match="names 'z', which is no quantizable layer"):
        tfq_sv.multi_stage_finetune(small(), wrong, data())
    with pytest.raises(InputError, match="ended after 0 batches"):
        tune(small(), [])
    with pytest.raises(InputError, match="calibration holds values that are not finite"):
        tune(small(), [np.full((4, 9, 8), np.nan, np.float32)])
    with pytest.raises(InputError, match="is quantized already"):
        tune(tfq_sv.quantize(small(), recipe(), calibrate=False), data(), checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="names 'z', which is no quantizable layer"):
        tfq_sv.multi_stage_finetune(small(), wrong, data(), checkpoint_dir=tmp_path)
    monkeypatch.setattr(multi_stage, "finetune", lambda *_, **__: 0.0)
    tune(small(), data(), checkpoint_dir=tmp_path)  # those before have left nothing
    other = small()
    other.get_layer("d").bias.assign(np.ones(10))
    with pytest.raises(InputError, match="holds a run with weights"):
        tune(other, data(), checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="holds a run with order lowest_first, not highest_first"):
        tune(small(), data(), checkpoint_dir=tmp_path, order="highest_first")
