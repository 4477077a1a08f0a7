"""How well and how fast codebooks are fitted, beside scikit-learn's k-means and tfmot's clustering.

    python benchmarks/codebook_fit.py

All kernels of a network with random weights, drawn from Student's t (5 degrees of freedom, at
the initializer's scale), or of a trained one (--model). Squared errors
are relative to the weights' own sum of squares. Times are CPU seconds of one thread, memory is the
peak of a process of its own.
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

from tfq_sv import codebook
from tfq_sv.reports.table import Table

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)
METHODS = [
    "ours",
    "ours, on the int8 grid",
    "equal count",
    "scikit-learn, n_init=1",
    "scikit-learn, n_init=10",
    "tfmot",
    "kmeans1d, exact",
]


def kernels(model: str | None, network: str) -> list[np.ndarray]:
    """Returns every quantizable kernel of a network, flat."""
    import tf_keras as keras

    import tfq_sv

    keras.utils.set_random_seed(0)  # each method has a process of its own
    found = tfq_sv.load_model(model) if model else tfq_sv.models.build(network)
    rng = np.random.default_rng(0)
    result = []
    for layer in tfq_sv.quantization.quantizers.quantizable(found).values():
        weights = layer.get_weights()[0].reshape(-1)
        if not model:
            weights = np.float32(rng.standard_t(5, weights.size) * weights.std())
        result.append(weights)
    return result


def squared_error(weights: np.ndarray, centroids: np.ndarray) -> float:
    """Sum over the weights of the squared distance to the nearest centroid."""
    decoded = centroids[codebook.assign(weights, centroids)]
    return float(np.sum(np.square(weights - decoded, dtype=np.float64)))


def fit(method: str, weights: np.ndarray, bits: int) -> np.ndarray:
    """Returns a method's centroids, sorted."""
    if method == "ours":
        return codebook.fit(weights, bits)
    if method == "ours, on the int8 grid":  # what layers get
        return codebook.fit_on_grid(weights, bits)
    if method == "equal count":
        return codebook.fit_equal_count(weights, bits)
    if method == "tfmot":
        return _tfmot(weights, bits)
    if method == "kmeans1d, exact":  # its memory is 16 bytes per weight and centroid
        import kmeans1d

        return np.float32(kmeans1d.cluster(weights.astype(np.float64), 2**bits).centroids)
    from sklearn.cluster import KMeans

    starts = int(method.rsplit("=", 1)[1])
    count = min(2**bits, np.unique(weights).size)
    fitted = KMeans(count, n_init=starts, random_state=0).fit(weights[:, None])
    return np.sort(fitted.cluster_centers_[:, 0]).astype(np.float32)


def _tfmot(weights: np.ndarray, bits: int) -> np.ndarray:
    """What `cluster_weights` starts from: k-means++ seeds, without Lloyd's steps."""
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    layer = keras.layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((weights.size,)), layer])
    layer.set_weights([weights[:, None]])
    clustering = tfmot.clustering.keras
    clustered = clustering.cluster_weights(
        model, 2**bits, clustering.CentroidInitialization.KMEANS_PLUS_PLUS
    )
    stripped = clustering.strip_clustering(clustered)
    return np.unique(stripped.get_weights()[0])


def measure(arguments: argparse.Namespace) -> None:
    """Prints one line for one method and width: error, seconds, peak MB."""
    import resource

    every = kernels(arguments.model, arguments.network)[: arguments.layers]
    if arguments.method == "tfmot":
        _tfmot(every[0], 1)  # its imports are no part of the time
    elif arguments.method.startswith("scikit"):
        import sklearn.cluster  # noqa: F401
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    found = [fit(arguments.method, weights, arguments.bits) for weights in every]
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = sum(map(squared_error, every, found)) / sum(float(np.sum(w**2)) for w in every)
    print(f"RESULT {error} {seconds} {before / 1e3} {peak / 1e3}")


def main() -> None:
    """Measures every method at every width in a process of its own; prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help=".keras or .h5 file; random weights if not given")
    parser.add_argument("--network", default="ResNet34", help="whose shapes random weights have")
    parser.add_argument("--bits", type=int, help="one width only")
    parser.add_argument("--layers", type=int, help="the first so many layers only")
    parser.add_argument("--method", choices=METHODS, help="one method only, without a table")
    parser.add_argument("--slow", action="store_true", help="all methods everywhere")
    arguments = parser.parse_args()
    if arguments.method:
        measure(arguments)
        return
    rows = []
    for bits in [arguments.bits] if arguments.bits else [1, 2, 3, 4, 8]:
        for method in METHODS:
            if bits == 8 and method not in METHODS[:3] and not arguments.slow:
                continue
            command = [sys.executable, __file__, *sys.argv[1:], f"--method={method}"]
            done = subprocess.run(
                [*command, f"--bits={bits}"],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | ONE_THREAD,
            )
            if "RESULT" not in done.stdout:
                reason = (done.stderr.strip().splitlines() or ["no answer"])[-1][:40]
                rows.append([str(bits), method, reason, "", ""])
                continue
            error, seconds, before, peak = map(
                float, done.stdout.split("RESULT ")[1].split("\n")[0].split()
            )
            rows.append(
                [str(bits), method, f"{error:.6f}", f"{seconds:.2f}", f"{peak - before:.0f}"]
            )
            print(" ".join(rows[-1]), flush=True)
    print(
        Table(
            ["bits", "method", "relative squared error", "CPU s", "peak MB above the start"], rows
        )
    )


if __name__ == "__main__":
    main()
