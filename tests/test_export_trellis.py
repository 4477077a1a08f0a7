"""Trellis codes in a file: stock ops, both signatures, a second reader."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from test_export_convert import ONE_RECORDING_OPS, OPS, check, norm, op_names, quantized

from tfq_sv.export import convert, flatbuffer
from tfq_sv.export.decoder import Decoder
from tfq_sv.export.filters import Book, Filter
from tfq_sv.quantization import trellis
from tfq_sv.quantization.trellis import TrellisCodebook

layers = keras.layers


def codebook_of(kernel: np.ndarray, bits: float) -> TrellisCodebook:
    codes, scales = trellis.fit(trellis.as_matrix(kernel), bits)
    return TrellisCodebook(codes, scales[:, 0], bits, kernel.shape)


def decoded(filters: list[Filter], kind: int) -> list[np.ndarray]:
    """Runs the ops alone."""
    model = schema.ModelT(
        version=3, subgraphs=[], buffers=[schema.BufferT()], operatorCodes=[], signatureDefs=[]
    )
    graph = flatbuffer.Graph(model)
    request = graph.tensor([1], flatbuffer.INT32)
    decoder = Decoder(graph, kind, filters)
    outputs = {}
    for number, filter in enumerate(filters):
        outputs[f"filter{number}"] = graph.tensor(filter.shape, kind)
        decoder.filter(filter, outputs[f"filter{number}"])
    graph.signature("decode", {"request": request}, outputs)
    interpreter = Interpreter(model_content=flatbuffer.write(model))
    found = interpreter.get_signature_runner("decode")(request=np.zeros(1, np.int32))
    return [found[f"filter{number}"] for number in range(len(filters))]


def random_filter(shape: tuple[int, ...], bits: float, seed: int) -> Filter:
    rng = np.random.default_rng(seed)
    inputs = int(np.prod(shape[1:]))
    codes = rng.integers(0, 256, (shape[0], int(inputs * bits / 8))).astype(np.uint8)
    keras_shape = (*shape[1:], shape[0])
    book = TrellisCodebook(codes, np.ones(shape[0], np.float32), bits, keras_shape)
    return Filter(f"layer{seed}", book, shape, 0, np.ones(shape[0], np.float32))


@pytest.mark.parametrize("bits", trellis.WIDTHS)
@pytest.mark.parametrize("kind", [flatbuffer.INT8, flatbuffer.UINT8])
def test_the_ops_decode_exactly(bits: float, kind: int) -> None:
    filters = [
        random_filter((6, 3, 3, 16), bits, 0),
        random_filter((6, 1, 1, 32), bits, 1),
        random_filter((4, 16), bits, 2),
        random_filter((6, 1, 1, 16), bits, 3),
        random_filter((1, 1, 5, 16), bits, 4),
    ]
    for found, filter in zip(decoded(filters, kind), filters, strict=True):
        np.testing.assert_array_equal(found.view(np.int8), filter.levels())


def test_large_filters_are_decoded_in_groups() -> None:
    """No group has more weights than the limit; filters come out in their own order."""
    filters = [random_filter((64, 3, 3, 400), 2, seed) for seed in range(5)]
    for found, filter in zip(decoded(filters, flatbuffer.INT8), filters, strict=True):
        np.testing.assert_array_equal(found, filter.levels())


def network(negative: bool) -> Any:
    bn = norm(negative)
    features = layers.Input((None, 16))
    x = layers.Reshape((16, -1, 1))(layers.Permute((2, 1))(features))
    x = layers.ReLU()(bn(layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)))
    y = layers.ReLU()(bn(layers.Conv2D(32, 3, padding="same", use_bias=False, name="one")(x)))
    y = layers.ReLU()(bn(layers.Conv2D(32, 1, use_bias=False, name="two")(y)))
    y = layers.Conv2D(32, 1, name="three")(y)
    x = layers.GlobalAveragePooling2D()(y)
    return keras.Model(features, layers.Dense(16, name="seg")(x))


def mixed(model: Any, bits: float) -> dict[str, Book]:
    """Trellis codes in all layers whose inputs fill bytes, k-means in the first."""
    books: dict[str, Book] = dict(quantized(model, [4]))
    for name in ("one", "two", "three", "seg"):
        kernel = model.get_layer(name).kernel
        books[name] = codebook_of(kernel.numpy(), bits)
        kernel.assign(books[name].decode())
    return books


@pytest.mark.slow
@pytest.mark.parametrize(
    ("negative", "bits"), zip(itertools.cycle((False, True)), trellis.WIDTHS, strict=False)
)
def test_both_signatures_equal_keras(tmp_path: Path, bits: float, negative: bool) -> None:
    model = network(negative)
    check(tmp_path / "model.tflite", model, mixed(model, bits), "float32")


def test_int8_compute_and_ops(tmp_path: Path) -> None:
    model = network(negative=True)
    books = mixed(model, 2)
    check(tmp_path / "model.tflite", model, books, "int8")
    parsed = flatbuffer.read((tmp_path / "model.tflite").read_bytes())
    assert op_names(parsed) <= OPS | ONE_RECORDING_OPS | {"TILE"}


def read_filters(data: bytes) -> list[np.ndarray]:
    """A second reader: the int8 filters of trellis codes, from the format's text alone."""
    model = flatbuffer.read(data)
    graph, found = model.subgraphs[0], []
    producers = {int(o): op for op in graph.operators for o in op.outputs}

    def source(tensor: int, position: int = 0) -> int:
        """Follows an op's input, then first inputs, up to what is stored."""
        while tensor in producers:
            tensor, position = int(producers[tensor].inputs[position]), 0
        return tensor

    def stored(tensor: int, dtype: type) -> np.ndarray:
        entry = graph.tensors[tensor]
        return np.frombuffer(bytes(model.buffers[entry.buffer].data), dtype).reshape(entry.shape)

    for op in graph.operators:
        pieces = [int(output) for output in op.outputs]
        if flatbuffer.op_name(model, op) == "GATHER" and len(graph.tensors[pieces[0]].shape) == 3:
            rows, words = int(op.inputs[0]), int(op.inputs[1])
            codes, table = stored(source(words), np.uint8), stored(source(rows), np.int8)
            word = codes.astype(int) * 256 + np.roll(codes, 1, axis=0)
            step = len(table).bit_length() - 9  # bits from one window to the next
            windows = word[..., None] >> step * np.arange(8 // step) & len(table) - 1
            weights = table[windows].reshape(*codes.shape, -1)
            users = [user for user in graph.operators if user.inputs[0] == pieces[0]]
            sizes = [graph.tensors[int(piece)].shape[1] for piece in users[0].outputs]
            sizes = sizes if flatbuffer.op_name(model, users[0]) == "SPLIT_V" else [len(codes[0])]
            found += np.split(weights, np.cumsum(sizes)[:-1], axis=1)
    return [weights.reshape(len(weights), -1) for weights in found]


@pytest.mark.parametrize("bits", trellis.WIDTHS)
def test_a_second_reader(bits: float) -> None:
    model = network(negative=True)
    books = mixed(model, bits)
    data = convert.build(model, books, "features").data
    found = {weights.tobytes() for weights in read_filters(data)}
    for name in ("one", "two", "three", "seg"):
        assert trellis.as_matrix(books[name].levels()).tobytes() in found, name
