"""What a network takes and gives: features or waveforms in, in any order of axes; one embedding."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.errors import InputError


def feature_bins(model: keras.Model) -> int:
    """Returns how many mel bins a network takes; 1 if it takes waveforms, (B, N).

    Raises:
        InputError: it takes something else, or does not say.
    """
    return _layout(model)[1]


def takes_waveform(model: keras.Model) -> bool:
    """Whether a network takes waveforms, (B, N), its front end being one of its layers."""
    return _layout(model)[0] == "BN"


def takes_features(model: keras.Model) -> bool:
    """Whether a network takes features, in one of the orders that `as_entry` knows."""
    return _layout(model)[0] not in ("BN", "other")


def features_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Returns what `as_entry` takes, without the batch: (T, F); T is None where it is free."""
    shape = tuple(model.inputs[0].shape[1:])
    layout, bins = _layout(model)
    if layout == "other":
        return shape
    return (shape[1] if layout.startswith("BFT") else shape[0], bins)


def as_entry(model: keras.Model, features: tf.Tensor) -> tf.Tensor:
    """Returns features (B, T, F) in the order that a network takes them; waveforms as they are.

    (B, T, F), (B, F, T), (B, T, F, 1) or (B, F, T, 1): the axis of a fixed size is the mel bins'.

    >>> model = keras.Sequential([keras.Input((80, None, 1)), keras.layers.ReLU()])
    >>> as_entry(model, tf.zeros([2, 200, 80])).shape
    TensorShape([2, 80, 200, 1])
    """
    layout = _layout(model)[0]
    if layout.startswith("BFT"):
        features = tf.transpose(features, [0, 2, 1])
    return tf.expand_dims(features, -1) if layout.endswith("1") else features


def one_embedding(model: keras.Model, answer: Any) -> tf.Tensor:
    """Returns a network's only output, (B, embed_dim) float32, from a list or dictionary too.

    Raises:
        InputError: there are several.
    """
    return tf.cast(_single_output(model, answer), tf.float32)


def embedding_shape(model: keras.Model) -> tuple[Any, ...]:
    """Returns the shape of a network's only output, (None, embed_dim).

    Raises:
        InputError: there are several.
    """
    return tuple(_single_output(model, model.output).shape)


def _single_output(model: keras.Model, answer: Any) -> Any:
    outputs = tf.nest.flatten(answer)
    if len(outputs) != 1:
        names = list(answer) if isinstance(answer, dict) else list(model.output_names)
        first = repr(names[0]) if isinstance(answer, dict) else "0"
        raise InputError(
            f"{model.name} has the outputs {', '.join(map(str, names))}; give a network of one: "
            f"keras.Model(model.input, model.output[{first}])"
        )
    return outputs[0]


def _layout(model: keras.Model) -> tuple[str, int]:
    """The axes by their letters, and the mel bins."""
    if len(model.inputs) != 1:
        raise InputError(f"{model.name} has {len(model.inputs)} inputs; a network has one")
    shape = tuple(model.inputs[0].shape)
    if len(shape) == 2 and shape[1] is None:
        return "BN", 1
    image = len(shape) == 4 and shape[3] == 1
    axes = shape[1:3]
    if (len(shape) == 3 or image) and axes != (None, None):
        turned = axes[1] is None
        return ("BFT" if turned else "BTF") + "1" * image, int(axes[0] if turned else axes[1])
    if len(shape) > 2 and shape[-1] is not None:
        return "other", int(shape[-1])
    raise InputError(
        f"{model.name} takes {shape}; expected features (None, None, mel bins), (None, mel bins, "
        "None), one of these with a last axis of 1, or waveforms (None, None)"
    )
