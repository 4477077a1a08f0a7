"""Keras' files are programs in part: what could run code is refused before Keras sees it."""

import errno
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfq_sv
from tfq_sv.errors import InputError

FORMS = ["model.keras", "model.h5", "saved_model"]


@pytest.fixture
def ran(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile content would create; fails if it did."""
    path = tmp_path / "it_ran"
    yield path
    assert not path.exists()


def network(*more: keras.layers.Layer) -> keras.Model:
    features = x = keras.Input((8,), name="features")
    for layer in (keras.layers.Dense(4, name="seg"), *more):
        x = layer(x)
    return keras.Model(features, x, name="net")


def edited(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Changes the configuration in a .keras or .h5 file."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            edit(config)
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    config = json.loads(members["config.json"])
    edit(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)


@pytest.mark.parametrize("form", FORMS)
def test_a_lambda_never_runs(form: str, ran: Path, tmp_path: Path) -> None:
    path = str(ran)

    def squash(x: tf.Tensor) -> tf.Tensor:
        __import__("os").system(f"touch {path}")
        return x

    network(keras.layers.Lambda(squash, name="squash")).save(tmp_path / form)
    ran.unlink()
    with pytest.raises(InputError, match=r"layer 'squash' is a Lambda.*register_keras") as caught:
        tfq_sv.load_model(tmp_path / form)
    assert str(caught.value).startswith(str(tmp_path / form))


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize(
    "activation",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": None},
        {"module": "keras.models", "class_name": "function", "config": "load_model",
         "registered_name": "load_model"},
        {"module": "antigravity", "class_name": "Dense", "config": {}, "registered_name": None},
        {"module": None, "class_name": "__lambda__", "config": {"value": ""}},
        {"class_name": "__typespec__", "config": [], "module": "os", "spec_name": "x"},
        {"class_name": ["Dense"], "config": {}},
        {"class_name": "two\nlines", "config": {}},
        {"class_name": "two\nlines", "config": {}, "module": "os"},
    ],
)  # fmt: skip
def test_a_configuration_names_nothing_foreign(
    activation: dict[str, Any], form: str, tmp_path: Path
) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["activation"] = activation

    network().save(tmp_path / form)
    edited(tmp_path / form, edit)
    with pytest.raises(InputError, match=r"^.*only Keras' own layers.*$"):
        tfq_sv.load_model(tmp_path / form)


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize(
    "nodes",
    [[[["relu", 0, 0, {}]]], [[["seg", 1, 0, {}]]], [[["seg", 0.5, 0, {}]]], [], "", {}, None],
)
def test_a_graph_in_a_circle_is_refused(form: str, layer: int, nodes: Any, tmp_path: Path) -> None:
    """Found by mutation: Keras goes through such a graph for ever."""

    def edit(config: dict[str, Any]) -> None:
        config["config"]["layers"][layer]["inbound_nodes"] = nodes

    network(keras.layers.ReLU(name="relu")).save(tmp_path / form)
    edited(tmp_path / form, edit)
    with pytest.raises(InputError, match="lead nowhere or in a circle"):
        tfq_sv.load_model(tmp_path / form)


@pytest.mark.parametrize("form", FORMS)
def test_shared_and_nested_layers_load(form: str, tmp_path: Path) -> None:
    one, other = keras.Input((8,), name="one"), keras.Input((8,), name="other")
    shared = keras.layers.Dense(4, name="shared")
    nested = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="nested")
    inner = network()
    outputs = [nested(shared(one)), nested(shared(other)), inner(one), inner(other)]
    model = keras.Model([one, other], keras.layers.Concatenate()(outputs), name="net")
    model.save(tmp_path / form)
    x = [np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)]
    np.testing.assert_array_equal(tfq_sv.load_model(tmp_path / form)(x), model(x))


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("renamed", ["TFSMLayer", "InstanceMethod", "StringLookup"])
def test_a_registered_name_does_not_cover_another_class(
    form: str, renamed: str, tmp_path: Path
) -> None:
    def edit(config: dict[str, Any]) -> None:
        layer = config["config"]["layers"][1]
        layer["class_name"], layer["registered_name"] = renamed, "tfq_sv>FrontEnd"

    network().save(tmp_path / form)
    edited(tmp_path / form, edit)
    with pytest.raises(InputError, match=rf"layer 'seg' is a {renamed}"):
        tfq_sv.load_model(tmp_path / form)


@pytest.mark.parametrize("form", FORMS[:2])
def test_tensorflows_operations_calculate_alone(form: str, ran: Path, tmp_path: Path) -> None:
    features = keras.Input((8,), name="features")
    good = tf.nn.relu(tf.reduce_sum(features, axis=-1, keepdims=True)[:, :1] * 2.0)
    keras.Model(features, good).save(tmp_path / form)
    assert tfq_sv.load_model(tmp_path / form).output_shape == (None, 1)

    def edit(config: dict[str, Any]) -> None:
        for layer in config["config"]["layers"]:
            if layer["config"].get("function") == "math.reduce_sum":
                layer["config"]["function"] = "io.write_file"
                layer["inbound_nodes"] = [["_CONSTANT_VALUE", -1, str(ran), {"contents": "x"}]]

    edited(tmp_path / form, edit)
    with pytest.raises(InputError, match=r"'io\.write_file'"):
        tfq_sv.load_model(tmp_path / form)


def test_a_saved_models_graph_never_runs(ran: Path, tmp_path: Path) -> None:
    model = network()
    model.writer = _Writer(str(ran))
    model.save(tmp_path / "saved_model")
    ran.unlink(missing_ok=True)
    tf.saved_model.load(str(tmp_path / "saved_model"))
    assert ran.exists()  # or else the test would prove nothing
    ran.unlink()
    loaded = tfq_sv.load_model(tmp_path / "saved_model")
    x = np.ones((1, 8), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


class _Writer(tf.saved_model.experimental.TrackableResource):
    """A resource whose initializer, which every load runs, writes a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self.resource_handle  # noqa: B018 (creates it)

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])

    def _initialize(self) -> None:
        tf.io.write_file(self._path, "ran")


def test_a_saved_model_without_keras_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "plain"))
    with pytest.raises(InputError, match=r"keras_metadata\.pb"):
        tfq_sv.load_model(tmp_path / "plain")
    network().save(tmp_path / "saved_model")
    for file in (tmp_path / "saved_model" / "variables").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="is not a model that tf_keras can load"):
        tfq_sv.load_model(tmp_path / "saved_model")


@pytest.mark.parametrize("form", FORMS)
def test_a_compiled_model_loads(form: str, tmp_path: Path) -> None:
    model = network(keras.layers.ReLU())
    model.compile("adam", "mse")
    model.fit(np.ones((2, 8)), np.ones((2, 4)), verbose=0)
    model.save(tmp_path / form)
    x = np.ones((1, 8), np.float32)
    np.testing.assert_array_equal(tfq_sv.load_model(tmp_path / form)(x), model(x))


@pytest.mark.parametrize("form", FORMS)
def test_ones_own_layers_load_once_registered(form: str, tmp_path: Path) -> None:
    class Double(keras.layers.Layer):
        def call(self, x: tf.Tensor) -> tf.Tensor:
            return 2 * x

    model = network(Double(name="double"))
    model.save(tmp_path / form)
    with pytest.raises(InputError, match=r"layer 'double' is a .*Double.*register_keras"):
        tfq_sv.load_model(tmp_path / form)
    with keras.saving.custom_object_scope({"Custom>Double": Double, "Double": Double}):
        loaded = tfq_sv.load_model(tmp_path / form)
    x = np.ones((1, 8), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


def weights(path: Path, edit: Callable[[h5py.File], None]) -> None:
    """Changes the HDF5 weights of a .keras or .h5 file."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            edit(file)
        return
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    buffer = io.BytesIO(members["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        edit(file)
    members["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)


def _kernel(file: h5py.File) -> tuple[h5py.Group, str]:
    group = file["layers/dense/vars"] if "layers" in file else file["model_weights/seg/seg"]
    name = "0" if "layers" in file else "kernel:0"
    del group[name]
    return group, name


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("kind", ["link", "raw", "virtual", "huge"])
def test_weights_lie_in_the_file_itself(form: str, kind: str, tmp_path: Path) -> None:
    network().save(tmp_path / form)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(128))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones((8, 4), np.float32)

    def edit(file: h5py.File) -> None:
        group, name = _kernel(file)
        if kind == "link":
            group[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        elif kind == "raw":
            group.create_dataset(name, (8, 4), "f4", external=[(str(secret), 0, 128)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((8, 4), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (8, 4))
            group.create_virtual_dataset(name, layout)
        else:
            group.create_dataset(name, (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))

    weights(tmp_path / form, edit)
    message = r"[\d,]+ bytes of weights" if kind == "huge" else "another file"
    with pytest.raises(InputError, match=message):
        tfq_sv.load_model(tmp_path / form)


@pytest.mark.parametrize("form", FORMS[:2])
def test_a_file_at_which_hdf5_hangs_is_refused(form: str, tmp_path: Path) -> None:
    """Read in this process, the attribute of tests/data/hangs.h5 would never end."""
    damaged = (Path(__file__).parent / "data" / "hangs.h5").read_bytes()
    path = tmp_path / form
    network().save(path)
    if form == "model.h5":
        path.write_bytes(damaged)
    else:
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w") as new:
            for name, content in (members | {"model.weights.h5": damaged}).items():
                new.writestr(name, content)
    with pytest.raises(InputError, match=rf"{form} is damaged: HDF5 cannot get through it"):
        tfq_sv.load_model(path)


def test_a_keras_file_has_three_members(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    network().save(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("assets/../../x", b"x")
    with pytest.raises(InputError, match=r"holds 'assets/\.\./\.\./x'"):
        tfq_sv.load_model(path)


def test_an_archive_is_loaded_as_keras_loads_it(tmp_path: Path) -> None:
    """A shared layer, a model within the model, weights: as `keras.models.load_model`."""
    path = tmp_path / "net.keras"
    shared = keras.layers.Dense(8, name="shared")
    one = keras.Sequential([keras.layers.Dense(8, activation="relu")], name="one")
    features = keras.Input((8,), name="features")
    recurrent = keras.layers.Bidirectional(keras.layers.GRU(4), name="recurrent")
    x = keras.layers.BatchNormalization()(shared(one(features)) + shared(features))
    model = keras.Model(features, recurrent(x[:, None]), name="net")
    model.compile("adam", "mse")
    model.fit(np.ones((2, 8)), np.ones((2, 8)), verbose=0)
    model.save(path)
    loaded, wanted = tfq_sv.load_model(path), keras.models.load_model(path, compile=False)
    assert loaded.to_json() == wanted.to_json() == model.to_json()
    assert [weight.name for weight in loaded.weights] == [weight.name for weight in wanted.weights]
    for one_weight, other in zip(loaded.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(one_weight, other)
    speech = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_array_equal(loaded(speech), model(speech))


def test_no_room_to_unpack_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    network().save(tmp_path / "net.keras")
    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(
        InputError, match=r"net.keras cannot be unpacked to .*No space left.*TMPDIR"
    ):
        tfq_sv.load_model(tmp_path / "net.keras")
