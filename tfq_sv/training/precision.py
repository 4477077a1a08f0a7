"""Mixed precision: the convolutions compute in 16 bits, weights stay float32.

Micikevicius et al., Mixed Precision Training, 2018; through Keras's dtype policies.
"""

import tf_keras as keras

from tfq_sv.models import FrontEnd

_POLICIES = {"fp16": "mixed_float16", "bf16": "mixed_bfloat16"}


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Returns a network that computes its images in 16 bits, with the same weights in float32.

    Features, pooling and embedding stay float32, where sums over many values are taken.

    Args:
        model: a flat functional model.
        precision: "fp32" (the model itself is returned), "fp16" or "bf16".
    """
    if precision == "fp32":
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if len(layer.output_shape) == 4 and not isinstance(layer, FrontEnd):
            config["dtype"] = _POLICIES[precision]
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin
