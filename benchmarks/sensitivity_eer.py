"""Which sensitivity tells best what quantizing a layer costs in EER.

    tfq-sv make-corpus --out=corpus
    python benchmarks/sensitivity_eer.py --networks resnet18-small --corpus corpus --out alone

Quantizes each layer alone, and ranks the layers' loss of EER, and of the embedding's direction
(1 - cosine), beside the cost that each sensitivity predicts (Spearman's correlation). Then lets
each choose the bits of whole networks of a few sizes, calibrated on a minute of speech: what counts
in the end. Every cell is kept in its own JSON file: an interrupted run resumes. Figures hold for
the corpus named.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.stats import spearmanr

import tfq_sv
from tfq_sv import assets
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import KerasEncoder, evaluate
from tfq_sv.files import atomic
from tfq_sv.mixed_precision import allocation
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.mixed_precision.probes import ProbeOptions
from tfq_sv.mixed_precision.sensitivity import MEASURES
from tfq_sv.quantization.quantizers import quantizable
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe
from tfq_sv.reports.table import Table


class Bench:
    """One trained network on one corpus; cells are computed once and kept."""

    def __init__(self, network: Path, corpus: Path, out: Path, probes: int) -> None:
        shipped = str(network) in assets.NAMES
        self.model = assets.load(str(network)) if shipped else tfq_sv.load_model(network)
        self.train = Corpus.read(corpus / "train")
        self.test = Corpus.read(corpus / "test")
        self.trials = Trials.read(corpus / "test" / "trials.txt", self.test)
        self.name = "-".join(filter(None, (network.parent.name, network.stem)))
        self.out, self.probes = out / self.name, probes
        self._embeddings: Any = None

    def cell(self, name: str, compute: Callable[[], Any]) -> Any:
        file = self.out / f"{name}.json"
        if not file.exists():
            found = compute()
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(found))
        return json.loads(file.read_text())

    def sensitivity(self, measure: str) -> Any:
        cache = self.out / f"{measure}-probes.json"
        stream = batches(self.train, batch_size=16, seed=0)
        options = ProbeOptions(1 if measure == "distortion" else self.probes)
        return MEASURES[measure](self.model, stream, options=options, cache=cache)

    def measured(self, model: Any) -> tuple[float, Any]:
        """EER, and unit embeddings."""
        found = evaluate(KerasEncoder(model), self.test, self.trials, progress="EER")
        matrix = found.extraction.embeddings.matrix
        return found.eer, matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    def alone(self, bits: int) -> list[list[float]]:
        """EER and 1 - cosine of the network with one layer quantized, for each layer."""

        def one(layer: str) -> list[float]:
            recipe = QuantizationRecipe({layer: LayerRecipe("kmeans", bits)})
            return self.loss(tfq_sv.quantize(self.model, recipe, calibrate=False))

        layers = quantizable(self.model)
        return [self.cell(f"alone-{bits}-{name}", lambda n=name: one(n)) for name in layers]

    def calibrated(self, name: str, recipe: QuantizationRecipe) -> list[float]:
        """EER and 1 - cosine of the network with a recipe, calibrated on a minute of speech."""

        def one() -> list[float]:
            stream = batches(self.train, batch_size=10, seconds=2.0, seed=1000)
            minute = itertools.islice(stream, 3)
            return self.loss(tfq_sv.quantize(self.model, recipe, calibrate=minute))

        return self.cell(name, one)

    def loss(self, model: Any) -> list[float]:
        """EER, and 1 - cosine to the float network's embeddings."""
        if self._embeddings is None:
            self._embeddings = self.measured(self.model)[1]
        rate, embeddings = self.measured(model)
        return [rate, float(1 - np.mean(np.sum(embeddings * self._embeddings, axis=1)))]


def correlations(bench: Bench, bits: int) -> list[list[str]]:
    """A row per measure: how its costs rank beside what was lost."""
    base = bench.cell("float", lambda: bench.measured(bench.model)[0])
    lost = np.array(bench.alone(bits)) - [base, 0.0]
    rows = []
    for kind in MEASURES:
        costs = allocation.quantization_costs(bench.model, bench.sensitivity(kind), [bits])
        cost = np.array([row[bits] for row in costs.values()])
        forms = {kind: cost}
        if kind != "distortion":
            layers = quantizable(bench.model).values()
            forms[f"{kind}, not over n"] = cost * [x.get_weights()[0].size for x in layers]
        for name, values in forms.items():
            found = [spearmanr(values, column).statistic for column in lost.T]
            rows.append([name, *(f"{x:.2f}" for x in found)])
    found = spearmanr(lost[:, 1], lost[:, 0]).statistic
    rows.append(["1 - cosine of the test speech", f"{found:.2f}", ""])
    return rows


def choices(bench: Bench) -> list[list[str]]:
    """A row per size and measure: the network whose bits it chose; uniform bits beside them."""
    sizes = FileSize.of(bench.model)
    uniform = {bits: QuantizationRecipe.uniform(bench.model, bits) for bits in (1, 2, 3)}
    whole = {float(bits): sizes.total(recipe) for bits, recipe in uniform.items()}
    rows = []
    for bits, target in {1.5: (whole[1] + whole[2]) // 2, 2.0: whole[2], 3.0: whole[3]}.items():
        recipes = {}
        if bits in uniform:
            recipes["uniform"] = uniform[int(bits)]
        for kind in MEASURES:
            # What is kept back for a prediction's error is none of this comparison.
            budget = int((target + 256) / 0.9995)
            found = allocation.sweep(bench.model, bench.sensitivity(kind), [budget])[0]
            recipes[kind] = found.recipe
        for kind, recipe in recipes.items():
            rate, turned = bench.calibrated(f"{bits}-{kind}", recipe)
            rows.append([f"{bits:g}", kind, f"{100 * rate:.2f}", f"{turned:.4f}"])
    return rows


def main(networks: list[Path], corpus: Path, out: Path, probes: int, bits: int) -> None:
    for network in networks:
        bench = Bench(network, corpus, out, probes)
        speakers = len(set(bench.test.speakers.values()))
        rows = correlations(bench, bits)
        print(
            f"\n{bench.name}, {bench.test.root}: {speakers} speakers, {len(bench.trials):,} trials;"
            f" each layer alone at {bits} bit{'s' * (bits > 1)}; rank correlation with"
        )
        print(Table(["cost", "EER", "1 - cosine"], rows), flush=True)
        print("\nfiles as large as uniform bits, each layer's bits chosen by a measure; calibrated")
        print(Table(["bits", "chosen by", "EER %", "1 - cosine"], choices(bench)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, nargs="+", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("alone"))
    parser.add_argument("--probes", type=int, default=32)
    parser.add_argument("--bits", type=int, default=1, help="of the layer quantized alone")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    main(**vars(parser.parse_args()))
