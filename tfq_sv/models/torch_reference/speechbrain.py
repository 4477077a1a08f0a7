"""ECAPA-TDNN in PyTorch as SpeechBrain has it: speechbrain/lobes/models/ECAPA_TDNN.py."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_sv.models.torch_reference.layers import State, norm


def embed(state: State, features: Tensor) -> Tensor:
    """(B, T, F) -> (B, D)."""
    outs = [_tdnn(state, "blocks.0", features.transpose(1, 2))]
    for number in (1, 2, 3):
        outs.append(_block(state, f"blocks.{number}", outs[-1], number + 1))
    frames = _tdnn(state, "mfa", torch.cat(outs[1:], dim=1))
    pooled = norm(state, "asp_bn.norm", _pooled(state, frames).unsqueeze(2))
    return _conv(state, "fc.conv", pooled).squeeze(2)


def _conv(state: State, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    reach = dilation * (weight.shape[-1] - 1) // 2
    x = F.pad(x, (reach, reach), mode="reflect") if reach else x
    return F.conv1d(x, weight, state[f"{name}.bias"], dilation=dilation)


def _tdnn(state: State, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    return norm(state, f"{name}.norm.norm", F.relu(_conv(state, f"{name}.conv.conv", x, dilation)))


def _block(state: State, name: str, x: Tensor, dilation: int) -> Tensor:
    y = _tdnn(state, f"{name}.tdnn1", x)
    outs: list[Tensor] = []
    for index, chunk in enumerate(y.chunk(8, dim=1)):
        if index == 0:
            outs.append(chunk)
            continue
        entry = chunk if index == 1 else chunk + outs[-1]
        outs.append(_tdnn(state, f"{name}.res2net_block.blocks.{index - 1}", entry, dilation))
    y = _tdnn(state, f"{name}.tdnn2", torch.cat(outs, dim=1))
    gate = F.relu(_conv(state, f"{name}.se_block.conv1.conv", y.mean(dim=2, keepdim=True)))
    return x + y * torch.sigmoid(_conv(state, f"{name}.se_block.conv2.conv", gate))


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * x).sum(2, keepdim=True)
    variance = (weights * (x - mean) ** 2).sum(2, keepdim=True)
    return mean, variance.clamp(min=1e-12).sqrt()


def _pooled(state: State, x: Tensor) -> Tensor:
    even = torch.full_like(x[:, :1], 1 / x.shape[2])
    statistics = [statistic.expand_as(x) for statistic in _statistics(x, even)]
    hidden = torch.tanh(_tdnn(state, "asp.tdnn", torch.cat([x, *statistics], dim=1)))
    weights = torch.softmax(_conv(state, "asp.conv.conv", hidden), dim=2)
    return torch.cat(_statistics(x, weights), dim=1).squeeze(2)
