"""`tfq-sv compare`: two networks at two widths and a size, resumed, on a small corpus."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tf_keras as keras
from hypothesis import given
from hypothesis import strategies as st
from test_reproduction import cells
from train_small import small

from tfq_sv import cli
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import evaluate
from tfq_sv.experiments import network_comparison
from tfq_sv.experiments.network_comparison_report import pareto
from tfq_sv.export import SpeakerEncoder


@pytest.fixture
def networks(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.keras", tmp_path / "b.keras"]
    for seed, path in enumerate(paths):
        keras.utils.set_random_seed(seed)
        small().save(path)
    return paths


def command(networks: list[Path], corpus: Path, out: Path, *more: str) -> list[str]:
    quick = ["--batch_size=2", "--seconds=0.5", "--minutes=0.02", "--probes=2"]
    folders = [f"--train={corpus / 'train'}", f"--test={corpus / 'test'}", f"--out={out}"]
    return ["compare", f"--models={','.join(map(str, networks))}", *folders, *quick, *more]


@pytest.mark.slow
def test_rows_are_measured_once_and_added_to(
    networks: list[Path],
    corpus_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, measured = tmp_path / "out", []
    real = network_comparison._Run._measure

    def measure(self: Any, name: str, row: Any, *rest: Any) -> None:
        real(self, name, row, *rest)
        measured.append((name, row.name))

    monkeypatch.setattr(network_comparison._Run, "_measure", measure)
    assert cli.main(command(networks[:1], corpus_dir, out, "--bits=4")) == 0
    assert measured == [("a", "FP32"), ("a", "4 bits")]
    assert cli.main(command(networks, corpus_dir, out, "--bits=4,2", "--target_mb=0.001,9")) == 0
    mixed = "mixed, 9 MB"
    assert measured[2:] == [("a", "2 bits"), ("a", mixed)] + [
        ("b", row) for row in ("FP32", "4 bits", "2 bits", mixed)
    ]
    table = cells((out / "report.md").read_text())
    assert sorted(table) == sorted(f"{name}, {row}" for name, row in measured)
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    corpus = Corpus.read(corpus_dir / "test")
    trials = Trials.read(corpus_dir / "test" / "trials.txt", corpus)
    file = out / "b" / "2-bits" / "model.tflite"
    rate = evaluate(SpeakerEncoder(file), corpus, trials).eer
    row = json.loads((file.parent / "results.json").read_text())
    assert row["eer"] == pytest.approx(rate)
    assert row["bytes"] == file.stat().st_size
    assert (file.parent / "embeddings" / "network.json").is_file()
    assert cli.main(command(networks, corpus_dir, out, "--bits=4", "--seed=1")) == 1
    other = tmp_path / "other.txt"
    other.write_text("".join((corpus_dir / "test/trials.txt").read_text().splitlines(True)[:-1]))
    networks[1].rename(tmp_path / "c.keras")  # a network that is not there yet, on other trials
    capsys.readouterr()
    new = [tmp_path / "c.keras"]
    assert cli.main(command(new, corpus_dir, out, "--bits=4", f"--trials={other}")) == 1
    assert "holds a run with another trials" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    rows = [{"bytes": size, "eer": rate} for size, rate in points]
    front = pareto(rows)

    def beaten(a: dict[str, int]) -> bool:
        return any(b["bytes"] <= a["bytes"] and b["eer"] <= a["eer"] and b != a for b in rows)

    best = {(row["bytes"], row["eer"]) for row in rows if not beaten(row)}
    assert {(row["bytes"], row["eer"]) for row in front} == best
    assert len(front) == len(best)


@given(st.lists(st.sampled_from(["a", "a-2", "a-3", "b/a", "b/a-2", ".", ".."]), max_size=9))
def test_every_network_has_a_name_of_its_own(paths: list[str]) -> None:
    names = network_comparison.names_of([f"{path}.keras" for path in paths] + paths)
    assert len(set(names)) == 2 * len(paths)
    assert not any(set(name) <= {"."} for name in names)


@pytest.mark.slow
def test_bad_recordings_of_both_corpora_are_said(
    networks: list[Path], corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus_dir, tmp_path / "corpus")
    paths = sorted((tmp_path / "corpus/train").rglob("*.wav"))
    for path in paths[1:]:
        path.unlink()
    soundfile.write(paths[0].parent / "silent.wav", np.zeros(16000), 16000)
    for name in ("wav.scp", "utt2spk"):
        (tmp_path / "corpus/train" / name).unlink(missing_ok=True)
    arguments = command(networks[:1], tmp_path / "corpus", tmp_path / "out", "--bits=4")
    assert cli.main(arguments) == 0
    assert "skipped: 1 of" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    assert cli.main([*arguments, "--strict"]) == 1  # its header is a good one
    assert "silent.wav is silent" in capsys.readouterr().err


def test_what_cannot_be_compared_is_said_at_once(
    networks: list[Path], corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, message in [
        ("--target_mb=1,1.00001", "two of the target sizes are 1 MB"),
        ("--learning_rate=0", "learning_rate"),
        ("--probes=0", "probes"),
    ]:
        assert cli.main(command(networks, corpus_dir, tmp_path / "out", option)) == 1
        assert message in capsys.readouterr().err
        assert not list((tmp_path / "out").glob("*"))


def test_a_missing_network_is_an_error(
    corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = command([tmp_path / "none.keras"], corpus_dir, tmp_path / "out")
    assert cli.main(missing) == 1
    assert "none.keras" in capsys.readouterr().err
