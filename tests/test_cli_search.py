"""From a wanted size to a file, by the commands."""

import re
from pathlib import Path

import pytest
from conftest import tiny_resnet

import tfq_sv
from tfq_sv import cli
from tfq_sv.quantization.quantizers import quantizable


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "model.keras"
    tiny_resnet(channels=24).save(path)
    return path


def search(model: Path, corpus_dir: Path, out: Path, *more: str) -> list[str]:
    return [
        *("search", f"--model={model}", f"--corpus={corpus_dir}/train", f"--out={out}"),
        *("--probes=2", "--batch_size=2", "--seconds=0.5", "--bits=1,2,4", *more),
    ]


@pytest.mark.slow
def test_from_a_size_to_a_file(
    model: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.json"
    assert cli.main(search(model, corpus_dir, recipe, "--target_mb=0.07")) == 0
    said = capsys.readouterr().out
    assert re.search(r"layer1\.0\.conv2 +20,736 +\S+ +\S+ +[124]\n", said)
    assert f"wrote {recipe}" in said
    assert (tmp_path / "recipe.png").read_bytes().startswith(b"\x89PNG")
    # What was measured is used again.
    assert cli.main(search(model, corpus_dir, recipe, "--target_mb=0.07")) == 0
    tuned, file = tmp_path / "tuned.keras", tmp_path / "tuned.tflite"
    train = f"--corpus={corpus_dir}/train"
    stages = ["finetune", f"--model={model}", f"--recipe={recipe}", train, f"--out={tuned}"]
    assert cli.main([*stages, "--steps=1", "--batch_size=2", "--seconds=0.5"]) == 0
    assert not list(tmp_path.glob("*.state"))
    assert cli.main(["export", f"--model={tuned}", f"--out={file}"]) == 0
    # Five layers fill a target less closely than many; that none fills it better without costing
    # more, test_allocation proves.
    assert 0.95 * 70_000 < file.stat().st_size <= 70_000
    layers = tfq_sv.QuantizationRecipe.from_json(recipe).layers
    assert len({entry.bits for entry in layers.values()}) > 1


@pytest.mark.slow
def test_a_curve_of_sizes(
    model: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--target_mb=0.07,0.08", "--method=sections", "--sensitivity=hessian", "--trellis"]
    more += [f"--test_corpus={corpus_dir}/test", f"--plot={tmp_path}/curve.png"]
    assert cli.main(search(model, corpus_dir, tmp_path / "recipe.json", *more)) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"EER \d+\.\d\d % \(\d+\.\d\d to \d+\.\d\d\)\n", said)) == 2
    network = tfq_sv.load_model(model)
    for size in ("0.07", "0.08"):
        recipe = tfq_sv.QuantizationRecipe.from_json(tmp_path / f"recipe-{size}MB.json")
        assert recipe.layers.keys() == quantizable(network).keys()
    assert (tmp_path / "curve.png").exists()


def test_what_cannot_be_searched_says_why(
    model: Path, corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "recipe.json", tmp_path / "other.json"
    cases = [
        (search(model, corpus_dir, out), "--target_mb is missing"),
        (search(model, corpus_dir, out, "--target_mb=big"), "must be sizes in MB such as 1.0"),
        (search(model, corpus_dir, out, "--target_mb=1", "--bits=9"), "from 1 to 8, not 9"),
        (search(model, corpus_dir, out, "--target_mb=1", "--bits=0.5"), "from 1 to 8, not '0.5'"),
        (search(model, corpus_dir, out, "--target_mb=1", "--plot=x.pdf"), "must end in .png"),
        (search(model, corpus_dir, tmp_path / "x.txt", "--target_mb=1"), "must end in .json"),
        (search(model, corpus_dir, out, "--target_mb=0.01"), "the least target is"),
        (search(model, corpus_dir, out, "--target_mb=1", "--trials=x"), "needs --test_corpus"),
        (search(model, corpus_dir, other, "--target_mb=1", "--test_corpus=x"), "x does not exist"),
    ]
    for arguments, message in cases:
        assert cli.main(arguments) == 1
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("other*"))  # found before the long work
