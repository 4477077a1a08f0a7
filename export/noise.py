"""What int8 compute costs, layer by layer: `layer_noise`."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.export import convert, float32
from tfq_sv.export.encoder import interpreter
from tfq_sv.progress import tqdm
from tfq_sv.quantization import folding, quantized_model


def layer_noise(
    model: Any, features: Sequence[npt.NDArray[np.float32]], *, progress: bool = False
) -> dict[str, float]:
    """Runs a network in float32 but for one layer, for each layer that int8 compute concerns.

    Where a file with compute="int8" loses more than it should, this finds the layer. What a single
    layer adds is told from what others hand on, because they compute in float32.

    Args:
        model: a quantized Keras network.
        features: some utterances' features, (T, feat_dim) each.
        progress: whether to show a bar.

    Returns:
        layer -> signal to noise ratio of the embeddings in dB, the worst first. 30 dB are a cosine
        of about 0.9995.

    Raises:
        InputError: the model is not quantized, or not such a network.

    >>> next(iter(layer_noise(quantized, features)))  # doctest: +SKIP
    'seg_1'
    """
    books = quantized_model.codebooks(model)
    plain_model = quantized_model.dequantize(model)
    with folding.folded(plain_model):  # as files have it
        converted = float32.convert(plain_model, "features")
    network, found = convert.float_network(converted, books, "features")

    def inflated(*int8: str) -> bytes:
        return convert.inflated(copy.deepcopy(network), found, int8)[0]

    plain = inflated()
    expected = _embeddings(plain, features)
    ratios = {}
    for layer in tqdm(books, desc="int8 noise", unit="layer", disable=not progress):
        data = inflated(layer)
        if data != plain:  # its op has an int8 form
            noise = _embeddings(data, features) - expected
            ratios[layer] = float(10 * np.log10((expected**2).sum() / (noise**2).sum()))
    return dict(sorted(ratios.items(), key=lambda entry: entry[1]))


def _embeddings(
    data: bytes, features: Sequence[npt.NDArray[np.float32]]
) -> npt.NDArray[np.float64]:
    embed = interpreter(data).get_signature_runner("embed")
    return np.stack([embed(features=x[None])["embedding"][0] for x in features]).astype(np.float64)
