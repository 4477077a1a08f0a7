"""What the command line answers at once: versions, slips of the pen, and work that cannot end."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from train_small import small

import tfq_sv
from tfq_sv import cli
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.export import read_about

IN_ONE_PROCESS = """
import json, sys
from tfq_sv import cli
for arguments in json.load(sys.stdin):
    assert cli.main(arguments) == 1, arguments
    print("----", file=sys.stderr)
loaded = {"tensorflow", "tf_keras", "torch", "scipy.signal", "librosa"} & set(sys.modules)
assert not loaded, loaded
"""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tfq-sv {tfq_sv.__version__}\n"


def test_did_you_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for slip, meant in {
        "verfy": "verify",
        "quantise": "quantize",
        "make_corpus": "make-corpus",
    }.items():
        assert cli.main([slip]) == 1
        assert f"did you mean {meant}?" in capsys.readouterr().err
    assert cli.main(["quantize", "--bit=4"]) == 1
    assert "Did you mean: bits" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_begins_with_what_must_be_given(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert "['" not in said  # a list is shown as people write it
    assert "(default: False)" not in said
    assert not [line for line in said.splitlines() if len(line) > 100]
    assert not re.search(r"^ .*\S {3}", said, re.MULTILINE)  # an example's lines stay its lines
    required, _, others = said.partition("\nflags:\n")
    assert "--json" in others
    if name not in ("demo", "verify"):
        _, _, first = required.partition("\nrequired flags:\n")
        missing = first.split(":")[0].strip()
        assert missing.startswith("--")
        assert cli.main([name]) == 1  # and that it must is true
        assert f"{missing} is missing" in capsys.readouterr().err


def test_refused_before_tensorflow_loads(tmp_path: Path) -> None:
    none, out, taken = f"{tmp_path}/none.keras", f"{tmp_path}/out.keras", tmp_path / "file"
    network, finished = tmp_path / "network.keras", "--model=resnet18-real.tflite"
    taken.touch()
    network.touch()
    speech, recipe = f"--corpus={tmp_path}", tmp_path / "recipe.json"
    recipe.write_text('{"layers": {}}')
    shipped = "--model=resnet18-small"
    cases = {
        ("quantize", shipped, f"--out={out}", "--bits=9"): "from 1 to 8, not 9",
        ("quantize", shipped, f"--out={out}", "--bits=3", "--trellis"): "3",
        ("quantize", f"--model={none}", f"--out={out}"): "none.keras does not exist",
        ("quantize", shipped, f"--out={taken}/out.keras"): "is not a folder",
        ("quantize", shipped, f"--out={out}", f"--recipe={recipe}", "--bits=4"): "drop --bits",
        ("quantize", shipped, f"--out={out}", "--binary=static", "--bits=4"): "drop --bits",
        ("quantize", shipped, f"--out={out}", "--minutes=2"): "--minutes goes with --calibrate",
        ("quantize", f"--model={network}", f"--out={network}"): "which is needed; name another",
        ("finetune", shipped, f"--teacher={network}", speech, f"--out={network}"): "would replace",
        ("finetune", f"--model={network}", f"--recipe={recipe}", speech, f"--out={network}"):
            "would replace",
        ("finetune", shipped, "--margin=0.3", speech, f"--out={out}"): "goes with --loss=aam",
        ("finetune", shipped, "--stages=lowest_first", speech, f"--out={out}"): "with --recipe",
        ("train", f"--teacher={network}", speech, f"--out={network}"): "would replace",
        ("evaluate", shipped, "--conditions", "--score_scale=half", speech):
            "leave --score_scale out",
        ("quantize", finished, f"--out={out}"): "resnet18-real.tflite is a finished file; give the",
        ("export", finished, f"--out={tmp_path}/a.tflite"): "is a finished file; give the",
        ("finetune", finished, speech, f"--out={out}"): "is a finished file; give the",
        ("search", finished, "--target_mb=1", speech, f"--out={tmp_path}/a.json"): "finished file",
        ("evaluate", f"--embeddings={tmp_path}", speech): "is a folder, and needs --model",
        ("evaluate", "--embeddings=none", speech): "needs --model",
        ("evaluate", "--store", speech): "give --model",
        ("evaluate", finished, "--store", speech): "stays as it is; copy it: cp ",
        ("threshold", finished, "--store", speech): "stays as it is; copy it: cp ",
        ("evaluate", "--embeddings=none.npy", "--reference=a.keras", speech): "give --model",
        ("quantize", shipped, f"--out={out}", f"--recipe={none}"): "does not exist",
        ("quantize", shipped, f"--out={out}", f"--calibrate={none}"): "does not exist",
        ("export", f"--model={none}", f"--out={tmp_path}/a.tflite"): "none.keras does not exist",
        ("train", f"--init={none}", speech, f"--out={out}"): "none.keras does not exist",
        ("finetune", f"--model={none}", speech, f"--out={out}"): "none.keras does not exist",
        ("finetune", shipped, f"--teacher={none}", speech, f"--out={out}"): "does not exist",
        ("search", f"--model={none}", "--target_mb=1", speech, f"--out={tmp_path}/a.json"): "exist",
        ("search", shipped, "--target_mb=1", speech, f"--out={tmp_path}/a.json", "--bits=9"): "9",
        ("evaluate", f"--model={none}", speech): "none.keras does not exist",
        ("embed", f"--model={none}", speech, f"--out={tmp_path}/a.npy"): "does not exist",
        ("embed", shipped, f"--out={tmp_path}/a.npy", f"{tmp_path}/none.wav"): "none.wav does not",
        ("compare", f"--models={none}", f"--train={tmp_path}", f"--test={tmp_path}",
         f"--out={tmp_path}/c"): "none.keras does not exist",
        ("reproduce", f"--model={none}", f"--train={tmp_path}", f"--test={tmp_path}",
         f"--out={tmp_path}/c"): "none.keras does not exist",
        ("benchmark", f"--model={none}"): "none.keras does not exist",
        ("benchmark", shipped, "--bits=9"): "from 1 to 8, not 9",
        ("verify", none, "a.wav", "b.wav"): "none.keras does not exist",
        ("demo", f"--out={taken}"): "name a folder",
        ("make-corpus", f"--out={taken}/corpus"): "is not a folder",
        ("import", "--checkpoint=none", f"--out={taken}/out.keras"): "is not a folder",
        ("import", f"--checkpoint={none}", f"--out={out}"): "none.keras does not exist",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=json.dumps(list(map(list, cases))),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.split("----\n")
    for (arguments, message), line in zip(cases.items(), said[: len(cases)], strict=True):
        assert line.count("\n") == 1, (arguments, line)
        assert message in line, (arguments, line)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["file", "network.keras", "recipe.json"]


@pytest.mark.slow
def test_bars_are_for_terminals(tmp_path: Path) -> None:
    small().save(tmp_path / "m.keras")
    call = [sys.executable, "-m", "tfq_sv", "quantize", f"--model={tmp_path}/m.keras", "--bits=8",
            f"--out={tmp_path}/q.keras"]  # fmt: skip
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "bytes as a .tflite; quantized in" in done.stdout
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # a terminal's end is an error
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    assert process.wait() == 0
    assert b"codebooks: 100%" in said


def test_shipped_files_name_no_folder_of_their_maker(
    made: Path, corpus_dir: Path, tmp_path: Path
) -> None:
    """Also where the thresholds come from: a list, or pairs of a folder."""
    small = (made / "small.tflite").read_bytes()
    for number, corpus in enumerate([corpus_dir / "test", made / "own"]):
        file = tmp_path / f"{number}.tflite"
        file.write_bytes(small)
        assert cli.main(["evaluate", f"--model={file}", f"--corpus={corpus}", "--store"]) == 0
        source = read_about(file)["trials"]["source"]
        assert corpus.name in source or source == "trials.txt"
        for place in (made, corpus_dir, tmp_path):
            assert str(place).encode() not in file.read_bytes()
    for name in ("small.tflite", "small.keras", "model.keras"):
        assert str(made).encode() not in (made / name).read_bytes(), name


def test_no_cosine_is_above_one() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for vector in rng.normal(size=(200, 128)).astype(np.float32):
        assert cosine(vector, vector) <= 1
        assert cosine(vector, -vector) >= -1
