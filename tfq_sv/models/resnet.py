"""ResNet (He et al., 2016) for speaker verification: stem stride 1 and no max-pooling.

Layers carry WeSpeaker's names, `layer2.0.conv1` for instance.
"""

from typing import Any

from tfq_sv.models.layers import conv, layers, norm

# name -> blocks a stage, bottleneck or basic
DEPTHS = {
    "ResNet18": ((2, 2, 2, 2), False),
    "ResNet34": ((3, 4, 6, 3), False),
    "ResNet50": ((3, 4, 6, 3), True),
    "ResNet101": ((3, 4, 23, 3), True),
    "ResNet152": ((3, 8, 36, 3), True),
    "ResNet221": ((6, 16, 48, 3), True),
    "ResNet293": ((10, 20, 64, 3), True),
}


def trunk(image: Any, name: str, channels: int) -> Any:
    """Adds the trunk to a functional graph: (B, F, T, 1) -> (B, F/8, T/8, 8 channels [x 4])."""
    blocks, bottleneck = DEPTHS[name]
    x = norm(conv(image, "conv1", channels, 3), "bn1", relu=True)
    for stage, count in enumerate(blocks):
        for index in range(count):
            strides = 2 if stage and index == 0 else 1
            block = _bottleneck if bottleneck else _basic
            x = block(x, f"layer{stage + 1}.{index}", channels << stage, strides)
    return x


def _basic(x: Any, name: str, planes: int, strides: int) -> Any:
    y = norm(conv(x, f"{name}.conv1", planes, 3, strides), f"{name}.bn1", relu=True)
    y = norm(conv(y, f"{name}.conv2", planes, 3), f"{name}.bn2")
    return _join(x, y, name, planes, strides)


def _bottleneck(x: Any, name: str, planes: int, strides: int) -> Any:
    y = norm(conv(x, f"{name}.conv1", planes, 1), f"{name}.bn1", relu=True)
    y = norm(conv(y, f"{name}.conv2", planes, 3, strides), f"{name}.bn2", relu=True)
    y = norm(conv(y, f"{name}.conv3", 4 * planes, 1), f"{name}.bn3")
    return _join(x, y, name, 4 * planes, strides)


def _join(x: Any, y: Any, name: str, width: int, strides: int) -> Any:
    if strides != 1 or x.shape[-1] != width:
        x = norm(conv(x, f"{name}.shortcut.0", width, 1, strides), f"{name}.shortcut.1")
    return layers.ReLU(name=f"{name}.relu")(layers.Add(name=f"{name}.add")([y, x]))
