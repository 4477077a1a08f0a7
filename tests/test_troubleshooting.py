"""docs/troubleshooting.md quotes what is really printed."""

import doctest
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from checkpoints import golden_state, save
from train_small import small

import tfq_sv
from tfq_sv import cli
from tfq_sv.cli import finetune
from tfq_sv.export import export_tflite, inflate, seal

PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text()
CONSOLE = re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S)
SESSIONS = re.findall(r"^```pycon\n(.*?)^```", PAGE, re.M | re.S)
SMALLER = {
    "search": ["--probes=2", "--batch_size=2", "--seconds=0.5"],
    "train": ["--batch_size=4", "--seconds=0.5"],
    "finetune": ["--batch_size=2", "--seconds=0.5"],
}


@pytest.fixture(scope="module")
def files(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in its forms, and everything that is wrong on the page."""
    root = tmp_path_factory.mktemp("files")
    model = small()
    model.save(root / "model.keras")
    quantized = tfq_sv.quantize(
        model, tfq_sv.QuantizationRecipe.uniform(model, bits=4), calibrate=False
    )
    quantized.save(root / "small.keras")
    export_tflite(quantized, root / "model.tflite")
    data = (root / "model.tflite").read_bytes()
    version = data.find(seal.MAGIC) + len(seal.MAGIC)
    (root / "inflated.tflite").write_bytes(inflate(root / "model.tflite"))
    (root / "cut.tflite").write_bytes(data[:30_000])
    (root / "flipped.tflite").write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    (root / "newer.tflite").write_bytes(data[:version] + b"\x02" + data[version + 1 :])
    for name, network, dataset in (
        ("simam", "SimAM_ResNet34_ASP", {}),
        ("whitened", "ResNet34", {"cmvn_args": {"norm_var": True}}),
    ):
        save(root / name / "avg_model.pt", golden_state("ResNet34"))
        config = {"model": network, "dataset_args": dataset}
        (root / name / "config.yaml").write_text(yaml.safe_dump(config))
    for part in ("train", "test"):
        shutil.copytree(corpus_dir / part, root / "corpus" / part)
    wavs = sorted((root / "corpus" / "test" / "wav").rglob("*.wav"))
    for name, wav in zip(("first.wav", "second.flac"), wavs, strict=False):
        shutil.copy(wav, root / name)
    for speaker in sorted((root / "corpus" / "train" / "wav").iterdir())[:2]:
        shutil.copytree(speaker, root / "recordings" / speaker.name)
    bad = min((root / "recordings").iterdir())
    (bad / "empty.wav").touch()
    soundfile.write(bad / "short.wav", np.full(1600, 0.1), 16000)
    soundfile.write(bad / "silent.wav", np.zeros(16000), 16000)
    (root / "others.txt").write_text("1 id10270/x/00001.wav id10270/y/00001.wav\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(finetune, "remove", lambda folder: None)  # the run is not finished
        tune = "finetune --model=small.keras --teacher=model.keras --corpus=corpus/train"
        line = [*tune.split(), "--out=tuned.keras", "--steps=1", *SMALLER["finetune"]]
        assert cli.main(line) == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize("block", CONSOLE, ids=range(len(CONSOLE)))
def test_commands_print_what_is_shown(
    block: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    for line, shown in re.findall(r"^\$ tfq-sv (.+)\n((?:(?!\$ ).*\n)*)", block, re.M):
        capsys.readouterr()
        name, *arguments = shlex.split(line)
        failed = cli.main([name, *arguments, *SMALLER.get(name, [])])
        said = capsys.readouterr()
        printed = said.err.splitlines()[-1] + "\n" if failed else said.out
        alike = doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)
        assert alike, printed


@pytest.mark.parametrize("block", SESSIONS, ids=range(len(SESSIONS)))
def test_sessions_print_what_is_shown(block: str) -> None:
    session = doctest.DocTestParser().get_doctest(block, {}, "session", None, 0)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session).failed == 0


def test_there_are_examples() -> None:
    assert len(CONSOLE) > 5
    assert SESSIONS
