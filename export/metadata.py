"""What a file says about itself: JSON in a buffer that its `about` signature returns."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq_sv import files
from tfq_sv.errors import InputError
from tfq_sv.export import flatbuffer, seal
from tfq_sv.export.about import check, parse
from tfq_sv.export.flatbuffer import INT8, INT32, UINT8, Graph, Model

SEAL_ENTRY = "tfq_sv"
"""The model's metadata entry whose buffer is the seal."""


def attach(model: Model, about: Mapping[str, Any], kind: int = UINT8) -> None:
    """Appends the `about` signature, its bytes of type `kind`, and the blank seal to a model."""
    graph = Graph(model)
    text = _encode(about)
    output, request = answer(graph, text, kind)
    graph.signature("about", {"request": request}, {"json": output})
    entry = schema.MetadataT(name=SEAL_ENTRY, buffer=flatbuffer.add_buffer(model, seal.BLANK))
    model.metadata = [entry]


def answer(graph: Graph, content: bytes, kind: int = UINT8) -> tuple[int, int]:
    """Appends an input that is ignored, and a constant that depends on it in form.

    Android's Java API refuses a signature without inputs, and an input that no op reads may get
    lost in tools on the way. So the answer is row 0 * input[0] of a table that has one row.

    Returns:
        The tensor of the bytes, uint8 or int8 (len(content),), and the input, int32 (1,).
    """
    request = graph.tensor([1], INT32)
    zero = graph.arithmetic("MUL", request, graph.constant(np.zeros(1, np.int32)))
    table = graph.constant(np.frombuffer(content, np.uint8)[None], kind)
    return graph.reshape(graph.gather(table, zero), [len(content)]), request


def write_about(path: str | os.PathLike[str], **fields: Any) -> None:
    """Changes fields of a finished file's metadata, such as thresholds measured on trials.

    Everything else in the file stays as it is. The file is replaced at once or not at all.

    Args:
        path: a file that `export_tflite` wrote.
        fields: what to set; values that JSON can hold.

    Raises:
        InputError: no such file; it is damaged or not one of ours; a value that JSON cannot hold,
            or that no encoder could work by.
    """
    data = files.require_file(path, "file").read_bytes()
    seal.check(data, path)
    model = flatbuffer.read(data)
    signature = next(s for s in model.signatureDefs if s.signatureKey == b"about")
    subgraph = model.subgraphs[signature.subgraphIndex]
    table = next(x for x in subgraph.tensors if x.type in (UINT8, INT8) and x.buffer)
    about = parse(flatbuffer.buffer_bytes(model, table.buffer), path)
    model.subgraphs.remove(subgraph)
    model.signatureDefs.remove(signature)
    attach(model, check({**about, **fields}, path), table.type)
    with files.atomic(Path(path)) as temporary:
        temporary.write_bytes(seal.seal(flatbuffer.write(model)))


def _encode(about: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(
            about, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata must be plain JSON values: {error}") from None
