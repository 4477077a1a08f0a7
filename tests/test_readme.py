"""What README shows runs as it stands."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from checkpoints import golden_state, save
from train_small import small

from tfq_sv import cli

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^(?:\.venv/bin/)?tfq-sv +(.+?)(?: +#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("block", range(len(PYTHON)))
def test_python_blocks_run(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[block], f"README block {block}", "exec"), {})


def test_commands_run_in_order(
    corpus_dir: Path, musan: Path, rirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only made smaller: fewer steps, and small trees in place of `my` and VoxCeleb."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    for part in ("train", "test", "test/trials.txt"):
        (tmp_path / "my" / Path(part).name).symlink_to(corpus_dir / part)
    for name, tree in (("musan", musan), ("RIRS_NOISES", rirs), ("vox1", corpus_dir / "test")):
        shutil.copytree(tree, tmp_path / name)
    (tmp_path / "vox1" / "trials.txt").rename(tmp_path / "vox1" / "veri_test2.txt")
    shutil.copytree(corpus_dir / "train" / "wav", tmp_path / "vox2" / "dev" / "aac")
    save(tmp_path / "voxceleb_resnet34_LM" / "avg_model.pt", golden_state("ResNet34"))
    wavs = sorted((corpus_dir / "test" / "wav").rglob("*.wav"))
    recipe = "--num_epochs=1 --num_avg=1 --batch_size=9 --seconds=0.3 --network=ResNet18"
    smaller = {
        "train": ["--steps=2", "--batch_size=4"],
        "finetune": ["--steps=2", "--batch_size=4"],
        "reproduce": ["--model=small.keras", "--steps=1", "--batch_size=2", "--probes=1"],
    }
    small().save("small.keras")
    ran = []
    for line in COMMANDS:
        name, *arguments = shlex.split(line)
        if "<" in line or name == "demo":
            continue
        words = [
            str(wavs[0]) if word == "first.wav" else str(wavs[1]) if word == "second.flac" else word
            for word in arguments
        ]
        fewer = recipe.split() if "--config" in line else smaller.get(name, [])
        assert cli.main([name, *words, *fewer]) == 0, line
        ran.append(name)
    from_checkpoint = ["import", "info", "quantize", "export", "evaluate"]
    assert ran == [
        *from_checkpoint,
        "train",
        "quantize",
        "finetune",
        "export",
        "evaluate",
        "verify",
        "train",
        "train",
        "evaluate",
        "reproduce",
    ]
