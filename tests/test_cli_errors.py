"""What goes wrong on the command line: bad recordings, places, files, values and flags."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfq_sv import cli


@pytest.mark.slow
def test_bad_recordings_are_skipped_and_listed(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(corpus_dir / "test", tmp_path / "test")
    first, second = sorted((folder / "wav").rglob("*.wav"))[:2]
    first.unlink()
    soundfile.write(second, np.zeros(16000), 16000)
    base = ["evaluate", f"--model={made}/small.tflite", f"--corpus={folder}"]
    assert cli.main(base) == 0
    said = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(said) if line.startswith("skipped"))
    assert re.fullmatch(
        r"skipped: 2 of 18 recordings \(1 missing, 1 silent\), and with them \d+ of \d+ trials",
        said[start],
    )
    assert len(said) == start + 3
    assert str(second) in said[-1] or str(second) in said[-2]
    assert cli.main([*base, "--strict"]) == 1
    train = ["train", f"--corpus={folder}", f"--out={tmp_path}/x.keras", "--steps=1"]
    train += ["--batch_size=2", "--seconds=0.3", f"--init={made}/untrained.keras"]
    assert cli.main(train) == 0


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
    assert "skipped: 2 of 18 recordings (1 not audio, 1 silent), and with them" in said.err
    found = json.loads(said.out)
    assert len(found["skipped"]) == 2
    listed = len((with_bad / "trials.txt").read_text().splitlines())
    assert found["trials"] + found["trials_skipped"] == listed


@pytest.mark.slow
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
        assert "skipped: 1 of 18 recordings (1 not audio)" in said.err
        assert "skipped: 1 of 17 recordings (1 silent)" in said.err
        assert "is silent" in next(iter(json.loads(said.out)["skipped"].values()))


@pytest.mark.slow
def test_bad_recordings_in_a_benchmark(
    made: Path, with_bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["benchmark", f"--model={made}/model.keras", "--bits=4", "--rounds=1"]
    assert cli.main([*arguments, f"--corpus={with_bad}", "--json"]) == 0
    said = capsys.readouterr()
    assert "skipped: 1 of 18 recordings (1 not audio)" in said.err
    assert "skipped: 1 of 17 recordings (1 silent)" in said.err
    found = json.loads(said.out)
    assert len(found["skipped"]) == 1
    assert all(0 <= form["eer"] <= 1 for form in found["forms"])


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
    taken = tmp_path / "taken"
    (taken / "train").mkdir(parents=True)
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
        (["make-corpus", f"--out={text}"], "text.tflite is a file; name a folder"),
        (["inflate", f"--model={foreign}", tflite], "foreign.tflite"),
        (["inflate", model, out], "must end in .tflite"),
        (["inflate", model, model.replace("model", "out", 1)], "would replace"),
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
        (["make-corpus", f"--out={taken}"], str(taken)),
        (["demo", "--bits=0", f"--out={tmp_path}/demo"], "from 1 to 8, not 0"),
    ]
    for arguments, message in cases:
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


@pytest.mark.slow
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


def test_thresholds_are_not_stored_without_litert(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other runtimes run the file, but cannot write it; said before anything is measured."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert cli.main(["evaluate", "--model=x.tflite", "--corpus=x", "--store"]) != 0
    assert "--store needs LiteRT" in capsys.readouterr().err
