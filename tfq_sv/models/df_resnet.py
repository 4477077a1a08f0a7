"""DF-ResNet, depth-first ResNets of inverted bottlenecks, and their Golden Gemini form.

DF-ResNet: Liu et al., Interspeech 2022; the authors published no code, so this follows the paper.
Gemini: Liu et al., arXiv 2312.03620, stride strategy T14c: frequency halves four times, time once.
Layers carry WeSpeaker's names, `stages.1.0.conv2` for instance.
"""

from typing import Any

from tfq_sv.models.layers import conv, depthwise, layers, norm

_BLOCKS = {
    "DF_ResNet56": (3, 3, 9, 3),
    "DF_ResNet110": (3, 3, 27, 3),
    "DF_ResNet179": (3, 8, 45, 3),
    "DF_ResNet233": (3, 8, 63, 3),
}
# WeSpeaker counts the four downsampling layers in its Gemini names: 56 + 4 = 60.
DEPTHS = {
    **_BLOCKS,
    **{
        f"Gemini_DF_ResNet{int(name.removeprefix('DF_ResNet')) + 4}": blocks
        for name, blocks in _BLOCKS.items()
    },
}
_GEMINI_STRIDES = ((2, 1), (2, 2), (2, 1), (2, 1))


def trunk(image: Any, name: str, channels: int) -> Any:
    """Adds the trunk to a functional graph.

    (B, F, T, 1) -> (B, F/8, T/8, 8 channels), Gemini: (B, F/16, T/2, 8 channels).
    """
    gemini = name.startswith("Gemini")
    x = norm(conv(image, "downsample_layers.0.0", channels, 3), "downsample_layers.0.1", relu=True)
    for stage, count in enumerate(DEPTHS[name]):
        if gemini or stage:
            down = f"downsample_layers.{stage + gemini}"
            strides = _GEMINI_STRIDES[stage] if gemini else (2, 2)
            x = norm(conv(x, f"{down}.0", channels << stage, 3, strides), f"{down}.1")
        for index in range(count):
            x = _block(x, f"stages.{stage}.{index}")
    return x


def _block(x: Any, name: str) -> Any:
    width = x.shape[-1]
    y = norm(conv(x, f"{name}.conv1", 4 * width, 1), f"{name}.bn1", relu=True)
    y = norm(depthwise(y, f"{name}.conv2"), f"{name}.bn2", relu=True)
    y = norm(conv(y, f"{name}.conv3", width, 1), f"{name}.bn3")
    return layers.ReLU(name=f"{name}.relu")(layers.Add(name=f"{name}.add")([y, x]))
