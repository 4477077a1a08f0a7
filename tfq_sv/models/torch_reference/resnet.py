"""WeSpeaker's ResNets in PyTorch: wespeaker/models/resnet.py."""

from torch import Tensor
from torch.nn import functional as F

from tfq_sv.models.torch_reference.layers import State, blocks, conv, norm


def trunk(state: State, x: Tensor) -> Tensor:
    """(B, 1, F, T) -> (B, C, F/8, T/8)."""
    x = F.relu(norm(state, "bn1", conv(state, "conv1", x, padding=1)))
    for stage in range(1, 5):
        for index, block in enumerate(blocks(state, f"layer{stage}")):
            stride = 2 if stage > 1 and index == 0 else 1
            bottleneck = f"{block}.conv3.weight" in state
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            y = x
            for number, s in enumerate(strides, start=1):
                padding = state[f"{block}.conv{number}.weight"].shape[-1] // 2
                y = conv(state, f"{block}.conv{number}", y, stride=s, padding=padding)
                y = norm(state, f"{block}.bn{number}", y)
                y = F.relu(y) if number < len(strides) else y
            if f"{block}.shortcut.0.weight" in state:
                x = conv(state, f"{block}.shortcut.0", x, stride=stride)
                x = norm(state, f"{block}.shortcut.1", x)
            x = F.relu(y + x)
    return x
