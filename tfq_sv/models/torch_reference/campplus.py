"""CAM++ in PyTorch, after 3D-Speaker's speakerlab/models/campplus and arXiv 2303.00332."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_sv.models.torch_reference.layers import State, conv, norm

_SEGMENT = 100


def embed(state: State, features: Tensor, epsilon: float) -> Tensor:
    """(B, T, F) -> (B, D)."""
    x = _head(state, features.transpose(1, 2).unsqueeze(1)).flatten(1, 2)
    x = F.conv1d(x, state["xvector.tdnn.linear.weight"], stride=2, padding=2)
    x = _norm_relu(state, "xvector.tdnn.nonlinear", x)
    for block in (1, 2, 3):
        dilation = 1 if block == 1 else 2
        layer = 1
        while f"xvector.block{block}.tdnnd{layer}.linear1.weight" in state:
            x = _layer(state, f"xvector.block{block}.tdnnd{layer}", x, dilation)
            layer += 1
        transit = f"xvector.transit{block}"
        x = _norm_relu(state, f"{transit}.nonlinear", x)
        x = F.conv1d(x, state[f"{transit}.linear.weight"])
    x = _norm_relu(state, "xvector.out_nonlinear", x)
    deviation = torch.sqrt(x.var(dim=-1) + epsilon)
    statistics = torch.cat([x.mean(dim=-1), deviation], dim=-1).unsqueeze(-1)
    x = F.conv1d(statistics, state["xvector.dense.linear.weight"]).squeeze(-1)
    return norm(state, "xvector.dense.nonlinear.batchnorm", x)


def _head(state: State, x: Tensor) -> Tensor:
    x = F.relu(norm(state, "head.bn1", conv(state, "head.conv1", x, padding=1)))
    for layer in ("head.layer1", "head.layer2"):
        for block in (f"{layer}.0", f"{layer}.1"):
            shrinks = f"{block}.shortcut.0.weight" in state
            stride = (2, 1) if shrinks else (1, 1)
            y = conv(state, f"{block}.conv1", x, stride=stride, padding=1)
            y = F.relu(norm(state, f"{block}.bn1", y))
            y = norm(state, f"{block}.bn2", conv(state, f"{block}.conv2", y, padding=1))
            if shrinks:
                x = conv(state, f"{block}.shortcut.0", x, stride=stride)
                x = norm(state, f"{block}.shortcut.1", x)
            x = F.relu(y + x)
    return F.relu(norm(state, "head.bn2", conv(state, "head.conv2", x, stride=(2, 1), padding=1)))


def _layer(state: State, name: str, x: Tensor, dilation: int) -> Tensor:
    """Returns what came in, with the layer's own channels after it."""
    y = F.conv1d(_norm_relu(state, f"{name}.nonlinear1", x), state[f"{name}.linear1.weight"])
    y = _norm_relu(state, f"{name}.nonlinear2", y)
    cam = f"{name}.cam_layer"
    local = F.conv1d(y, state[f"{cam}.linear_local.weight"], padding=dilation, dilation=dilation)
    context = y.mean(dim=-1, keepdim=True) + _segment_means(y)
    mask = F.conv1d(context, state[f"{cam}.linear1.weight"], state[f"{cam}.linear1.bias"])
    mask = F.conv1d(F.relu(mask), state[f"{cam}.linear2.weight"], state[f"{cam}.linear2.bias"])
    return torch.cat([x, local * torch.sigmoid(mask)], dim=1)


def _segment_means(x: Tensor) -> Tensor:
    parts = x.split(_SEGMENT, dim=-1)
    return torch.cat([part.mean(dim=-1, keepdim=True).expand_as(part) for part in parts], dim=-1)


def _norm_relu(state: State, name: str, x: Tensor) -> Tensor:
    return F.relu(norm(state, f"{name}.batchnorm", x))
