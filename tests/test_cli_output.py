"""What commands give to programs and to readers: JSON, silence, HTML; from networks of any form."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import golden_state, save
from train_small import small

import tfq_sv
from tfq_sv import cli
from tfq_sv.export import export_tflite


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network as model.keras, small.keras (4 bits) and small.tflite."""
    root, model = tmp_path_factory.mktemp("made"), small()
    quantized = tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model, 4), calibrate=False)
    model.save(root / "model.keras")
    quantized.save(root / "small.keras")
    export_tflite(quantized, root / "small.tflite")
    return root


@pytest.mark.slow
def test_results_for_machines(
    made: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON and nothing else on stdout; with --quiet no bar on stderr."""
    test, small = corpus_dir / "test", made / "small.tflite"
    wavs = [str(path) for path in sorted((test / "wav").rglob("*.wav"))[:2]]
    calls = {
        "evaluate": ["evaluate", f"--model={small}", f"--corpus={test}"],
        "compared": ["evaluate", f"--model={small}", f"--corpus={test}",
                     f"--reference={made}/small.keras"],
        "verify": ["verify", str(small), *wavs, "--threshold=0.5"],
        "info": ["info", f"--model={small}"],
        "layers": ["info", f"--model={made}/model.keras"],
        "export": ["export", f"--model={made}/small.keras", f"--out={tmp_path}/again.tflite"],
        "quantize": ["quantize", f"--model={made}/model.keras", f"--out={tmp_path}/2.keras"],
        "embed": ["embed", f"--model={small}", f"--corpus={test}", f"--out={tmp_path}/e.npy"],
    }  # fmt: skip
    found = {}
    for name, arguments in calls.items():
        assert cli.main([*arguments, "--json", "--quiet"]) == 0
        said = capsys.readouterr()
        found[name] = json.loads(said.out)
        assert "/s]" not in said.err
    done = subprocess.run(
        [sys.executable, "-m", "tfq_sv", *calls["evaluate"], "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == found["evaluate"]
    assert "utt/s]" not in done.stderr  # no terminal
    assert "minDCF" in done.stderr
    low, high = found["evaluate"]["interval"]
    assert low <= found["evaluate"]["eer"] <= high
    assert found["evaluate"]["trials"] == len((test / "trials.txt").read_text().splitlines())
    assert [x["model"].split(", ")[-1] for x in found["compared"]["systems"][1:]] == [
        "embed", "inflate",
    ]  # fmt: skip
    assert found["verify"]["same_speaker"] == (found["verify"]["score"] >= 0.5)
    assert found["info"]["bytes"] == small.stat().st_size == found["export"]["bytes"]
    assert found["quantize"]["layers"].keys() == found["layers"]["layers"].keys()
    assert found["embed"]["embeddings"] == 18


def spoken(environment: dict[str, str], *arguments: str, redirect: str = "") -> tuple[int, str]:
    """The console script in a process of its own: exit code, and both outputs."""
    script = f'exec "$0" -m tfq_sv "$@" {redirect}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_no_terminal_can_show(
    encoding: str, made: Path, corpus_dir: Path, tmp_path: Path
) -> None:
    corpus = shutil.copytree(corpus_dir / "test" / "wav", tmp_path / "ü" / "corpus")
    wavs = sorted(corpus.rglob("*.wav"))
    odd = wavs[0].with_name(os.fsdecode(b"caf\xe9.wav"))
    model = tmp_path / os.fsdecode(b"mod\xe8le.tflite")
    try:
        wavs[0].rename(odd)
    except OSError:
        pytest.skip("this file system keeps UTF-8 names only")
    odd.with_name(os.fsdecode(b"cut\xe9.wav")).write_bytes(odd.read_bytes()[:5000])
    shutil.copy(made / "small.tflite", model)
    kept = f"--out={tmp_path}/kept"
    for arguments, expected in [
        (["info", str(model)], "bytes"),
        (["verify", str(model), str(odd), str(wavs[1]), "--threshold=0"], "decision"),
        (["verify", str(model), str(odd), "none\udce9.wav"], r"none\udce9.wav does not exist"),
        (["embed", f"--model={model}", f"--corpus={corpus}", kept], "18 embeddings"),
        (["embed", f"--model={model}", f"--corpus={corpus}", kept], "18 were there"),
        (["evaluate", f"--model={model}", f"--corpus={corpus}", f"--report={tmp_path}/r.html",
          f"--scores_out={tmp_path}/scores"], r"cut\udce9.wav is cut short"),
    ]:  # fmt: skip
        code, said = spoken({"PYTHONIOENCODING": encoding}, *arguments, redirect="--quiet")
        assert expected in said
        assert code == ("none" in expected)
        assert "Traceback" not in said
    assert r"/caf\xe9.wav" in (tmp_path / "scores").read_text()


@pytest.mark.slow
def test_closed_outputs_are_no_error(made: Path, tmp_path: Path) -> None:
    info = ["info", f"--model={made}/small.tflite"]
    assert spoken({}, *info, redirect=">&-") == (0, "")
    code, said = spoken({}, *info, redirect="2>&-")
    assert code == 0
    assert "bytes" in said
    assert spoken({}, *info, redirect=">&- 2>&-") == (0, "")
    assert spoken({}, "info", "--model=none.keras", redirect="2>&-") == (1, "")


def test_a_quiet_call_leaves_the_environment_as_it_was(made: Path) -> None:
    before = dict(os.environ)
    assert cli.main(["info", f"--model={made}/small.tflite", "--quiet"]) == 0
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_as_it_is(
    corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    save(folder / "avg_model.pt", golden_state("ResNet34"))
    test = f"--corpus={corpus_dir / 'test'}"
    det, kept = tmp_path / "det.txt", f"--embeddings={tmp_path / 'kept'}"
    arguments = ["evaluate", f"--model={folder}", test, f"--det_out={det}", kept, "--json"]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["eer"] < 1
    misses, alarms = np.loadtxt(det)[:, 1:].T
    assert abs(np.interp(0, misses - alarms, misses) - found["eer"]) < 1e-6
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == found
    save(folder / "avg_model.pt", {**golden_state("ResNet34"), "seg_1.bias": np.ones(256, "f4")})
    assert cli.main(arguments) == 1
    assert "kept holds embeddings of another" in capsys.readouterr().err


def test_reports(made: Path, corpus_dir: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", f"--model={made}/small.tflite", f"--corpus={corpus_dir / 'test'}"]
    report = f"--report={tmp_path}/report.html"
    assert cli.main([*arguments, report]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "small.tflite has an equal error rate of" in text
    assert "data:image/png;base64," in text
    assert cli.main([*arguments, report, f"--reference={made}/small.keras"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "<td>.tflite, inflate</td>" in text
    assert "<td>FP32" not in text
    assert cli.main([*arguments, f"--report={tmp_path}/report.pdf"]) == 1
