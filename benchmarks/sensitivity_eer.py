"""Mixed precision beside uniform, in stages and at once, and what sensitivities can tell.

    python benchmarks/mixed_precision.py --networks model-seed0.keras model-seed1.keras \
        --corpus corpus --out mixed

Networks are trained ones, one a seed; the corpus has train/ and test/ (tfq-sv make-corpus). For
each network, at the file sizes of uniform 2 and 3 bits: uniform, mixed fine-tuned at once, mixed in
stages, all with the same number of steps in all; and binary. Then, with --alone, the EER of each
layer quantized alone, and how each sensitivity's cost of it ranks beside that. Every cell is kept
in its own JSON file: a run that was broken goes on. Prints tables with paired differences over
networks; figures hold for the corpus named, no other.
"""

import argparse
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr, t

import tfq_sv
from tfq_sv import allocation
from tfq_sv.calibration import reestimate_batch_norm
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation import KerasEncoder, evaluate
from tfq_sv.file_size import FileSize
from tfq_sv.files import atomic
from tfq_sv.fine_tuning import FineTuningOptions
from tfq_sv.recipe import LayerRecipe, QuantizationRecipe
from tfq_sv.sensitivity import MEASURES


class Bench:
    """One trained network on one corpus; cells are computed once and kept."""

    def __init__(self, network: Path, corpus: Path, out: Path, steps: int, probes: int) -> None:
        self.model = tfq_sv.load_model(network)
        self.train = Corpus.read(corpus / "train")
        self.test = Corpus.read(corpus / "test")
        self.trials = Trials.read(corpus / "test" / "trials.txt", self.test)
        self.out, self.steps, self.probes = out / network.stem, steps, probes

    def cell(self, name: str, compute: Callable[[], Any]) -> Any:
        file = self.out / f"{name}.json"
        if not file.exists():
            found = compute()
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(found))
        return json.loads(file.read_text())

    def chunks(self, seed: int = 0, batch_size: int = 16) -> Any:
        return batches(self.train, batch_size=batch_size, seed=seed)

    def rate(self, model: Any) -> float:
        return evaluate(KerasEncoder(model), self.test, self.trials, progress="EER").eer

    def sensitivity(self, measure: str) -> Any:
        cache = self.out / f"{measure}-probes.json"
        probes = 1 if measure == "distortion" else self.probes
        return MEASURES[measure](self.model, self.chunks(), max_probes=probes, cache=cache)

    def tuned(self, recipe: QuantizationRecipe, how: str) -> float:
        """EER after fine-tuning, the same number of steps however many stages."""
        stages = len({layer.bits for layer in recipe.layers.values()})
        steps = self.steps // stages if how in tfq_sv.multi_stage.ORDERS else self.steps
        options = FineTuningOptions(steps=max(1, steps))
        if how in tfq_sv.multi_stage.ORDERS:
            model = tfq_sv.multi_stage_finetune(
                self.model, recipe, self.chunks(1, 32), options=options, order=how
            )
        else:
            model = tfq_sv.quantize(self.model, recipe)
            stream = self.chunks(1, 32)
            tfq_sv.finetune(model, stream, teacher=self.model, options=options)
        reestimate_batch_norm(model, islice(self.chunks(2), 20))
        return self.rate(model)

    def sizes(self, bits: int, measure: str) -> dict[str, float]:
        """EER of every way at the size of the uniform file."""
        uniform = QuantizationRecipe.uniform(self.model, bits)
        target = FileSize.of(self.model).total(uniform)

        def recipe() -> Any:
            traces = self.sensitivity(measure)
            # The margin that is kept back for a prediction's error is none of this comparison.
            answer = allocation.sweep(self.model, traces, [int((target + 256) / 0.9995)])[0]
            return {
                "bytes": answer.bytes,
                "bits": {n: x.bits for n, x in answer.recipe.layers.items()},
            }

        found = self.cell(f"recipe-{bits}-{measure}", recipe)
        mixed = QuantizationRecipe({n: LayerRecipe("kmeans", b) for n, b in found["bits"].items()})
        print(f"uniform {bits} bits: {target:,} bytes; mixed: {found['bytes']:,} bytes")
        ways = {"uniform": (uniform, "at once"), "mixed": (mixed, "at once")}
        ways |= {f"mixed, {order}": (mixed, order) for order in tfq_sv.multi_stage.ORDERS}
        return {
            name: self.cell(f"{name}-{bits}-{measure}-{self.steps}", lambda w=way: self.tuned(*w))
            for name, way in ways.items()
        }

    def alone(self, bits: int) -> list[float]:
        """EER of the network with one layer quantized, for each layer."""

        def rate(layer: str) -> float:
            recipe = QuantizationRecipe({layer: LayerRecipe("kmeans", bits)})
            return self.rate(tfq_sv.quantize(self.model, recipe))

        layers = tfq_sv.quantizers.quantizable(self.model)
        return [self.cell(f"alone-{bits}-{name}", lambda n=name: rate(n)) for name in layers]


def main(
    networks: list[Path], corpus: Path, out: Path, steps: int, probes: int, bits: list[int],
    measure: str, alone: int | None,
) -> None:  # fmt: skip
    benches = [Bench(network, corpus, out, steps, probes) for network in networks]
    float_rates = [bench.cell("float", lambda b=bench: b.rate(b.model)) for bench in benches]
    print(f"{corpus}, {len(benches[0].trials):,} trials; {steps} steps in all; {measure}")
    print(f"FP32: EER {mean(float_rates)} %")
    for width in bits:
        rows = [bench.sizes(width, measure) for bench in benches]
        for name in rows[0]:
            rates = [row[name] for row in rows]
            print(f"  {name:<24} EER {mean(rates)} %", end="")
            base = "mixed" if name.startswith("mixed,") else "uniform"
            print(
                "" if name == base else f"  minus {base} {paired(rates, [r[base] for r in rows])}"
            )
    for bench in benches if alone else []:
        loss = np.array(bench.alone(alone)) - bench.cell("float", lambda b=bench: b.rate(b.model))
        print(f"{bench.out.name}: rank correlation with the EER that {alone} bits a layer cost")
        for kind in MEASURES:
            costs = allocation.quantization_costs(bench.model, bench.sensitivity(kind), [alone])
            cost = np.array([row[alone] for row in costs.values()])
            print(f"  {kind:<24} {spearmanr(cost, loss).statistic:.2f}")
            if kind != "distortion":
                layers = tfq_sv.quantizers.quantizable(bench.model).values()
                weights = [layer.get_weights()[0].size for layer in layers]
                found = spearmanr(cost * weights, loss).statistic
                print(f"  {kind + ', not over n':<24} {found:.2f}")


def mean(rates: list[float]) -> str:
    return f"{100 * np.mean(rates):.2f}"


def paired(rates: list[float], base: list[float]) -> str:
    """The mean difference and its 95 % interval over networks."""
    difference = 100 * (np.array(rates) - np.array(base))
    if len(difference) < 2:
        return f"{difference.mean():+.2f} (one network)"
    half = t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    low, high = difference.mean() - half, difference.mean() + half
    return f"{difference.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, nargs="+", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("mixed"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--probes", type=int, default=32)
    parser.add_argument("--bits", type=int, nargs="*", default=[2, 3])
    parser.add_argument("--measure", choices=list(MEASURES), default="fisher")
    parser.add_argument("--alone", type=int, help="bits of the layer quantized alone")
    main(**vars(parser.parse_args()))
