"""Quantizers for tfmot: what turns a layer's latent float kernel into codebook values.

A quantizer owns a codebook and nothing else; how tfmot is told of it is quantize_config's matter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv import codebook, kmeans
from tfq_sv.errors import InputError
from tfq_sv.models.plain_layers import plain_layers
from tfq_sv.progress import tick

_KERNELS = {
    keras.layers.DepthwiseConv1D: "depthwise_kernel",
    keras.layers.DepthwiseConv2D: "depthwise_kernel",
    keras.layers.Conv1D: "kernel",
    keras.layers.Conv2D: "kernel",
    keras.layers.Conv1DTranspose: "kernel",
    keras.layers.Conv2DTranspose: "kernel",
    keras.layers.Dense: "kernel",
}
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
"""Their kernels have the output channels before the input's."""


def kernel_attribute(layer: keras.layers.Layer) -> str | None:
    """Returns the name of the layer's quantizable kernel; None if it has none.

    >>> kernel_attribute(keras.layers.Dense(3)), kernel_attribute(keras.layers.ReLU())
    ('kernel', None)
    """
    # The exact class: SeparableConv and others derive from these and have further kernels.
    return _KERNELS.get(type(layer))


def quantizable(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns the layers whose kernels can become codebooks, by name, in the model's order.

    Those of `plain_layers(model)`: for a model with layers of several kernels, these are copies.

    Raises:
        InputError: not a functional or built sequential tf_keras model, one within it that is
            neither, an already quantized one, or no such layer.
    """
    if not isinstance(model, keras.Model):
        family = type(model).__module__.split(".")[0]
        raise InputError(
            f"expected a tf_keras model, not {type(model).__name__} of {family!r}; with Keras 3, "
            "set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported and build it again"
        )
    if not getattr(model, "_is_graph_network", False):
        raise InputError(
            f"{model.name} is no graph of layers; build it as a functional model, or as a "
            "Sequential one with an input shape"
        )
    model = plain_layers(model)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise InputError(
                f"{layer.name} is a model inside {model.name} and no graph of layers; build it as "
                "a functional model"
            )
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2):
            raise InputError(
                f"{model.name} is quantized already ({layer.layer.name}); give the FP32 network"
            )
    layers = {layer.name: layer for layer in model.layers if kernel_attribute(layer)}
    if not layers:
        others = sorted({type(layer).__name__ for layer in model.layers if layer.weights})
        raise InputError(
            f"{model.name} has no convolution or dense layer to quantize; it has "
            f"{', '.join(others) or 'no weights at all'}"
        )
    return layers


_fitted_later: ContextVar[bool] = ContextVar("_fitted_later", default=False)


@contextmanager
def fitted_later() -> Iterator[None]:
    """Within, layers are wrapped without fitting a codebook: calibration will fit it.

    Calibration scales channels first, and then fits other weights than the layers have now.
    """
    token = _fitted_later.set(True)
    try:
        yield
    finally:
        _fitted_later.reset(token)


def kernel_to_fit(wrapper: Any, name: str) -> tuple[tf.Variable, bool]:
    """Returns a wrapped layer's kernel, and whether a codebook is to be fitted to it now.

    Not to random weights, which a saved model's are about to replace, nor within `fitted_later`.

    Raises:
        InputError: no codebook fits the kernel, which is a trained one.
    """
    kernel = getattr(wrapper.layer, kernel_attribute(wrapper.layer) or name)
    # A wrapper made around a trained layer lists its weights once more than one made around a
    # new layer, as loading does; saved weights are matched by that list. Make both alike.
    listed = {id(weight) for weight in wrapper._trainable_weights}
    wrapper._trainable_weights.extend(
        weight for weight in wrapper.layer.trainable_weights if id(weight) not in listed
    )
    _name(wrapper)
    # A frozen layer lists nothing either way; it may be a trained one.
    trained = id(kernel) in listed or not wrapper.trainable
    if trained:
        try:
            kmeans.check(kernel.numpy())
        except InputError as error:
            raise InputError(f"layer {wrapper.layer.name}: {error}") from None
    later = _fitted_later.get() and not isinstance(wrapper.layer, TRANSPOSED)  # never calibrated
    return kernel, trained and not later


def _name(wrapper: Any) -> None:
    """Gives the variables of a wrapped layer names of their own, "quant_conv1/kernel:0".

    Keras builds a copied layer outside of any scope, so that all kernels are "kernel:0", and an
    .h5 file, which keeps the optimizer's state by these names, cannot be written. TensorFlow has no
    public way to rename a variable.
    """
    for weight in wrapper.layer.weights:
        variable = getattr(weight, "_variable", weight)  # within Keras' AutoCastVariable
        if "/" not in variable.name and hasattr(variable, "_handle_name"):
            variable._handle_name = f"{wrapper.name}/{variable.name}"


def only_for_shape() -> bool:
    """Returns whether Keras calls a layer for the shape of its output alone.

    It does so for each layer of a model that is built, cloned or loaded, and decoding kernels there
    would be a third of the time that loading takes.
    """
    return getattr(tf.compat.v1.get_default_graph(), "name", "").endswith("_scratch_graph")


class KMeans(tfmot.quantization.keras.quantizers.Quantizer):
    """q(w) = s c_k, c_k the centroid nearest to w; dq/dw = 1 (straight-through).

    The 2**bits centroids are fitted by k-means to the kernel that the layer holds when it is
    wrapped, on the int8 grid that the exported file stores. They are a non-trainable weight of
    the wrapper: fine-tuning moves them by Lloyd's steps, not by gradients, or, where calibration
    chose them, leaves them as they are. The scale s is 1, or learned by its own gradient,
    dq/ds = c_k; a scaled grid is a grid too.

    Source: Liu, Wang, Qian, arXiv 2406.05359, adaptive uniform precision; the learned scale as in
    LSQ (Esser et al., 2020) and APoT (Li et al., 2020).

    Args:
        bits: 1-8.
        learned_scale: whether s is trained. Before a BatchNorm it has no effect in training.
        calibrated: see there.

    Attributes:
        calibrated: whether `calibrate` has chosen centroids and codes, by what the layer makes of
            speech. The latent weights then only hold these codes, and centroids which follow
            them would change the codes again: in fine-tuning these centroids stay.
        sqnr: signal-to-quantization-noise ratio of the layer's output in calibration, dB; None
            until then, and in a loaded model.
        latent: the float kernel that is trained, a variable; None until the layer is built.
        centroids: float32 (2**bits,), a variable; None until the layer is built.
        scale: s, a variable; None if it is not learned.
        fixed_levels: whether fine-tuning leaves the centroids as they were fitted.
    """

    fixed_levels = False

    def __init__(
        self, bits: int = 4, learned_scale: bool = False, calibrated: bool = False
    ) -> None:
        self.bits = codebook.check_bits(bits)
        self.learned_scale, self.calibrated = learned_scale, calibrated
        self.latent: tf.Variable | None = None
        self.centroids: Any = None  # a variable, once built
        self.scale: tf.Variable | None = None
        self.sqnr: float | None = None

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, tf.Variable]:
        """Fits the codebook to the kernel; called by tfmot with its wrapper as `layer`."""
        self.latent, to_fit = kernel_to_fit(layer, name)
        kernel = self.latent.numpy()
        if to_fit:
            initial = self._fit(kernel)
        else:  # other levels are about to replace these
            initial = codebook.snap(np.linspace(kernel.min(), kernel.max(), 2**self.bits))
        tick()
        self.centroids = layer.add_weight(
            f"{name}_centroids",
            (2**self.bits,),
            initializer=keras.initializers.Constant(initial),
            dtype=tf.float32,
            trainable=False,
            experimental_autocast=False,
        )
        weights = {"centroids": self.centroids}
        if self.learned_scale:
            self.scale = layer.add_weight(
                f"{name}_scale", (), initializer="ones", dtype=tf.float32, trainable=True
            )
            weights["scale"] = self.scale
        return weights

    def _fit(
        self, kernel: np.ndarray, importance: np.ndarray | None = None
    ) -> npt.NDArray[np.float32]:
        return codebook.fit_on_grid(kernel, self.bits, importance)

    def __call__(
        self, inputs: tf.Tensor, training: bool, weights: dict[str, tf.Variable], **kwargs: Any
    ) -> tf.Tensor:
        """Latent kernel -> the kernel its codes stand for, same shape."""
        latent = tf.convert_to_tensor(inputs)
        if only_for_shape():
            return latent
        # Under mixed precision Keras hands out the kernel in half precision: a weight that is
        # nearly tied may train with the neighbour of the code that it is deployed with.
        centroids = tf.cast(weights["centroids"], tf.float32)
        values = tf.cast(straight_through(tf.cast(latent, tf.float32), centroids), latent.dtype)
        if "scale" not in weights:
            return values
        # The value is s c; the gradient must reach the latent weights as if s were 1.
        scaled = tf.stop_gradient(values) * tf.cast(weights["scale"], values.dtype)
        return scaled + values - tf.stop_gradient(values)

    def get_config(self) -> dict[str, Any]:
        """What tfmot needs to make this quantizer again."""
        return {
            "bits": self.bits,
            "learned_scale": self.learned_scale,
            "calibrated": self.calibrated,
        }

    def codebook(self) -> codebook.Codebook:
        """Returns the codebook as it stands, its scale folded in.

        Raises:
            InputError: the layer is not built yet, or its learned scale is not positive.
        """
        latent, centroids = self._built()
        codes = codebook.assign(latent.numpy(), centroids.numpy())
        scale = np.float32(1 if self.scale is None else self.scale.numpy())
        if not scale > 0:
            raise InputError(f"a learned scale became {scale}; try a lower learning rate")
        return codebook.Codebook(scale * centroids.numpy(), codes)

    def refit(self, importance: np.ndarray) -> None:
        """Fits the codebook to the latent weights again, each counting by its importance."""
        latent, centroids = self._built()
        centroids.assign(self._fit(latent.numpy(), importance))

    def inherit(self, other: Any) -> None:
        """Takes over the centroids of the same layer in another model."""
        self.centroids.assign(other.centroids)
        self.calibrated = other.calibrated

    def update(self, steps: int) -> None:
        """Moves the centroids by Lloyd's steps to the latent weights, unless they are to stay."""
        latent, centroids = self._built()
        if self.calibrated or self.fixed_levels:
            return
        moved = codebook.refine_on_grid(latent.numpy(), centroids.numpy(), steps=steps)
        centroids.assign(moved)

    def _built(self) -> tuple[tf.Variable, tf.Variable]:
        if self.latent is None or self.centroids is None:
            raise InputError("the quantized layer is not built yet; call the model once")
        return self.latent, self.centroids


class AdaptiveBinary(KMeans):
    """One bit: q(w) = s c_0 below the midpoint of two k-means centroids, s c_1 above it.

    The centroids follow the latent weights in fine-tuning (unless calibrated), so that neither
    their distance nor their middle is fixed. A learned s is an option: it measured no better.

    Source: Liu, Wang, Qian, arXiv 2406.05359, adaptive binary quantizer.
    """

    def __init__(self, learned_scale: bool = False, calibrated: bool = False) -> None:
        super().__init__(bits=1, learned_scale=learned_scale, calibrated=calibrated)

    def get_config(self) -> dict[str, Any]:
        """What tfmot needs to make this quantizer again."""
        return {"learned_scale": self.learned_scale, "calibrated": self.calibrated}


class StaticBinary(KMeans):
    """One bit: q(w) = m + a sign(w - m), m the mean of the trained kernel, a that of |w - m|.

    Both levels stay as they are in fine-tuning; only the codes change. Calibration takes them from
    the kernel that it has scaled and corrected.

    Source: Liu, Wang, Qian, arXiv 2406.05359, static binary quantizer; a is the optimal distance
    of XNOR-Net (Rastegari et al., 2016).
    """

    fixed_levels = True

    def __init__(self, calibrated: bool = False) -> None:
        super().__init__(bits=1, calibrated=calibrated)

    def _fit(
        self, kernel: np.ndarray, importance: np.ndarray | None = None
    ) -> npt.NDArray[np.float32]:
        mean = np.mean(kernel, dtype=np.float64)
        distance = np.mean(np.abs(kernel - mean), dtype=np.float64)
        return codebook.snap(np.array([mean - distance, mean + distance], np.float32))

    def get_config(self) -> dict[str, Any]:
        """What tfmot needs to make this quantizer again."""
        return {"calibrated": self.calibrated}


@tf.custom_gradient
def straight_through(weights: tf.Tensor, centroids: tf.Tensor) -> Any:
    """Weights -> their nearest centroids; the gradient passes to the weights unchanged.

    A binary search on the midpoints: N log K time, and no N x K memory.
    """
    midpoints = (centroids[1:] + centroids[:-1]) / 2
    codes = tf.searchsorted(midpoints, tf.reshape(weights, [-1]))
    values = tf.reshape(tf.gather(centroids, codes), tf.shape(weights))
    return values, lambda gradient: (gradient, None)
