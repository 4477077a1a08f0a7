"""The command line as people use it: the whole way on a small corpus, and all that can go wrong."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import tfq_sv
from tfq_sv import cli
from tfq_sv.export import read_about


def own_folder(root: Path, corpus_dir: Path) -> Path:
    """Somebody's own recordings: WAV and FLAC, 16 and 44.1 kHz, mono and stereo."""
    import librosa

    for number, path in enumerate(sorted((corpus_dir / "train" / "wav").rglob("*.wav"))):
        samples, rate = soundfile.read(path)
        target = root / path.parts[-3] / f"{path.stem}.{'flac' if number % 2 else 'wav'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if number % 3 == 1:
            samples, rate = librosa.resample(samples, orig_sr=rate, target_sr=44100), 44100
        if number % 3 == 2:
            samples = np.stack([samples, 0.8 * samples], axis=1)
        soundfile.write(target, np.clip(samples, -1, 1), rate)
    return root


@pytest.fixture(scope="module")
def made(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train, quantize and export on an own folder; returns where everything is."""
    root = tmp_path_factory.mktemp("cli")
    own = own_folder(root / "own", corpus_dir)
    steps = [
        ["train", f"--corpus={own}", f"--out={root}/model.keras", "--steps=3", "--batch_size=4",
         "--seconds=0.5", "--embed_dim=16"],
        ["quantize", f"--model={root}/model.keras", f"--out={root}/small.keras", "--bits=4",
         f"--recipe_out={root}/recipe.json"],
        ["export", f"--model={root}/small.keras", f"--out={root}/small.tflite"],
    ]  # fmt: skip
    for step in steps:
        assert cli.main(step) == 0
    return root


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
    assert plot.read_bytes().startswith(b"\x89PNG")
    cohort = [*base, f"--cohort={corpus_dir / 'train'}"]
    assert cli.main([*cohort, "--as_norm", f"--scores_out={scores}"]) == 0
    said = capsys.readouterr().out
    assert "AS-norm, top 6 of 6; mean of 18 cohort embeddings subtracted" in said
    assert all(len(line.split()) == 8 for line in scores.read_text().splitlines())
    assert cli.main(cohort) == 0
    said = capsys.readouterr().out
    assert "scores  cosine, -1 to 1; mean of 18 cohort embeddings subtracted" in said
    assert "18 of 18 embeddings were there" in said


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


def test_bad_recordings_are_left_out_and_listed(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(corpus_dir / "test", tmp_path / "test")
    first, second = sorted((folder / "wav").rglob("*.wav"))[:2]
    first.unlink()
    soundfile.write(second, np.zeros(16000), 16000)
    base = ["evaluate", f"--model={made}/small.tflite", f"--corpus={folder}"]
    assert cli.main(base) == 0
    said = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(said) if line.startswith("left out"))
    assert re.fullmatch(
        r"left out: 2 of 18 recordings \(1 missing, 1 silent\), and with them \d+ of \d+ trials",
        said[start],
    )
    assert len(said) == start + 3
    assert str(second) in said[-1] or str(second) in said[-2]
    assert cli.main([*base, "--strict"]) == 1
    assert cli.main(["train", f"--corpus={folder}", f"--out={tmp_path}/x.keras", "--steps=1",
                     "--batch_size=2", "--seconds=0.3", "--embed_dim=8"]) == 0  # fmt: skip
    assert cli.main(["finetune", "--help"]) == 0


@pytest.fixture(scope="module")
def with_bad(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test corpus with an empty and a silent recording."""
    folder = shutil.copytree(corpus_dir / "test", tmp_path_factory.mktemp("bad") / "test")
    first, second = sorted((folder / "wav").rglob("*.wav"))[:2]
    first.write_bytes(b"")
    soundfile.write(second, np.zeros(16000), 16000)
    return folder


def test_bad_recordings_beside_keras(
    made: Path, with_bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = ["evaluate", f"--model={made}/small.tflite", f"--corpus={with_bad}"]
    compare.append(f"--reference={made}/small.keras")
    assert cli.main([*compare, "--json"]) == 0
    said = capsys.readouterr()
    assert "left out: 2 of 18 recordings (1 not audio, 1 silent), and with them" in said.err
    found = json.loads(said.out)
    assert len(found["left_out"]) == 2
    listed = len((with_bad / "trials.txt").read_text().splitlines())
    assert found["trials"] + found["trials_left_out"] == listed


def test_bad_recordings_in_calibration_and_search(
    made: Path, with_bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = f"--model={made}/model.keras"
    calls = [
        ["quantize", network, f"--calibrate={with_bad}", f"--out={tmp_path}/q.keras"],
        ["search", network, f"--corpus={with_bad}", f"--out={tmp_path}/r.json", "--target_mb=0.5",
         "--probes=9", "--batch_size=4", "--seconds=0.5"],
    ]  # fmt: skip
    for call in calls:
        assert cli.main([*call, "--json"]) == 0
        said = capsys.readouterr()
        assert "left out: 1 of 18 recordings (1 not audio)" in said.err
        assert "left out: 1 of 17 recordings (1 silent)" in said.err
        assert "is silent" in next(iter(json.loads(said.out)["left_out"].values()))


def test_bad_recordings_in_a_benchmark(
    made: Path, with_bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["benchmark", f"--model={made}/model.keras", "--bits=4", "--rounds=1"]
    assert cli.main([*arguments, f"--corpus={with_bad}", "--json"]) == 0
    said = capsys.readouterr()
    assert "left out: 1 of 18 recordings (1 not audio)" in said.err
    assert "left out: 1 of 17 recordings (1 silent)" in said.err
    found = json.loads(said.out)
    assert len(found["left_out"]) == 1
    assert all(0 <= form["eer"] <= 1 for form in found["forms"])


def test_suffixes_may_be_upper_case(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copy(made / "small.tflite", tmp_path / "M.TFLITE")
    wav = str(next((made / "own").rglob("*.wav")))
    assert cli.main(["info", str(model)]) == 0
    assert cli.main(["verify", str(model), wav, wav]) == 0
    assert cli.main(["evaluate", f"--model={model}", f"--corpus={made}/own", "--store"]) == 0
    assert "stored the thresholds" in capsys.readouterr().out


def test_where_nothing_can_be_written_nothing_is_begun(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for name in ("scores", "det", "plot.png", "report.html", "recipe.json", "e.npy", "m.keras"):
        (tmp_path / name).mkdir()
    model, network = f"--model={made}/small.tflite", f"--model={made}/model.keras"
    evaluate, quantize = ["evaluate", model], ["quantize", network, f"--out={tmp_path}/q.keras"]
    search = ["search", network, "--target_mb=1", f"--out={tmp_path}/r.json"]
    for arguments, place in [
        ([*evaluate, "--scores_out=scores"], "scores"),
        ([*evaluate, "--scores_out=file/scores"], "file"),
        ([*evaluate, "--det_out=det"], "det"),
        ([*evaluate, "--plot=plot.png"], "plot.png"),
        ([*evaluate, "--report=report.html"], "report.html"),
        ([*quantize, "--recipe_out=recipe.json"], "recipe.json"),
        ([*search, "--plot=plot.png"], "plot.png"),
        ([*search, "--report=report.html"], "report.html"),
        (["search", network, "--target_mb=1", "--out=file/r.json"], "file"),
        (["benchmark", network, "--report=report.html"], "report.html"),
        (["embed", model, "--out=e.npy"], "e.npy"),
        (["train", "--out=m.keras"], "m.keras"),
        (["export", network, "--out=file/m.tflite"], "file"),
    ]:
        given = [x.replace("=", f"={tmp_path}/") if x.endswith(place) or "=file/" in x else x
                 for x in arguments]  # fmt: skip
        corpus = [] if arguments[0] in ("export", "quantize") else [f"--corpus={made}/own"]
        assert cli.main([*given, *corpus]) == 1, arguments
        said = capsys.readouterr()
        assert len(said.err.splitlines()) == 1, said.err
        assert f"{tmp_path}/{place}" in said.err
        assert "folder" in said.err
        assert said.out == ""


def test_verify_needs_a_threshold_and_then_decides(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.tflite"
    shutil.copy(made / "small.tflite", file)
    first = next((made / "own").rglob("*.wav"))
    assert cli.main(["verify", str(file), str(first), str(first)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"score +1\.0000", said)
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
    digest = hashlib.sha256(fast.read_bytes()).hexdigest()
    assert digest == read_about(small)["inflated_sha256"]


def test_evaluate_beside_keras(
    made: Path, corpus_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["evaluate", f"--model={made}/small.tflite", f"--corpus={corpus_dir / 'test'}"]
    assert cli.main([*base, f"--reference={made}/small.keras"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^Keras +\d+\.\d{3}", said, re.MULTILINE)
    assert re.search(r"^\.tflite, embed .* 0\.999\d{3}", said, re.MULTILINE)
    assert re.search(r"^\.tflite, inflate .* 0\.999\d{3}", said, re.MULTILINE)


def test_benchmark(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", f"--model={made}/model.keras", "--bits=2", "--rounds=1"]
    recipe = [f"--recipe={made}/recipe.json", f"--out={tmp_path}/forms"]
    assert cli.main([*arguments, *recipe]) == 0
    said = capsys.readouterr().out
    for form in ("float32", "full int8", "2 bit, embed", "2 bit, inflated", "recipe, embed"):
        assert re.search(rf"^{form} +\d+\.\d\d ", said, re.MULTILINE), form
    assert (tmp_path / "forms" / "2-bit.tflite").exists()


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
    assert re.search(r"conv1 +144 +8 ", capsys.readouterr().out)
    tune = ["finetune", f"--model={mixed}", f"--teacher={made}/model.keras",
            f"--corpus={made}/own", f"--out={tuned}", "--steps=2", "--batch_size=4",
            "--seconds=0.5", "--json"]  # fmt: skip
    losses = []
    for added in ([], [f"--musan={musan}", f"--rirs={rirs}", "--aug_prob=1"]):
        assert cli.main([*tune, *added]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses[0] != losses[1]
    assert cli.main(["export", f"--model={tuned}", f"--out={made}/tuned.tflite"]) == 0


def test_calibration_and_labels(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["quantize", f"--model={made}/model.keras", "--bits=2", "--minutes=0.1"]
    arguments += [f"--calibrate={made}/own", f"--out={made}/calibrated.keras"]
    assert cli.main(arguments) == 0
    plain = tfq_sv.load_model(made / "model.keras")
    rounded = tfq_sv.quantize(plain, tfq_sv.QuantizationRecipe.uniform(plain, 2))
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
    assert re.search(r"conv1 +144 +1 ", capsys.readouterr().out)
    assert cli.main(["export", f"--model={made}/static.keras", f"--out={made}/static.tflite"]) == 0
    arguments += [f"--recipe={made}/recipe.json", f"--out={made}/both.keras"]
    assert cli.main(arguments) == 1
    assert "--recipe and --binary exclude each other" in capsys.readouterr().err


def test_everything_wrong_is_one_line_and_exit_code_1(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    text = tmp_path / "text.tflite"
    text.write_text("hello")
    shutil.copy(text, tmp_path / "text.keras")
    shutil.copy(text, tmp_path / "text.wav")
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes((made / "small.tflite").read_bytes()[:5000])
    broken = shutil.copytree(made / "own", tmp_path / "broken")
    next(broken.rglob("*.flac")).write_text("no audio")
    trials = tmp_path / "trials"
    trials.write_text("1 nobody/a.wav nobody/b.wav\n")
    model, good = f"--model={made}/small.tflite", f"--corpus={made}/own"
    wav = str(next((made / "own").rglob("*.wav")))
    out, tflite = f"--out={tmp_path}/out.keras", f"--out={tmp_path}/out.tflite"
    (tmp_path / "folder.keras").mkdir()
    cases = [
        (["fly"], "unknown command 'fly'; known are demo"),
        (["train"], "--corpus is missing"),
        (["train", "--steps=many"], "--steps=many"),
        (["train", good, out, "extra"], "unexpected argument 'extra'"),
        (["train", f"--corpus={tmp_path}/none", out], "none does not exist"),
        (["train", f"--corpus={tmp_path}/empty", out], "empty holds no"),
        (["train", f"--corpus={broken}", out, "--strict"], "cannot be read as audio"),
        (["train", good, out, "--network=ResNet1"], "unknown network 'ResNet1'"),
        (["train", good, out, "--steps=0"], "steps must be positive, not 0"),
        (["quantize", "--model=none.keras", out], "none.keras does not exist; shipped networks"),
        (["quantize", f"--model={tmp_path}/text.keras", out], "is not a model that tf_keras"),
        (["quantize", f"--model={made}/model.keras", out, "--bits=9"], "from 1 to 8, not 9"),
        (["quantize", f"--model={made}/small.keras", out], "is quantized already"),
        (["export", f"--model={made}/model.keras", tflite], "is not quantized"),
        (["export", f"--model={made}/small.keras", out], "must end in .tflite"),
        (["train", good, f"--out={tmp_path}/model"], "must end in .keras or .h5"),
        (["train", good, f"--out={tmp_path}/folder.keras"], "is a folder"),
        (["evaluate", model, good, f"--trials={trials}"], "names 2 utterances that"),
        (["evaluate", model, good, f"--trials={tmp_path}/none"], "none does not exist"),
        (["evaluate", f"--model={made}/model.keras", good, "--store"], "--store writes into a"),
        (["evaluate", f"--model={text}", good], "text.tflite is not a .tflite file"),
        (["evaluate", good], "--model is missing"),
        (["evaluate", model, good, "--as_norm"], "--as_norm needs --cohort"),
        (["evaluate", model, good, "--store", good.replace("corpus", "cohort")], "leave --cohort"),
        (["evaluate", good, "--reference=x.keras"], "--reference is for a .tflite"),
        (["evaluate", model, good, "--reference=x.keras", "--store"], "leave --store out"),
        (["evaluate", model, good, "--plot=det.pdf"], "must end in .png"),
        (["evaluate", model, good, f"--embeddings={text}"], "leave --model out"),
        (["evaluate", model, good, f"--embeddings={tmp_path}/no.npy"], "no.npy does not exist"),
        (["evaluate", model, good, f"--trials={tmp_path}"], "is a folder; name a list"),
        (["evaluate", good, f"--embeddings={text}"], "embeddings come from .ark"),
        (["evaluate", model, good, f"--embeddings={made}"], "no cache of embeddings"),
        (["embed", model, good, f"--out={tmp_path}/e", "--shard=0/2"], "must be i/n"),
        (["embed", model, good, f"--out={tmp_path}/e.ark", "--shard=1/2"], "is a file"),
        (["embed", model, good, f"--out={text}/e"], "text.tflite is not a folder"),
        (["benchmark", "--model=x.keras", f"--out={text}"], "is a file; name a folder"),
        (["train", good, out, f"--tensorboard={text}"], "is a file; name a folder"),
        (["make-corpus", f"--out={text}"], "text.tflite is not a folder"),
        (["inflate", f"--model={foreign}", tflite], "foreign.tflite"),
        (["inflate", model, out], "must end in .tflite"),
        (["inflate", model, model.replace("model", "out", 1)], "is the model itself"),
        (["benchmark", "--model=none.keras"], "none.keras does not exist"),
        (["benchmark", "--model=x.keras", "--trials=x"], "--trials needs --corpus"),
        (["benchmark", "--model=x.keras", "--rounds=0"], "--rounds must be positive, not 0"),
        (["verify", str(foreign), wav, wav], "foreign.tflite"),
        (["verify", str(text), wav, wav], "text.tflite"),
        (["verify", str(made / "small.tflite"), wav], "found 2 arguments"),
        (["verify", str(made / "small.tflite"), wav, "none.wav"], "none.wav does not exist"),
        (
            ["verify", str(made / "small.tflite"), wav, str(tmp_path / "text.wav")],
            "text.wav cannot be read as audio",
        ),
        (["make-corpus", f"--out={made}/own"], "own"),
        (["demo", "--bits=0", f"--out={tmp_path}/demo"], "from 1 to 8, not 0"),
    ]
    for arguments, message in cases:
        if arguments[0] == "make-corpus":
            (made / "own" / "train").mkdir(exist_ok=True)
        capsys.readouterr()
        assert cli.main(arguments) == 1, arguments
        lines = [
            line
            for line in capsys.readouterr().err.replace("\r", "\n").splitlines()
            if line.startswith("tfq-sv")
        ]
        assert len(lines) == 1, arguments
        assert message in lines[0], arguments
        assert "Traceback" not in lines[0]
    assert not (tmp_path / "out.keras").exists()


def test_the_console_script_says_one_line_and_no_traceback(tmp_path: Path) -> None:
    """In a process of its own: TensorFlow's native log must not bury the message."""
    text = tmp_path / "text.keras"
    text.write_text("hello")
    script = "from tfq_sv.cli import run; run()"
    arguments = ["quantize", f"--model={text}", f"--out={tmp_path}/out.keras"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"tfq-sv quantize: {text} is not a model")


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


def test_verify_starts_without_tensorflow(made: Path, corpus_dir: Path) -> None:
    wav = str(next((corpus_dir / "test").rglob("*.wav")))
    script = (
        "import sys; from tfq_sv import cli; "
        f"code = cli.main(['verify', {str(made / 'small.tflite')!r}, {wav!r}, {wav!r}]); "
        "assert code == 0; assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'; "
        "assert 'librosa' not in sys.modules, 'librosa was imported'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, tfq_sv, tfq_sv.export, tfq_sv.features, tfq_sv.metrics, tfq_sv.scoring, "
        "tfq_sv.data.corpus, tfq_sv.export.encoder; "
        "heavy = {'tensorflow', 'librosa', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
