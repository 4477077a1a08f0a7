"""ECAPA-TDNN in PyTorch: wespeaker/models/ecapa_tdnn.py."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_sv.models.torch_reference.layers import State, norm
from tfq_sv.models.torch_reference.pooling import POOLINGS


def embed(state: State, features: Tensor, pooling: str, epsilon: float) -> Tensor:
    """(B, T, F) -> (B, D)."""
    out1 = _tdnn(state, "layer1", features.transpose(1, 2))
    out2 = _block(state, "layer2.se_res2block", out1, 2)
    out3 = _block(state, "layer3.se_res2block", out2, 3)
    out4 = _block(state, "layer4.se_res2block", out3, 4)
    frames = F.relu(_conv(state, "conv", torch.cat([out2, out3, out4], dim=1)))
    statistics = POOLINGS[pooling](state, frames.unsqueeze(2), epsilon)
    normal = norm(state, "bn", statistics)
    return F.linear(normal, state["linear.weight"], state["linear.bias"])


def _conv(state: State, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = (weight.shape[-1] - 1) * dilation // 2
    return F.conv1d(x, weight, state[f"{name}.bias"], padding=padding, dilation=dilation)


def _tdnn(state: State, name: str, x: Tensor) -> Tensor:
    return norm(state, f"{name}.bn", F.relu(_conv(state, f"{name}.conv", x)))


def _block(state: State, name: str, x: Tensor, dilation: int) -> Tensor:
    pieces = _tdnn(state, f"{name}.0", x).chunk(8, dim=1)
    done = []
    piece = torch.zeros_like(pieces[0])
    for index in range(7):
        piece = F.relu(_conv(state, f"{name}.1.convs.{index}", piece + pieces[index], dilation))
        piece = norm(state, f"{name}.1.bns.{index}", piece)
        done.append(piece)
    y = _tdnn(state, f"{name}.2", torch.cat([*done, pieces[7]], dim=1))
    linear = [
        (state[f"{name}.3.linear{i}.weight"], state[f"{name}.3.linear{i}.bias"]) for i in (1, 2)
    ]
    gate = torch.sigmoid(F.linear(F.relu(F.linear(y.mean(dim=2), *linear[0])), *linear[1]))
    return x + y * gate.unsqueeze(2)
