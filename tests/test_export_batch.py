"""One recording per call: whatever a plain LiteRT user feeds else fails, and is never glued."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from train_small import small

import tfq_sv
from tfq_sv.export import convert, float32, inflate, seal
from tfq_sv.features import FbankOptions
from tfq_sv.models import FrontEnd
from tfq_sv.quantization import quantized_model

RNG = np.random.default_rng(0)


def frames() -> keras.Model:
    """No image, no statistics: dense layers on frames, and a mean, which take any batch."""
    features = keras.Input((None, 80))
    x = keras.layers.Dense(8, activation="relu", name="frame")(features)
    return keras.Model(features, keras.layers.Dense(8)(keras.layers.GlobalAveragePooling1D()(x)))


def mirrored() -> keras.Model:
    """A front end that pads its frames."""
    features = keras.Input((None, 80))
    x = FrontEnd(FbankOptions(snip_edges=False))(features)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    return keras.Model(features, keras.layers.Dense(8)(keras.layers.GlobalAveragePooling2D()(x)))


NETWORKS = {"image": small, "frames": frames, "mirrored": mirrored}
RIGHT = {"waveform": (1, 8000), "features": (1, 48, 80)}
WRONG = {
    "waveform": [(2, 8000), (8000, 1), (8000,), (1, 2, 8000), (2, 1, 8000), (1, 1, 8000),
                 (0, 8000)],
    "features": [(2, 48, 80), (48, 80), (1, 2, 48, 80), (2, 1, 48, 80), (1, 1, 48, 80),
                 (0, 48, 80)],
}  # fmt: skip


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = NETWORKS[request.param]()
    return tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, bits=4), calibrate=False)


def embed(data: bytes, values: np.ndarray, *, delegates: bool) -> Any:
    """As LiteRT's users do: resize, allocate, set, invoke."""
    kind = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kind)
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], values.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(output["index"])


@pytest.mark.parametrize("compute", ["int8", "float32"])
@pytest.mark.parametrize("entry", RIGHT)
def test_one_recording_or_none(
    network: keras.Model, entry: str, compute: str, tmp_path: Path
) -> None:
    books, plain = quantized_model.codebooks(network), quantized_model.dequantize(network)
    path = tmp_path / "small.tflite"
    path.write_bytes(convert.build(plain, books, entry, compute=compute).data)
    files = {
        "embed": path.read_bytes(),
        "inflate": inflate(path),
        "float32": float32.convert(plain, entry),
    }
    for (name, data), delegates in itertools.product(files.items(), (True, False)):
        right = RNG.normal(0, 0.1, RIGHT[entry]).astype(np.float32)
        assert embed(data, right, delegates=delegates).shape == (1, 8), name
        for shape in WRONG[entry]:
            with pytest.raises((RuntimeError, ValueError)):
                embed(data, np.ones(shape, np.float32), delegates=delegates)
        runner = Interpreter(model_content=data).get_signature_runner("embed")
        with pytest.raises((RuntimeError, ValueError)):
            runner(**{entry: np.ones(WRONG[entry][0], np.float32)})
    seal.check(files["embed"], path)
