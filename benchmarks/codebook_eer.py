"""What codebooks cost in EER, and what recovers it: the whole tables, over seeds.

    tfq-sv make-corpus --out=corpus
    python benchmarks/codebook_eer.py --corpus=corpus --out=runs --network=resnet18-small
    python benchmarks/codebook_eer.py --corpus=corpus --out=runs --network=DF_ResNet56 --seeds 0 1 2

Takes a shipped network, or trains small ones from several seeds on synthetic speech. Quantizes each
in every way, and measures EER on voices that none has heard. Every cell is kept in --out; an
interrupted run resumes. Other settings want another --out, into which float.keras may be copied.
One thread per process: start one process per seed (--seeds) to use more cores.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import settings
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from codebook_cells import CELLS, CONTROL, PAIRS, Cell

import tfq_sv
from tfq_sv import assets, files, models
from tfq_sv.data.chunks import batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.measurement import KerasEncoder, evaluate
from tfq_sv.metrics import eer, eer_interval
from tfq_sv.mixed_precision import allocation
from tfq_sv.mixed_precision.file_size import FileSize
from tfq_sv.mixed_precision.probes import ProbeOptions
from tfq_sv.mixed_precision.sensitivity import fisher_traces
from tfq_sv.quantization.quantized_model import quantizers_of
from tfq_sv.quantization.recipe import LayerRecipe, QuantizationRecipe
from tfq_sv.reports.table import Table
from tfq_sv.training import TrainingOptions, train
from tfq_sv.training.fine_tuning import FineTuningOptions
from tfq_sv.training.multi_stage import ORDERS, stages
from tfq_sv.training.options import PRECISIONS

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


def trained(path: Path, network: str, seed: int, corpus: Corpus) -> keras.Model:
    """Returns the FP32 network, a shipped one or that of a seed, trained if it is not there."""
    if not path.exists():
        if network in assets.NAMES:
            model = assets.load(network)
        else:
            build, options = NETWORKS[network]
            keras.utils.set_random_seed(seed)
            model = models.build(network, **build)
            state = path.with_suffix(".state")
            train(model, corpus, TrainingOptions(seed=seed, **options), checkpoint_dir=state)
        with files.atomic(path) as temporary:
            model.save(temporary)
    return tfq_sv.load_model(path)


def quantized(network: keras.Model, kind: int | str) -> keras.Model:
    """Returns a copy of the network in codebooks of `kind`, see `Cell`."""
    if kind == 0:
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
        return copy
    if isinstance(kind, int):
        return tfq_sv.quantize(network, QuantizationRecipe.uniform(network, kind), calibrate=False)
    if kind == "scaled":
        return scaled(network)
    form = "static_binary" if kind == "sign" else f"{kind}_binary"
    layers = dict.fromkeys(
        tfq_sv.quantization.quantizers.quantizable(network), LayerRecipe(form, 1)
    )
    model = tfq_sv.quantize(network, QuantizationRecipe(layers), calibrate=False)
    if kind == "sign":  # BinaryConnect (Courbariaux et al., 2015): -1 and +1, whatever the kernel
        for quantizer in quantizers_of(model).values():
            quantizer.centroids.assign([-1.0, 1.0])
    return model


def scaled(network: keras.Model) -> keras.Model:
    """Returns a copy in adaptive binary codebooks with learned scales, which no recipe has."""
    names = tfq_sv.quantization.quantizers.quantizable(network)

    def annotate(layer: keras.layers.Layer) -> keras.layers.Layer:
        copy = type(layer).from_config(layer.get_config())
        if layer.name not in names:
            return copy
        config = tfq_sv.AdaptiveBinaryQuantizeConfig(learned_scale=True)
        return tfmot.quantization.keras.quantize_annotate_layer(copy, config)

    annotated = keras.models.clone_model(network, clone_function=annotate)
    annotated.set_weights(network.get_weights())
    with tfmot.quantization.keras.quantize_scope(
        {type(x).__name__: type(x) for x in network.layers}
    ):
        return tfmot.quantization.keras.quantize_apply(annotated, tfq_sv.WeightOnlyScheme())


def mixed(network: keras.Model, bits: int, corpus: Corpus, folder: Path) -> QuantizationRecipe:
    """Returns the best bits of all layers for a file of the size of uniform `bits`."""
    traces = fisher_traces(
        network,
        batches(corpus, batch_size=16, seconds=2.0, seed=3000),
        options=ProbeOptions(max_probes=32),
        cache=folder / "fisher.json",
        progress=False,
    )
    target = FileSize.of(network).total(QuantizationRecipe.uniform(network, bits))
    # What is kept back for a prediction's error is none of this comparison.
    answer = allocation.sweep(network, traces, [int((target + 256) / 0.9995)])[0]
    print(f"{folder.name}: mixed {answer.bytes:,} bytes, uniform {bits} bits {target:,}")
    return answer.recipe


def make(
    network: keras.Model, cell: Cell, corpus: Corpus, folder: Path, options: FineTuningOptions
) -> keras.Model:
    """Returns the network of a cell."""
    # Other chunks than calibration sees.
    stream = batches(corpus, batch_size=16, seconds=2.0, seed=2000)
    recipe = None
    if isinstance(cell.kind, str) and cell.kind.endswith("mixed"):
        recipe = mixed(network, int(cell.kind[0]), corpus, folder)
    if recipe:  # as many steps in all, staged or not
        count, each = len(stages(recipe)), options.steps
        if cell.longer and cell.tuned not in ORDERS:
            options = replace(options, steps=each * count)
        elif cell.tuned in ORDERS and not cell.longer:
            options = replace(options, steps=max(1, each // count))
    if recipe and cell.tuned in ORDERS:
        return tfq_sv.multi_stage_finetune(
            network, recipe, stream, options=options, order=cell.tuned
        )
    if recipe:
        model = tfq_sv.quantize(network, recipe, calibrate=False)
    else:
        model = quantized(network, cell.kind)
    # One minute, the same for all.
    minute = list(itertools.islice(batches(corpus, batch_size=10, seconds=2.0, seed=1000), 3))
    if cell.speech == "BatchNorm":
        tfq_sv.reestimate_batch_norm(model, minute, reference=network, progress=False)
    elif cell.speech:
        speech = None if cell.speech == "without speech" else minute
        tfq_sv.calibrate(model, speech, progress=False)
    if cell.tuned:
        tfq_sv.finetune(model, stream, teacher=network, options=options)
    return model


def sqnr(network: keras.Model, model: keras.Model) -> float:
    """Signal to quantization noise of the kernels, dB, the mean over layers; NaN without any."""
    if not quantizers_of(model):
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
    return Table([*header, "cosine to FP32", "SQNR dB"], rows)


def picture(
    path: Path, folders: list[Path], names: list[str], test: Corpus, trials: Trials
) -> None:
    """Draws file size against EER, the mean over seeds: a curve for each way of quantizing."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    network = tfq_sv.load_model(folders[0] / "float.keras")
    sizes, whose = FileSize.of(network), trials.speakers(test)
    curves: dict[str, list[list[float]]] = {}
    for name in names:
        cell, paths = CELLS[name], [folder / f"{name}.npz" for folder in folders]
        if cell.kind == 0 or not all(path.exists() for path in paths):
            continue
        bits = int(str(cell.kind)[0]) if str(cell.kind)[0].isdigit() else 1
        # Mixed files are as large as uniform ones.
        size = sizes.total(QuantizationRecipe.uniform(network, bits)) / 1e6
        scores = np.stack([np.load(path)["scores"] for path in paths])
        rate = np.mean([eer(each, trials.labels)[0] for each in scores])
        low, high = eer_interval(scores, trials.labels, whose)
        way = name.removeprefix(f"{bits} bit").strip(", ") or "rounded"
        curves.setdefault(way, []).append([size, 100 * rate, 100 * low, 100 * high])
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    control = CONTROL if CONTROL in names else "float"
    cells = [np.load(folder / f"{control}.npz")["scores"] for folder in folders]
    base = 100 * np.mean([eer(each, trials.labels)[0] for each in cells])
    axes.axhline(base, color="black", linestyle="--", linewidth=1, label=control)
    for number, (way, points) in enumerate(curves.items()):
        size, rate, low, high = np.array(sorted(points)).T
        axes.errorbar(
            size,
            rate,
            [rate - low, high - rate],
            fmt=f"{'os^DvP*X<>'[number % 10]}-",
            color=colormaps["tab20"](number % 20),
            capsize=2,
            elinewidth=0.5,
            label=way,
        )
    axes.set(xlabel="file size, MB (10^6 bytes)", ylabel="EER, %, 95 % intervals")
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, ncols=2)
    axes.set_title(title(folders, test, trials), fontsize=9)
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def title(folders: list[Path], test: Corpus, trials: Trials) -> str:
    """Names the network, the corpus and the seeds."""
    names = [folder.name.rsplit("-", 1) for folder in folders]
    network = names[0][0]
    seeds = "" if network in assets.NAMES else f", seeds {[int(seed) for _, seed in names]}"
    return (
        f"{network}, synthetic speech (espeak-ng), {len(set(test.speakers.values()))} unseen "
        f"speakers, {len(trials):,} trials{seeds}; not VoxCeleb"
    )


def pairs(folders: list[Path], test: Corpus, trials: Trials) -> str:
    """The table of cells that have one file size: the first's EER minus the second's."""
    whose, rows = trials.speakers(test), []
    for names in PAIRS:
        paths = [[folder / f"{name}.npz" for folder in folders] for name in names]
        if not all(path.exists() for each in paths for path in each):
            continue
        first, second = (np.stack([np.load(path)["scores"] for path in each]) for each in paths)
        low, high = eer_interval(first, trials.labels, whose, minus=second)
        each = [
            100 * (eer(one, trials.labels)[0] - eer(other, trials.labels)[0])
            for one, other in zip(first, second, strict=True)
        ]
        interval = f"[{100 * low:+.2f}, {100 * high:+.2f}]"
        seeds = " ".join(f"{x:+.2f}" for x in each)
        rows.append([f"{names[0]} minus {names[1]}", f"{np.mean(each):+.2f}", interval, seeds])
    return Table(["pair", "EER, points", "95 %", "each seed"], rows) if rows else ""


def main() -> None:
    """Fills in the missing cells; prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="what make-corpus made")
    parser.add_argument("--out", type=Path, required=True, help="where cells are kept")
    parser.add_argument("--network", choices=[*assets.NAMES, *NETWORKS], default="resnet18-small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning, 16 chunks of 2 s")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of fine-tuning")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of fine-tuning")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), help="which ones")
    parser.add_argument("--plot", type=Path, help="file size against EER (.png)")
    parser.add_argument("--report", action="store_true", help="print the table of what is there")
    arguments = parser.parse_args()
    options = FineTuningOptions(
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        precision=arguments.precision,
    )
    corpus, test = (Corpus.read(arguments.corpus / part) for part in ("train", "test"))
    trials = Trials.read(test.root / "trials.txt", test)
    folders = [arguments.out / f"{arguments.network}-{seed}" for seed in arguments.seeds]
    given = {name: getattr(arguments, name) for name in ("steps", "learning_rate", "precision")}
    for folder, seed in zip(folders, arguments.seeds, strict=True):
        if arguments.report:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        settings.keep(folder / "settings.json", given)
        network = trained(folder / "float.keras", arguments.network, seed, corpus)
        reference = folder / "float.npz"
        for name in arguments.cells:
            make_model = partial(make, network, CELLS[name], corpus, folder, options)
            measure(folder / f"{name}.npz", make_model, network, reference, test, trials)
    print(title(folders, test, trials))
    print(report(folders, arguments.cells, test, trials))
    print(f"\n{pairs(folders, test, trials)}")
    if arguments.plot:
        picture(arguments.plot, folders, arguments.cells, test, trials)


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    main()
