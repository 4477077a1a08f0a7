"""CAM++, a densely connected TDNN whose layers are masked by their context.

Wang et al., CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware
Masking, Interspeech 2023, arXiv 2303.00332. Layers carry the names that 3D-Speaker and WeSpeaker
share, `xvector.block1.tdnnd3.linear1` for instance.
"""

from typing import Any

from tfq_sv.models.context import MatMul, Segments
from tfq_sv.models.layers import conv, layers, norm
from tfq_sv.models.pooling import pool
from tfq_sv.models.sequence import FrameRow, frame_conv

_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers, dilation
_SEGMENT = 100  # frames, two seconds


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

    Widths are multiples of `channels`, 32 in the field: each layer adds so many.
    """
    x = frame_conv(_head(image, channels), "xvector.tdnn.linear", 4 * channels, 5, strides=2)
    x = norm(x, "xvector.tdnn.nonlinear.batchnorm", relu=True)
    segments = Segments(_SEGMENT, name="xvector.segments")(x)
    for number, (count, dilation) in enumerate(_BLOCKS, start=1):
        for index in range(1, count + 1):
            name = f"xvector.block{number}.tdnnd{index}"
            y = _layer(x, name, channels, dilation, segments)
            x = layers.Concatenate(name=f"{name}.concatenate")([x, y])
        transit = f"xvector.transit{number}"
        x = norm(x, f"{transit}.nonlinear.batchnorm", relu=True)
        x = frame_conv(x, f"{transit}.linear", x.shape[-1] // 2)
    x = norm(x, "xvector.out_nonlinear.batchnorm", relu=True)
    statistics = pool(x, pooling, epsilon)
    x = layers.Dense(embed_dim, use_bias=False, name="xvector.dense.linear")(statistics)
    return norm(x, "xvector.dense.nonlinear.batchnorm", affine=False)


def _head(image: Any, channels: int) -> Any:
    """A small ResNet that halves frequency three times: (B, F, T, 1) -> (B, 1, T, F/8 channels)."""
    x = norm(conv(image, "head.conv1", channels, 3), "head.bn1", relu=True)
    for name, strides in (
        ("head.layer1.0", (2, 1)),
        ("head.layer1.1", (1, 1)),
        ("head.layer2.0", (2, 1)),
        ("head.layer2.1", (1, 1)),
    ):
        y = norm(conv(x, f"{name}.conv1", channels, 3, strides), f"{name}.bn1", relu=True)
        y = norm(conv(y, f"{name}.conv2", channels, 3), f"{name}.bn2")
        if strides != (1, 1):
            x = norm(conv(x, f"{name}.shortcut.0", channels, 1, strides), f"{name}.shortcut.1")
        x = layers.ReLU(name=f"{name}.relu")(layers.Add(name=f"{name}.add")([y, x]))
    x = norm(conv(x, "head.conv2", channels, 3, (2, 1)), "head.bn2", relu=True)
    return FrameRow(name="head.frames")(x)


def _layer(x: Any, name: str, growth: int, dilation: int, segments: Any) -> Any:
    """One layer of a dense block: its own `growth` channels, masked by their context.

    The mask is the same for all frames of a segment: it is computed once per segment, then copied.
    """
    context, spread = segments
    x = norm(x, f"{name}.nonlinear1.batchnorm", relu=True)
    x = frame_conv(x, f"{name}.linear1", 4 * growth)
    x = norm(x, f"{name}.nonlinear2.batchnorm", relu=True)
    cam = f"{name}.cam_layer"
    local = frame_conv(x, f"{cam}.linear_local", growth, 3, dilation=dilation)
    mask = MatMul(name=f"{cam}.context")((context, x))
    mask = frame_conv(mask, f"{cam}.linear1", 2 * growth, bias=True)
    mask = layers.ReLU(name=f"{cam}.relu")(mask)
    mask = frame_conv(mask, f"{cam}.linear2", growth, bias=True)
    mask = layers.Activation("sigmoid", name=f"{cam}.sigmoid")(mask)
    mask = MatMul(name=f"{cam}.spread")((spread, mask))
    return layers.Multiply(name=f"{cam}.multiply")([local, mask])
