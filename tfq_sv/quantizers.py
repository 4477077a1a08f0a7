"""Quantizers for tfmot: what turns a layer's latent float kernel into codebook values.

A quantizer owns a codebook and nothing else; how tfmot is told of it is quantize_config's matter.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv import codebook
from tfq_sv.errors import InputError

_KERNELS = {
    keras.layers.DepthwiseConv2D: "depthwise_kernel",
    keras.layers.Conv1D: "kernel",
    keras.layers.Conv2D: "kernel",
    keras.layers.Dense: "kernel",
}


def kernel_attribute(layer: keras.layers.Layer) -> str | None:
    """Returns the name of the layer's quantizable kernel; None if it has none.

    >>> kernel_attribute(keras.layers.Dense(3)), kernel_attribute(keras.layers.ReLU())
    ('kernel', None)
    """
    # The exact class: SeparableConv and others derive from these and have further kernels.
    return _KERNELS.get(type(layer))


def quantizable(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns the layers whose kernels can become codebooks, by name, in the model's order.

    Raises:
        InputError: not a functional or sequential tf_keras model, a nested model (tfmot would
            silently leave its layers alone), an already quantized one, or no such layer.
    """
    if not isinstance(model, keras.Model):
        family = type(model).__module__.split(".")[0]
        raise InputError(
            f"expected a tf_keras model, not {type(model).__name__} of {family!r}; with Keras 3, "
            "set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported and build it again"
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise InputError(
                f"{layer.name} is a model inside {model.name}; build one flat graph, because "
                "nested layers cannot be quantized"
            )
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2):
            raise InputError(f"{model.name} is quantized already ({layer.layer.name})")
    layers = {layer.name: layer for layer in model.layers if kernel_attribute(layer)}
    if not layers:
        raise InputError(f"{model.name} has no convolution or dense layer to quantize")
    return layers


class KMeans(tfmot.quantization.keras.quantizers.Quantizer):
    """q(w) = the centroid nearest to w; dq/dw = 1 (straight-through).

    The 2**bits centroids are fitted by k-means to the kernel that the layer holds when it is
    wrapped, on the int8 grid that the exported file stores. They are a non-trainable weight of
    the wrapper: fine-tuning moves them by Lloyd's steps, not by gradients.

    Source: Liu, Wang, Qian, arXiv 2406.05359, adaptive uniform precision.

    Args:
        bits: 1-8.

    Attributes:
        latent: the float kernel that is trained, a variable; None until the layer is built.
        centroids: float32 (2**bits,), a variable; None until the layer is built.
    """

    def __init__(self, bits: int = 4) -> None:
        self.bits = codebook.check_bits(bits)
        self.latent: tf.Variable | None = None
        self.centroids: tf.Variable | None = None

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, tf.Variable]:
        """Fits the codebook to the kernel; called by tfmot with its wrapper as `layer`."""
        self.latent = getattr(layer.layer, kernel_attribute(layer.layer) or name)
        # A wrapper made around a trained layer lists its weights once more than one made around a
        # new layer, as loading does; saved weights are matched by that list. Make both alike.
        listed = {id(weight) for weight in layer._trainable_weights}
        layer._trainable_weights.extend(
            weight for weight in layer.layer.trainable_weights if id(weight) not in listed
        )
        try:
            initial = self._initial(self.latent.numpy(), trained=id(self.latent) in listed)
        except InputError as error:
            raise InputError(f"layer {layer.layer.name}: {error}") from None
        self.centroids = layer.add_weight(
            f"{name}_centroids",
            (2**self.bits,),
            initializer=keras.initializers.Constant(initial),
            dtype=tf.float32,
            trainable=False,
        )
        return {"centroids": self.centroids}

    def _initial(self, kernel: np.ndarray, trained: bool) -> npt.NDArray[np.float32]:
        if trained:
            return codebook.snap(codebook.fit(kernel, self.bits))
        # Random weights, which a saved model's are about to replace: not worth a fit.
        return codebook.snap(np.linspace(kernel.min(), kernel.max(), 2**self.bits))

    def __call__(
        self, inputs: tf.Tensor, training: bool, weights: dict[str, tf.Variable], **kwargs: Any
    ) -> tf.Tensor:
        """Latent kernel -> the kernel its codes stand for, same shape."""
        return straight_through(inputs, tf.convert_to_tensor(weights["centroids"]))

    def get_config(self) -> dict[str, Any]:
        """What tfmot needs to make this quantizer again."""
        return {"bits": self.bits}

    def codebook(self) -> codebook.Codebook:
        """Returns the codebook as it stands."""
        if self.latent is None or self.centroids is None:
            raise InputError("the quantized layer is not built yet; call the model once")
        centroids = self.centroids.numpy()
        return codebook.Codebook(centroids, codebook.assign(self.latent.numpy(), centroids))

    def follow(self, steps: int) -> None:
        """Moves the centroids by Lloyd's steps to where the latent weights are now."""
        if self.latent is None or self.centroids is None:
            raise InputError("the quantized layer is not built yet; call the model once")
        moved = codebook.refine(self.latent.numpy(), self.centroids.numpy(), steps=steps)
        self.centroids.assign(codebook.snap(moved))


@tf.custom_gradient
def straight_through(weights: tf.Tensor, centroids: tf.Tensor) -> Any:
    """Weights -> their nearest centroids; the gradient passes to the weights unchanged.

    A binary search on the midpoints: N log K time, and no N x K memory.
    """
    midpoints = (centroids[1:] + centroids[:-1]) / 2
    codes = tf.searchsorted(midpoints, tf.reshape(weights, [-1]))
    values = tf.reshape(tf.gather(centroids, codes), tf.shape(weights))
    return values, lambda gradient: (gradient, None)
