import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from train_small import small

import tfq_sv
from tfq_sv.data.chunks import Batches, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.features import fbank_tensor
from tfq_sv.quantization.quantized_model import quantizers_of
from tfq_sv.quantization.recipe import LayerRecipe
from tfq_sv.training.fine_tuning import FineTuningOptions, UpdateCodebooks, speaker_head


def distance(model: keras.Model, teacher: keras.Model, features: np.ndarray) -> float:
    a, b = (m(features).numpy() for m in (model, teacher))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return float(1 - np.mean(np.sum(a * b, axis=1)))


@pytest.mark.slow
def test_fine_tuning_brings_two_bits_back_to_the_teacher(
    resnet18: keras.Model, train_corpus: Corpus
) -> None:
    quantized = tfq_sv.quantize(
        resnet18, tfq_sv.QuantizationRecipe.uniform(resnet18, bits=2), calibrate=False
    )
    before = {name: book.centroids for name, book in tfq_sv.codebooks(quantized).items()}
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    options = FineTuningOptions(steps=30, update_every=5)
    tfq_sv.finetune(quantized, dataset, teacher=resnet18, options=options, progress=False)
    features = fbank_tensor(dataset[0][0])
    fresh = tfq_sv.quantize(
        resnet18, tfq_sv.QuantizationRecipe.uniform(resnet18, bits=2), calibrate=False
    )
    assert distance(quantized, resnet18, features) < 0.7 * distance(fresh, resnet18, features)
    books = tfq_sv.codebooks(quantized)
    assert any(np.abs(books[name].centroids - before[name]).max() > 0 for name in books)
    for book in books.values():
        scale, levels = book.grid()
        np.testing.assert_allclose(np.float32(scale) * levels, book.centroids, rtol=1e-6)


@pytest.mark.parametrize("kind", ["adaptive", pytest.param("static", marks=pytest.mark.slow)])
def test_fine_tuning_brings_one_bit_nearer_to_the_teacher(
    kind: str, network: keras.Model, train_corpus: Corpus
) -> None:
    recipe = tfq_sv.QuantizationRecipe.binary(network, kind)
    quantized, fresh = (tfq_sv.quantize(network, recipe, calibrate=False) for _ in range(2))
    stream = batches(train_corpus, batch_size=8, seconds=0.5)
    dataset = [next(stream) for _ in range(6)]
    options = FineTuningOptions(steps=30, update_every=5)
    tfq_sv.finetune(quantized, dataset, teacher=network, options=options, progress=False)
    features = fbank_tensor(dataset[0][0])
    assert distance(quantized, network, features) < 0.7 * distance(fresh, network, features)
    before = tfq_sv.codebooks(fresh)
    moved = [
        np.any(book.centroids != before[name].centroids)
        for name, book in tfq_sv.codebooks(quantized).items()
    ]
    assert all(moved) if kind == "adaptive" else not any(moved)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_fine_tuning_in_sixteen_bits(precision: str) -> None:
    keras.utils.set_random_seed(0)
    network = small()
    rng = np.random.default_rng(0)
    dataset = [rng.normal(size=(4, 40, 80)).astype(np.float32) for _ in range(3)]
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=2)
    losses, distances = {}, {}
    for kind in ("fp32", precision):
        quantized = tfq_sv.quantize(network, recipe, calibrate=False)
        options = FineTuningOptions(steps=40, learning_rate=1e-2, precision=kind)
        losses[kind] = tfq_sv.finetune(
            quantized, dataset, teacher=network, options=options, progress=False
        )
        distances[kind] = distance(quantized, network, dataset[0])
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.1)
    assert losses[precision] != losses["fp32"]
    assert not {weight.dtype for weight in quantized.weights} & {tf.float16, tf.bfloat16}
    assert quantized(dataset[0]).dtype == tf.float32
    assert distances[precision] == pytest.approx(distances["fp32"], rel=0.1)
    with pytest.raises(InputError, match="precision must be one of"):
        FineTuningOptions(precision="fp8")


def test_fine_tuning_refuses_what_cannot_work(network: keras.Model, train_corpus: Corpus) -> None:
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network), calibrate=False
    )
    with pytest.raises(InputError, match="give one of them"):
        tfq_sv.finetune(quantized, [])
    head = speaker_head(network, [(np.zeros([2, 30, 80], np.float32), [0, 1])], 2)
    with pytest.raises(InputError, match="give one of them"):
        tfq_sv.finetune(quantized, [], teacher=network, head=head)
    with pytest.raises(InputError, match="a head needs labels"):
        tfq_sv.finetune(quantized, [np.zeros([2, 30, 80])], head=head, progress=False)
    dataset = [(np.zeros([2, 30, 80]), [0, 2])]
    with pytest.raises(InputError, match="outside 0 to 1"):
        tfq_sv.finetune(quantized, dataset, head=head, progress=False)
    with pytest.raises(InputError, match="1 of 3 speakers have no speech"):
        speaker_head(network, [(np.ones([2, 30, 80], np.float32), [0, 2])], 3)
    endless = batches(train_corpus, batch_size=2)
    with pytest.raises(InputError, match="the dataset for the head never ends"):
        speaker_head(network, endless, 2)
    with pytest.raises(InputError, match="fine-tuning ended after 0 batches; give some"):
        tfq_sv.finetune(quantized, [], teacher=network, progress=False)
    other = tfq_sv.models.build("ResNet18", embed_dim=8, channels=16)
    with pytest.raises(InputError, match="they must be alike"):
        tfq_sv.finetune(quantized, [], teacher=other)
    with pytest.raises(InputError, match="learning_rate must be positive, not nan"):
        FineTuningOptions(learning_rate=math.nan)
    with pytest.raises(InputError, match="freeze_fraction must be a share"):
        FineTuningOptions(freeze_fraction=2)
    with pytest.raises(InputError, match="must not be negative"):
        FineTuningOptions(batch_norm_batches=-1)
    codebooks = UpdateCodebooks()
    codebooks.set_params({"epochs": 1, "steps": None})
    with pytest.raises(InputError, match="steps_per_epoch"):
        codebooks.on_train_begin()


@pytest.mark.slow
def test_states_of_other_runs_are_not_resumed(tmp_path: Path) -> None:
    model, other, data = plain_network(0), plain_network(1), speech()
    options = FineTuningOptions(steps=2, batch_norm_batches=0)

    def tune(network: keras.Model, *, calibrated: bool = False, **more: Any) -> float:
        small = tfq_sv.quantize(
            network, tfq_sv.QuantizationRecipe.uniform(network, 2), calibrate=False
        )
        if calibrated:
            tfq_sv.calibrate(small, data, progress=False)
        learned = {"teacher": network, "options": options} | more
        return tfq_sv.finetune(small, data, checkpoint_dir=tmp_path, progress=False, **learned)

    slower = replace(options, learning_rate=1e-4)
    with pytest.raises(InputError, match="ended after 0 batches"):
        tfq_sv.finetune(
            tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, 2), calibrate=False),
            [], teacher=model, options=slower, checkpoint_dir=tmp_path, progress=False,
        )  # fmt: skip
    loss = tune(model)  # what failed has left nothing to go on from
    assert tune(model) == loss  # all is done, and the mean is kept
    with pytest.raises(InputError, match=r"learning_rate 0\.0005, not 0\.0001"):
        tune(model, options=slower)
    with pytest.raises(InputError, match="holds a run with teacher "):
        tune(other)
    with pytest.raises(InputError, match="holds a run with another calibrated"):
        tune(model, calibrated=True)
    head = speaker_head(model, [(batch, np.arange(len(batch)) % 2) for batch in data], 2)
    with pytest.raises(InputError, match="holds a run with teacher "):
        tune(model, teacher=None, head=head)


def plain_network(seed: int) -> keras.Model:
    layers = keras.layers
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            layers.Conv1D(8, 3, input_shape=(None, 8), name="conv"),
            layers.ReLU(),
            layers.GlobalAveragePooling1D(),
            layers.Dense(4, name="dense"),
        ],
        name="plain",
    )


def speech() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(8, 20, 8)).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize(
    ("epochs", "at_once", "moves"),
    [
        ((0, 10), 1, list(range(3, 50, 3))),
        ((2, 10), 1, list(range(21, 50, 3))),  # the moves that the whole run would make
        ((6, 10), 1, []),
        ((0, 10), 5, [5, 10, 15, 20, 25, 30, 35, 40, 45]),
    ],
)
def test_codebooks_freeze_however_fit_counts(
    epochs: tuple[int, int], at_once: int, moves: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = plain_network(0)
    model = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe({"dense": LayerRecipe("kmeans", 2)}), calibrate=False
    )
    model.compile("adam", "mse", steps_per_execution=at_once)
    codebooks, found = UpdateCodebooks(FineTuningOptions(update_every=3, freeze_fraction=0.5)), []
    quantizer = quantizers_of(model)["dense"]
    monkeypatch.setattr(
        quantizer, "update", lambda _: found.append(int(model.optimizer.iterations))
    )
    frames, wanted = np.zeros((40, 20, 8), np.float32), np.ones((40, 4), np.float32)
    first, last = epochs
    model.fit(
        frames, wanted, 4, epochs=last, initial_epoch=first, callbacks=[codebooks], verbose=0
    )  # fmt: skip
    assert [first * 10 + number for number in found] == moves


@pytest.mark.slow
def test_a_resumed_run_does_not_read_what_it_has_behind_it(
    network: keras.Model, tmp_path: Path
) -> None:
    rng, loaded = np.random.default_rng(0), []

    def load(number: int) -> tuple[np.ndarray, np.ndarray]:
        loaded.append(number)
        return np.float32(rng.normal(scale=0.1, size=(2, 4000))), np.zeros(2, np.int32)

    def tune() -> None:
        quantized = tfq_sv.quantize(
            network, tfq_sv.QuantizationRecipe.uniform(network), calibrate=False
        )
        tfq_sv.finetune(
            quantized,
            Batches(load, 0, workers=1),
            teacher=network,
            options=FineTuningOptions(steps=3, batch_norm_batches=1),
            checkpoint_dir=tmp_path,
            progress=False,
        )

    tune()
    assert min(loaded) == 0
    loaded.clear()
    tune()
    assert min(loaded) == 3  # for BatchNorm, as before


@pytest.mark.slow
@pytest.mark.parametrize("calibrated", [False, True])
def test_statistics_that_calibration_chose_stay(network: keras.Model, calibrated: bool) -> None:
    rng = np.random.default_rng(0)
    dataset = [np.float32(rng.normal(scale=0.1, size=(4, 8000))) for _ in range(3)]
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=2)
    quantized = tfq_sv.quantize(network, recipe, calibrate=dataset if calibrated else False)
    before = [variable.numpy() for variable in _statistics(quantized)]
    options = FineTuningOptions(steps=2, batch_norm_batches=1)
    tfq_sv.finetune(quantized, dataset, teacher=network, options=options, progress=False)
    after = [variable.numpy() for variable in _statistics(quantized)]
    unchanged = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert all(unchanged) if calibrated else not any(unchanged)


def _statistics(model: keras.Model) -> list[Any]:
    layers = [getattr(x, "layer", x) for x in model.layers]
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    return [variable for x in norms for variable in (x.moving_mean, x.moving_variance)]


@pytest.mark.slow
def test_labels_teach_too(network: keras.Model, train_corpus: Corpus) -> None:
    quantized = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=2), calibrate=False
    )
    stream = batches(train_corpus, batch_size=18, seconds=0.5)
    dataset = [next(stream) for _ in range(4)]
    speakers = len(train_corpus.speaker_ids)
    head = speaker_head(network, dataset, speakers)
    np.testing.assert_allclose(np.linalg.norm(head.centers, axis=0), 1, rtol=1e-5)
    before = head.centers.numpy()

    def loss() -> float:
        values = [head(quantized(fbank_tensor(x)), labels)[0] for x, labels in dataset]
        return float(np.mean(values))

    tfq_sv.reestimate_batch_norm(quantized, dataset, progress=False)
    start = loss()
    tfq_sv.finetune(
        quantized, dataset, head=head, options=FineTuningOptions(steps=20), progress=False
    )
    assert loss() < 0.8 * start
    assert np.any(head.centers != before)


def test_float_networks_are_the_control(network: keras.Model, train_corpus: Corpus) -> None:
    control = keras.models.clone_model(network)
    control.set_weights(network.get_weights())
    dataset = [next(batches(train_corpus, batch_size=8, seconds=0.5))]
    options = FineTuningOptions(steps=3)
    loss = tfq_sv.finetune(control, dataset, teacher=network, options=options, progress=False)
    assert np.isfinite(loss)
    assert any(
        np.any(a != b) for a, b in zip(control.get_weights(), network.get_weights(), strict=True)
    )


INTERRUPTED = """
import hashlib, sys
import tfq_sv
import numpy as np
import tensorflow as tf
import tf_keras as keras
from tfq_sv.training.fine_tuning import FineTuningOptions
from tfq_sv.training import loop
from train_small import small

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
loop.CHECKPOINT_EVERY = 2
rng = np.random.default_rng(0)
batches = [rng.normal(size=(4, 40, 80)).astype("f4") for _ in range(5)]

def stream(stop):
    for number, batch in enumerate(batches * 2):
        if number == stop:
            raise KeyboardInterrupt
        yield batch

options = FineTuningOptions(steps=8, update_every=2, batch_norm_batches=2)
for folder, stop in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    keras.utils.set_random_seed(0)
    network = small()
    model = tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.binary(network), calibrate=False)
    try:
        tfq_sv.finetune(model, stream(stop) if stop else batches, teacher=network,
                        options=options, checkpoint_dir=folder, progress=False)
    except KeyboardInterrupt:
        print("interrupted")
    else:
        print(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
"""


@pytest.mark.slow
def test_an_interrupted_run_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    def run(*arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.split()

    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    ended, interrupted = run(whole, "0", broken, "5")
    assert len(ended) == 64
    assert interrupted == "interrupted"
    assert run(broken, "0") == [ended]  # in another process
