"""WeSpeaker's poolings in PyTorch: wespeaker/models/pooling_layers.py."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_sv.models.torch_reference.layers import State


def _mean(state: State, x: Tensor, epsilon: float) -> Tensor:
    return x.mean(-1).flatten(1)


def _deviation(state: State, x: Tensor, epsilon: float) -> Tensor:
    return torch.sqrt(torch.var(x, dim=-1) + epsilon).flatten(1)


def _both(state: State, x: Tensor, epsilon: float) -> Tensor:
    return torch.cat([_mean(state, x, epsilon), _deviation(state, x, epsilon)], 1)


def _attentive(state: State, x: Tensor, epsilon: float) -> Tensor:
    x = x.flatten(1, 2)  # (B, C F, T)
    first, second = (
        (state[f"pool.linear{i}.weight"], state[f"pool.linear{i}.bias"]) for i in (1, 2)
    )
    seen = x
    if first[0].shape[1] > x.shape[1]:  # global context
        statistics = [x.mean(2, keepdim=True), torch.sqrt(x.var(2, keepdim=True) + 1e-7)]
        seen = torch.cat([x, *(statistic.expand_as(x) for statistic in statistics)], 1)
    weights = torch.softmax(F.conv1d(torch.tanh(F.conv1d(seen, *first)), *second), dim=2)
    mean = (weights * x).sum(2)
    variance = (weights * x**2).sum(2) - mean**2
    return torch.cat([mean, torch.sqrt(variance.clamp(min=epsilon))], 1)


POOLINGS = {"TSTP": _both, "TAP": _mean, "TSDP": _deviation, "ASTP": _attentive}
