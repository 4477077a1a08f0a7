"""`tfq-sv train` by the field's recipe, on small trees of the corpora's shape."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from train_small import small
from workers import PATIENCE, THREADS, cluster

from tfq_sv import cli
from tfq_sv.cli import train
from tfq_sv.cli.config import apply_config, shipped_recipes
from tfq_sv.errors import InputError
from tfq_sv.quantization.quantized_model import load_model

SHORT = ["--seconds=0.3", "--batch_size=9", "--num_epochs=1", "--num_avg=1", "--warm_up_epoch=0"]


@pytest.mark.slow
def test_the_recipe_and_its_large_margin_stage(
    corpus_dir: Path,
    musan: Path,
    rirs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bad recordings and noises included: they are listed at the end."""
    folder = shutil.copytree(corpus_dir / "train", tmp_path / "train")
    bad = sorted((folder / "wav").rglob("*.wav"))[0]
    soundfile.write(bad, np.full(24000, np.nan), 16000, subtype="FLOAT")
    for noise in musan.rglob("*.wav"):
        noise.write_text("no audio")
    first, second = tmp_path / "first.keras", tmp_path / "second.keras"
    trees = [f"--corpus={folder}", f"--musan={musan}", f"--rirs={rirs}", "--aug_prob=1"]
    small().save(tmp_path / "untrained.keras")
    command = ["train", "--config=resnet", *trees, f"--out={first}", *SHORT]
    command.append(f"--init={tmp_path}/untrained.keras")
    assert cli.main([*command, "--codec_prob=0.5"]) == 0
    said = capsys.readouterr().out
    assert "codec_prob 0.5" in said
    assert "18 classes" in said
    assert "augmentation: noise 2, speech 2, music 3, rirs 6, aug_prob 1.0" in said
    assert re.search(r"skipped: 1 of 18 recordings \(1 NaN\)\n .*NaN or infinite", said)
    assert re.search(r"skipped: \d of 13 recordings \(\d not audio\)\n", said)
    with np.load(tmp_path / "first.head.npz") as file:
        assert file["centers"].shape == (8, 18)
        assert file["speakers"][6].startswith("sp0.9-")
    stage = ["train", "--config=resnet_lm", *trees, f"--init={first}", f"--out={second}", *SHORT]
    assert cli.main([*stage, "--tensorboard", str(tmp_path / "curves")]) == 0
    said = capsys.readouterr().out
    assert "18 classes" in said  # the perturbed speakers stay in the softmax
    assert list((tmp_path / "curves").glob("events.*"))
    assert load_model(second).output_shape == (None, 8)
    assert not list(tmp_path.glob("*.state"))
    assert cli.main([*stage, "--strict"]) == 1
    assert "NaN or infinite" in capsys.readouterr().err
    quantized, tuned = tmp_path / "4bit.keras", tmp_path / "tuned.keras"
    assert cli.main(["quantize", f"--model={first}", f"--out={quantized}"]) == 0
    tune = [f"--model={quantized}", f"--teacher={first}", f"--corpus={folder}", f"--out={tuned}"]
    tune.append(f"--corpus={corpus_dir / 'test'}")
    assert cli.main(["finetune", *tune, "--steps=9", "--batch_size=4", "--seconds=0.3"]) == 0
    both = 18 + len(list((corpus_dir / "test").rglob("*.wav")))
    assert f"skipped: 1 of {both} recordings (1 NaN)" in capsys.readouterr().out
    assert cli.main(["train", trees[0], f"--init={quantized}", f"--out={second}"]) == 1
    assert "is quantized; tfq-sv finetune trains" in capsys.readouterr().err
    (tmp_path / "first.head.npz").unlink()
    shutil.rmtree(tmp_path / "second.keras.state")
    assert cli.main(stage) == 0
    said = capsys.readouterr().out
    assert "the classifier starts from random weights" in said
    assert "6 classes" in said


@pytest.mark.parametrize("name", shipped_recipes())
def test_recipes_are_read_and_flags_go_before(name: str) -> None:
    cli.parse(train.FLAGS, "train", ["--seed=7", "--nospeed_perturb", "--init=a.keras"])
    apply_config(train.FLAGS, name)
    assert train.FLAGS.seed == 7
    assert train.FLAGS.speed_perturb is False
    assert train.FLAGS.margin == (0.5 if name.endswith("_lm") else 0.2)
    assert train.FLAGS.base_batch_size == 64
    assert train.FLAGS.seconds == (6.015 if name.endswith("_lm") else 2.015)
    cli.parse(train.FLAGS, "train", [])
    assert train.FLAGS.margin == 0.2  # nothing stays for the next command
    assert train.FLAGS.base_batch_size is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 0.1", r"unknown setting 'learning_rat'; the nearest is 'learning_rate'"),
        ("num_frms: 200", r"unknown setting 'num_frms'; the nearest is 'num_\w+'"),
        ("steps: many", r"conf\.yaml: .*steps=many"),
        ("optimizer: Lion", r"conf\.yaml: .*optimizer=Lion"),
        ("- steps", r"must hold `setting: value` lines"),
        ("steps: [1", r"is not YAML"),
        ("config: resnet", r"unknown setting 'config'"),
    ],
)
def test_wrong_config_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    cli.parse(train.FLAGS, "train", [])
    with pytest.raises(InputError, match=message) as caught:
        apply_config(train.FLAGS, str(path))
    assert "\n" not in str(caught.value)


def test_config_files_hold_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("learning_rate: 1e-4\nspeed_perturb: yes\nmusan: /data/musan\ncorpus: [a, b]\n")
    cli.parse(train.FLAGS, "train", [])
    apply_config(train.FLAGS, str(path))
    assert train.FLAGS.learning_rate == 1e-4
    assert train.FLAGS.speed_perturb is True
    assert train.FLAGS.musan == "/data/musan"
    assert train.FLAGS.corpus == ["a", "b"]


def test_what_cannot_be_is_said_before_the_work(
    corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["train", f"--corpus={corpus_dir / 'train'}", f"--out={tmp_path}/m.keras"]
    for arguments, message in [
        (["--config=resnet"], "aug_prob is 0.6, but there is nothing to add: give --musan"),
        (["--config=resnt"], "is no file, nor a shipped recipe: df_resnet, df_resnet_lm, resnet"),
        (["--config=resnet", "--steps=5"], "--steps and --num_epochs exclude each other"),
        ([f"--musan={tmp_path}"], "need --aug_prob, 0.6 in the field"),
        ([f"--rirs={tmp_path}/none", "--aug_prob=0.6"], "RIR folder"),
        (["--codec_prob=2"], "codec_prob must be from 0 to 1, not 2"),
        (["--init=none.keras"], "none.keras does not exist"),
        (["--config=resnet_lm"], "resnet_lm.yaml asks for --init: network to start from"),
        (["--optimizer=Lion"], "Lion"),
        (["--aam_weight=0.1"], "--aam_weight goes with --teacher"),
        (["--init=resnet18-small", "--embed_dim=256"], "--embed_dim is for a new network; --init"),
        (["--network=ResNet99"], "unknown network 'ResNet99'"),
    ]:
        assert cli.main([*base, *arguments]) == 1, arguments
        said = capsys.readouterr()
        assert message in said.err
        assert "utterances" not in said.out  # before the corpus is read
    assert not (tmp_path / "m.keras").exists()


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        *itertools.product(
            ("train", "search", "finetune", "reproduce"),
            ("--seed=-1", "--seed=5000000000", "--batch_size=0", "--seconds=0", "--seconds=1e9"),
        ),
        ("train", "--seconds=nan"),
        ("train", "--learning_rate=nan"),
        ("train", "--channels=0"),
        ("train", "--embed_dim=0"),
        ("train", "--num_workers=0"),
        ("finetune", "--learning_rate=inf"),
        ("quantize", "--minutes=nan"),
        ("verify", "--threshold=nan"),
        ("make-corpus", "--seed=-1"),
        *itertools.product(("search", "info", "benchmark"), ("--bits=\u00b2", "--bits=4,x")),
    ],
)
def test_values_that_no_flag_takes(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before any file is looked at."""
    needed = [f"--{x}=none.json" for x in ("model", "corpus", "out")] + ["--target_mb=1"]
    given = needed if command == "search" else needed[:1] * (command in ("info", "benchmark"))
    assert cli.main([command, *given, flag]) == 1
    said = capsys.readouterr().err
    name, _, value = flag.partition("=")
    assert len(said.splitlines()) == 1
    assert value.split(",")[-1] in said
    assert name in said or (name == "--bits" and "bits" in said)


# The command, which says each step, and dies at the one that DIE_AT names.
WORKER = """
import os, signal
from tfq_sv.cli import run
from tfq_sv.training import loop, step

loop.CHECKPOINT_EVERY = 4
real = step.TrainingStep.__call__

def noted(self, number, batch):
    if str(number) == os.environ.get("DIE_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    print("step", number, flush=True)
    return real(self, number, batch)

step.TrainingStep.__call__ = noted
run()
"""


@pytest.mark.slow
def test_a_lost_worker_is_waited_for(corpus_dir: Path, tmp_path: Path) -> None:
    """One worker is killed after a checkpoint and restarted; the other one sees to itself."""
    out = tmp_path / "m.keras"
    small().save(tmp_path / "small.keras")
    command = [
        sys.executable, "-c", WORKER, "train", f"--corpus={corpus_dir / 'train'}", f"--out={out}",
        f"--init={tmp_path}/small.keras", "--seconds=0.3", "--batch_size=4", "--steps=10",
    ]  # fmt: skip
    configs = cluster()

    def begin(number: int, **more: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **THREADS, "TF_CONFIG": json.dumps(configs[number]), **more}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=environment, text=True, **pipes)

    first, second = begin(0), begin(1, DIE_AT="6")
    second.communicate(timeout=PATIENCE)
    assert second.returncode == -signal.SIGKILL
    second = begin(1)
    said, _ = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, said
    other, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, other
    before, after = said.split("a worker was lost")
    assert f"wrote {out}" in after
    steps = [[int(n) for n in re.findall(r"step (\d+)", part)] for part in (before, after)]
    assert steps[0][:6] == list(range(6))
    assert steps[1] == list(range(4, 10))  # it went on from the checkpoint
    assert load_model(out).output_shape == (None, 8)


@pytest.mark.slow
def test_wrong_settings_are_found_without_tensorflow() -> None:
    script = (
        "import sys; from tfq_sv import cli; "
        "code = cli.main(['train', '--config=resnet', '--corpus=none', '--out=x.keras', "
        "'--aug_prob=0']); "
        "assert code == 1; assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("config", ["two machines", "{}", '{"cluster": {"worker": ["a:1"]}}'])
def test_a_wrong_tf_config_is_one_line(
    config: str, corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TF_CONFIG", config)
    assert cli.main(["train", f"--corpus={corpus_dir / 'train'}", f"--out={tmp_path}/m.keras"]) == 1
    assert 'TF_CONFIG must be {"cluster"' in capsys.readouterr().err
