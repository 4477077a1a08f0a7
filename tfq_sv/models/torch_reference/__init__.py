"""The same networks in PyTorch, written on their own: what an import is checked against.

A network is its state dict here. The functions read the checkpoint's keys as they stand and walk
them in the order in which the original modules run, so that nothing is shared with the Keras side:
no layer table, no transposition, no shape.

Needs PyTorch (`pip install 'tfq-sv[torch]'`).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_sv.models.torch_reference import campplus, df_resnet, ecapa_tdnn, resnet, speechbrain
from tfq_sv.models.torch_reference.layers import State, norm
from tfq_sv.models.torch_reference.pooling import POOLINGS


def embed(
    state: State, features: Tensor, *, pooling: str = "TSTP", epsilon: float = 1e-7
) -> Tensor:
    """Computes what the checkpoint's own network answers in evaluation mode.

    Args:
        state: a network's state dict with WeSpeaker's keys, 3D-Speaker's or SpeechBrain's, float.
        features: float (B, T, F).
        pooling: "TSTP", "TAP", "TSDP" or "ASTP".
        epsilon: added to the variance under the square root; the floor under it for ASTP.

    Returns:
        The embedding, float (B, embed_dim).

    Raises:
        KeyError: a key that the network needs is not there.
    """
    with torch.no_grad():
        if "xvector.tdnn.linear.weight" in state:
            return campplus.embed(state, features, epsilon)
        if "layer2.se_res2block.0.conv.weight" in state:
            return ecapa_tdnn.embed(state, features, pooling, epsilon)
        if "blocks.0.conv.conv.weight" in state:
            return speechbrain.embed(state, features)
        image = features.transpose(1, 2).unsqueeze(1)  # (B, 1, F, T)
        trunk = resnet.trunk if "conv1.weight" in state else df_resnet.trunk
        statistics = POOLINGS[pooling](state, trunk(state, image), epsilon)
        first = F.linear(statistics, state["seg_1.weight"], state["seg_1.bias"])
        if "seg_2.weight" not in state:
            return first
        normal = norm(state, "seg_bn_1", F.relu(first))
        return F.linear(normal, state["seg_2.weight"], state["seg_2.bias"])
