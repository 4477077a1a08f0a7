"""DF-ResNets in PyTorch: wespeaker/models/gemini_dfresnet.py, and the paper."""

from torch import Tensor
from torch.nn import functional as F

from tfq_sv.models.torch_reference.layers import State, blocks, conv, norm


def trunk(state: State, x: Tensor) -> Tensor:
    """(B, 1, F, T) -> (B, C, F/8, T/8); Gemini: (B, C, F/16, T/2)."""
    gemini = "downsample_layers.4.0.weight" in state
    # (frequency, time): Golden Gemini's T14c halves time once.
    halvings = [(2, 1), (2, 2), (2, 1), (2, 1)] if gemini else [(2, 2)] * 3
    down = iter(enumerate(halvings, start=1))

    def shrink(x: Tensor) -> Tensor:
        number, stride = next(down)
        x = conv(state, f"downsample_layers.{number}.0", x, stride=stride, padding=1)
        return norm(state, f"downsample_layers.{number}.1", x)

    x = conv(state, "downsample_layers.0.0", x, padding=1)
    x = F.relu(norm(state, "downsample_layers.0.1", x))
    for stage in range(4):
        if stage or gemini:
            x = shrink(x)
        for block in blocks(state, f"stages.{stage}"):
            y = F.relu(norm(state, f"{block}.bn1", conv(state, f"{block}.conv1", x)))
            groups = y.shape[1]
            y = conv(state, f"{block}.conv2", y, padding=1, groups=groups)
            y = F.relu(norm(state, f"{block}.bn2", y))
            y = norm(state, f"{block}.bn3", conv(state, f"{block}.conv3", y))
            x = F.relu(y + x)
    return x
