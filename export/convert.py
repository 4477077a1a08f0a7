"""A quantized Keras network becomes a `.tflite` file: `export_tflite`.

The network is converted as floats first, because the converter would fold any decoding back into
floats; then its flatbuffer is edited. FORMAT.md says what comes out.
"""

import copy
import dataclasses
import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

import tfq_sv
from tfq_sv import files
from tfq_sv.errors import InputError
from tfq_sv.export import (
    filters,
    flatbuffer,
    float32,
    frontend,
    identities,
    metadata,
    negative_gains,
    seal,
)
from tfq_sv.export import fixed_lengths as fixed
from tfq_sv.export.about import check
from tfq_sv.export.decoder import Decoder
from tfq_sv.export.filters import Book, Filter
from tfq_sv.export.flatbuffer import FLOAT32, INT8, UINT8, Graph, Model
from tfq_sv.export.inflate_signature import add_inflate
from tfq_sv.features import FbankOptions
from tfq_sv.progress import tqdm
from tfq_sv.quantization.trellis import TrellisCodebook

if TYPE_CHECKING:
    from tfq_sv.quantization.float_layers import FloatLayer
    from tfq_sv.quantization.folding import UnfoldedNorm

Fill = Callable[[int, Filter], None]


@dataclass(frozen=True)
class LayerReport:
    """What one layer takes: bits per weight, weights, and bytes of packed codes and levels."""

    bits: float
    weights: int
    bytes: int


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        float32_bytes: size of the plain float32 `.tflite` of the same network, as converted.
        inflated_bytes: size of the fast `.tflite` that its `inflate` signature returns.
        layers: layer name -> LayerReport.
        floats: the layers whose kernels are float in it; see `float_layers`.
        norms: the BatchNorms that stay in it, at least in part; see `folding.unfolded`.
    """

    path: Path
    bytes: int
    float32_bytes: int
    inflated_bytes: int
    layers: Mapping[str, LayerReport]
    floats: Mapping[str, "FloatLayer"]
    norms: Mapping[str, "UnfoldedNorm"]


@dataclass(frozen=True)
class Built:
    """A finished file, and the sizes of what it came from and of what it inflates to."""

    data: bytes
    float32_bytes: int
    inflated_bytes: int


def export_tflite(
    model: Any,
    path: str | os.PathLike[str],
    input: str = "waveform",
    *,
    compute: str = "int8",
    fixed_lengths: bool = False,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = True,
    progress: bool = False,
) -> ExportReport:
    """Writes a quantized network as one standard `.tflite` file that holds its packed codes.

    Args:
        model: what `tfq_sv.quantize` returned, fine-tuned or not: features (B, T, feat_dim) ->
            embedding (B, embed_dim).
        path: the file to write; folders on the way are made.
        input: "waveform": the file takes 16 kHz samples in [-1, 1], (1, N), and the front end that
            the model was trained with is a part of its graph; "features": it is not.
        compute: "int8" (activations are quantized as they come, which is fastest) or "float32".
        fixed_lengths: for runtimes that neither resize inputs nor know uint8, such as LiteRT's
            CompiledModel in Kotlin: also signatures for waveforms of 2, 3 and 6 s, `embed_2s` and
            so on, here and in what it inflates to; `inflate` and `about` return int8.
        about: more fields for the file's metadata, such as {"thresholds": ...}.
        overwrite: whether a file at `path` may be replaced.
        progress: show a bar.

    Returns:
        Sizes: of the file, of the same network in float32, of each layer.

    Raises:
        InputError: an option that is not there; the model is not quantized, or not such a network;
            a quantized layer that the converter left no trace of.

    >>> report = export_tflite(quantized, "speaker.tflite")  # doctest: +SKIP
    >>> report.float32_bytes / report.bytes  # doctest: +SKIP
    7.8
    """
    from tfq_sv.models.entry import feature_bins
    from tfq_sv.quantization import float_layers, folding, quantized_model

    if not overwrite and Path(path).exists():
        raise InputError(f"{path} exists already; give another path or overwrite=True")
    books = quantized_model.codebooks(model)
    plain = quantized_model.dequantize(model)
    feature_bins(plain)  # refuses other inputs than a network's
    quantized_model.refuse_dead(plain)
    layers = quantized_model.recipe_of(model).layers
    recipe = {
        name: layers[name].kind if "binary" in layers[name].kind else _label(book)
        for name, book in books.items()
    }
    fields = {"recipe": recipe, **(about or {})}
    built = build(
        plain,
        books,
        input,
        about=fields,
        compute=compute,
        fixed_lengths=fixed_lengths,
        progress=progress,
    )
    with files.atomic(path) as temporary:
        temporary.write_bytes(built.data)
    return ExportReport(
        path=Path(path),
        bytes=len(built.data),
        float32_bytes=built.float32_bytes,
        inflated_bytes=built.inflated_bytes,
        layers={layer: _layer_report(book) for layer, book in books.items()},
        floats=float_layers.float_layers(model),
        norms={name: x for name, x in folding.unfolded(plain).items() if x.bytes},
    )


def build(
    float_model: Any,
    books: Mapping[str, Book],
    input: str = "waveform",
    *,
    about: Mapping[str, Any] | None = None,
    compute: str = "int8",
    fixed_lengths: bool = False,
    progress: bool = False,
) -> Built:
    """Returns the file's bytes for a float Keras model whose kernels are the decoded codebooks.

    Args:
        float_model: one input (B, T, ..., feat_dim), one output (B, embed_dim).
        books: layer name -> codebook; layers without one stay float.
        input: "waveform" or "features".
        about: metadata fields that are added to, or replace, the standard ones.
        compute: "int8" or "float32".
        fixed_lengths: as in `export_tflite`.
        progress: show a bar.

    Raises:
        InputError: as `export_tflite`.
    """
    from tfq_sv import models
    from tfq_sv.models import entry
    from tfq_sv.quantization import folding

    if compute not in ("int8", "float32"):
        raise InputError(f'compute must be "int8" or "float32", not {compute!r}')
    if fixed_lengths and input != "waveform":
        raise InputError('fixed lengths are of waveforms; export with input="waveform"')
    if not books:
        raise InputError("the model has no quantized layers; quantize it first: tfq_sv.quantize")
    int8 = set(books) if compute == "int8" else set()
    options = models.front_end(float_model)
    lengths = fixed.signatures(options.sample_rate) if fixed_lengths else {}
    kind = INT8 if fixed_lengths else UINT8
    with tqdm(total=4, desc="export", unit="part", disable=not progress) as bar:
        with folding.folded(float_model):
            converted = float32.convert(float_model, input)
        network, filters = float_network(converted, books, input)
        bar.update()
        inner, places = inflated(copy.deepcopy(network), filters, int8, lengths)
        bar.update()
        outer = copy.deepcopy(network)
        _embed(outer, filters, int8)
        fixed.add(outer, lengths)
        bar.update()
        add_inflate(outer, inner, places, filters.values(), kind)
        bar.update()
    standard = {
        "format": seal.VERSION,
        "package": "tfq-sv",
        "version": tfq_sv.__version__,
        "input": input,
        "compute": compute,
        "feat_dim": entry.feature_bins(float_model),
        "embed_dim": int(float_model.outputs[0].shape[-1]),
        "sample_rate": options.sample_rate,
        "min_samples": frontend.min_samples(options) if input == "waveform" else None,
        "frontend": None if entry.takes_waveform(float_model) else _front_end_fields(options),
        "recipe": {layer: _label(book) for layer, book in books.items()},
        "score": "cosine",
        "thresholds": None,
        "trials": None,
        "inflated_sha256": hashlib.sha256(inner).hexdigest(),
        "inflated_bytes": len(inner),
    }
    if origin := models.origin_of(float_model).fields():
        standard["origin"] = origin
    standard |= {"fixed_lengths": lengths} if lengths else {}
    metadata.attach(outer, check({**standard, **(about or {})}, "the about given"), kind)
    return Built(seal.seal(flatbuffer.write(outer)), len(converted), len(inner))


def _front_end_fields(options: FbankOptions) -> dict[str, Any]:
    """The options as the metadata hold them: readers from before SpeechBrain's know no kinds."""
    fields = dataclasses.asdict(options)
    return fields if options.kind != "kaldi" else {k: v for k, v in fields.items() if k != "kind"}


def float_network(
    converted: bytes, books: Mapping[str, Book], input: str
) -> tuple[Model, dict[int, Filter]]:
    """Returns a float `.tflite`, bare but for its signature, and its filters by tensor."""
    network = flatbuffer.read(converted)
    flatbuffer.require_builtin(network)
    flatbuffer.strip(network)
    identities.drop_ones(network)
    graph = Graph(network, network.subgraphs[0])
    (entry,), (embedding,) = graph.subgraph.inputs, graph.subgraph.outputs
    graph.signature("embed", {input: int(entry)}, {"embedding": int(embedding)})
    return network, negative_gains.turned(graph, filters.find(network, books))


def _layer_report(book: Book) -> LayerReport:
    return LayerReport(book.bits, book.size, book.bytes)


def _label(book: Book) -> int | str:
    """How the metadata's recipe calls it."""
    return f"trellis_{book.bits:g}" if isinstance(book, TrellisCodebook) else book.bits


def inflated(
    model: Model,
    found: Mapping[int, Filter],
    int8: Collection[str],
    lengths: Mapping[str, int] | None = None,
) -> tuple[bytes, dict[int, Filter]]:
    """Returns the inner file, and which filter starts at which of its bytes.

    Args:
        model: the float network, stripped; it is used up.
        found: its filters.
        int8: the layers that compute in int8, where their op can.
        lengths: signatures of a fixed length, see `fixed_lengths`.
    """
    graph = Graph(model, model.subgraphs[0])
    tensors: list[tuple[Any, Filter]] = []

    def store(index: int, filter: Filter) -> None:
        tensor = graph.subgraph.tensors[index]
        tensor.buffer = flatbuffer.add_buffer(model, filter.levels().tobytes())
        tensors.append((tensor, filter))

    _quantize(graph, found, int8, store)
    fixed.add(model, lengths or {})
    data = flatbuffer.write(model)
    spans = flatbuffer.buffer_spans(data)
    return data, {spans[tensor.buffer][0]: filter for tensor, filter in tensors}


def _embed(model: Model, found: Mapping[int, Filter], int8: Collection[str]) -> None:
    """Makes the network decode its filters, each right before its first use."""
    graph = Graph(model, model.subgraphs[0])
    decoder = Decoder(graph, INT8, found.values())

    def decode(index: int, filter: Filter) -> None:
        if filter.book.bits == 8:
            levels = filter.packed()[0].tobytes()
            graph.subgraph.tensors[index].buffer = flatbuffer.add_buffer(model, levels)
        else:
            decoder.filter(filter, index)

    _quantize(graph, found, int8, decode)


def _quantize(graph: Graph, found: Mapping[int, Filter], int8: Collection[str], fill: Fill) -> None:
    """Gives each filter an int8 tensor, which `fill(index, filter)` is to fill.

    Where an op can, it reads int8 itself; elsewhere a DEQUANTIZE stands between.
    """
    operators, graph.subgraph.operators = graph.subgraph.operators, []
    direct: dict[int, int] = {}
    floats: dict[int, int] = {}
    for operator in operators:
        if filters.reads_filter(graph.model, operator) and int(operator.inputs[1]) in found:
            old = int(operator.inputs[1])
            filter = found[old]
            if old not in direct:
                direct[old] = _int8_tensor(graph, filter)
                fill(direct[old], filter)
            if filter.layer in int8 and _reads_int8(graph, operator, filter):
                new = direct[old]
                _make_hybrid(graph, operator, filter)
            else:
                if old not in floats:
                    floats[old] = _dequantized(graph, filter, direct[old])
                new = floats[old]
            first, _, *rest = operator.inputs
            operator.inputs = np.array([first, new, *rest], np.int32)
        graph.subgraph.operators.append(operator)


def _steps(filter: Filter) -> npt.NDArray[np.float32]:
    """The filter's scales: one per channel; for a dense layer a single one where they are equal.

    Dense filters with a scale per channel need FULLY_CONNECTED version 12, of 2024, to be read as
    int8; convolutions on the other hand are read best that way.
    """
    scales = filter.scales()
    equal = len(filter.shape) == 2 and np.allclose(scales, scales[0], rtol=1e-6, atol=0)
    return scales[:1] if equal else scales


def _int8_tensor(graph: Graph, filter: Filter) -> int:
    index = graph.tensor(filter.shape, INT8)
    scales = _steps(filter)
    graph.subgraph.tensors[index].quantization = schema.QuantizationParametersT(
        scale=scales,
        zeroPoint=np.zeros(len(scales), np.int64),
        quantizedDimension=filter.axis if len(scales) > 1 else 0,
    )
    return index


def _dequantized(graph: Graph, filter: Filter, tensor: int) -> int:
    output = graph.tensor(filter.shape, FLOAT32)
    version = 5 if len(_steps(filter)) > 1 else 2
    options = schema.DequantizeOptionsT()
    return graph.op("DEQUANTIZE", [tensor], output, version=version, options=options)


def _reads_int8(graph: Graph, operator: Any, filter: Filter) -> bool:
    """Whether the op has an int8 kernel, in old runtimes too, that is worth having."""
    name = flatbuffer.op_name(graph.model, operator)
    if name == "FULLY_CONNECTED":
        return len(_steps(filter)) == 1
    if name != "CONV_2D":
        return False  # XNNPACK has no depthwise kernel of this kind
    channels = filter.shape[3]
    grouped = graph.subgraph.tensors[operator.inputs[0]].shape[3] != channels
    options = operator.builtinOptions
    dilated = (options.dilationHFactor, options.dilationWFactor) != (1, 1)
    # The first convolution of a 2-D network has next to no weights, and sees the features.
    return not (grouped or dilated or channels == 1)


def _make_hybrid(graph: Graph, operator: Any, filter: Filter) -> None:
    name = flatbuffer.op_name(graph.model, operator)
    if name == "FULLY_CONNECTED":
        operator.builtinOptions.asymmetricQuantizeInputs = True
        version = 9
    else:
        version = 5 if len(_steps(filter)) > 1 else 2
    operator.opcodeIndex = graph.op_code(name, version)
