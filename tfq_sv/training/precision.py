"""Where and in what a network computes: devices, and mixed precision.

Mixed: the convolutions compute in 16 bits, weights stay float32.

Micikevicius et al., Mixed Precision Training, 2018; through Keras's dtype policies.
"""

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv.models import FrontEnd

_POLICIES = {"fp32": "float32", "fp16": "mixed_float16", "bf16": "mixed_bfloat16"}


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Returns a network that computes its images in 16 bits, with the same weights in float32.

    Features, pooling and embedding stay float32, where sums over many values are taken. Under the
    scope of a strategy, the network is one on that strategy's devices.

    Args:
        model: a flat functional model, quantized or not.
        precision: "fp32" (the model itself is returned, if it was built under the same scope),
            "fp16" or "bf16".
    """
    devices = tf.distribute.get_strategy().extended
    if precision == "fp32" and all(devices.variable_created_in_scope(v) for v in model.weights):
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if len(layer.output_shape) == 4 and not isinstance(layer, FrontEnd):
            config["dtype"] = _POLICIES[precision]
            if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2):
                config["layer"]["config"]["dtype"] = _POLICIES[precision]
        return type(layer).from_config(config)

    with tfmot.quantization.keras.quantize_scope():
        twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def scaled_for(optimizer: Any, precision: str) -> Any:
    """Returns the optimizer, with loss scaling if its gradients would vanish in float16."""
    return keras.mixed_precision.LossScaleOptimizer(optimizer) if precision == "fp16" else optimizer


def gradients_of(
    tape: tf.GradientTape, loss: tf.Tensor, variables: list[tf.Variable], optimizer: Any
) -> list[tf.Tensor]:
    """Returns the loss's gradients, found by way of the scaled loss if the optimizer scales it."""
    if not isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
        return tape.gradient(loss, variables)
    scale = optimizer.get_scaled_loss(tf.ones_like(loss))
    return optimizer.get_unscaled_gradients(tape.gradient(loss, variables, output_gradients=scale))
