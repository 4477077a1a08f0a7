"""The signature `inflate`: the inner file as one concatenation of constants and decoded filters."""

from collections.abc import Iterable, Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq_sv.export import flatbuffer, metadata
from tfq_sv.export.decoder import Decoder
from tfq_sv.export.filters import Filter
from tfq_sv.export.flatbuffer import INT8, UINT8, Graph, Model

_SHARE_BYTES = 128  # a shared piece of the inner file costs a tensor; a shorter one is not worth it


def add_inflate(
    model: Model,
    inner: bytes,
    places: Mapping[int, Filter],
    found: Iterable[Filter],
    kind: int = UINT8,
) -> None:
    """Appends the signature that puts the inner file together from constants and filters.

    Args:
        model: the outer file.
        inner: what the signature is to return.
        places: where filters start in it.
        found: the filters.
        kind: the type of its bytes, UINT8 or INT8.
    """
    graph = Graph(model)
    decoder = Decoder(graph, kind, found)
    shared = {
        content
        for index in range(len(model.buffers))
        if len(content := flatbuffer.buffer_bytes(model, index)) >= _SHARE_BYTES
    }
    pieces: list[int] = []
    start = 0

    def constant(content: bytes) -> None:
        pieces.append(graph.constant(np.frombuffer(content, np.uint8), kind))

    for first, stop in sorted(span for span in flatbuffer.buffer_spans(inner) if span[0]):
        content = inner[first:stop]
        if first not in places and content not in shared:
            continue
        if not pieces:
            piece, request = metadata.answer(graph, inner[start:first], kind)
            pieces.append(piece)
        elif start < first:
            constant(inner[start:first])
        if first in places and places[first].book.bits < 8:
            pieces.append(decoder.flat(places[first]))
        else:
            constant(content)
        start = stop
    if start < len(inner):
        constant(inner[start:])
    output = graph.tensor([len(inner)], kind)
    options = schema.ConcatenationOptionsT(axis=0)
    version = 2 if kind == INT8 else 1
    graph.op("CONCATENATION", pieces, output, version=version, options=options)
    graph.signature("inflate", {"request": request}, {"tflite": output})
