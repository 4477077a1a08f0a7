"""The quantizer for tfmot that keeps trellis codes: see `trellis` for what these are."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.progress import tick
from tfq_sv.quantization import trellis
from tfq_sv.quantization.quantizers import (
    TRANSPOSED,
    kernel_attribute,
    kernel_to_fit,
    only_for_shape,
)

_STAY = 0.1
"""How much of its present value is in what a weight is encoded as. The best paths of weights that
hardly moved differ in many places; with this much the present path stays the best."""


class Trellis(tfmot.quantization.keras.quantizers.Quantizer):
    """q(w) = s_o t(path), with a scale s_o per output channel; dq/dw = 1 (straight-through).

    Codes are a weight of the wrapper, fitted to the kernel that the layer holds when it is wrapped.
    They change when the quantizer is told to follow the latent weights, not at each step.

    Args:
        bits: see `trellis.WIDTHS`.
        calibrated: whether `calibrate` has chosen the codes.

    Attributes:
        latent: the float kernel that is trained, a variable; None until the layer is built.
        codes: uint8 (channels, n), a variable; None until the layer is built.
        scales: float32 (channels,), a variable; None until the layer is built.
        sqnr: signal-to-quantization-noise ratio of the layer's output in calibration, dB; None
            until then, and in a loaded model.
    """

    def __init__(self, bits: float = 2, calibrated: bool = False) -> None:
        self.bits, self.calibrated = trellis.check_bits(bits), calibrated
        self.latent: tf.Variable | None = None
        self.codes: Any = None
        self.scales: Any = None
        self.per_channel = True
        self.sqnr: float | None = None

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, tf.Variable]:
        """Fits codes to the kernel; called by tfmot with its wrapper as `layer`."""
        inner = layer.layer
        if not fits(inner, self.bits):
            raise InputError(
                f"layer {inner.name}: {self.bits}-bit trellis codes are for plain convolutions and "
                f"dense layers whose inputs are a multiple of {trellis.block(self.bits)}; "
                "give it a k-means codebook"
            )
        self.latent, to_fit = kernel_to_fit(layer, name)
        self.per_channel = _per_channel(inner)
        channels = int(self.latent.shape[-1])
        columns = int(np.prod(self.latent.shape[:-1])) // trellis.block(self.bits)
        codes, scales = np.zeros((channels, columns), np.uint8), np.ones(channels, np.float32)
        if to_fit:
            codes, scales = self.nearest(inner, self.latent.numpy(), self.bits)
        tick()
        options = {"trainable": False, "experimental_autocast": False}
        constant = keras.initializers.Constant
        self.codes = layer.add_weight(
            f"{name}_codes", codes.shape, tf.uint8, constant(codes), **options
        )
        self.scales = layer.add_weight(
            f"{name}_scales", scales.shape, tf.float32, constant(scales), **options
        )
        return {"codes": self.codes, "scales": self.scales}

    @staticmethod
    def nearest(
        layer: keras.layers.Layer, kernel: np.ndarray, bits: float
    ) -> tuple[trellis.Bytes, trellis.Floats]:
        """Returns codes and scales, (channels,), that are nearest to a kernel of a layer."""
        matrix = trellis.as_matrix(kernel)
        codes, scales = trellis.fit(matrix, bits, per_channel=_per_channel(layer))
        return codes, scales[:, 0]

    def __call__(
        self, inputs: tf.Tensor, training: bool, weights: dict[str, tf.Variable], **kwargs: Any
    ) -> tf.Tensor:
        """Latent kernel -> the kernel its codes stand for, same shape."""
        latent = tf.convert_to_tensor(inputs)
        if only_for_shape():
            return latent
        values = decoded(weights["codes"], self.bits) * weights["scales"][:, None]
        shape = latent.shape.as_list()
        values = tf.reshape(values, [shape[-1], *shape[:-1]])
        values = tf.transpose(values, [*range(1, len(shape)), 0])
        return latent + tf.stop_gradient(tf.cast(values, latent.dtype) - latent)

    def get_config(self) -> dict[str, Any]:
        """What tfmot needs to make this quantizer again."""
        return {"bits": self.bits, "calibrated": self.calibrated}

    def codebook(self) -> trellis.TrellisCodebook:
        """Returns the codes as they stand.

        Raises:
            InputError: the layer is not built yet.
        """
        latent = self._built()
        codes, scales = self.codes.numpy(), self.scales.numpy()
        return trellis.TrellisCodebook(codes, scales, self.bits, tuple(latent.shape))

    def set(self, codes: trellis.Bytes, scales: trellis.Floats) -> None:
        """Puts other codes and scales, (channels,) or (channels, 1), in place."""
        self.codes.assign(codes)
        self.scales.assign(np.reshape(scales, -1))

    def inherit(self, other: Any) -> None:
        """Takes over the codes of the same layer in another model."""
        self.set(other.codes.numpy(), other.scales.numpy())
        self.calibrated = other.calibrated

    def update(self, steps: int) -> None:
        """Encodes the latent weights again, scales as they are; `steps` is for other codebooks."""
        latent = self._built().numpy()
        wanted = (1 - _STAY) * latent + _STAY * self.codebook().decode()
        scales = self.scales.numpy()[:, None]
        table = trellis.table(self.bits)
        self.codes.assign(trellis.encode(trellis.as_matrix(wanted) / scales, table))

    def _built(self) -> tf.Variable:
        if self.latent is None or self.codes is None:
            raise InputError("the quantized layer is not built yet; call the model once")
        return self.latent


def fits(layer: keras.layers.Layer, bits: float) -> bool:
    """Returns whether a layer can have trellis codes, and gains by them.

    Not depthwise, grouped or transposed convolutions, and not those whose inputs do not fill whole
    bytes. With fewer than 16 channels a path closes before its byte matters little.
    """
    attribute = kernel_attribute(layer)
    transposed = isinstance(layer, TRANSPOSED)
    if attribute != "kernel" or transposed or getattr(layer, "groups", 1) > 1:
        return False
    *inputs, channels = layer.kernel.shape
    return channels >= 16 and int(np.prod(inputs)) % trellis.block(bits) == 0


def _per_channel(layer: keras.layers.Layer) -> bool:
    # Dense layers with a single scale are read as int8.
    return not isinstance(layer, keras.layers.Dense)


def decoded(codes: tf.Tensor, bits: float) -> tf.Tensor:
    """`trellis.decode` in TensorFlow: uint8 (channels, n) -> float32 (channels, inputs)."""
    table = trellis.table(bits)
    step = len(table).bit_length() - 9
    own = tf.cast(codes, tf.int32)
    words = own * 256 + tf.roll(own, 1, axis=0)
    shifts = tf.range(0, 8, step)
    windows = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(words[..., None], shifts), len(table) - 1
    )
    values = tf.gather(tf.constant(table, tf.float32), windows)
    return tf.reshape(values, [codes.shape[0], codes.shape[1] * trellis.block(bits)])
