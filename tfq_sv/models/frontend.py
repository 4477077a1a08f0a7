"""The network's entry: it says which features it expects, and makes them an image."""

import dataclasses
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.features import WESPEAKER, FbankOptions, fbank_tensor
from tfq_sv.models.entry import as_entry, feature_bins, takes_features, takes_waveform
from tfq_sv.origin import Origin


@keras.utils.register_keras_serializable("tfq_sv")
class FrontEnd(keras.layers.Layer):
    """Features (B, T, F) -> image (B, F, T, 1): height is frequency, width is time.

    It computes nothing else. Its configuration holds the front end that the network was trained
    with, and where the network is from, so that these travel with the model through every save,
    clone and export.

    >>> FrontEnd()(tf.zeros([2, 200, 80])).shape
    TensorShape([2, 80, 200, 1])
    """

    def __init__(
        self,
        fbank: FbankOptions | dict[str, Any] = WESPEAKER,
        origin: Origin | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.origin = origin if isinstance(origin, Origin) else Origin.of(origin)
        self.fbank = fbank if isinstance(fbank, FbankOptions) else FbankOptions(**fbank)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Transposes; no shape is computed at run time, so delegates can take the graph."""
        return tf.expand_dims(tf.transpose(features, [0, 2, 1]), -1)

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration, front end and, where it is known, origin included."""
        known = {"origin": self.origin.fields()} if self.origin.fields() else {}
        return {**super().get_config(), "fbank": dataclasses.asdict(self.fbank), **known}


def network_input(batch: Any, fbank: FbankOptions) -> tf.Tensor:
    """Returns what a network takes of a batch of a dataset, float32 (B, T, F).

    Args:
        batch: an array, or a tuple that begins with one: waveforms (B, N), 16 kHz in [-1, 1], or
            features (B, T, F).
        fbank: the network's front end.

    Raises:
        InputError: an empty batch, waveforms too short for a frame, features of other bins.

    >>> network_input((tf.zeros([2, 16000]), tf.zeros([2])), WESPEAKER).shape
    TensorShape([2, 98, 80])
    """
    first = tf.convert_to_tensor(batch[0] if isinstance(batch, tuple | list) else batch, tf.float32)
    shape = tuple(first.shape)
    if len(shape) == 2:
        wrong = 0 in shape or shape[1] < fbank.min_samples
    else:
        wrong = len(shape) < 2 or 0 in shape or (len(shape) == 3 and shape[2] != fbank.num_bins)
    if wrong:
        raise InputError(
            f"a batch has the shape {shape}; expected some waveforms (B, N) at 16 kHz, N at least "
            f"{fbank.min_samples}, or features (B, T, {fbank.num_bins})"
        )
    return fbank_tensor(first, fbank) if len(shape) == 2 else first


def model_input(model: keras.Model, batch: Any) -> tf.Tensor:
    """Returns what this network takes of a batch: features in its own order of axes, or waveforms.

    Args:
        model: takes features in an order that `entry.as_entry` knows, or waveforms (B, N).
        batch: as in `network_input`.

    Raises:
        InputError: as `network_input`.

    >>> model = keras.Sequential([keras.Input((80, None)), keras.layers.ReLU()])
    >>> model_input(model, tf.zeros([2, 16000])).shape
    TensorShape([2, 80, 98])
    """
    if takes_features(model):
        return as_entry(model, network_input(batch, front_end(model)))
    first = tf.convert_to_tensor(batch[0] if isinstance(batch, tuple | list) else batch, tf.float32)
    if 0 in first.shape or first.shape.rank != len(model.inputs[0].shape):
        raise InputError(
            f"a batch has the shape {tuple(first.shape)}; {model.name} takes "
            f"{tuple(model.inputs[0].shape)}"
        )
    return first


def origin_of(model: keras.Model) -> Origin:
    """Returns where a model is from; empty if the model does not say."""
    return next((x.origin for x in model.layers if isinstance(x, FrontEnd)), Origin())


def set_origin(model: keras.Model, origin: Origin) -> None:
    """Notes where a model is from, in its `FrontEnd`; without one there is no place for it."""
    for layer in model.layers:
        if isinstance(layer, FrontEnd):
            layer.origin = origin


def front_end(model: keras.Model) -> FbankOptions:
    """Returns the front end that a model expects; WeSpeaker's if the model does not say."""
    for layer in model.layers:
        if isinstance(layer, FrontEnd):
            return layer.fbank
    return WESPEAKER if takes_waveform(model) else FbankOptions(num_bins=feature_bins(model))
