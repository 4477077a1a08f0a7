"""ECAPA-TDNN in SpeechBrain's form, under the keys of its checkpoints.

Desplanques et al., ECAPA-TDNN, Interspeech 2020, arXiv 2005.07143, as
`speechbrain/spkrec-ecapa-voxceleb` has it. From WeSpeaker's it differs in details that change every
answer: convolutions see the signal mirrored at its ends, not zeros; of the Res2 groups the first
passes untouched, not the last; what is pooled is normalized too; attention has a ReLU and a
BatchNorm in front of its tanh; and deviations are divided by T, not by T - 1.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfq_sv.models.ecapa_tdnn import ChannelGroups
from tfq_sv.models.layers import layers, norm
from tfq_sv.models.pooling import AttentiveStatistics, GlobalContext
from tfq_sv.models.sequence import FrameRow, frame_conv

NAME = "ECAPA_TDNN_SpeechBrain"
CHANNELS = 1024
EPSILON = 1e-12
_GROUPS = 8
_BOTTLENECK = 128  # of squeeze-excitation, and of attention


def network(
    image: Any,
    name: str,
    channels: int,
    embed_dim: int,
    pooling: str,
    epsilon: float,
    two_emb_layer: bool = False,
) -> Any:
    """Adds the network to a functional graph: (B, F, T, 1) -> (B, embed_dim)."""
    bottleneck = max(_BOTTLENECK * channels // CHANNELS, 1)
    x = _tdnn(FrameRow(name="frames")(image), "blocks.0", channels, 5)
    blocks = []
    for number in (1, 2, 3):
        x = _block(x, f"blocks.{number}", dilation=number + 1, bottleneck=bottleneck)
        blocks.append(x)
    x = _tdnn(layers.Concatenate(name="concatenate")(blocks), "mfa", 3 * channels)
    seen = GlobalContext(EPSILON, biased=True, name="asp.context")(x)
    hidden = layers.Activation("tanh", name="asp.tanh")(_tdnn(seen, "asp.tdnn", bottleneck))
    logits = frame_conv(hidden, "asp.conv.conv", x.shape[-1], bias=True)
    statistics = AttentiveStatistics(EPSILON, name="asp")((x, logits))
    x = norm(statistics, "asp_bn.norm")
    # A convolution, so that no converter multiplies the BatchNorm into codes; see `ecapa_tdnn`.
    x = layers.Reshape((1, 1, x.shape[-1]), name="fc.frame")(x)
    return layers.Flatten(name="embedding")(frame_conv(x, "fc.conv", embed_dim, bias=True))


@keras.utils.register_keras_serializable("tfq_sv")
class MirrorFrames(keras.layers.Layer):
    """Continues a sequence (B, 1, T, C) by its mirror image on both ends: T + 2 frames.

    The frames at the ends are not repeated, so a sequence must be longer than `frames`.

    >>> MirrorFrames(2)(tf.reshape([1.0, 2.0, 3.0], [1, 1, 3, 1]))[0, 0, :, 0].numpy().tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """

    def __init__(self, frames: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frames = frames

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Pads."""
        return tf.pad(x, [[0, 0], [0, 0], [self.frames, self.frames], [0, 0]], "REFLECT")

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration."""
        return {**super().get_config(), "frames": self.frames}


def _tdnn(x: Any, name: str, filters: int, size: int = 1, dilation: int = 1) -> Any:
    """Convolution, ReLU, BatchNorm."""
    if size > 1:
        x = MirrorFrames(dilation * (size // 2), name=f"{name}.mirror")(x)
    x = frame_conv(
        x, f"{name}.conv.conv", filters, size, dilation=dilation, bias=True, padding="valid"
    )
    return norm(layers.ReLU(name=f"{name}.relu")(x), f"{name}.norm.norm")


def _block(x: Any, name: str, dilation: int, bottleneck: int) -> Any:
    y = _res2(_tdnn(x, f"{name}.tdnn1", x.shape[-1]), f"{name}.res2net_block", dilation)
    y = _tdnn(y, f"{name}.tdnn2", x.shape[-1])
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.se_block.mean")(y)
    gate = frame_conv(gate, f"{name}.se_block.conv1.conv", bottleneck, bias=True)
    gate = layers.ReLU(name=f"{name}.se_block.relu")(gate)
    gate = frame_conv(gate, f"{name}.se_block.conv2.conv", x.shape[-1], bias=True)
    gate = layers.Activation("sigmoid", name=f"{name}.se_block.sigmoid")(gate)
    y = layers.Multiply(name=f"{name}.se_block.multiply")([y, gate])
    return layers.Add(name=f"{name}.add")([x, y])


def _res2(x: Any, name: str, dilation: int) -> Any:
    """Each group but the first is convolved, together with what the convolved one before became."""
    first, *groups = ChannelGroups(_GROUPS, name=f"{name}.split")(x)
    convolved: list[Any] = []
    for index, group in enumerate(groups):
        y = group
        if convolved:
            y = layers.Add(name=f"{name}.adds.{index}")([convolved[-1], group])
        convolved.append(_tdnn(y, f"{name}.blocks.{index}", y.shape[-1], 3, dilation))
    return layers.Concatenate(name=f"{name}.concatenate")([first, *convolved])
