"""Keras models against an independent PyTorch form of the same network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.models.architecture import pooling_of
from tfq_sv.models.checkpoint import Checkpoint
from tfq_sv.progress import tqdm

VERIFY_FRAMES = (97, 198, 200, 301)
"""Lengths that `verify` tries: odd and even, so that every stride meets both."""


@dataclass(frozen=True)
class Agreement:
    """How a Keras model's answers compare with PyTorch's for one input.

    Attributes:
        frames: length of the input.
        difference: greatest absolute difference of any coefficient of the embedding.
        cosine: least cosine between the embeddings.
        largest: greatest magnitude of any coefficient of PyTorch's embeddings.
    """

    frames: int
    difference: float
    cosine: float
    largest: float = 1.0

    @property
    def relative(self) -> float:
        """The difference in terms of the largest coefficient."""
        return self.difference / max(self.largest, 1e-30)


def verify(
    checkpoint: Checkpoint,
    model: keras.Model,
    frames: Sequence[int] = VERIFY_FRAMES,
    *,
    progress: bool = False,
) -> list[Agreement]:
    """Compares a Keras model with an independent PyTorch form of the network.

    Args:
        checkpoint: where the PyTorch form takes its weights from.
        model: what was made of it, possibly saved and loaded since.
        frames: lengths of the inputs, normal noise (2, T, feat_dim) of fixed seeds.
        progress: show a bar.

    Returns:
        One agreement per length.

    Raises:
        InputError: PyTorch is missing.
    """
    try:
        import torch
    except ImportError:
        raise InputError(
            "--verify needs PyTorch: pip install 'tfq-sv[torch]'; reading a checkpoint does not"
        ) from None
    from tfq_sv.models import torch_reference

    state = {key: torch.from_numpy(value) for key, value in checkpoint.state.items()}
    pooling = pooling_of(checkpoint)
    found = []
    for length in tqdm(frames, desc="verifying", unit="length", disable=not progress):
        noise = np.random.default_rng(length).normal(size=(2, length, model.input_shape[-1]))
        features = noise.astype(np.float32)
        expected = torch_reference.embed(
            state, torch.from_numpy(features), pooling=pooling, epsilon=checkpoint.epsilon
        ).numpy()
        answer = model(features, training=False).numpy()
        norms = np.linalg.norm(answer, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = float(np.min(np.clip(np.sum(answer * expected, axis=1) / norms, -1, 1)))
        difference, largest = np.max(np.abs(answer - expected)), np.max(np.abs(expected))
        found.append(Agreement(length, float(difference), cosine, float(largest)))
    return found
