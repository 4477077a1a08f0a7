"""Every network by its name."""

import sys

import tf_keras as keras

from tfq_sv.errors import InputError
from tfq_sv.features import WESPEAKER, FbankOptions
from tfq_sv.models import df_resnet, resnet
from tfq_sv.models.frontend import FrontEnd
from tfq_sv.models.layers import embedding
from tfq_sv.models.pooling import pool

# Keras walks graphs by recursion, a level a layer: ResNet293 is nearly 1,000 layers deep, which is
# Python's limit. It must hold wherever such a model is built, cloned, saved or loaded.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 5_000))

NAMES = (*resnet.DEPTHS, *df_resnet.DEPTHS)


def build(
    name: str,
    feat_dim: int = 80,
    embed_dim: int = 256,
    pooling: str = "TSTP",
    two_emb_layer: bool = False,
    channels: int = 32,
    fbank: FbankOptions | None = None,
    pooling_epsilon: float = 1e-7,
) -> keras.Model:
    """Builds a speaker verification network.

    Args:
        name: one of NAMES, WeSpeaker's names.
        feat_dim: mel bins F; Gemini networks need a multiple of 16, the others of 8.
        embed_dim: length of the embedding.
        pooling: one of POOLINGS.
        two_emb_layer: a second dense layer after the first, as some checkpoints have.
        channels: width of the first stage; 32 in the field.
        fbank: the front end the features come from; WeSpeaker's with `feat_dim` bins if None.
        pooling_epsilon: added to the variance before the root; Golden Gemini's authors took 1e-10.

    Returns:
        features (B, T, feat_dim), T free, float32 -> embedding (B, embed_dim). One flat graph, so
        that tfmot reaches every kernel; random weights.

    Raises:
        InputError: an unknown name or pooling, or sizes that the network cannot have.

    >>> build("ResNet34").output_shape
    (None, 256)
    """
    if name not in NAMES:
        raise InputError(f"unknown network {name!r}; known are {', '.join(NAMES)}")
    step = 16 if name.startswith("Gemini") else 8
    if feat_dim < step or feat_dim % step:
        raise InputError(f"feat_dim of {name} must be a multiple of {step}, not {feat_dim}")
    if embed_dim < 1 or channels < 1:
        raise InputError(f"embed_dim {embed_dim} and channels {channels} must be positive")
    fbank = fbank or FbankOptions(**{**vars(WESPEAKER), "num_bins": feat_dim})
    features = keras.Input((None, feat_dim), name="features")
    image = FrontEnd(fbank, name="front_end")(features)
    trunk = resnet.trunk if name in resnet.DEPTHS else df_resnet.trunk
    statistics = pool(trunk(image, name, channels), pooling, pooling_epsilon)
    return keras.Model(features, embedding(statistics, embed_dim, two_emb_layer), name=name)
