"""Copies of Keras layers by their configurations, as Keras makes them, with errors that help."""

from typing import Any

import tf_keras as keras

from tfq_sv.errors import InputError


def copied(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    """Returns a new layer of the same configuration, without weights.

    Args:
        layer: any layer.
        changes: what is different in the copy, `dtype` for instance.

    Raises:
        InputError: its configuration does not make such a layer again.

    >>> copied(keras.layers.Dense(8, name="seg"), units=4).units
    4
    >>> copied(keras.layers.Dense(8, name="seg", activation=lambda x: 2 * x))
    Traceback (most recent call last):
      ...
    tfq_sv.errors.InputError: layer seg (Dense) cannot be copied by its configuration ...
    """
    config = {**layer.get_config(), **changes}
    try:
        copy = type(layer).from_config(config)
        if copy.name != config.get("name"):
            raise ValueError("it does not hold its name")
    except Exception as error:  # whatever a class of somebody's own raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"layer {layer.name} ({type(layer).__name__}) cannot be copied by its configuration "
            f"({reason:.80}): give functions by name, without lambda, and a class of your own a "
            "get_config that returns all arguments"
        ) from None
    return copy
