"""What a quantized training step costs beside a float step: `python benchmarks/training_step.py`.

Steps of distillation of a full-size network with random weights, on one thread: float, 4-bit and
1-bit codebooks, and tfmot's clustering with 16 clusters. Time: all in one process, interleaved,
the median of the rounds. Memory: the peak of a process of its own. Random data.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfq_sv
from tfq_sv.reports.table import Table

KINDS = ["float", "4 bit", "1 bit", "1 bit adaptive", "tfmot clustering"]


def wrapped(network: keras.Model, kind: str) -> keras.Model:
    """Returns the network of a kind."""
    recipe = tfq_sv.QuantizationRecipe
    if kind == "1 bit adaptive":
        return tfq_sv.quantize(network, recipe.binary(network), calibrate=False)
    if kind.endswith("bit"):
        uniform = recipe.uniform(network, int(kind.split()[0]))
        return tfq_sv.quantize(network, uniform, calibrate=False)
    if kind == "float":
        return keras.models.clone_model(network)
    kernels = tfq_sv.quantization.quantizers.quantizable(network)
    clustering = tfmot.clustering.keras
    start = clustering.CentroidInitialization.KMEANS_PLUS_PLUS

    def cluster(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in kernels:
            return clustering.cluster_weights(layer, 16, start)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=cluster)


def stepper(name: str, kind: str, batch: int, frames: int) -> Callable[[], None]:
    """Returns what makes one step."""
    # Its own network, because tfmot's clustering wraps the very layers that it is given.
    model = wrapped(tfq_sv.models.build(name), kind)
    optimizer = keras.optimizers.Adam(1e-4)
    variables = model.trainable_variables
    optimizer.build(variables)
    features = tf.random.stateless_normal([batch, frames, 80], [0, 0])
    wanted = tf.math.l2_normalize(tf.random.stateless_normal([batch, 256], [0, 1]), 1)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            found = tf.math.l2_normalize(model(features, training=True), 1)
            loss = tf.reduce_mean(1 - tf.reduce_sum(found * wanted, 1))
        gradients = tape.gradient(loss, variables)
        # tfmot gives its cluster centroids no gradient in some layers.
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        optimizer.apply_gradients(pairs)

    return step


def main() -> None:
    """Measures; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="ResNet34")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", choices=KINDS, help="print one kind's peak MB alone")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    size = arguments.batch, arguments.frames
    if arguments.memory:
        step = stepper(arguments.network, arguments.memory, *size)
        for _ in range(2):
            step()
        print(f"RESULT {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}")
        return
    peaks = {}
    for kind in KINDS:
        command = [sys.executable, __file__, *sys.argv[1:], f"--memory={kind}"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        peaks[kind] = float(done.stdout.split("RESULT ")[1])
    steps = {kind: stepper(arguments.network, kind, *size) for kind in KINDS}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[kind].append(time.perf_counter() - start)
    rows = []
    for kind, found in seconds.items():
        median, first = statistics.median(found), statistics.median(seconds["float"])
        ratio = f"{median / first:.2f}"
        rows.append(
            [
                kind,
                f"{median:.2f}",
                ratio,
                f"{peaks[kind]:.0f}",
                f"{peaks[kind] / peaks['float']:.2f}",
            ]
        )
    print(f"{arguments.network}, batch {arguments.batch}, {arguments.frames} frames, one thread")
    print(Table(["step", "s, median", "x float", "peak MB", "x float"], rows))


if __name__ == "__main__":
    main()
