"""The paper's table, on small corpora of VoxCeleb's shape."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from conftest import shallow
from train_small import small
from workers import Run, cluster

import tfq_sv
from tfq_sv import cli
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import evaluate
from tfq_sv.experiments import reproduction
from tfq_sv.experiments.reproduction_report import write_report
from tfq_sv.export import SpeakerEncoder
from tfq_sv.metrics import P_TARGETS, eer
from tfq_sv.quantization.quantizers import quantizable

LISTS = {"Vox1-O": "veri_test2.txt", "Vox1-H": "list_test_hard2.txt"}


@pytest.fixture
def vox1(corpus_dir: Path, tmp_path: Path) -> Path:
    """The test corpus with two of VoxCeleb1's lists in it."""
    folder = tmp_path / "vox1"
    shutil.copytree(corpus_dir / "test", folder)
    lines = (folder / "trials.txt").read_text().splitlines(keepends=True)
    (folder / "veri_test2.txt").write_text("".join(lines))
    (folder / "list_test_hard2.txt").write_text("".join(lines[::2]))
    (folder / "trials.txt").unlink()
    return folder


@pytest.fixture
def network(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(0)
    small().save(tmp_path / "network.keras")
    return tmp_path / "network.keras"


def command(network: Path, corpus_dir: Path, vox1: Path, *more: str) -> list[str]:
    folders = [f"--train={corpus_dir / 'train'}", f"--test={vox1}", f"--out={vox1.parent / 'out'}"]
    quick = ["--steps=2", "--batch_size=2", "--seconds=0.5", "--probes=2"]
    return ["reproduce", f"--model={network}", *folders, *quick, *more]


def tables(report: str) -> list[list[list[str]]]:
    """The rows of each table, without its header."""
    found = [part.splitlines() for part in report.split("\n\n") if part[:1] == "|"]
    return [[re.split(r" *\| *", line)[1:-1] for line in part[2:]] for part in found]


def cells(report: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in tables(report)[0]}


FEW = ("FP32", "FP32, fine-tuned", "2 bits, k-means", "2 bits, k-means, calibrated")
"""A row of each kind; the mixed ones are added."""
MORE = (
    *FEW,
    "4 bits, k-means",
    "1 bit, adaptive binary",
    "2 bits, k-means, calibrated without speech",
)


def only(names: tuple[str, ...]) -> list[reproduction.Row]:
    return [row for row in reproduction.uniform_rows(small()) if row.name in names]


def test_rows_of_the_table() -> None:
    uniform = [f"{x}, k-means" for x in ("8 bits", "4 bits", "3 bits", "2 bits", "1 bit")]
    tuned = ["FP32, fine-tuned", *uniform, "1 bit, static binary", "1 bit, adaptive binary"]
    ways = ("calibrated", "calibrated without speech")
    calibrated = [f"{name}, {way}" for name in uniform[1:] for way in ways]
    rows = reproduction.uniform_rows(small())
    assert [row.name for row in rows] == ["FP32", *tuned, *calibrated]
    assert [row.name for row in rows if row.tuned] == tuned
    assert [row.name for row in rows if not row.speech] == calibrated[1::2]


@pytest.mark.slow
def test_the_whole_table(
    network: Path, corpus_dir: Path, vox1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted one, resumed: a row of each kind, and all mixed ones."""
    out, measured, few = vox1.parent / "out", [], only(MORE)
    monkeypatch.setattr(reproduction, "uniform_rows", lambda model: [*few])
    targets, real = reproduction._Run.targets, reproduction._Run._measure
    monkeypatch.setattr(reproduction._Run, "targets", lambda self: targets(self)[2:])

    def measure(self: Any, row: reproduction.Row, *rest: Any) -> None:
        if len(measured) == 4:
            measured.append("broken")
            raise KeyboardInterrupt
        measured.append(row.name)
        real(self, row, *rest)

    monkeypatch.setattr(reproduction._Run, "_measure", measure)
    arguments = command(network, corpus_dir, vox1)
    assert cli.main(arguments) == 130
    assert list(cells((out / "report.md").read_text())) == measured[:4]
    begun = out / few[4].folder / "model.keras"  # tuned, not measured
    kept = begun.stat().st_mtime_ns
    assert cli.main(arguments) == 0
    assert begun.stat().st_mtime_ns == kept
    rows = cells((out / "report.md").read_text())
    assert [name for name in measured if name != "broken"] == list(rows)
    assert list(rows)[: len(few)] == [row.name for row in few]
    folders = ("2-bits-k-means", "2-bits-k-means-calibrated")
    tuned, calibrated = (tfq_sv.load_model(out / x / "model.keras").get_weights() for x in folders)
    assert any(np.any(a != b) for a, b in zip(tuned, calibrated, strict=True))
    mixed = list(rows)[len(few) :]
    assert mixed
    assert all(name.startswith("mixed, 0.0") for name in mixed)
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("*/state"))
    assert not list(out.glob("*/embeddings"))
    corpus = Corpus.read(vox1)
    for folder, name in (("2-bits-k-means", "2 bits, k-means"), ("FP32", "FP32")):
        size = (out / folder / "model.tflite").stat().st_size
        assert rows[name][0] == f"{size / 1e6:.3f}"
    encoder = SpeakerEncoder(out / "2-bits-k-means" / "model.tflite")
    for column, file in ((2, "veri_test2.txt"), (6, "list_test_hard2.txt")):
        rate = 100 * evaluate(encoder, corpus, Trials.read(vox1 / file, corpus)).eer
        assert rows["2 bits, k-means"][column].startswith(f"{rate:.2f} [")
    assert rows["FP32, fine-tuned"][3] == "" != rows["FP32"][3]
    claims = tables((out / "report.md").read_text())[1]
    assert [row[:3] for row in claims if not row[0].startswith(("mixed", "fine-tuning"))] == [
        ["4 bits lose nothing", "4 bits, k-means", "FP32, fine-tuned"]
    ]
    assert any(row[2] == "2 bits, k-means" for row in claims)  # the mixed ones, as large
    again = (out / "report.md").read_text()
    assert cli.main(arguments) == 0  # nothing is left to do
    assert (out / "report.md").read_text() == again
    assert len(measured) == len(rows) + 1


FEW_ROWS = f"""
from tfq_sv.cli import run
from tfq_sv.experiments import reproduction

real = reproduction.uniform_rows
reproduction.uniform_rows = lambda model: [row for row in real(model) if row.name in {FEW}]
run()
"""


@pytest.mark.slow
def test_two_workers_make_the_table_that_one_makes(
    network: Path, corpus_dir: Path, vox1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, few = vox1.parent / "out", only(FEW)
    monkeypatch.setattr(reproduction, "uniform_rows", lambda model: [*few])
    arguments = command(network, corpus_dir, vox1, "--target_mb=0.04")
    assert cli.main(arguments) == 0
    out.rename(vox1.parent / "alone")
    both = [Run("-c", [FEW_ROWS, *arguments], config) for config in cluster()]
    for run in both:
        run.ends()
    one, two = (cells((vox1.parent / x / "report.md").read_text()) for x in ("alone", "out"))
    assert list(one) == list(two)
    assert len(one) > len(FEW)  # the mixed ones too
    assert [row[0] for row in one.values()] == [row[0] for row in two.values()]  # MB
    for kept in sorted(vox1.parent.glob("alone/*/model.keras")):
        pair = [tfq_sv.load_model(x) for x in (kept, out / kept.parent.name / kept.name)]
        for a, b in zip(*(model.get_weights() for model in pair), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_claims_are_judged_by_their_intervals(tmp_path: Path) -> None:
    """Rows with made-up scores: as good as float, better, worse, and a coin's toss."""
    rng = np.random.default_rng(0)
    speakers = {f"{who}-{i}": str(who) for who in range(40) for i in range(2)}
    corpus = Corpus(tmp_path, {key: tmp_path / key for key in speakers}, speakers)
    pairs = [(a, b) for a in speakers for b in speakers if a < b]
    labels = np.array([speakers[a] == speakers[b] for a, b in pairs])
    trials = Trials([a for a, _ in pairs], [b for _, b in pairs], labels, "made up")
    noise = rng.normal(size=len(labels))

    def row(name: str, kind: str, size: int, noise_level: float, own: float = 0.0) -> Path:
        folder = tmp_path / reproduction.Row(name).folder
        folder.mkdir()
        scores = labels + noise_level * noise + own * rng.normal(size=len(labels))
        np.save(folder / "scores-trials.npy", scores)
        rates = {"eer": eer(scores, labels)[0], "interval": [0.0, 1.0]}
        rates["min_dcf"] = {str(p): 1.0 for p in P_TARGETS}
        result = {"name": name, "kind": kind, "bytes": size, "lists": {"trials": rates}}
        (folder / "results.json").write_text(json.dumps({**result, "skipped": []}))
        return folder

    folders = [
        row("FP32", "", 1000, 0.5),
        row("FP32, fine-tuned", "", 1000, 0.5),
        row("4 bits, k-means", "uniform", 130, 0.5),
        row("2 bits, k-means", "uniform", 70, 0.7),
        row("1 bit, k-means", "uniform", 40, 0.9),
        row("1 bit, static binary", "static binary", 40, 0.7),
        row("1 bit, adaptive binary", "adaptive binary", 40, 2.0),
        row("mixed, 0.07 MB", "mixed", 69, 0.0, 0.7),
        row("mixed, 0.07 MB, MSFT", "mixed, MSFT", 69, 0.5),
    ]
    report = write_report(tmp_path, folders, {"trials": trials}, corpus, "Made up.")
    mixed, staged = "mixed, 0.07 MB", "mixed, 0.07 MB, MSFT"
    size, stages = "mixed bits beat uniform ones of the size", "fine-tuning in stages beats"
    assert [(*row[:3], row[4]) for row in tables(report)[1]] == [
        ("4 bits lose nothing", "4 bits, k-means", "FP32, fine-tuned", "holds"),
        ("static binary beats 1-bit k-means", "1 bit, static binary", "1 bit, k-means", "holds"),
        (
            "adaptive binary beats 1-bit k-means",
            "1 bit, adaptive binary",
            "1 bit, k-means",
            "does not hold",
        ),
        (size, mixed, "2 bits, k-means", "cannot be told"),
        (size, staged, "2 bits, k-means", "holds"),
        (f"{stages} fine-tuning at once", staged, mixed, "holds"),
    ]


def test_rows_of_unknown_speakers_have_no_interval(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, {key: tmp_path / key for key in "abcd"}, {})
    trials = Trials(list("aab"), list("bcd"), np.array([True, False, False]), "made up")
    folders = []
    for name in ("FP32", "FP32, fine-tuned", "4 bits, k-means"):
        folders.append(tmp_path / reproduction.Row(name).folder)
        folders[-1].mkdir()
        np.save(folders[-1] / "scores-trials.npy", np.array([0.5, 0.4, 0.3]))
        rates = {"eer": 0.05, "interval": None, "min_dcf": {str(p): 1.0 for p in P_TARGETS}}
        kind = "uniform" if "bits" in name else ""
        row = {"name": name, "kind": kind, "bytes": 10, "skipped": [], "lists": {"trials": rates}}
        (folders[-1] / "results.json").write_text(json.dumps(row))
    report = write_report(tmp_path, folders, {"trials": trials}, corpus, "Made up.")
    assert cells(report)["4 bits, k-means"][2:4] == ["5.00", "speakers unknown"]
    assert [row[3:] for row in tables(report)[1]] == [["speakers unknown", "cannot be told"]]


def test_networks_of_enough_channels_have_trellis_rows() -> None:
    model = tfq_sv.models.build("ResNet18", channels=16, embed_dim=16)
    rows = {row.name: row for row in reproduction.uniform_rows(model)}
    for bits in ("4 bits", "2 bits", "1 bit", "0.5 bit"):
        tuned, calibrated = rows[f"{bits}, trellis"], rows[f"{bits}, trellis, calibrated"]
        without = rows[f"{bits}, trellis, calibrated without speech"]
        assert tuned.recipe == calibrated.recipe == without.recipe
        assert (tuned.tuned, calibrated.tuned, without.tuned) == (True, False, False)
        assert (calibrated.speech, without.speech) == (True, False)
    assert len({row.folder for row in rows.values()}) == len(rows)


@pytest.mark.slow
def test_mixed_rows_have_the_sizes_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shallow(monkeypatch)
    model = tfq_sv.models.build("ResNet18", channels=16, embed_dim=16)
    traces = {name: 2.0**-i for i, name in enumerate(quantizable(model))}
    rows = reproduction.mixed_rows(model, traces, [130_000, 10_000_000], "waveform")
    assert [row.name for row in rows] == [
        "mixed, 0.13 MB",
        "mixed, 0.13 MB, MSFT",
        "mixed, 0.13 MB, trellis",
        "mixed, 10 MB",  # 8 bits throughout: a single stage, no trellis
    ]
    with pytest.raises(InputError, match=r"two of the target sizes are 0\.13 MB"):
        reproduction.mixed_rows(model, traces, [130_000, 130_001], "waveform")
    for row in rows[:3]:
        assert row.recipe is not None
        # What layers share, decoding tables and groups, leaves gaps between the sizes.
        assert 0.97 * 130_000 < tfq_sv.predict_bytes(model, row.recipe) <= 130_000
    assert [row.staged for row in rows] == [False, True, False, False]


def test_what_cannot_work(
    network: Path, corpus_dir: Path, vox1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*more: str) -> str:
        assert cli.main(command(network, corpus_dir, vox1, *more)) == 1
        return capsys.readouterr().err

    assert "must be sizes in MB" in said("--target_mb=small")
    for option in ("steps", "probes", "learning_rate"):
        message = said(f"--{option}=0")
        assert option in message
        assert "positive" in message
        assert not (vox1.parent / "out").exists()
    assert "does not exist" in said("--trials=nowhere.txt")
    assert "is a file; name a folder" in said(f"--out={network}")
    out = vox1.parent / "out"
    out.mkdir()
    (out / "settings.json").write_text(json.dumps({"network": "ResNet34"}))
    (out / "float").mkdir()
    (out / "float" / "results.json").touch()
    assert "holds a run with network ResNet34, not small; finish it" in said()
    for name in LISTS.values():
        (vox1 / name).unlink()
    assert "has no trial list (veri_test2.txt" in said()
    shutil.rmtree(out)
    shutil.copy(corpus_dir / "test" / "trials.txt", vox1)
    model = tfq_sv.load_model(network)
    tfq_sv.quantize(model, tfq_sv.QuantizationRecipe.uniform(model), calibrate=False).save(network)
    assert "is quantized already; give the FP32 network" in said()


def test_impossible_sizes_are_errors_at_once(
    network: Path, corpus_dir: Path, vox1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(network, corpus_dir, vox1, "--target_mb=0.02")
    assert cli.main(arguments) == 1
    assert "no file of 20,000 bytes is possible: the least target is" in capsys.readouterr().err
    assert not list((vox1.parent / "out").glob("*/*"))
