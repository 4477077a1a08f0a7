"""The forms of a network beside each other. Nothing here depends on how fast the machine is."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras
from conftest import tiny_resnet

import tfq_sv
from tfq_sv import experiments
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import KerasEncoder, evaluate
from tfq_sv.experiments import benchmark
from tfq_sv.export import export_float32

FORMS = ["float32", "float16", "dynamic-range int8", "full int8"]
SPEECH = [np.random.default_rng(i).normal(0, 1, (60, 80)).astype(np.float32) for i in range(2)]


@pytest.mark.slow
def test_all_forms_of_a_network(test_corpus: Corpus, tmp_path: Path) -> None:
    network = tiny_resnet(channels=32, embed_dim=64)
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=4)
    quantized = tfq_sv.quantize(network, recipe, calibrate=False)
    trials = Trials.read(test_corpus.root / "trials.txt", test_corpus)
    result = experiments.benchmark_network(
        network,
        {"float32": quantized},  # a recipe may be called so
        SPEECH,
        tmp_path,
        corpus=test_corpus,
        trials=trials,
        rounds=2,
    )
    assert not result.skipped
    found = result.forms
    by_name = {one.name: one for one in found}
    ours = ["float32, embed", "float32, inflated"]
    more = ["float32, static-int8", "float32, float16"] if find_spec("ai_edge_quantizer") else []
    assert [name for name in by_name if not name.startswith("ai-edge")] == [*FORMS, *ours, *more]
    sizes = [by_name[name].bytes for name in ("float32", "float16", ours[1], ours[0])]
    assert sizes == sorted(set(sizes), reverse=True)
    assert by_name["float32"].cosine == pytest.approx(1)
    expected = evaluate(KerasEncoder(network), test_corpus, trials).eer
    assert by_name["float32"].eer == pytest.approx(expected)
    for one in found:
        assert one.load_ms > 0
        assert (one.inflate_ms is not None) == (one.name == ours[0])
        assert {count: len(times) for count, times in one.latency_ms.items()} == {1: 2, 2: 2}
        assert one.cosine > 0.5
    lines = experiments.benchmark_table(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert lines[0].endswith("EER %")
    experiments.benchmark_figure(found, tmp_path / "benchmark.png", "small")
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_memory_is_that_of_the_run_alone(resnet18: keras.Model, tmp_path: Path) -> None:
    large = tfq_sv.models.build("ResNet18", embed_dim=32)
    forms = {name: tmp_path / f"{name}.tflite" for name in ("small", "large")}
    for path, model in zip(forms.values(), (resnet18, large), strict=True):
        export_float32(model, path, "features")
    ballast = np.ones(50_000_000)  # this process's memory must not count
    small, big = experiments.benchmark_files(forms, SPEECH, threads=[1], rounds=1)
    assert ballast.all()
    assert 1 < small.peak_mb < big.peak_mb < 200
    assert big.peak_mb > forms["large"].stat().st_size / 1e6


def test_a_child_that_fails_is_not_silent(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(bytes(100))
    with pytest.raises(RuntimeError, match="memory of"):
        benchmark.benchmark_files({"a": tmp_path / "a.tflite"}, SPEECH)
