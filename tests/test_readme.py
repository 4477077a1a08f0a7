"""What README, docs/ and --help show runs as it stands, only made smaller."""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from checkpoints import golden_state, save
from train_small import small

from tfq_sv import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text().replace("\\\n", " ") for page in PAGES}
PYTHON = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
]
COMMANDS = {
    name: re.findall(r"^(?:\.venv/bin/)?tfq-sv +([\w-]+(?: .+?)?)(?: +#.*)?$", text, re.M)
    for name, text in TEXTS.items()
}
INLINE = sorted(
    {x for text in TEXTS.values() for x in re.findall(r"`(?:\S*/)?tfq-sv ([^`]+)`", text)}
)
BENCHMARKS = sorted(
    {x.strip() for text in TEXTS.values() for x in re.findall(r"python (benchmarks/[^`\n]+)", text)}
)
SMALLER = {
    "train": ["--steps=2", "--batch_size=4"],
    "finetune": ["--steps=2", "--batch_size=4"],
    "search": ["--probes=2", "--batch_size=2", "--seconds=0.5"],
    "make-corpus": ["--out=made", "--speakers=2", "--test_speakers=2", "--utterances=2"],
    "demo": ["--test_speakers=4", "--steps=1"],
    "benchmark": ["--rounds=1"],
    "enroll": ["--nocheck"],
    "compare": ["--batch_size=2", "--seconds=0.5", "--minutes=0.02", "--probes=1"],
    "reproduce": ["--model=resnet18.keras", "--steps=1", "--batch_size=2", "--probes=1"],
}
RECIPE = ["--num_epochs=1", "--num_avg=1", "--batch_size=9", "--seconds=0.3", "--network=ResNet18"]


@pytest.fixture
def folder(
    corpus_dir: Path, musan: Path, rirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Small trees and networks in place of those that the pages name."""
    root = tmp_path / "pages"
    for part in ("train", "test"):
        (root / "corpus").mkdir(parents=True, exist_ok=True)
        (root / "corpus" / part).symlink_to(corpus_dir / part)
    (root / "my").symlink_to("corpus")
    (root / "corpus" / "trials.txt").symlink_to(corpus_dir / "test" / "trials.txt")
    for name, tree in (("musan", musan), ("RIRS_NOISES", rirs), ("vox1", corpus_dir / "test")):
        shutil.copytree(tree, root / name)
    (root / "vox1" / "trials.txt").rename(root / "vox1" / "veri_test2.txt")
    shutil.copytree(corpus_dir / "train" / "wav", root / "vox2" / "dev" / "aac")
    save(root / "voxceleb_resnet34_LM" / "avg_model.pt", golden_state("ResNet34"))
    for name in ("model", "resnet18"):
        small().save(root / f"{name}.keras")
    wavs = sorted((corpus_dir / "test" / "wav").rglob("*.wav"))
    for name, wav in zip(("first.wav", "second.flac"), wavs, strict=False):
        (root / name).symlink_to(wav)
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("block", PYTHON)
def test_python_blocks_run(block: str, folder: Path) -> None:
    exec(compile(re.sub(r"\bsteps=\d+", "steps=1", block), "block", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, found in COMMANDS.items() if found])
def test_commands_run_in_order(page: str, folder: Path) -> None:
    for line in COMMANDS[page]:
        name, *arguments = shlex.split(line)
        if "<" in line or name == "demo":
            continue
        fewer = RECIPE if "--config" in line else SMALLER.get(name, [])
        assert cli.main([name, *arguments, *fewer]) == 0, line


# What one makes, the next ones take.
ORDER = (
    "import info make-corpus quantize search finetune export inflate embed evaluate "
    "enroll identify verify"
).split()


def examples(command: str) -> list[str]:
    module = importlib.import_module(f"tfq_sv.cli.{command.replace('-', '_')}")
    text = module.__doc__.split("example:")[1].replace("\\\n", " ")
    return re.findall(r"^ +tfq-sv +(.+)$", text, re.M)


@pytest.mark.slow
def test_examples_of_help_run_in_order(folder: Path) -> None:
    for name, target in (
        ("voxceleb1", "vox1"),
        ("voxceleb2", "vox2"),
        ("vox2_dev", "vox2/dev"),
        ("veri_test2.txt", "vox1/veri_test2.txt"),
    ):
        (folder / name).symlink_to(folder / target)
    for command in [*ORDER, *sorted(cli.COMMANDS.keys() - set(ORDER))]:
        for line in examples(command):
            name, *arguments = shlex.split(line)
            fewer = RECIPE if "--config" in line else SMALLER.get(name, [])
            assert cli.main([name, *arguments, *fewer]) == 0, line


def test_commands_are_found() -> None:
    wanted = (
        "demo import info quantize export evaluate train quantize finetune export evaluate verify "
        "train train evaluate reproduce"
    )
    assert [line.split()[0] for line in COMMANDS["README.md"]] == wanted.split()
    assert len(COMMANDS["mixed_precision.md"]) == 3


@pytest.mark.parametrize("line", INLINE)
def test_commands_within_text_have_such_flags(line: str) -> None:
    name, *arguments = shlex.split(line)
    if name.startswith("<") or not arguments:
        return
    command = importlib.import_module(f"tfq_sv.cli.{name.replace('-', '_')}")
    cli.parse(command.FLAGS, name, [x for x in arguments if x != "--help"])


class _ParsedError(Exception):
    """Ends a script where its arguments are read."""


@pytest.mark.parametrize("line", BENCHMARKS)
def test_benchmarks_take_such_arguments(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, *arguments = shlex.split(line)
    real = argparse.ArgumentParser.parse_args

    def parse(*given: Any, **options: Any) -> None:
        real(*given, **options)
        raise _ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    # TensorFlow runs already, and takes no more settings.
    for setting in ("set_intra_op_parallelism_threads", "set_inter_op_parallelism_threads"):
        monkeypatch.setattr(tf.config.threading, setting, lambda number: None)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr("sys.argv", [script, *arguments])
    with pytest.raises(_ParsedError):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_files_that_pages_name_exist() -> None:
    for page in PAGES:
        text = page.read_text()
        for script in re.findall(r"`(benchmarks/\w+\.py)", text):
            assert (ROOT / script).is_file(), script
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
