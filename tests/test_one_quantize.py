"""quantize means one thing: the Python call, the command and tfmot's path give one network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfq_sv
from tfq_sv import cli, codebook
from tfq_sv.cli import common
from tfq_sv.errors import InputError
from tfq_sv.quantization import quantizers_of
from tfq_sv.training.fine_tuning import FineTuningOptions

Recipe = tfq_sv.QuantizationRecipe


def speech(seed: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(size=(4, 60, 80)).astype(np.float32)]


def same(a: keras.Model, b: keras.Model) -> bool:
    return all(map(np.array_equal, a.get_weights(), b.get_weights()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kmeans", "trellis", "binary"])
@pytest.mark.parametrize("heard", [False, True])
def test_the_call_and_the_command_give_one_network(
    kind: str, heard: bool, network: keras.Model, corpus_dir: Path, tmp_path: Path
) -> None:
    flag = {"kmeans": "--bits=2", "trellis": "--trellis", "binary": "--binary=static"}[kind]
    network.save(tmp_path / "net.keras")
    line = ["quantize", f"--model={tmp_path}/net.keras", flag, f"--out={tmp_path}/out.keras"]
    if kind == "trellis":
        line.append("--bits=2")
    minute: Any = True
    if heard:
        line += [f"--calibrate={corpus_dir}/train", "--minutes=0.1"]
        minute, _ = common.speech_for_calibration(f"{corpus_dir}/train", 0.1)
    assert cli.main(line) == 0
    made = {"kmeans": Recipe.uniform, "trellis": Recipe.trellis}.get(kind)
    recipe = made(network, 2) if made else Recipe.binary(network, "static")
    small = tfq_sv.quantize(network, recipe, calibrate=minute)
    loaded = tfq_sv.load_model(tmp_path / "out.keras")
    assert same(small, loaded)
    for model in (small, loaded):
        assert all(x.calibrated for x in quantizers_of(model).values())


def test_rounding_is_asked_for(network: keras.Model) -> None:
    rounded = tfq_sv.quantize(network, Recipe.uniform(network, 2), calibrate=False)
    for name, book in tfq_sv.codebooks(rounded).items():
        kernel = network.get_layer(name).kernel.numpy()
        distances = np.abs(kernel[..., None] - book.centroids)
        np.testing.assert_array_equal(book.decode(), book.centroids[distances.argmin(-1)])
        np.testing.assert_array_equal(book.codes, codebook.assign(kernel, book.centroids))
    assert not any(x.calibrated for x in quantizers_of(rounded).values())


def test_tfmot_and_one_call(network: keras.Model) -> None:
    recipe = Recipe.uniform(network, 2)

    def annotate(layer: keras.layers.Layer) -> keras.layers.Layer:
        copy = type(layer).from_config(layer.get_config())
        if layer.name not in recipe.layers:
            return copy
        config = tfq_sv.KMeansQuantizeConfig(bits=2)
        return tfmot.quantization.keras.quantize_annotate_layer(copy, config)

    annotated = keras.models.clone_model(network, clone_function=annotate)
    annotated.set_weights(network.get_weights())
    with tfmot.quantization.keras.quantize_scope(
        {type(x).__name__: type(x) for x in network.layers}
    ):
        small = tfmot.quantization.keras.quantize_apply(annotated, tfq_sv.WeightOnlyScheme())
    assert tfq_sv.calibrate(small, progress=False) is small
    assert same(small, tfq_sv.quantize(network, recipe))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kmeans", "trellis"])
def test_two_calls_are_as_good_as_one(kind: str, network: keras.Model) -> None:
    recipe = Recipe.uniform(network, 2) if kind == "kmeans" else Recipe.trellis(network, 2)
    small, wanted = (tfq_sv.quantize(network, recipe) for _ in range(2))
    assert tfq_sv.calibrate(small, progress=False) is small  # done already
    assert same(small, wanted)
    for bad, message in (([], "gave no batch"), ([speech()[0] * np.nan], "not finite")):
        with pytest.raises(InputError, match=message):
            tfq_sv.calibrate(small, bad, progress=False)
        assert same(small, wanted)
        assert all(x.calibrated for x in quantizers_of(small).values())
    assert tfq_sv.calibrate(small, speech(), progress=False) is small
    assert same(small, tfq_sv.quantize(network, recipe, calibrate=speech()))
    assert not same(small, wanted)
    # Now it is calibrated to speech, and the float network is forgotten.
    with pytest.raises(InputError, match="is calibrated already; quantize the float network"):
        tfq_sv.calibrate(small, speech(1), progress=False)


@pytest.mark.slow
def test_training_is_not_undone(network: keras.Model, tmp_path: Path) -> None:
    small = tfq_sv.quantize(network, Recipe.uniform(network, 2))
    small.save(tmp_path / "small.keras")
    options = FineTuningOptions(steps=3)
    tfq_sv.finetune(small, speech(), teacher=network, options=options, progress=False)
    for model in (small, tfq_sv.load_model(tmp_path / "small.keras")):
        before = [x.copy() for x in model.get_weights()]
        with pytest.raises(InputError, match="is calibrated already"):
            tfq_sv.calibrate(model, speech(), progress=False)
        assert all(map(np.array_equal, before, model.get_weights()))


def test_what_cannot_be_calibrated_can_be_rounded() -> None:
    left, right = keras.Input((4,)), keras.Input((4,))
    total = keras.layers.Dense(3, name="seg")(keras.layers.Add()([left, right]))
    model = keras.Model([left, right], total)
    with pytest.raises(InputError, match=r"2 inputs; calibration feeds one.*calibrate=False"):
        tfq_sv.quantize(model, Recipe.uniform(model, 2))
    assert (
        len(tfq_sv.codebooks(tfq_sv.quantize(model, Recipe.uniform(model, 2), calibrate=False)))
        == 1
    )
