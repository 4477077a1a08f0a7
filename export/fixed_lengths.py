"""Signatures of a fixed length, for runtimes that cannot resize an input.

LiteRT's CompiledModel in Kotlin is one, and so are NPUs. Each signature is `embed` once more, with
the shape of its input fixed; weights are shared, so that one costs its operators alone.
"""

import copy
from collections.abc import Mapping

import numpy as np

from tfq_sv.export.flatbuffer import Graph, Model

SECONDS = (2, 3, 6)


def signatures(sample_rate: int) -> dict[str, int]:
    """Returns the names of the signatures, and how many samples each takes.

    >>> signatures(16000)
    {'embed_2s': 32000, 'embed_3s': 48000, 'embed_6s': 96000}
    """
    return {f"embed_{seconds}s": seconds * sample_rate for seconds in SECONDS}


def add(model: Model, lengths: Mapping[str, int]) -> None:
    """Appends signatures, name -> samples, to a model whose `embed` takes any waveform."""
    embed = next(x for x in model.signatureDefs if _key(x) == "embed")
    source = model.subgraphs[embed.subgraphIndex]
    for name, samples in lengths.items():
        subgraph = copy.deepcopy(source)
        for tensor in subgraph.tensors:
            tensor.name, tensor.shapeSignature = None, None
        model.subgraphs.append(subgraph)
        (entry,), (output,) = subgraph.inputs, subgraph.outputs
        subgraph.tensors[entry].shape = np.array([1, samples], np.int32)
        Graph(model, subgraph).signature(name, {"waveform": int(entry)}, {"embedding": int(output)})


def remove(model: Model) -> None:
    """Removes what `add` appended at the end of a model."""
    for signature in [x for x in model.signatureDefs if _key(x).startswith("embed_")]:
        model.signatureDefs.remove(signature)
        del model.subgraphs[signature.subgraphIndex :]


def _key(signature: object) -> str:
    key = getattr(signature, "signatureKey", "")
    return key.decode() if isinstance(key, bytes) else str(key)
