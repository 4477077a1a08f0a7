"""Adaptive binary networks with learned scales, as one makes them by tfmot's functions."""

import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfq_sv
from tfq_sv.quantization.quantizers import quantizable

TFMOT = tfmot.quantization.keras


def with_learned_scales(model: keras.Model) -> keras.Model:
    names = quantizable(model)

    def annotate(layer: keras.layers.Layer) -> keras.layers.Layer:
        copy = type(layer).from_config(layer.get_config())
        if layer.name not in names:
            return copy
        config = tfq_sv.AdaptiveBinaryQuantizeConfig(learned_scale=True)
        return TFMOT.quantize_annotate_layer(copy, config)

    annotated = keras.models.clone_model(model, clone_function=annotate)
    annotated.set_weights(model.get_weights())
    with TFMOT.quantize_scope({type(x).__name__: type(x) for x in model.layers}):
        quantized = TFMOT.quantize_apply(annotated, tfq_sv.WeightOnlyScheme())
    for number, quantizer in enumerate(tfq_sv.quantization.quantizers_of(quantized).values()):
        quantizer.scale.assign(0.7 + 0.1 * number)
    return quantized
