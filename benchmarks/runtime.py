"""Our files beside the converter's: size, load time, latency, memory, and error rate with --corpus.

    python benchmarks/runtime.py                    ResNet34, full size, random weights
    python benchmarks/runtime.py --model=model.keras --corpus=corpus/test --train=corpus/train

Of random weights only sizes, times and memory mean something: their embeddings hardly depend on the
input, and few bits have little to keep. With --train, the quantized networks are calibrated to a
minute of training speech; nothing is fine-tuned. `mixed` gives 2 bits to the layers that have
more weights than the mean, 4 to the others. Latencies come from one interleaved run, so that
ratios hold on a busy machine too; the lines below the table are medians of such ratios, run by run.
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from file_sizes import randomize

import tfq_sv
from tfq_sv.data import audio
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.experiments import Benchmark, benchmark_network, benchmark_table
from tfq_sv.features import fbank
from tfq_sv.models import front_end
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe

SAMPLES = 32240  # 200 frames
BATCHES = 3  # of 10 chunks of 2 s, for calibration


def minute(folder: str) -> list[Any]:
    """Chunks of speech to calibrate on."""
    return list(itertools.islice(batches(Corpus.read(folder), batch_size=10, seconds=2.0), BATCHES))


def main(arguments: argparse.Namespace) -> None:
    if arguments.model:
        network = tfq_sv.load_model(arguments.model)
    else:
        network = tfq_sv.models.build(arguments.network)
        randomize(network)
    recipes = {f"{bits} bit": QuantizationRecipe.uniform(network, bits) for bits in arguments.bits}
    recipes |= {
        f"{bits:g} bit trellis": QuantizationRecipe.trellis(network, bits)
        for bits in arguments.trellis
    }
    recipes["mixed 2/4 bit"] = mixed(network)
    speech = minute(arguments.train) if arguments.train else False
    quantized = {
        name: tfq_sv.quantize(network, recipe, calibrate=speech) for name, recipe in recipes.items()
    }
    corpus, trials, waveforms = None, None, [np.random.default_rng(0).normal(0, 0.1, SAMPLES)]
    if arguments.corpus:
        corpus = Corpus.read(arguments.corpus)
        trials = Trials.read(corpus.root / "trials.txt", corpus)
        paths = list(corpus.paths.values())[:: max(1, len(corpus.paths) // 20)]
        waveforms = [np.resize(audio.read(path).samples, SAMPLES) for path in paths]
    features = [fbank(np.float32(samples), front_end(network)) for samples in waveforms]
    with tempfile.TemporaryDirectory() as folder:
        forms = benchmark_network(
            network,
            quantized,
            features,
            arguments.keep or folder,
            corpus=corpus,
            trials=trials,
            rounds=arguments.rounds,
        ).forms
    print(f"{len(features[0])} frames; cosines over {len(features)} utterances")
    print(f"{benchmark_table(forms)}\n\n{ratios(forms)}")


def mixed(network: Any) -> QuantizationRecipe:
    sizes = {
        name: int(np.prod(layer.get_weights()[0].shape))
        for name in QuantizationRecipe.uniform(network).layers
        for layer in [network.get_layer(name)]
    }
    mean = np.mean(list(sizes.values()))
    layers = {name: LayerRecipe("kmeans", 2 if n > mean else 4) for name, n in sizes.items()}
    return QuantizationRecipe(layers)


def ratios(found: list[Benchmark]) -> str:
    times = {one.name: np.array(one.latency_ms[1]) for one in found}
    peaks = {one.name: one.peak_mb for one in found}
    lines = []
    for name in times:
        if name.endswith(", inflated"):
            slower = np.median(times[name] / times["dynamic-range int8"])
            faster = np.median(times["float32"] / times[name])
            lines.append(
                f"{name}: {slower:.2f}x the latency of dynamic-range int8; float32 takes "
                f"{faster:.2f}x as long"
            )
        elif name.endswith(", embed"):
            slower = np.median(times[name] / times["float32"])
            less = peaks["float32"] - peaks[name]
            lines.append(
                f"{name}: {slower:.2f}x the latency of float32; {less:.1f} MB less at the peak"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="ResNet34", help="with random weights")
    parser.add_argument("--model", help="a trained network instead (.keras)")
    parser.add_argument("--corpus", help="test speech with trials.txt, for the EER")
    parser.add_argument("--train", help="training speech, for calibration")
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4, 3, 2, 1])
    parser.add_argument("--trellis", type=float, nargs="*", default=[4, 2, 1, 0.5])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="a folder for the files")
    main(parser.parse_args())
