import functools
import gzip
import html
import io
import json
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfq_sv
from tfq_sv import assets, cli
from tfq_sv.assets import __main__ as shipping
from tfq_sv.cli import demo
from tfq_sv.data import audio
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.synthetic import CorpusSpec
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.evaluation.extraction import Extraction
from tfq_sv.evaluation.measurement import Evaluation, KerasEncoder, evaluate
from tfq_sv.evaluation.scoring import cosine, cosine_scores
from tfq_sv.export import SpeakerEncoder
from tfq_sv.features import fbank
from tfq_sv.metrics import eer
from tfq_sv.origin import SYNTHETIC
from tfq_sv.quantization import calibration
from tfq_sv.reports.comparison import size_table


def test_the_keras_encoder_is_front_end_and_model(
    network: keras.Model, test_corpus: Corpus
) -> None:
    samples = audio.read(next(iter(test_corpus.paths.values()))).samples
    for length in (8000, 16000, 24000):
        expected = network(fbank(samples[:length])[None])[0]
        embedded = KerasEncoder(network).embed(samples[:length])
        np.testing.assert_allclose(embedded, expected, rtol=1e-3, atol=1e-4)


def test_autograph_can_read_the_keras_encoder(network: keras.Model) -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    tf.get_logger().addHandler(handler)
    try:
        KerasEncoder(network).embed(np.ones(8000, np.float32))
    finally:
        tf.get_logger().removeHandler(handler)
    assert not [x.getMessage() for x in said if "AutoGraph" in x.getMessage()]


@pytest.mark.slow
@pytest.mark.parametrize("name", assets.NAMES)
def test_shipped_networks_tell_unheard_voices_apart(name: str, test_corpus: Corpus) -> None:
    trials = Trials.read(test_corpus.root / "trials.txt", test_corpus)
    result = evaluate(KerasEncoder(assets.load(name)), test_corpus, trials)
    # On a few synthetic voices and 1.5 s of speech; chance is 0.5.
    assert result.eer < (0.15 if assets.SPEECH[name] == SYNTHETIC else 0.3)
    assert result.interval[0] <= result.eer <= result.interval[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", assets.FILES)
def test_shipped_files_embed_as_their_networks_do(name: str, test_corpus: Corpus) -> None:
    samples = audio.read(next(iter(test_corpus.paths.values()))).samples
    network = KerasEncoder(assets.load(name.removesuffix(".tflite")))
    encoder = SpeakerEncoder(assets.file(name))
    assert cosine(encoder.embed(samples), network.embed(samples)) > 0.95
    assert 0 < encoder.threshold < 1


def test_the_demo_is_of_a_network_that_knows_its_speech() -> None:
    assert assets.SPEECH[demo.FLAGS["network"].default] == SYNTHETIC


def test_shipped_networks_are_small() -> None:
    for name in assets.NAMES:
        assert (Path(assets.__file__).parent / f"{name}.h5.gz").stat().st_size <= 2_000_000


def test_a_shipped_network_has_as_many_bits_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras.Sequential([keras.layers.Dense(64, input_shape=(64,), name="dense")])
    model.save(tmp_path / "model.keras")
    sizes = []
    for bits in (10, 9):
        shipping.pack(str(tmp_path / "model.keras"), str(tmp_path / "small.h5.gz"))
        packed = (tmp_path / "small.h5.gz").read_bytes()
        sizes.append(len(packed))
        with h5py.File(io.BytesIO(gzip.decompress(packed))) as file:
            kernel = file["model_weights/dense/dense/kernel:0"][()].astype(np.float32)
        exact = model.get_weights()[0]
        error = np.abs(kernel / exact - 1)[np.abs(exact) > 0.01].max()
        assert 2.0 ** -(bits + 1) < error < 2.0 ** -(bits - 1)
        monkeypatch.setattr(shipping, "LIMIT", len(packed) - 1)
    assert sizes[1] < sizes[0]
    monkeypatch.setattr(shipping, "LIMIT", 100)
    with pytest.raises(InputError, match=r"takes [\d,]+ bytes; a shipped one, 100"):
        shipping.pack(str(tmp_path / "model.keras"), str(tmp_path / "none.h5.gz"))
    assert not (tmp_path / "none.h5.gz").exists()


def test_shipped_networks_open_in_old_versions_too() -> None:
    """tf_keras 2.16 refuses an input layer that says whether it is optional."""
    for name in assets.NAMES:
        packed = (Path(assets.__file__).parent / f"{name}.h5.gz").read_bytes()
        with h5py.File(io.BytesIO(gzip.decompress(packed))) as file:
            config = json.loads(file.attrs["model_config"])
        inputs = [x for x in config["config"]["layers"] if x["class_name"] == "InputLayer"]
        assert [("optional" in layer["config"]) for layer in inputs] == [False]


def test_unknown_shipped_network() -> None:
    with pytest.raises(tfq_sv.InputError, match="there are resnet18-real"):
        assets.load("resnet")


def test_thresholds_need_enough_trials() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(3000) < 1000
    trials = Trials(["a"] * 3000, ["b"] * 3000, labels, "made up")
    scores = rng.normal(np.where(labels, 0.6, 0.0), 0.15)
    kept = Evaluation(0.02, (0.01, 0.03), 0.3, 0.4, scores, trials).thresholds()
    assert json.loads(json.dumps(kept))["trials"] == {
        "source": "made up",
        "target": 1000,
        "nontarget": 2000,
    }
    far = kept["thresholds"]["far_1e-2"]["threshold"]
    assert np.mean(scores[~labels] >= far) <= 0.01
    assert kept["thresholds"]["far_1e-3"]["threshold"] is None


@pytest.mark.slow
def test_the_demo_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With less speech, and less noise in its place."""

    def fewer(*, speakers: int, utterances: int, test_speakers: int) -> CorpusSpec:
        return CorpusSpec(speakers // 6, test_speakers, utterances // 2, 6, seconds=2.0)

    monkeypatch.setattr(demo, "CorpusSpec", fewer)
    monkeypatch.setattr(demo, "batches", functools.partial(batches, seconds=0.5))
    monkeypatch.setattr(calibration, "_NOISE_CHUNKS", 3)
    assert cli.main(["demo", f"--out={tmp_path}", "--test_speakers=5", "--steps=2"]) == 0
    said = capsys.readouterr().out
    assert "5 unseen speakers, 225 trials; not VoxCeleb" in said
    results = json.loads((tmp_path / "results.json").read_text())
    names = [row["system"] for row in results["systems"]]
    assert names[0] == "FP32, Keras"
    assert names[1:] == [f"{x}, .tflite" for x in ("4-bit", "mixed, tuned", "1-bit, tuned")]
    sizes = results["bytes"]
    assert list(sizes) == ["float32 .tflite", *names[1:]]
    assert sizes["float32 .tflite"] > 6 * sizes["4-bit, .tflite"]
    assert sorted(sizes.values(), reverse=True) == list(sizes.values())
    low, high = results["systems"][1]["difference"]
    assert low <= 0 <= high
    page = (tmp_path / "report.html").read_text()
    assert results["summary"] in said
    assert html.escape(results["summary"]) in page
    assert page.count("data:image/png;base64,") == 4
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    command = next(line for line in said.splitlines() if line.startswith("try"))
    assert cli.main(command.split()[2:]) == 0
    assert "decision   same speaker" in capsys.readouterr().out


def test_tables_align() -> None:
    text = size_table({"float": 1000, "small one": 125})
    assert text.splitlines() == [
        "file       bytes  smaller",
        "---------  -----  -------",
        "float      1,000    1.00x",
        "small one    125    8.00x",
    ]


def test_stored_thresholds_of_enrolments_are_those_of_single_recordings() -> None:
    """Where the cosine among enrolled recordings is the typical one, exactly."""
    models = {"one": ["a"], "three": ["a", "b", "c"]}
    # Five times over: fewer than ten trials of a kind are not stored.
    enroll, test = ["one"] * 20 + ["three"] * 20, list("wxyz") * 10
    labels = np.array([1, 1, 0, 0] * 10, bool)
    cosines = np.array([0.88, 0.5, 0.4, 0.1])
    single = np.tile(cosines, 5)
    # Three vectors whose cosines are 0.7 among each other, and four, each as near to all three.
    basis = np.linalg.cholesky(np.full((3, 3), 0.7) + 0.3 * np.eye(3))
    mean = basis.mean(axis=0)
    along = cosines / np.linalg.norm(mean)
    tested = np.column_stack([along[:, None] * mean / np.linalg.norm(mean), np.sqrt(1 - along**2)])
    lengths = np.array([[1.0], [5.0], [0.2]])  # which count for nothing
    matrix = np.concatenate([np.column_stack([basis, np.zeros(3)]) * lengths, tested])
    extraction = Extraction(Embeddings(list("abcwxyz"), matrix.astype(np.float32)))
    trials = Trials(enroll, test, labels, "made", models)
    scores = cosine_scores(extraction.embeddings, trials)
    result = Evaluation(0.0, (0.0, 0.1), 9.0, 0.0, scores, trials, extraction)
    found = result.thresholds()["thresholds"]
    plain = Trials(list("a" * 20), list("wxyz") * 5, labels[:20], "made")
    assert Evaluation(0.0, None, 0.45, 0.0, single, plain).thresholds()["thresholds"]["eer"][
        "threshold"
    ] == pytest.approx(0.45)
    assert found["eer"]["threshold"] == pytest.approx(0.45)
    assert found["eer"]["eer"] == pytest.approx(eer(np.tile(single, 2), labels)[0])  # of it
    assert found["eer"]["interval"] is None
