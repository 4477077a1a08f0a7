"""Does a test fail when a part of the core is off? `python benchmarks/mutations.py`.

Each mutation changes one place in a copy of the sources, and runs the tests that stand for it.
A mutation that all of them pass has survived. Prints a table; `--only` takes words of its names.
"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import hypothesis.extra.numpy
import pytest
import sklearn.metrics
import tensorflow
import tensorflow_model_optimization
import tf_keras

ROOT = Path(__file__).parents[1]
_OWN = (ROOT, ROOT / "benchmarks", Path())
_IMPORTED = (hypothesis, sklearn, tensorflow, tensorflow_model_optimization, tf_keras)
_OPTIONS = ["-xq", "-p", "no:cacheprovider"]
_QUANTIZATION, _CALIBRATION = "tfq_sv/quantization", "tests/test_calibration.py"
_GPTQ, _METRICS, _CODEBOOK = "tests/test_gptq.py", "tests/test_metrics.py", "tests/test_codebook.py"
_PART = f"{_CALIBRATION}::test_each_part_of_calibration_pays"


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        name: what is off.
        file: where, below the project's root.
        old: what is there, once.
        new: what takes its place.
        tests: files or tests, one of which should fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = [
    Mutation(
        "calibration: no kernel correction",
        f"{_QUANTIZATION}/calibration.py",
        "target = compensated_kernel(kernel, gram, cross)",
        "target = kernel",
        (f"{_PART}[correction]",),
    ),
    Mutation(
        "calibration: no alternation",
        f"{_QUANTIZATION}/calibration.py",
        "rounded, centroids = fit_to_output(target, gram, centroids, damping=damping)",
        "rounded = reconstruct(target, gram, centroids, damping=damping)",
        (f"{_PART}[centroids]",),
    ),
    Mutation(
        "calibration: no importance",
        f"{_QUANTIZATION}/calibration.py",
        "[:, :, None] + 1e-30",
        "[:, :, None] * 0 + 1",
        (f"{_PART}[importance]",),
    ),
    Mutation(
        "calibration: BatchNorms stay",
        f"{_QUANTIZATION}/calibration.py",
        "_set(layer, now if noise else moments[layer])",
        "moments.clear()",
        (f"{_PART}[statistics]",),
    ),
    Mutation(
        "calibration: negative gains stay",
        f"{_QUANTIZATION}/calibration.py",
        "positive_gains(model)\n",
        "pass\n",
        ("tests/test_folding.py",),
    ),
    Mutation(
        "GPTQ: errors go nowhere within a block",
        f"{_QUANTIZATION}/gptq.py",
        "left[:, k + 1 : stop] -= spread",
        "left[:, k + 1 : stop] -= 0 * spread",
        (_GPTQ,),
    ),
    Mutation(
        "GPTQ: errors go nowhere beyond a block",
        f"{_QUANTIZATION}/gptq.py",
        "left[:, stop:] -= spread",
        "left[:, stop:] -= 0 * spread",
        (_GPTQ,),
    ),
    Mutation(
        "GPTQ: strongest input last",
        f"{_QUANTIZATION}/gptq.py",
        "np.argsort(-np.einsum",
        "np.argsort(np.einsum",
        (_GPTQ,),
    ),
    Mutation(
        "alternation: takes what is worse",
        f"{_QUANTIZATION}/gptq.py",
        "if found >= error:",
        "if False:",
        (_GPTQ,),
    ),
    Mutation(
        "alternation: one turn",
        f"{_QUANTIZATION}/gptq.py",
        "in range(_TURNS if",
        "in range(1 if",
        (_GPTQ,),
    ),
    Mutation(
        "correction: no ridge",
        f"{_QUANTIZATION}/gptq.py",
        "ridge = _RIDGE * ",
        "ridge = 0 * ",
        (_GPTQ,),
    ),
    Mutation(
        "latent weights: not mirrored",
        f"{_QUANTIZATION}/gptq.py",
        "np.clip(2 * near - kernel, low, high)",
        "near",
        (_GPTQ,),
    ),
    Mutation(
        "AAM: no branch past pi",
        "tfq_sv/training/losses.py",
        "shifted = tf.where(cosines > limit, shifted, cosines - (1.0 + limit))",
        "pass",
        ("tests/test_training.py::test_aam_softmax_is_its_formula",),
    ),
    Mutation(
        "AAM: another slope past pi",
        "tfq_sv/training/losses.py",
        "cosines - (1.0 + limit))",
        "2 * cosines - (1.0 + limit))",
        ("tests/test_training.py::test_aam_softmax_is_its_formula",),
    ),
    Mutation(
        "AAM: margin for all speakers",
        "tfq_sv/training/losses.py",
        "tf.where(tf.one_hot(labels, self.speakers, True, False), shifted, cosines)",
        "shifted",
        ("tests/test_training.py::test_aam_softmax_is_its_formula",),
    ),
    Mutation(
        "threshold_at_far: 0.96 of the rate",
        "tfq_sv/metrics.py",
        "accepted <= int(allowed)",
        "accepted <= int(allowed * 96 / 100)",
        (_METRICS,),
    ),
    Mutation(
        "threshold_at_far: one nontarget fewer",
        "tfq_sv/metrics.py",
        "accepted <= int(allowed)",
        "accepted < int(allowed)",
        (_METRICS,),
    ),
    Mutation(
        "threshold_at_far: in floating point",
        "tfq_sv/metrics.py",
        "Fraction(str(float(far))) * int(accepted[0])",
        "far * int(accepted[0])",
        (_METRICS,),
    ),
    Mutation(
        "threshold_at_far: of any number of trials",
        "tfq_sv/metrics.py",
        "allowed < 10",
        "allowed < 0",
        (_METRICS,),
    ),
    Mutation(
        "EER: ties make steps of their own",
        "tfq_sv/metrics.py",
        "values[1:] != values[:-1]",
        "values[1:] == values[1:]",
        (_METRICS,),
    ),
    Mutation(
        "interval: a trial within one speaker counts squared",
        "tfq_sv/metrics.py",
        "np.where(first == second, len(place), second)",
        "second",
        (_METRICS,),
    ),
    Mutation(
        "minDCF: costs swapped",
        "tfq_sv/metrics.py",
        "c_miss * p_target * misses + c_fa * (1 - p_target) * alarms",
        "c_fa * p_target * misses + c_miss * (1 - p_target) * alarms",
        (_METRICS,),
    ),
    Mutation(
        "codebook: importance unused",
        "tfq_sv/codebook.py",
        "kmeans.optimum(*kmeans.in_order(weights, importance), check_bits(bits))",
        "kmeans.optimum(*kmeans.in_order(weights, None), check_bits(bits))",
        (_CODEBOOK,),
    ),
    Mutation(
        "codebook: importance unused on the grid",
        "tfq_sv/codebook.py",
        "    values, mass = kmeans.in_order(weights, importance)\n",
        "    values, mass = kmeans.in_order(weights, None)\n",
        (_CODEBOOK, f"{_PART}[importance]"),
    ),
    Mutation(
        "codebook: the grid's step does not shrink",
        "tfq_sv/codebook.py",
        "kmeans.optimum(values, mass, bits), shrink=True)",
        "kmeans.optimum(values, mass, bits), shrink=False)",
        (_CODEBOOK,),
    ),
    Mutation(
        "BatchNorm: variances are added, not scaled",
        f"{_QUANTIZATION}/batch_norm.py",
        "layer.moving_variance.numpy() * ratio",
        "layer.moving_variance.numpy() + variance - variance_was",
        ("tests/test_batch_norm.py",),
    ),
]


def main(only: list[str]) -> bool:
    """Returns whether no mutation survived."""
    print("| what is off | tests | |\n|---|---|---|", flush=True)
    survivors, sys.dont_write_bytecode = 0, True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "source")
        # tfq_sv/export is a link to export/, in the copy, too.
        kept = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, folder, symlinks=True, ignore=kept)
        for mutation in MUTATIONS:
            if only and not any(word in mutation.name for word in only):
                continue
            found = outcome(mutation, folder)
            survivors += found != "found"
            names = ", ".join(test.removeprefix("tests/") for test in mutation.tests)
            print(f"| {mutation.name} | {names} | {found} |", flush=True)
    print(f"\n{survivors} survived")
    return not survivors


def outcome(mutation: Mutation, folder: Path) -> str:
    """Whether a test of a copy of the sources finds a mutation."""
    file = folder / mutation.file
    text = file.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file} has {text.count(mutation.old)} times {mutation.old!r}")
    file.write_text(text.replace(mutation.old, mutation.new))
    try:
        code = in_a_fork([*_OPTIONS, *mutation.tests], folder)
    finally:
        file.write_text(text)
    if code not in (0, 1):  # pytest found no test, or was stopped
        raise SystemExit(f"{mutation.name}: pytest ended with {code}")
    return "found" if code else "**survived**"


def in_a_fork(arguments: list[str], folder: Path) -> int:
    """The exit code of pytest in a copy of the sources; what takes long to import is there."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.environ["PYTHONPATH"] = str(folder)
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path) not in _OWN)]
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    os._exit(int(pytest.main(arguments)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="words of names")
    sys.exit(not main(parser.parse_args().only))
