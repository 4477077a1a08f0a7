"""Keras' files (.keras, .h5, SavedModel), loaded without running anything that they hold.

A configuration names classes and functions, and Keras imports and calls whatever it names: a
Lambda's bytecode in .h5 and SavedModel, any function of any Python module in .keras, TensorFlow's
file operations in an op layer. A SavedModel's graph runs operations as it loads. So the
configuration is read first, and every name in it must be one of a list; SavedModels are rebuilt
from it, and of the rest only the weights are read.

Source: CVE-2024-3660 and CVE-2025-1550 (Keras); TensorFlow's SECURITY.md, "models are programs".
"""

import json
import tempfile
import zipfile
from collections.abc import Container, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf
import tf_keras as keras
from tf_keras.src.saving.serialization_lib import ObjectSharingScope  # it has no public name

from tfq_sv.errors import InputError
from tfq_sv.models import hdf5

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = frozenset({"metadata.json", _CONFIG, _WEIGHTS})
_LAYERS = frozenset(
    """
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average
    AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional Concatenate
    Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D Cropping2D
    Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Flatten
    Functional GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D GroupNormalization InputLayer LSTM LSTMCell LayerNormalization LeakyReLU
    Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum Model MultiHeadAttention Multiply
    Normalization PReLU Permute RNN ReLU RepeatVector Rescaling Reshape SeparableConv1D
    SeparableConv2D Sequential SimpleRNN SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D
    SpatialDropout3D SpectralNormalization StackedRNNCells Subtract SyncBatchNormalization
    ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
)
# Values that are no objects of Keras'.
_VALUES = frozenset(
    {"Policy", "TensorShape", "__ellipsis__", "__numpy__", "__tensor__", "__tuple__"}
)
_MODELS = frozenset({"Functional", "Model", "Sequential"})
_OP_LAYERS = frozenset({"SlicingOpLambda", "TFOpLambda"})
# TensorFlow's operations that only calculate: whole modules, and functions of `tf` itself.
_OP_MODULES = ("__operators__.", "linalg.", "math.", "nn.", "signal.")
_OPS = frozenset(
    """
    __operators__.getitem abs add broadcast_to cast clip_by_value concat cumsum divide einsum exp
    expand_dims eye fill gather identity linspace matmul maximum minimum multiply negative norm
    ones_like pad pow repeat reshape reverse round shape sigmoid sign slice split sqrt square
    squeeze stack strided_slice subtract tanh tensordot tile transpose unstack where zeros_like
    """.split()
)


def load(path: Path) -> keras.Model:
    """Loads a model, uncompiled.

    Custom classes must be registered, or in a `keras.saving.custom_object_scope`.

    Raises:
        InputError: a layer or function that could run code; weights in another file, or too many.
        Exception: whatever Keras and the readers under it raise on a damaged file.
    """
    if path.is_dir():
        return _load_saved_model(path)
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        return _load_archive(path)
    hdf5.check(path)
    with h5py.File(path, "r") as file:
        _check_version(path, file.attrs.get("keras_version"))
        config = json.loads(file.attrs["model_config"])
    check(path, config)
    return keras.models.load_model(path, compile=False)


def check(path: Path, config: Any) -> None:
    """Raises InputError if a model's configuration names what could run code.

    >>> check(Path("a.keras"), {"class_name": "Lambda", "config": {"name": "squash"}})
    Traceback (most recent call last):
      ...
    tfq_sv.errors.InputError: a.keras is not loaded: its layer 'squash' is a Lambda, and only ...
    """
    for layer, item in _objects(config):
        if wrong := _forbidden(item):
            raise InputError(
                f"{path} is not loaded: its layer {layer!r:.100} is a {wrong}, and only Keras' own "
                "layers and those that your program registers "
                "(keras.saving.register_keras_serializable) are known to run no code; if you trust "
                "it, load it with tf_keras and replace that layer"
            )
    for _, item in _objects(config):
        if (layer := _unreachable(item)) is not None:
            raise InputError(
                f"{path} is not loaded: the inputs of its layer {layer!r:.100} lead nowhere or in "
                "a circle; get it again"
            )


def _unreachable(item: Mapping[str, Any]) -> Any:
    """A layer whose inputs are never computed, at which Keras would wait for ever; else None."""
    inner = item.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        return None  # Sequential's layers have no inputs; Keras refuses what is no layer
    todo = {str(layer.get("name")): layer.get("inbound_nodes") or [] for layer in layers}
    # A model within this one has a node of its own.
    models = {str(layer.get("name")) for layer in layers if layer.get("class_name") in _MODELS}
    reached = {name: int(name in models) for name in todo}
    inputs = {str(x.get("name")) for x in layers if x.get("class_name") == "InputLayer"}

    def is_ready(reference: list[Any]) -> bool:
        name, node = reference[:2]
        return name in inputs or (type(node) is int and 0 <= node < reached[name])

    progress = True
    while progress:
        progress = False
        for name, nodes in todo.items():
            while nodes and all(map(is_ready, _references(nodes[0], reached))):
                todo[name] = nodes = nodes[1:]
                reached[name] += 1
                progress = True
    never = (name for name in todo if todo[name] or not (reached[name] or name in inputs))
    return next(never, None)


def _references(node: Any, names: Container[str]) -> Iterator[list[Any]]:
    """The tensors that a node takes, each as [layer, node, tensor, ...]."""
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            if len(item) >= 3 and isinstance(item[0], str) and item[0] in names:
                yield item
            todo += item
        elif isinstance(item, dict):
            todo += item.values()


def _objects(config: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Every object that a configuration describes, with the name of the layer that it is in."""
    todo = [(None, config)]
    while todo:
        layer, item = todo.pop()
        if isinstance(item, list):
            todo += [(layer, value) for value in item]
        elif isinstance(item, dict):
            inner = item.get("config")
            if isinstance(inner, dict) and "name" in inner:
                layer = inner["name"]
            if "class_name" in item:
                yield layer, item
            todo += [(layer, value) for value in item.values()]


def _forbidden(item: Mapping[str, Any]) -> str | None:
    """What an object is, if it may not be loaded."""
    name, module, registered = (item.get(k) for k in ("class_name", "module", "registered_name"))
    inner = item.get("config")
    if not isinstance(name, str):
        return f"{name!r:.60}"
    # Keras looks for registered classes first, by one name or the other.
    if _registered(name) or getattr(_registered(registered), "__name__", None) == name:
        return None
    if module is not None and (not isinstance(module, str) or not _is_keras(module)):
        return f"{name!r:.60} of {module!r:.60}"
    if name == "function":
        return None if inner in _activations() else f"function {inner!r:.60}"
    if name in _OP_LAYERS:
        op = inner.get("function") if isinstance(inner, dict) else None
        known = isinstance(op, str) and (op in _OPS or op.startswith(_OP_MODULES))
        return None if known else f"{name} of {op!r:.60}"
    if name in _LAYERS | _VALUES | _plain_classes():
        return None
    return name if name.isidentifier() else f"{name!r:.60}"


def _registered(name: Any) -> Any:
    return keras.saving.get_registered_object(name) if isinstance(name, str) else None


def _is_keras(module: str) -> bool:
    return module == "builtins" or module.split(".")[0] in ("keras", "tf_keras")


@cache
def _activations() -> frozenset[str]:
    return frozenset(vars(keras.activations)) - {"deserialize", "get", "serialize"}


@cache
def _plain_classes() -> frozenset[str]:
    """Initializers, regularizers and constraints."""
    modules = (keras.initializers, keras.regularizers, keras.constraints)
    return frozenset(
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
    )


def _load_archive(path: Path) -> keras.Model:
    """Loads a .keras as `keras.models.load_model` does, but with the weights out of the archive.

    Keras reads HDF5 within the zip, and each step back there reads the member from its start: a
    minute for a network of 800 layers.
    """
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        _check_members(path, archive)
        _check_version(path, json.loads(archive.read("metadata.json")).get("keras_version"))
        config = json.loads(archive.read(_CONFIG))
        try:
            weights = archive.extract(_WEIGHTS, folder)
        except OSError as error:
            raise InputError(
                f"{path} cannot be unpacked to {folder} ({error.strerror}); free some space there, "
                "or name another folder in TMPDIR"
            ) from error
        hdf5.check(Path(weights), path)
        if isinstance(config, dict):
            config.pop("compile_config", None)  # is not loaded
        check(path, config)
        with ObjectSharingScope():
            model = keras.saving.deserialize_keras_object(config)
        model.load_weights(weights)
    return model


def _load_saved_model(folder: Path) -> keras.Model:
    from tf_keras.protobuf import saved_metadata_pb2  # no public reader keeps the graph out

    file = folder / "keras_metadata.pb"
    if not file.is_file():
        raise InputError(f"{folder} has no keras_metadata.pb; save the network with model.save")
    metadata = saved_metadata_pb2.SavedMetadata()
    metadata.ParseFromString(file.read_bytes())
    root = json.loads(next(x.metadata for x in metadata.nodes if x.node_path == "root"))
    config = root.get("model_config") or {key: root[key] for key in ("class_name", "config")}
    check(folder, config)
    model = keras.models.model_from_json(json.dumps(config))
    if not model.built:
        raise InputError(f"{folder} does not say what its network takes; save it as .keras")
    weights = tf.train.Checkpoint(model).read(str(folder / "variables" / "variables"))
    weights.assert_existing_objects_matched().expect_partial()
    return model


def _check_version(path: Path, version: Any) -> None:
    if str(version).startswith("3."):
        raise InputError(
            f"{path} is a file of Keras {version!s:.20}, which tf_keras cannot read; there, write "
            "numpy.savez('w.npz', *model.get_weights()); here, build the same network of tf_keras "
            "layers and model.set_weights(list(numpy.load('w.npz').values()))"
        )


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        if member.filename not in _MEMBERS:
            raise InputError(
                f"{path} holds {member.filename!r:.60}; expected {', '.join(sorted(_MEMBERS))}"
            )
    hdf5.check_size(path, sum(member.file_size for member in archive.infolist()))
