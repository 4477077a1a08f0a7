"""ECAPA-TDNN in WeSpeaker's form: Res2 groups, squeeze-excitation, attentive statistics.

Desplanques et al., ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in TDNN
Based Speaker Verification, Interspeech 2020, arXiv 2005.07143. In names, GLOB is attention that
sees the utterance's statistics too. Everywhere the order is convolution, ReLU, BatchNorm. Layers
carry WeSpeaker's names, `layer2.se_res2block.0.conv` for instance.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.models.layers import layers, norm
from tfq_sv.models.pooling import pool_frames
from tfq_sv.models.sequence import FrameRow, frame_conv

# name -> channels
WIDTHS = {
    "ECAPA_TDNN_c512": 512,
    "ECAPA_TDNN_GLOB_c512": 512,
    "ECAPA_TDNN_c1024": 1024,
    "ECAPA_TDNN_GLOB_c1024": 1024,
}
_GROUPS = 8
_BOTTLENECK = 128  # of squeeze-excitation
_AGGREGATED = 1536  # channels that are pooled, at either width


def network(
    image: Any,
    name: str,
    channels: int,
    embed_dim: int,
    pooling: str,
    epsilon: float,
    two_emb_layer: bool = False,
) -> Any:
    """Adds the network to a functional graph: (B, F, T, 1) -> (B, embed_dim).

    Other widths than the field's keep its proportions.
    """
    sizes = [size * channels // WIDTHS[name] for size in (_BOTTLENECK, _AGGREGATED)]
    bottleneck, aggregated = (max(size, 1) for size in sizes)
    x = _conv_relu_norm(FrameRow(name="frames")(image), "layer1", channels, 5)
    blocks = []
    for number in (2, 3, 4):
        x = _block(x, f"layer{number}", dilation=number, bottleneck=bottleneck)
        blocks.append(x)
    x = layers.Concatenate(name="concatenate")(blocks)
    x = layers.ReLU(name="conv.relu")(frame_conv(x, "conv", aggregated, bias=True))
    statistics = pool_frames(x, pooling, epsilon, global_context="GLOB" in name)
    x = norm(statistics, "bn")
    # A convolution, because the converter would multiply this BatchNorm into a dense layer's
    # weights, whose codes would be lost.
    x = layers.Reshape((1, 1, x.shape[-1]), name="linear.frame")(x)
    return layers.Flatten(name="embedding")(frame_conv(x, "linear", embed_dim, bias=True))


@keras.utils.register_keras_serializable("tfq_sv")
class ChannelGroups(keras.layers.Layer):
    """Splits channels into equal groups: (..., C) -> groups of (..., C / groups).

    >>> [group.shape[-1] for group in ChannelGroups(8)(tf.zeros([1, 1, 5, 64]))]
    [8, 8, 8, 8, 8, 8, 8, 8]
    """

    def __init__(self, groups: int = _GROUPS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x: tf.Tensor) -> list[tf.Tensor]:
        """Splits."""
        return tf.split(x, self.groups, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration."""
        return {**super().get_config(), "groups": self.groups}


def _conv_relu_norm(x: Any, name: str, filters: int, size: int = 1) -> Any:
    x = layers.ReLU(name=f"{name}.relu")(frame_conv(x, f"{name}.conv", filters, size, bias=True))
    return norm(x, f"{name}.bn")


def _block(x: Any, layer: str, dilation: int, bottleneck: int) -> Any:
    """One residual block: (B, 1, T, C) -> (B, 1, T, C)."""
    name, channels = f"{layer}.se_res2block", x.shape[-1]
    y = _conv_relu_norm(x, f"{name}.0", channels)
    y = _res2(y, f"{name}.1", dilation)
    y = _conv_relu_norm(y, f"{name}.2", channels)
    y = _squeeze_excitation(y, f"{name}.3", bottleneck)
    return layers.Add(name=f"{layer}.add")([x, y])


def _res2(x: Any, name: str, dilation: int) -> Any:
    """Each group but the last is convolved, together with what the group before it became."""
    *groups, last = ChannelGroups(name=f"{name}.split")(x)
    outputs: list[Any] = []
    for index, group in enumerate(groups):
        y = layers.Add(name=f"{name}.adds.{index}")([outputs[-1], group]) if outputs else group
        width = y.shape[-1]
        y = frame_conv(y, f"{name}.convs.{index}", width, 3, dilation=dilation, bias=True)
        y = layers.ReLU(name=f"{name}.relus.{index}")(y)
        outputs.append(norm(y, f"{name}.bns.{index}"))
    return layers.Concatenate(name=f"{name}.concatenate")([*outputs, last])


def _squeeze_excitation(x: Any, name: str, bottleneck: int) -> Any:
    """Scales each channel by what the means of all channels say."""
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    y = frame_conv(y, f"{name}.linear1", bottleneck, bias=True)
    y = layers.ReLU(name=f"{name}.relu")(y)
    y = frame_conv(y, f"{name}.linear2", x.shape[-1], bias=True)
    y = layers.Activation("sigmoid", name=f"{name}.sigmoid")(y)
    return layers.Multiply(name=f"{name}.multiply")([x, y])
