"""The same networks in PyTorch, written on their own: what an import is checked against.

A network is its state dict here. The functions below read WeSpeaker's keys as they stand and walk
them in the order in which WeSpeaker's modules run, so that nothing is shared with the Keras side:
no layer table, no transposition, no shape.

Needs PyTorch (`pip install 'tfq-sv[torch]'`).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]


def embed(
    state: State, features: Tensor, *, pooling: str = "TSTP", epsilon: float = 1e-7
) -> Tensor:
    """Computes what the checkpoint's own network answers in evaluation mode.

    Args:
        state: a ResNet's or (Gemini) DF-ResNet's state dict with WeSpeaker's keys, float.
        features: float (B, T, F).
        pooling: "TSTP", "TAP", "TSDP" or "ASTP".
        epsilon: added to the variance under the square root; the floor under it for ASTP.

    Returns:
        The embedding, float (B, embed_dim).

    Raises:
        KeyError: a key that the network needs is not there.

    Source: wespeaker/models/resnet.py, gemini_dfresnet.py, pooling_layers.py.
    """
    with torch.no_grad():
        image = features.transpose(1, 2).unsqueeze(1)  # (B, 1, F, T)
        trunk = _resnet if "conv1.weight" in state else _df_resnet
        statistics = _POOLINGS[pooling](state, trunk(state, image), epsilon)
        first = F.linear(statistics, state["seg_1.weight"], state["seg_1.bias"])
        if "seg_2.weight" not in state:
            return first
        normal = _norm(state, "seg_bn_1", F.relu(first))
        return F.linear(normal, state["seg_2.weight"], state["seg_2.bias"])


def _resnet(state: State, x: Tensor) -> Tensor:
    x = F.relu(_norm(state, "bn1", _conv(state, "conv1", x, padding=1)))
    for stage in range(1, 5):
        for index, block in enumerate(_blocks(state, f"layer{stage}")):
            stride = 2 if stage > 1 and index == 0 else 1
            bottleneck = f"{block}.conv3.weight" in state
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            y = x
            for number, s in enumerate(strides, start=1):
                padding = state[f"{block}.conv{number}.weight"].shape[-1] // 2
                y = _conv(state, f"{block}.conv{number}", y, stride=s, padding=padding)
                y = _norm(state, f"{block}.bn{number}", y)
                y = F.relu(y) if number < len(strides) else y
            if f"{block}.shortcut.0.weight" in state:
                x = _conv(state, f"{block}.shortcut.0", x, stride=stride)
                x = _norm(state, f"{block}.shortcut.1", x)
            x = F.relu(y + x)
    return x


def _df_resnet(state: State, x: Tensor) -> Tensor:
    gemini = "downsample_layers.4.0.weight" in state
    # (frequency, time): Golden Gemini's T14c halves time once.
    halvings = [(2, 1), (2, 2), (2, 1), (2, 1)] if gemini else [(2, 2)] * 3
    down = iter(enumerate(halvings, start=1))

    def shrink(x: Tensor) -> Tensor:
        number, stride = next(down)
        x = _conv(state, f"downsample_layers.{number}.0", x, stride=stride, padding=1)
        return _norm(state, f"downsample_layers.{number}.1", x)

    x = _conv(state, "downsample_layers.0.0", x, padding=1)
    x = F.relu(_norm(state, "downsample_layers.0.1", x))
    for stage in range(4):
        if stage or gemini:
            x = shrink(x)
        for block in _blocks(state, f"stages.{stage}"):
            y = F.relu(_norm(state, f"{block}.bn1", _conv(state, f"{block}.conv1", x)))
            groups = y.shape[1]
            y = _conv(state, f"{block}.conv2", y, padding=1, groups=groups)
            y = F.relu(_norm(state, f"{block}.bn2", y))
            y = _norm(state, f"{block}.bn3", _conv(state, f"{block}.conv3", y))
            x = F.relu(y + x)
    return x


def _blocks(state: State, prefix: str) -> Iterator[str]:
    index = 0
    while f"{prefix}.{index}.conv1.weight" in state:
        yield f"{prefix}.{index}"
        index += 1


def _conv(
    state: State,
    name: str,
    x: Tensor,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], None, stride, padding, 1, groups)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, state.get(f"{name}.weight"), state.get(f"{name}.bias"))


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
    weights = torch.softmax(F.conv1d(torch.tanh(F.conv1d(x, *first)), *second), dim=2)
    mean = (weights * x).sum(2)
    variance = (weights * x**2).sum(2) - mean**2
    return torch.cat([mean, torch.sqrt(variance.clamp(min=epsilon))], 1)


_POOLINGS = {"TSTP": _both, "TAP": _mean, "TSDP": _deviation, "ASTP": _attentive}
