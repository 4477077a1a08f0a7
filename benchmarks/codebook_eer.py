"""What codebooks cost in EER, and what wins it back: the whole table, over seeds.

    tfq-sv make-corpus --out=corpus
    python benchmarks/codebook_eer.py --corpus=corpus --out=runs --network=ResNet18
    python benchmarks/codebook_eer.py --corpus=corpus --out=runs --network=DF_ResNet56

Trains small networks from several seeds on made speech, quantizes each in every way, and measures
EER on voices that none has heard. Every cell is kept in --out; a run that is interrupted goes on
where it was. One thread a process: start one process a seed (--seeds) to use more cores.
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfq_sv
from tfq_sv import files, models
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation import KerasEncoder, evaluate
from tfq_sv.fine_tuning import FineTuningOptions
from tfq_sv.metrics import eer, eer_interval
from tfq_sv.quantization import quantizers
from tfq_sv.recipe import LayerRecipe
from tfq_sv.report import table
from tfq_sv.training import TrainingOptions, train

NETWORKS = {
    "ResNet18": (
        {"embed_dim": 128, "channels": 16},
        {"steps": 1200},
    ),
    "DF_ResNet56": (
        {"feat_dim": 40, "embed_dim": 128, "channels": 16},
        {"steps": 3000, "batch_size": 16, "seconds": 1.5, "learning_rate": 2e-3, "margin": 0.1},
    ),
}
CONTROL = "float, fine-tuned"

# What a cell is made of: bits or kind of codebook, unlabelled speech first, fine-tuning after.
FREE = {f"{b} bit": (b, "", 0) for b in (8, 4, 3, 2, 1)} | {"1 bit static": ("static", "", 0)}
SPEECH = {
    f"{b} bit, {form}": (b, form, 0) for b in (4, 3, 2, 1) for form in ("BatchNorm", "calibrated")
}
TUNED = {
    f"{name}, fine-tuned": (kind, "", 1)
    for name, kind in {
        "8 bit": 8,
        "4 bit": 4,
        "3 bit": 3,
        "2 bit": 2,
        "1 bit sign(w)": "sign",
        "1 bit static": "static",
        "1 bit adaptive": "adaptive",
        "1 bit adaptive, no learned scale": 1,
    }.items()
}
CELLS = {"float": (0, "", 0)} | FREE | SPEECH | {CONTROL: (0, "", 1)} | TUNED


def trained(path: Path, network: str, seed: int, corpus: Corpus) -> keras.Model:
    """Returns the FP32 network of a seed, trained if it is not there."""
    if not path.exists():
        build, options = NETWORKS[network]
        keras.utils.set_random_seed(seed)
        model = models.build(network, **build)
        state = path.with_suffix(".state")
        train(model, corpus, TrainingOptions(seed=seed, **options), checkpoint_dir=state)
        with files.atomic(path) as temporary:
            model.save(temporary)
    return tfq_sv.load_model(path)


def quantized(network: keras.Model, kind: int | str) -> keras.Model:
    """Returns a copy of the network in codebooks of `kind`: bits, or a binary quantizer's name."""
    if kind == 0:
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
        return copy
    if isinstance(kind, int):
        return tfq_sv.quantize(network, tfq_sv.QuantizationRecipe.uniform(network, kind))
    form = "static_binary" if kind == "sign" else f"{kind}_binary"
    layers = dict.fromkeys(tfq_sv.quantizers.quantizable(network), LayerRecipe(form, 1))
    model = tfq_sv.quantize(network, tfq_sv.QuantizationRecipe(layers))
    if kind == "sign":  # BinaryConnect (Courbariaux et al., 2015): -1 and +1, whatever the kernel
        for quantizer in quantizers(model).values():
            quantizer.centroids.assign([-1.0, 1.0])
    return model


def make(
    network: keras.Model, cell: tuple[int | str, str, int], corpus: Corpus, steps: int, rate: float
) -> keras.Model:
    """Returns the network of a cell."""
    kind, speech, tuned = cell
    model = quantized(network, kind)
    # One minute, the same for all; other chunks than fine-tuning sees.
    minute = list(itertools.islice(batches(corpus, batch_size=10, seconds=2.0, seed=1000), 3))
    if speech == "BatchNorm":
        tfq_sv.reestimate_batch_norm(model, minute, progress=False)
    elif speech:
        tfq_sv.calibrate(model, minute, progress=False)
    if tuned:
        options = FineTuningOptions(steps=steps, learning_rate=rate)
        stream = batches(corpus, batch_size=16, seconds=2.0, seed=2000)
        tfq_sv.finetune(model, stream, teacher=network, options=options)
    return model


def sqnr(network: keras.Model, model: keras.Model) -> float:
    """Signal to quantization noise of the kernels, dB, the mean over layers; NaN without any."""
    if not quantizers(model):
        return float("nan")
    found = []
    for name, book in tfq_sv.codebooks(model).items():
        kernel = network.get_layer(name).get_weights()[0].astype(np.float64)
        noise = np.sum(np.square(kernel - book.decode()))
        found.append(10 * np.log10(np.sum(np.square(kernel)) / max(noise, 1e-30)))
    return float(np.mean(found))


def measure(
    path: Path, make_model: Callable[[], keras.Model], network: keras.Model, reference: Path,
    test: Corpus, trials: Trials,
) -> None:  # fmt: skip
    """Writes scores, embeddings and SQNR of a cell, if it is not there."""
    if path.exists():
        return
    model = make_model()
    result = evaluate(KerasEncoder(model), test, trials, progress=f"   {path.stem}")
    matrix = result.extraction.embeddings.matrix
    wanted = dict(np.load(reference))["embeddings"] if reference.exists() else matrix
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (matrix, wanted)]
    with files.atomic(path) as temporary, Path(temporary).open("wb") as file:
        np.savez(
            file,
            scores=result.scores,
            embeddings=matrix,
            cosine=np.mean(np.sum(unit[0] * unit[1], axis=1)),
            sqnr=sqnr(network, model),
        )
    print(f"{path.parent.name}: {path.stem}: EER {100 * result.eer:.2f} %", flush=True)


def report(folders: list[Path], names: list[str], test: Corpus, trials: Trials) -> str:
    """The table of what all seeds have: means, and intervals over speakers."""
    whose = trials.speakers(test)
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for name in names:
        paths = [folder / f"{name}.npz" for folder in folders]
        if all(path.exists() for path in paths):
            found[name] = [dict(np.load(path)) for path in paths]
    rows, base = [], CONTROL if CONTROL in found else "float"
    rates = {
        name: [100 * eer(cell["scores"], trials.labels)[0] for cell in cells]
        for name, cells in found.items()
    }
    against = np.stack([cell["scores"] for cell in found[base]])
    for name, cells in found.items():
        scores = np.stack([cell["scores"] for cell in cells])
        low, high = eer_interval(scores, trials.labels, whose)
        row = [name, f"{np.mean(rates[name]):.2f}", f"[{100 * low:.2f}, {100 * high:.2f}]"]
        if name == base:
            row += ["", ""]
        else:
            low, high = eer_interval(scores, trials.labels, whose, minus=against)
            row.append(f"[{100 * low:+.2f}, {100 * high:+.2f}]")
            row.append(f"{100 * (np.mean(rates[name]) / np.mean(rates[base]) - 1):+.1f}")
        row.append(" ".join(f"{rate:.2f}" for rate in rates[name]))
        row.append(f"{np.mean([cell['cosine'] for cell in cells]):.4f}")
        noise = np.mean([cell["sqnr"] for cell in cells])
        rows.append([*row, "" if np.isnan(noise) else f"{noise:.1f}"])
    header = ["network", "EER %", "95 %", f"minus {base}, 95 %", "relative %", "each seed"]
    return table([*header, "cosine to FP32", "SQNR dB"], rows)


def main() -> None:
    """Fills in the missing cells; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="what make-corpus made")
    parser.add_argument("--out", type=Path, required=True, help="where cells are kept")
    parser.add_argument("--network", choices=NETWORKS, default="ResNet18")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning, 16 chunks of 2 s")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of fine-tuning")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), help="which ones")
    parser.add_argument("--report", action="store_true", help="print the table of what is there")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    corpus, test = (Corpus.read(arguments.corpus / part) for part in ("train", "test"))
    trials = Trials.read(test.root / "trials.txt", test)
    folders = [arguments.out / f"{arguments.network}-{seed}" for seed in arguments.seeds]
    for folder, seed in zip(folders, arguments.seeds, strict=True):
        if arguments.report:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        network = trained(folder / "float.keras", arguments.network, seed, corpus)
        reference = folder / "float.npz"
        for name in arguments.cells:
            make_model = partial(
                make, network, CELLS[name], corpus, arguments.steps, arguments.learning_rate
            )
            measure(folder / f"{name}.npz", make_model, network, reference, test, trials)
    print(
        f"{arguments.network}, made speech (espeak-ng), {len(set(test.speakers.values()))} unseen "
        f"speakers, {len(trials):,} trials, seeds {arguments.seeds}; not VoxCeleb"
    )
    print(report(folders, arguments.cells, test, trials))


if __name__ == "__main__":
    main()
