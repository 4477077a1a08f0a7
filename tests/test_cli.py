"""The command line as people use it: the whole way on a small corpus."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tfq_sv
from tfq_sv import cli
from tfq_sv.cli.common import fingerprint
from tfq_sv.export import read_about
from tfq_sv.features import FbankOptions


def test_training_says_what_reading_changes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", f"--model={made}/small.tflite", f"--corpus={made}/own"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "18 utterances of 6 speakers" in said
    assert "6 files: 2 channels mixed down" in said
    assert "6 files: resampled from 44100 Hz" in said
    assert "pairs drawn from" in said
    assert re.search(r"EER\s+\d+\.\d{3} %  \(95 %: \d+\.\d{3} to \d+\.\d{3}\)", said)
    assert not list(made.glob("*.state"))


def test_both_signatures_and_keras_agree(
    made: Path, corpus_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {}
    for name, model, signature in [
        ("keras", "small.keras", "embed"),
        ("embed", "small.tflite", "embed"),
        ("inflate", "small.tflite", "inflate"),
    ]:
        out = made / f"{name}.scores"
        arguments = ["evaluate", f"--model={made / model}", f"--corpus={corpus_dir / 'test'}"]
        assert cli.main([*arguments, f"--signature={signature}", f"--scores_out={out}"]) == 0
        scores[name] = [float(line.split()[2]) for line in out.read_text().splitlines()]
    trials = (corpus_dir / "test" / "trials.txt").read_text().splitlines()
    assert len(scores["keras"]) == len(trials)
    for name in ("embed", "inflate"):
        np.testing.assert_allclose(scores[name], scores["keras"], atol=0.02)


def test_cohort_as_norm_scale_plot_and_kept_embeddings(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, scores, plot = tmp_path / "kept", tmp_path / "scores", tmp_path / "det.png"
    base = ["evaluate", f"--model={made}/small.tflite", f"--corpus={corpus_dir / 'test'}"]
    base.append(f"--embeddings={kept}")
    assert cli.main([*base, f"--scores_out={scores}", "--score_scale=half"]) == 0
    said = capsys.readouterr().out
    assert "0 of 18 embeddings were there" in said
    assert "((cosine + 1) / 2, 0 to 1)" in said
    assert re.search(r"minDCF +\d\.\d{4} +\(p_target 0\.05\)", said)
    half = [float(line.split()[2]) for line in scores.read_text().splitlines()]
    assert cli.main([*base, f"--scores_out={scores}", f"--plot={plot}"]) == 0
    assert "18 of 18 embeddings were there" in capsys.readouterr().out
    plain = [float(line.split()[2]) for line in scores.read_text().splitlines()]
    np.testing.assert_allclose(half, (np.array(plain) + 1) / 2, atol=2e-5)
    found = {}
    for scale in ("cosine", "half"):
        flags = [f"--score_scale={scale}", f"--det_out={tmp_path / scale}", "--json"]
        assert cli.main([*base, *flags]) == 0
        found[scale] = json.loads(capsys.readouterr().out)
    assert found["half"]["threshold"] == pytest.approx((found["cosine"]["threshold"] + 1) / 2)
    assert found["half"]["eer"] == found["cosine"]["eer"]
    first, second = (np.loadtxt(tmp_path / scale)[:-1, 0] for scale in ("cosine", "half"))
    np.testing.assert_allclose(second, (first + 1) / 2, atol=1e-6)
    assert plot.read_bytes().startswith(b"\x89PNG")
    cohort = [*base, f"--cohort={corpus_dir / 'train'}"]
    assert cli.main([*cohort, "--as_norm", f"--scores_out={scores}"]) == 0
    said = capsys.readouterr().out
    assert "AS-norm, top 6 of 6; mean of 18 cohort embeddings subtracted" in said
    assert "of the cohort's" not in said
    assert all(len(line.split()) == 8 for line in scores.read_text().splitlines())
    assert cli.main(cohort) == 0
    said = capsys.readouterr().out
    assert "scores  cosine, -1 to 1; mean of 18 cohort embeddings subtracted" in said
    assert "18 of 18 embeddings were there" in said
    assert cli.main([*base, f"--cohort={corpus_dir / 'test'}"]) == 0
    assert "18 of the cohort's 18 recordings are among the tested ones" in capsys.readouterr().out


def test_a_list_of_trials_is_not_overwritten_by_names_of_embeddings(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it is noticed before anything is embedded."""
    (tmp_path / "trials.txt").write_text("1 a b\n")
    out, corpus = f"--out={tmp_path}/trials.npy", f"--corpus={corpus_dir / 'test'}"
    assert cli.main(["embed", f"--model={made}/none.tflite", corpus, out]) == 1
    assert "trials.txt would be overwritten" in capsys.readouterr().err


def test_embeddings_of_another_front_end_are_not_used_again(tmp_path: Path) -> None:
    """A checkpoint's is in config.yaml, and --model names the weights alone."""
    (tmp_path / "avg_model.pt").touch()
    names = {
        fingerprint(str(tmp_path / "avg_model.pt"), SimpleNamespace(fbank=options))  # type: ignore[arg-type]
        for options in (FbankOptions(), FbankOptions(), FbankOptions(num_bins=64))
    }
    assert len(names) == 2


def test_embed_in_shards_and_files(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, corpus = f"--model={made}/small.tflite", f"--corpus={corpus_dir / 'test'}"
    kept, matrix = tmp_path / "kept", tmp_path / "x.npy"
    for shard in ("1/2", "2/2"):
        assert cli.main(["embed", model, corpus, f"--out={kept}", f"--shard={shard}"]) == 0
    assert "9 embeddings, share 2 of 2" in capsys.readouterr().out
    assert cli.main(["evaluate", model, corpus, f"--embeddings={kept}"]) == 0
    said = capsys.readouterr().out
    assert "18 of 18 embeddings were there" in said
    whole = tmp_path / "all.scp"
    whole.write_text("".join(path.read_text() for path in kept.glob("*.scp")))
    assert cli.main(["embed", model, corpus, f"--out={matrix}"]) == 0
    for file in (whole, matrix):
        capsys.readouterr()
        assert cli.main(["evaluate", corpus, f"--embeddings={file}"]) == 0
        again = capsys.readouterr().out
        assert re.findall(r"EER .*", again) == re.findall(r"EER .*", said)
    shutil.copy(made / "small.tflite", tmp_path / "model.tflite")
    store = ["evaluate", f"--model={tmp_path}/model.tflite", corpus, f"--embeddings={kept}"]
    for _ in range(2):  # storing thresholds does not make it another network
        assert cli.main([*store, "--store"]) == 0
        assert "18 of 18 embeddings were there" in capsys.readouterr().out


def test_suffixes_may_be_upper_case(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copy(made / "small.tflite", tmp_path / "M.TFLITE")
    wav = str(next((made / "own").rglob("*.wav")))
    assert cli.main(["info", str(model)]) == 0
    assert cli.main(["verify", str(model), wav, wav]) == 0
    assert cli.main(["evaluate", f"--model={model}", f"--corpus={made}/own", "--store"]) == 0
    assert "stored the thresholds" in capsys.readouterr().out


def test_verify_needs_a_threshold_and_then_decides(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.tflite"
    shutil.copy(made / "small.tflite", file)
    first = next((made / "own").rglob("*.wav"))
    assert cli.main(["verify", str(file), str(first), str(first)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"score +1\.0000", said)
    assert f"warning: the same recording as {first}" in said
    assert "tfq-sv evaluate --store" in said
    store = ["evaluate", f"--model={file}", f"--corpus={corpus_dir / 'test'}", "--store"]
    assert cli.main(store) == 0
    about = read_about(file)
    assert about["trials"]["target"] == 18
    assert about["thresholds"]["far_1e-3"]["threshold"] is None  # too few trials to say
    capsys.readouterr()
    assert cli.main(["verify", str(file), str(first), str(first)]) == 0
    said = capsys.readouterr().out
    assert f"threshold  {about['thresholds']['eer']['threshold']:.4f}" in said
    assert "decision   same speaker" in said
    assert cli.main(["verify", "--threshold=1.1", str(file), str(first), str(first)]) == 0
    assert "decision   different speakers" in capsys.readouterr().out


def test_inflate(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, fast = made / "small.tflite", tmp_path / "new" / "fast.tflite"
    assert cli.main(["inflate", f"--model={small}", f"--out={fast}"]) == 0
    assert f"wrote {fast}: {fast.stat().st_size:,} bytes" in capsys.readouterr().out
    about = read_about(fast)
    assert about.pop("form") == "int8"
    assert about == read_about(small)  # thresholds too
    assert cli.main(["info", f"--model={fast}"]) == 0
    assert '"form": "int8"' in capsys.readouterr().out
    recording = str(next((made / "own").rglob("*.wav")))
    answers = []
    for model in (small, fast):
        assert cli.main(["verify", str(model), recording, recording, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert cli.main(["inflate", f"--model={fast}", f"--out={tmp_path}/again.tflite"]) == 1
    assert "is inflated already, to int8" in capsys.readouterr().err
    assert cli.main(["inflate", f"--model={small}", f"--out={fast}", "--form=static-int8"]) == 1
    assert "needs speech; give --calibrate" in capsys.readouterr().err
    assert cli.main(["inflate", f"--model={small}", f"--out={fast}", "--calibrate=x"]) == 1
    assert "takes no speech" in capsys.readouterr().err


def test_evaluate_beside_keras(
    made: Path, corpus_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["evaluate", f"--model={made}/small.tflite", f"--corpus={corpus_dir / 'test'}"]
    assert cli.main([*base, f"--reference={made}/small.keras"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^Keras +\d+\.\d{3}", said, re.MULTILINE)
    assert re.search(r"^\.tflite, embed .* 0\.999\d{3}", said, re.MULTILINE)
    assert re.search(r"^\.tflite, inflate .* 0\.999\d{3}", said, re.MULTILINE)


@pytest.mark.slow
def test_benchmark(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", f"--model={made}/model.keras", "--bits=2", "--rounds=1"]
    recipe = [f"--recipe={made}/recipe.json", f"--out={tmp_path}/forms"]
    assert cli.main([*arguments, *recipe]) == 0
    said = capsys.readouterr().out
    for form in ("float32", "full int8", "2 bit, embed", "2 bit, inflated", "recipe.json, embed"):
        assert re.search(rf"^{re.escape(form)} +\d+\.\d\d ", said, re.MULTILINE), form
    assert (tmp_path / "forms" / "2-bit-embed.tflite").exists()


@pytest.mark.slow
def test_fine_tuning_and_recipes(
    made: Path, musan: Path, rirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = json.loads((made / "recipe.json").read_text())
    recipe["layers"]["conv1"]["bits"] = 8
    (made / "edited.json").write_text(json.dumps(recipe))
    mixed, tuned = made / "mixed.keras", made / "tuned.keras"
    assert (
        cli.main(
            ["quantize", f"--model={made}/model.keras", f"--recipe={made}/edited.json",
             f"--out={mixed}"]
        )
        == 0
    )  # fmt: skip
    assert re.search(r"conv1 +36 +8 ", capsys.readouterr().out)
    tune = ["finetune", f"--model={mixed}", f"--teacher={made}/model.keras",
            f"--corpus={made}/own", f"--out={tuned}", "--steps=2", "--batch_size=4",
            "--seconds=0.5", "--json"]  # fmt: skip
    losses = []
    for added in ([], [f"--musan={musan}", f"--rirs={rirs}", "--aug_prob=1"]):
        assert cli.main([*tune, *added]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses[0] != losses[1]
    assert cli.main(["export", f"--model={tuned}", f"--out={made}/tuned.tflite"]) == 0


@pytest.mark.slow
def test_calibration_and_labels(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["quantize", f"--model={made}/model.keras", "--bits=2", "--minutes=0.1"]
    arguments += [f"--calibrate={made}/own", f"--out={made}/calibrated.keras", "--json"]
    assert cli.main(arguments) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert all(5 < layer["sqnr_db"] < 60 for layer in layers.values())
    plain = tfq_sv.load_model(made / "model.keras")
    rounded = tfq_sv.quantize(plain, tfq_sv.QuantizationRecipe.uniform(plain, 2), calibrate=False)
    books = tfq_sv.codebooks(tfq_sv.load_model(made / "calibrated.keras"))
    for name, book in tfq_sv.codebooks(rounded).items():
        assert np.any(books[name].codes != book.codes)
    # Without speech, as `calibrate` without speech.
    arguments = ["quantize", f"--model={made}/model.keras", "--bits=2"]
    assert cli.main([*arguments, f"--out={made}/unseen.keras"]) == 0
    tfq_sv.calibrate(rounded, progress=False)
    unseen = tfq_sv.codebooks(tfq_sv.load_model(made / "unseen.keras"))
    for name, book in tfq_sv.codebooks(rounded).items():
        np.testing.assert_array_equal(unseen[name].codes, book.codes)
        assert np.any(unseen[name].codes != books[name].codes)
    arguments = ["finetune", f"--model={made}/calibrated.keras", f"--teacher={made}/model.keras"]
    arguments += [f"--corpus={made}/own", f"--out={made}/labels.keras", "--loss=aam", "--steps=2"]
    assert cli.main([*arguments, "--batch_size=4", "--seconds=0.5"]) == 0
    assert "mean AAM-softmax loss" in capsys.readouterr().out
    assert cli.main([*arguments, f"--model={made}/model.keras"]) == 1
    assert "is not quantized" in capsys.readouterr().err
    assert cli.main([*arguments, f"--recipe={made}/recipe.json"]) == 1
    assert "leave --loss=aam out" in capsys.readouterr().err


def test_one_bit(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["quantize", f"--model={made}/model.keras", "--binary=static"]
    assert cli.main([*arguments, f"--out={made}/static.keras"]) == 0
    assert re.search(r"conv1 +36 +1 ", capsys.readouterr().out)
    assert cli.main(["export", f"--model={made}/static.keras", f"--out={made}/static.tflite"]) == 0
    arguments += [f"--recipe={made}/recipe.json", f"--out={made}/both.keras"]
    assert cli.main(arguments) == 1
    assert "--recipe and --binary exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"tfq-sv {command}" in said.split("example:")[1]
    assert "flags:" in said


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in cli.COMMANDS)


@pytest.mark.slow
def test_verify_starts_without_tensorflow(made: Path, corpus_dir: Path) -> None:
    wav = str(next((corpus_dir / "test").rglob("*.wav")))
    script = (
        "import sys; from tfq_sv import cli; "
        f"code = cli.main(['verify', {str(made / 'small.tflite')!r}, {wav!r}, {wav!r}]); "
        "assert code == 0; assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'; "
        "assert 'librosa' not in sys.modules, 'librosa was imported'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.slow
def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, tfq_sv, tfq_sv.export, tfq_sv.features, tfq_sv.metrics, tfq_sv.data.corpus, "
        "tfq_sv.evaluation.scoring, tfq_sv.export.encoder; "
        "heavy = {'tensorflow', 'librosa', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
