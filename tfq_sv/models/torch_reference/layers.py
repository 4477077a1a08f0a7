"""What the networks share: convolution, normalization, blocks by their keys."""

from collections.abc import Iterator, Mapping

from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]


def blocks(state: State, prefix: str) -> Iterator[str]:
    """Yields the prefixes of a stage's blocks, in order."""
    index = 0
    while f"{prefix}.{index}.conv1.weight" in state:
        yield f"{prefix}.{index}"
        index += 1


def conv(
    state: State,
    name: str,
    x: Tensor,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    """Convolves an image, without bias."""
    return F.conv2d(x, state[f"{name}.weight"], None, stride, padding, 1, groups)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """Normalises by the statistics kept, with or without affine parameters."""
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, state.get(f"{name}.weight"), state.get(f"{name}.bias"))
