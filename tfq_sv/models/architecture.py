"""Which network a checkpoint is of: by its configuration, and by its keys."""

from typing import Any

import numpy as np

from tfq_sv.errors import InputError
from tfq_sv.models import df_resnet, ecapa_tdnn, resnet, speechbrain
from tfq_sv.models.checkpoint import CONFIG, Checkpoint
from tfq_sv.models.configuration import front_end, section
from tfq_sv.models.registry import NAMES

_KNOWN = ("feat_dim", "embed_dim", "pooling_func", "two_emb_layer")
_MOST = 1 << 16  # mel bins or values of an embedding: far above any network's
_FAMILIES = ("ResNet", "DF-ResNet", "CAM++", "ECAPA-TDNN")
_ENDS = {
    **dict.fromkeys(resnet.DEPTHS, ("conv1.weight", "seg_1.weight")),
    **dict.fromkeys(df_resnet.DEPTHS, ("downsample_layers.0.0.weight", "seg_1.weight")),
    "CAMPPlus": ("head.conv1.weight", "xvector.dense.linear.weight"),
    **dict.fromkeys(ecapa_tdnn.WIDTHS, ("layer1.conv.weight", "linear.weight")),
    speechbrain.NAME: ("blocks.0.conv.conv.weight", "fc.conv.weight"),
}
"""Keys of the first and the last kernel: their sizes are the network's."""

_USUAL = {"emb_bn": False, "growth_rate": 32, "bn_size": 4, "init_channels": 128}
"""Arguments that may be given if they say what is so anyway."""


def architecture(checkpoint: Checkpoint, model_name: str | None) -> dict[str, Any]:
    """Returns the arguments for `build`.

    Raises:
        InputError: a network, an argument or a front end that is not supported; keys of another
            network than the configuration's.
    """
    state = checkpoint.state
    name = _name(checkpoint, model_name)
    first, last = _ENDS[name]
    for key in (first, last):
        if key not in state or state[key].ndim < 2:
            raise InputError(f"{checkpoint.path} lacks {key} of {name}")
    arguments = section(checkpoint, "model_args")
    for argument, value in arguments.items():
        if argument not in _KNOWN and value != _USUAL.get(argument, not value):
            raise InputError(
                f"{checkpoint.path}: model_args of {CONFIG} has {argument!r}, which is not "
                f"supported; known are {', '.join(_KNOWN)}"
            )
    for argument in ("feat_dim", "embed_dim"):
        size = arguments.get(argument, 1)
        if type(size) is not int or not 0 < size <= _MOST:
            raise InputError(
                f"{checkpoint.path}: {argument} in {CONFIG} is {size!r:.40}; "
                f"expected 1 to {_MOST:,}"
            )
    bins = arguments.get("feat_dim", 80)
    return {
        "name": name,
        "feat_dim": bins,
        "embed_dim": arguments.get("embed_dim", state[last].shape[0]),
        "pooling": pooling_of(checkpoint),
        # The default changed over WeSpeaker's versions, so a silent configuration says nothing.
        "two_emb_layer": arguments.get("two_emb_layer", "seg_2.weight" in state),
        "channels": state[first].shape[0],
        "fbank": front_end(checkpoint, bins),
        "pooling_epsilon": checkpoint.epsilon,
    }


def pooling_of(checkpoint: Checkpoint) -> str:
    """Returns the name of a checkpoint's pooling."""
    if "asp.conv.conv.weight" in checkpoint.state:
        return "ASTP"
    usual = "ASTP" if "pool.linear1.weight" in checkpoint.state else "TSTP"
    return str(section(checkpoint, "model_args").get("pooling_func", usual))


def first_few(keys: list[str]) -> str:
    """Names the first of some keys, for a message."""
    return keys[0] + (f" and {len(keys) - 1} more keys" if len(keys) > 1 else "")


def _name(checkpoint: Checkpoint, model_name: str | None) -> str:
    name = model_name or checkpoint.config.get("model")
    if name is not None and name not in NAMES:
        raise InputError(
            f"{checkpoint.path} is a {' '.join(str(name).split()):.60}, which is not supported; "
            f"supported are {', '.join(NAMES)}"
        )
    found = _network(checkpoint)
    if name and found and name != found:
        raise InputError(f"{checkpoint.path} is said to be {name}, but its keys are {found}'s")
    name = name or found
    if name is None:
        raise InputError(f"{checkpoint.path} is of no known network; name it with model_name")
    return str(name)


def _network(checkpoint: Checkpoint) -> str | None:
    """Returns the network's name by its keys; None if none fits."""
    state = checkpoint.state
    if any(key.startswith("front.") for key in state):
        raise InputError(
            f"{checkpoint.path} is a SimAM ResNet (keys front.*), which is not supported"
        )
    if any(key.startswith("xvector.") for key in state):
        return "CAMPPlus"
    if "blocks.1.res2net_block.blocks.0.conv.conv.weight" in state:
        return speechbrain.NAME
    if "layer2.se_res2block.0.conv.weight" in state:
        return _ecapa_tdnn(checkpoint)

    def blocks(stage: str) -> int:
        return len({key.split(".")[-3] for key in state if _is_block(key, stage)})

    depths = tuple(blocks(f"layer{i}") for i in range(1, 5))
    if any(depths):
        shape = (depths, "layer1.0.conv3.weight" in state)
        return next((name for name, known in resnet.DEPTHS.items() if known == shape), None)
    depths = tuple(blocks(f"stages.{i}") for i in range(4))
    gemini = "downsample_layers.4.0.weight" in state
    for name, known in df_resnet.DEPTHS.items():
        if known == depths and name.startswith("Gemini") == gemini:
            return name
    if not any(depths):
        raise InputError(
            f"{checkpoint.path} is of no known family ({', '.join(_FAMILIES)}): it holds "
            f"{first_few(list(state))}"
        )
    return None


def _ecapa_tdnn(checkpoint: Checkpoint) -> str | None:
    state = checkpoint.state
    attention = [state.get(f"pool.linear{i}.weight", np.zeros((0, 0))).shape for i in (1, 2)]
    if any(len(shape) < 2 for shape in attention):
        return None
    context = "GLOB_" if attention[0][1] > attention[1][0] else ""
    name = f"ECAPA_TDNN_{context}c{len(state.get('layer1.conv.weight', ()))}"
    return name if name in NAMES else None


def _is_block(key: str, stage: str) -> bool:
    return key.startswith(f"{stage}.") and key.endswith(".conv1.weight")
