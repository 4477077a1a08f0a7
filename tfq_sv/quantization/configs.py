"""What tfmot is told: which weight of a layer which quantizer takes, and to leave the rest alone.

For people who call tfmot's own functions:

    annotate = tfmot.quantization.keras.quantize_annotate_layer
    model = keras.Sequential([annotate(keras.layers.Dense(8), KMeansQuantizeConfig(bits=4))])
    model.build([None, 16])
    quantized = tfmot.quantization.keras.quantize_apply(model, WeightOnlyScheme())
"""

from abc import abstractmethod
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfq_sv.codebook import check_bits
from tfq_sv.errors import InputError
from tfq_sv.quantization import trellis
from tfq_sv.quantization.quantizers import AdaptiveBinary, KMeans, StaticBinary, kernel_attribute
from tfq_sv.quantization.trellis_quantizer import Trellis

Quantizer = KMeans | Trellis


class _KernelQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """What the configs share: the kernel is quantized; bias and activations stay float."""

    quantizer: Quantizer | None = None

    @abstractmethod
    def new_quantizer(self) -> Quantizer:
        """Returns the quantizer for one layer."""

    def get_config(self) -> dict[str, Any]:
        """What a saved model keeps."""
        return (self.quantizer or self.new_quantizer()).get_config()

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[tf.Variable, Quantizer]]:
        """The kernel and a new quantizer."""
        self.quantizer = self.new_quantizer()
        return [(getattr(layer, _kernel(layer)), self.quantizer)]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[tf.Tensor]) -> None:
        """Puts the quantized kernel into the layer."""
        setattr(layer, _kernel(layer), quantize_weights[0])

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """None: activations stay float."""
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Nothing to set."""
        return  # AutoGraph cannot transform a body that is a docstring alone.

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """None: outputs stay float."""
        return []


@keras.utils.register_keras_serializable("tfq_sv")
class KMeansQuantizeConfig(_KernelQuantizeConfig):
    """A layer's kernel as a k-means codebook; bias and activations stay float.

    For Dense, Conv1D, Conv2D, and their depthwise and transposed forms.

    Args:
        bits: 1-8.
        learned_scale: whether a factor on the codebook is trained, see `quantizers.KMeans`.
        calibrated: of a saved model: whether its codebook was, see `quantizers.KMeans`.

    Raises:
        InputError: bits out of range, or (when applied) a layer without such a kernel.
    """

    def __init__(
        self, bits: int = 4, learned_scale: bool = False, calibrated: bool = False
    ) -> None:
        self.bits, self.learned_scale = check_bits(bits), learned_scale
        self.calibrated = calibrated

    def new_quantizer(self) -> KMeans:
        """Returns the quantizer for one layer."""
        return KMeans(self.bits, self.learned_scale, self.calibrated)


@keras.utils.register_keras_serializable("tfq_sv")
class AdaptiveBinaryQuantizeConfig(_KernelQuantizeConfig):
    """A layer's kernel in one bit, on two levels that follow the weights: `AdaptiveBinary`.

    Args:
        learned_scale: whether a factor on both levels is trained.
        calibrated: as in `KMeansQuantizeConfig`.
    """

    def __init__(self, learned_scale: bool = False, calibrated: bool = False) -> None:
        self.learned_scale, self.calibrated = learned_scale, calibrated

    def new_quantizer(self) -> KMeans:
        """Returns the quantizer for one layer."""
        return AdaptiveBinary(self.learned_scale, self.calibrated)


@keras.utils.register_keras_serializable("tfq_sv")
class StaticBinaryQuantizeConfig(_KernelQuantizeConfig):
    """A layer's kernel in one bit, on two levels that stay as they are: `StaticBinary`.

    Args:
        calibrated: as in `KMeansQuantizeConfig`.
    """

    def __init__(self, calibrated: bool = False) -> None:
        self.calibrated = calibrated

    def new_quantizer(self) -> KMeans:
        """Returns the quantizer for one layer."""
        return StaticBinary(self.calibrated)


@keras.utils.register_keras_serializable("tfq_sv")
class TrellisQuantizeConfig(_KernelQuantizeConfig):
    """A layer's kernel as trellis codes; bias and activations stay float: `trellis`.

    For Conv1D, Conv2D and Dense layers of 16 channels or more, whose inputs fill whole bytes.

    Args:
        bits: 0.5, 1, 2 or 4.
        calibrated: as in `KMeansQuantizeConfig`.

    Raises:
        InputError: other bits, or (when applied) another layer.
    """

    def __init__(self, bits: float = 2, calibrated: bool = False) -> None:
        self.bits, self.calibrated = trellis.check_bits(bits), calibrated

    def new_quantizer(self) -> Trellis:
        """Returns the quantizer for one layer."""
        return Trellis(self.bits, self.calibrated)


class _NoLayer(tfmot.quantization.keras.QuantizeRegistry):
    def supports(self, layer: Any) -> bool:
        return False

    def get_quantize_config(self, layer: Any) -> None:
        return None


class _Identity(tfmot.quantization.keras.QuantizeLayoutTransform):
    def apply(self, model: Any, layer_quantize_map: Any) -> tuple[Any, Any]:
        return model, layer_quantize_map


class WeightOnlyScheme(tfmot.quantization.keras.QuantizeScheme):
    """Quantizes the annotated layers as their configs say, and nothing else.

    tfmot's default scheme rewrites the graph for 8-bit activations and overrides configs where a
    convolution and its ReLU are both annotated.
    """

    def get_layout_transformer(self) -> Any:
        """Leaves the graph as it is."""
        return _Identity()

    def get_quantize_registry(self) -> Any:
        """Supports no layer by itself."""
        return _NoLayer()


def _kernel(layer: Any) -> str:
    attribute = kernel_attribute(layer)
    if attribute is None:
        raise InputError(
            f"layer {layer.name} ({type(layer).__name__}) has no kernel to quantize; "
            "annotate dense layers and 1-D or 2-D convolutions only"
        )
    return attribute
