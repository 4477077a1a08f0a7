"""What README and docs/ show runs as it stands, only made smaller; what --help shows is parsed."""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from checkpoints import save, state_like
from train_small import small

from tfq_sv import assets, cli, models

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "export").glob("*/README.md")),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text().replace("\\\n", " ") for page in PAGES}
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
    {
        " ".join(x.split())
        for text in TEXTS.values()
        for x in re.findall(r"`python\s+(benchmarks/[^`]+)`", text)
        + re.findall(r"^(?: {4})?python (benchmarks/[^`\n]+)", text, re.M)
    }
)
SMALLER = {
    "train": ["--steps=2", "--batch_size=4"],
    "finetune": ["--steps=2", "--batch_size=4"],
    "search": ["--probes=2", "--batch_size=2", "--seconds=0.5"],
    "enroll": ["--nocheck"],
    "compare": ["--batch_size=2", "--seconds=0.5", "--minutes=0.02", "--probes=1"],
}
ELSEWHERE = ("demo", "reproduce")  # test_evaluation and test_reproduction run them; here: parsed
FULL_SIZE = "campplus.keras"  # a published network, which no test downloads: parsed
FORM = ["--network=ResNet18", "--channels=16", "--embed_dim=16"]
RECIPE = ["--num_epochs=1", "--num_avg=1", "--batch_size=9", "--seconds=0.3", *FORM]


@pytest.fixture
def folder(
    corpus_dir: Path, musan: Path, rirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Small trees and networks in place of those that the pages name."""
    root = tmp_path / "pages"
    for part in ("train", "test"):
        (root / "corpus").mkdir(parents=True, exist_ok=True)
        (root / "corpus" / part).symlink_to(corpus_dir / part)
        own = root / "corpus" / "recordings"
        shutil.copytree(corpus_dir / part / "wav", own, dirs_exist_ok=True)
    (root / "my").symlink_to("corpus")
    (root / "corpus" / "trials.txt").symlink_to(corpus_dir / "test" / "trials.txt")
    for name, tree in (("musan", musan), ("RIRS_NOISES", rirs), ("vox1", corpus_dir / "test")):
        shutil.copytree(tree, root / name)
    (root / "vox1" / "trials.txt").rename(root / "vox1" / "veri_test2.txt")
    shutil.copytree(corpus_dir / "train" / "wav", root / "vox2" / "dev" / "aac")
    narrow = models.build("ResNet18", channels=4, embed_dim=16)
    save(root / "voxceleb_resnet34_LM" / "avg_model.pt", state_like(narrow))
    for name in ("model", "resnet18"):
        small().save(root / f"{name}.keras")
    wavs = sorted((corpus_dir / "test" / "wav").rglob("*.wav"))
    for name, wav in zip(("first.wav", "second.flac"), wavs, strict=False):
        (root / name).symlink_to(wav)
    monkeypatch.chdir(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON)
def test_python_blocks_run(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = dict.fromkeys(assets.NAMES, small)
    monkeypatch.setattr(assets, "load", lambda name: shipped[name]())
    exec(compile(re.sub(r"\bsteps=\d+", "steps=1", block), "block", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, found in COMMANDS.items() if found])
def test_commands_run_in_order(page: str, folder: Path) -> None:
    for line in COMMANDS[page]:
        name, *arguments = shlex.split(line)
        if "<" in line or ("--form=" in line and not find_spec("ai_edge_quantizer")):
            continue
        if name in ELSEWHERE or FULL_SIZE in line:
            parse(line)
            continue
        fewer = RECIPE if "--config" in line else SMALLER.get(name, [])
        if "--init" in line:  # which has its own form
            fewer = [one for one in fewer if one not in FORM]
        assert cli.main([name, *arguments, *fewer]) == 0, line


def parse(line: str) -> None:
    """Fails where a command does not have such flags and values."""
    name, *arguments = shlex.split(line)
    command = importlib.import_module(f"tfq_sv.cli.{name.replace('-', '_')}")
    cli.parse(command.FLAGS, name, [x for x in arguments if x != "--help"])


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_examples_of_help_have_such_flags(command: str) -> None:
    module = importlib.import_module(f"tfq_sv.cli.{command.replace('-', '_')}")
    text = module.__doc__.split("example:")[1].replace("\\\n", " ")
    examples = re.findall(r"^ +tfq-sv +(.+)$", text, re.M)
    assert examples
    for line in examples:
        parse(line)


def test_commands_are_found() -> None:
    for page, wanted in (
        ("README.md", "verify import quantize export evaluate verify"),
        ("docs/checkpoints.md", "import info"),
        ("docs/recordings.md", "train quantize finetune export evaluate verify"),
        ("docs/recipes.md", "train train evaluate reproduce"),
    ):
        assert [line.split()[0] for line in COMMANDS[page]] == wanted.split()
    assert len(COMMANDS["docs/mixed_precision.md"]) == 4


@pytest.mark.parametrize("line", INLINE)
def test_commands_within_text_have_such_flags(line: str) -> None:
    if not line.startswith("<") and " " in line:
        parse(line)


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


def test_every_page_is_linked() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_printouts_name_their_command_and_commit() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for printout in (ROOT / "docs" / "benchmarks").iterdir():
        first = printout.read_text().split("\n", 1)[0]
        assert re.match(r"# (python benchmarks/\w+\.py|tfq-sv \w+) .*\(git [0-9a-f]{7}", first), (
            first
        )
        assert f"](benchmarks/{printout.name})" in pages, printout.name
