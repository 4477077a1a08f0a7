"""Every network by its name."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.features import SPEECHBRAIN, WESPEAKER, FbankOptions
from tfq_sv.models import campplus, df_resnet, ecapa_tdnn, resnet, speechbrain
from tfq_sv.models.frontend import FrontEnd
from tfq_sv.models.layers import embedding
from tfq_sv.models.pooling import POOLINGS, pool

# Keras walks graphs by recursion, one level per layer. ResNet293 is nearly 1,000 layers deep, and
# that is Python's limit. It must hold wherever such a model is built, cloned, saved or loaded.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 5_000))


@dataclass(frozen=True)
class Family:
    """What the networks of one family share.

    Attributes:
        network: (image (B, F, T, 1), name, channels, embed_dim, pooling, epsilon, two_emb_layer)
            -> embedding (B, embed_dim), added to a functional graph.
        poolings: those it can have, its usual one first.
        embed_dim: its usual length of the embedding.
        channels: its usual width, which the others are multiples of.
        step: what the number of mel bins must be a multiple of.
        groups: what `channels` must be a multiple of.
        two_emb_layer: whether it can have a second embedding layer.
        fbank: its usual front end, but for the number of bins.
    """

    network: Callable[..., Any]
    poolings: tuple[str, ...] = POOLINGS
    embed_dim: int = 256
    channels: int = 32
    step: int = 8
    groups: int = 1
    two_emb_layer: bool = False
    fbank: FbankOptions = WESPEAKER


def _resnets(trunk: Callable[..., Any], step: int = 8) -> Family:
    def network(
        image: Any,
        name: str,
        channels: int,
        embed_dim: int,
        pooling: str,
        epsilon: float,
        two_emb_layer: bool,
    ) -> Any:
        statistics = pool(trunk(image, name, channels), pooling, epsilon)
        return embedding(statistics, embed_dim, two_emb_layer)

    return Family(network, step=step, two_emb_layer=True)


FAMILIES = {
    **dict.fromkeys(resnet.DEPTHS, _resnets(resnet.trunk)),
    **{
        name: _resnets(df_resnet.trunk, 16 if name.startswith("Gemini") else 8)
        for name in df_resnet.DEPTHS
    },
    "CAMPPlus": Family(campplus.network, ("TSTP",), embed_dim=512),
    **{
        name: Family(
            ecapa_tdnn.network,
            ("ASTP", *(pooling for pooling in POOLINGS if pooling != "ASTP")),
            embed_dim=192,
            channels=width,
            step=1,
            groups=8,
        )
        for name, width in ecapa_tdnn.WIDTHS.items()
    },
    speechbrain.NAME: Family(
        speechbrain.network,
        ("ASTP",),
        embed_dim=192,
        channels=speechbrain.CHANNELS,
        step=1,
        groups=8,
        fbank=SPEECHBRAIN,
    ),
}
NAMES = tuple(FAMILIES)


def check_name(name: str) -> str:
    """Returns a network's name; raises InputError if it is none of `NAMES`."""
    if name not in NAMES:
        raise InputError(f"unknown network {name!r}; known are {', '.join(NAMES)}")
    return name


def build(
    name: str,
    feat_dim: int = 80,
    embed_dim: int | None = None,
    pooling: str | None = None,
    two_emb_layer: bool = False,
    channels: int | None = None,
    fbank: FbankOptions | None = None,
    pooling_epsilon: float = 1e-7,
) -> keras.Model:
    """Builds a speaker verification network.

    Args:
        name: one of NAMES, WeSpeaker's names.
        feat_dim: mel bins F; Gemini networks need a multiple of 16, other ResNets and CAM++ of 8.
        embed_dim: length of the embedding; if None 256 for ResNets, 512 for CAM++, 192 for ECAPA.
        pooling: one of POOLINGS; if None TSTP, which is CAM++'s only one, and ASTP for ECAPA.
        two_emb_layer: a second dense layer after the first, as some ResNets' checkpoints have.
        channels: width of the first layer, which other widths are in proportion to; the field's,
            32, or an ECAPA's 512 or 1024, if None. Those must be multiples of 8.
        fbank: the front end the features come from; the family's usual one with
            `feat_dim` bins if None.
        pooling_epsilon: added to the variance before the root; Golden Gemini's authors took 1e-10,
            3D-Speaker's 0.

    Returns:
        features (B, T, feat_dim), T free, float32 -> embedding (B, embed_dim). One flat graph, so
        that tfmot reaches every kernel; random weights.

    Raises:
        InputError: an unknown name or pooling, or sizes that the network cannot have.

    >>> build("ResNet34").output_shape
    (None, 256)
    """
    family = FAMILIES[check_name(name)]
    if feat_dim < family.step or feat_dim % family.step:
        raise InputError(f"feat_dim of {name} must be a multiple of {family.step}, not {feat_dim}")
    pooling = family.poolings[0] if pooling is None else pooling
    if pooling in POOLINGS and pooling not in family.poolings:
        known = " or ".join(family.poolings)
        raise InputError(f"the pooling of {name} is {known}, not {pooling}")
    if two_emb_layer and not family.two_emb_layer:
        raise InputError(f"{name} has one embedding layer; two_emb_layer is for ResNets")
    embed_dim = family.embed_dim if embed_dim is None else embed_dim
    channels = family.channels if channels is None else channels
    if embed_dim < 1 or channels < 1:
        raise InputError(f"embed_dim {embed_dim} and channels {channels} must be positive")
    if channels % family.groups:
        raise InputError(
            f"channels of {name} must be a multiple of {family.groups}, not {channels}"
        )
    fbank = fbank or FbankOptions(**{**vars(family.fbank), "num_bins": feat_dim})
    features = keras.Input((None, feat_dim), name="features")
    image = FrontEnd(fbank, name="front_end")(features)
    answer = family.network(
        image, name, channels, embed_dim, pooling, pooling_epsilon, two_emb_layer
    )
    return keras.Model(features, answer, name=name)
