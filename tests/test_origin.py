"""Where networks are from: through import, training, quantization and export, and what is said."""

import datetime
import json
from pathlib import Path

import pytest
import tf_keras as keras
from conftest import slow
from train_small import small

import tfq_sv
from tfq_sv import assets, cli, models, origin
from tfq_sv.export import export_tflite, fast_file, read_about, write_about
from tfq_sv.origin import SYNTHETIC, Origin, speech_of
from tfq_sv.verification.decision import find_threshold

KNOWN = Origin("Somebody's, commit 1f", "CC-BY-4.0", "VoxCeleb2")


@pytest.mark.parametrize("form", ["a.keras", *slow("a.h5", "a")])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_it_travels_with_the_network(form: str, tmp_path: Path) -> None:
    network = small()
    assert models.origin_of(network) == Origin()
    assert "origin" not in network.get_layer(index=1).get_config()
    models.set_origin(network, KNOWN)
    network.save(tmp_path / form)
    loaded = tfq_sv.load_model(tmp_path / form)
    recipe = tfq_sv.QuantizationRecipe.uniform(loaded, 4)
    quantized = tfq_sv.quantize(loaded, recipe, calibrate=False)
    for model in (loaded, quantized, tfq_sv.dequantize(quantized)):
        assert models.origin_of(model) == KNOWN
    path = tmp_path / "small.tflite"
    export_tflite(quantized, path)
    assert read_about(path)["origin"] == KNOWN.fields()
    (tmp_path / "fast.tflite").write_bytes(fast_file(path))
    assert read_about(tmp_path / "fast.tflite")["origin"] == KNOWN.fields()


def test_networks_without_a_front_end_have_none() -> None:
    network = keras.Sequential([keras.layers.Dense(3, input_shape=(4,))])
    models.set_origin(network, KNOWN)
    assert models.origin_of(network) == Origin()


@pytest.mark.slow
def test_shipped_networks_say_what_they_have_heard() -> None:
    for name in assets.NAMES:
        found = models.origin_of(assets.load(name))
        assert found == Origin(f"tfq-sv, {name}", "Apache-2.0", assets.SPEECH[name])


def test_speech(corpus_dir: Path, tmp_path: Path) -> None:
    assert speech_of(corpus_dir) == speech_of(corpus_dir / "train") == SYNTHETIC
    assert speech_of(corpus_dir / "test" / "wav") == SYNTHETIC
    (tmp_path / "own").mkdir()
    assert speech_of(tmp_path / "own") == "own"
    for text in ("{", "[]", '{"what": 3}'):
        (tmp_path / "own" / "corpus.json").write_text(text)
        assert speech_of(tmp_path / "own") == "own"


@pytest.mark.parametrize("fields", [None, 3, "x", {"speech": 3}, {"other": "x"}])
def test_foreign_metadata_is_nothing(fields: object) -> None:
    assert Origin.of(fields) == Origin()
    assert not origin.threshold_warning({"trials": fields})


def test_what_verify_and_info_say(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, recording = tmp_path / "a.tflite", str(next((made / "own").rglob("*.wav")))
    path.write_bytes((made / "small.tflite").read_bytes())
    # What it was trained on has no mark of make-corpus.
    assert read_about(path)["origin"] == {"speech": "own"}

    def said(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(list(arguments)) == 0
        return capsys.readouterr().out

    verify = ("verify", str(path), recording, recording)
    text = said(*verify)
    assert "warning: the network" not in text
    assert "network    unknown source; licence not stated; speech: own\n" in text
    said("evaluate", f"--model={path}", f"--corpus={corpus_dir}/test", "--store")
    today = datetime.date.today()
    trials = read_about(path)["trials"]
    assert (trials["speech"], trials["date"]) == (SYNTHETIC, today.isoformat())
    text = said(*verify)
    assert f"trials of trials.txt, {SYNTHETIC}; measured {today}, today)" in text
    assert "warning: the threshold was measured on synthetic speech" in text
    assert "warning: the threshold" not in said(*verify, "--threshold=0.5")
    about = read_about(path)
    far = {"threshold": 0.9}
    write_about(path, thresholds={**about["thresholds"], "far_1e-2": far})
    text = said(*verify, "--operating_point=far_1e-2")
    rate = 100 * about["thresholds"]["eer"]["eer"]
    assert f"(stored, at FAR 1e-2 on 54 trials of trials.txt, {SYNTHETIC}, whose EER is" in text
    assert f"whose EER is {rate:.2f} %; measured {today}, today)" in text
    old = (today - datetime.timedelta(days=400)).isoformat()
    write_about(path, origin={"speech": SYNTHETIC}, trials={**trials, "date": old})
    text = said(*verify)
    assert f"measured {old}, 400 days ago)" in text
    assert "warning: the network has only heard synthetic speech" in text
    warned = json.loads(said(*verify, "--json"))["warnings"][str(path)]
    assert "only heard synthetic speech" in warned
    assert "warning: the network has only heard" in said("info", f"--model={path}")


@pytest.mark.parametrize("source", ["72 pairs of test (seed 0)", "72 pairs drawn from test"])
def test_drawn_pairs_are_counted_once(source: str) -> None:
    trials = {"source": source, "target": 36, "nontarget": 36}
    about = {"thresholds": {"eer": {"threshold": 0.4, "eer": 0.1}}, "trials": trials}
    said = find_threshold(about, "eer", "a.tflite").source
    assert said == f"stored, at the EER of 10.00 % on {source}"


def test_info_of_a_shipped_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--model=resnet18-small"]) == 0
    text = capsys.readouterr().out
    assert f"From tfq-sv, resnet18-small; licence Apache-2.0; speech: {SYNTHETIC}." in text
    assert "warning: the network has only heard synthetic speech" in text
