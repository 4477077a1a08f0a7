"""The pieces that both families are made of, padded and normalized as in PyTorch."""

import math
from typing import Any

import tf_keras as keras

layers = keras.layers


def conv(x: Any, name: str, filters: int, size: int, strides: int | tuple[int, int] = 1) -> Any:
    """A convolution without bias; 3x3 kernels see one zero on every side."""
    if size == 3 and strides not in (1, (1, 1)):
        # `same` would pad even sizes on one side only; PyTorch pads both.
        x = layers.ZeroPadding2D(1, name=f"{name}.pad")(x)
        padding = "valid"
    else:
        padding = "same"
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def depthwise(x: Any, name: str) -> Any:
    """A 3x3 depthwise convolution without bias."""
    # Keras counts all channels as inputs of each output here, and "he_normal" would start far too
    # small: nine inputs it is. BatchNorm hides that forward, but steps would be huge beside it.
    initializer = keras.initializers.RandomNormal(stddev=math.sqrt(2 / 9))
    return layers.DepthwiseConv2D(
        3, padding="same", use_bias=False, depthwise_initializer=initializer, name=name
    )(x)


def norm(x: Any, name: str, *, relu: bool = False, affine: bool = True) -> Any:
    """Batch normalization with PyTorch's constants, and ReLU if asked for."""
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine, name=name
    )(x)
    return layers.ReLU(name=f"{name}.relu")(x) if relu else x


def embedding(x: Any, embed_dim: int, two_emb_layer: bool) -> Any:
    """The dense end: `seg_1`, or seg_2(norm(relu(seg_1))) with two embedding layers."""
    x = layers.Dense(embed_dim, name="seg_1")(x)
    if two_emb_layer:
        x = layers.ReLU(name="seg_1.relu")(x)
        x = norm(x, "seg_bn_1", affine=False)
        x = layers.Dense(embed_dim, name="seg_2")(x)
    return x
