"""What a probe of a sensitivity costs, beside a training step: `python benchmarks/sensitivity.py`.

Random features; random weights. Each measure in a process of its own, because a process never gives
its peak memory back. The first probe or step, which builds the graph, is not counted; the median of
the others is, in seconds of the clock and of the processor.
"""

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator


def main(network: str, batch: int, frames: int, channels: int, probes: int) -> None:
    print(f"{network}, {channels} channels, batch {batch}, {frames} frames, {probes} probes")
    arguments = [network, *map(str, (batch, frames, channels, probes))]
    first: list[float] = []
    for measure in ("training", "hessian", "fisher"):
        command = [sys.executable, __file__, "--measure", measure, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = [float(word) for word in done.stdout.split()[-3:]]
        first = first or found
        ratios = [now / then for now, then in zip(found, first, strict=True)]
        print(
            f"  {measure:<9} {found[0]:6.2f} s ({ratios[0]:.2f}x), processor {found[1]:6.2f} s "
            f"({ratios[1]:.2f}x), peak memory {found[2]:.2f} GB ({ratios[2]:.2f}x)",
            flush=True,
        )


def measure(name: str, network: str, batch: int, frames: int, channels: int, probes: int) -> None:
    import tensorflow as tf

    import tfq_sv
    from tfq_sv.mixed_precision.probes import ProbeOptions
    from tfq_sv.mixed_precision.sensitivity import MEASURES

    model = tfq_sv.models.build(network, channels=channels)
    features = tf.random.stateless_normal([batch, frames, model.input_shape[-1]], [0, 0])
    marks: list[tuple[float, float]] = []

    def stream() -> Iterator[tf.Tensor]:
        while True:
            marks.append((time.perf_counter(), time.process_time()))
            yield features

    if name == "training":
        train(model, stream(), probes + 2)
    else:
        options = ProbeOptions(probes + 2, min_rank_correlation=2)
        MEASURES[name](model, stream(), options=options, progress=False)
    steps = list(itertools.pairwise(marks[1:]))  # the first builds the graph
    wall, processor = (statistics.median(b[i] - a[i] for a, b in steps) for i in (0, 1))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    print(wall, processor, peak)


def train(model, stream, steps: int) -> None:  # type: ignore[no-untyped-def]
    """Steps as in tfq_sv.training: forward, backward, Adam."""
    import tensorflow as tf
    import tf_keras as keras

    from tfq_sv.training import AAMSoftmax

    head = AAMSoftmax(100)
    head.build(model.output_shape)
    variables = [*model.trainable_variables, *head.trainable_variables]
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(variables)

    @tf.function
    def step(features: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss, _ = head(model(features, training=True), tf.zeros(features.shape[0], tf.int32))
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    for _, features in zip(range(steps), stream, strict=False):
        float(step(features))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="ResNet34")
    parser.add_argument("batch", nargs="?", type=int, default=16)
    parser.add_argument("frames", nargs="?", type=int, default=200)
    parser.add_argument("channels", nargs="?", type=int, default=32)
    parser.add_argument("probes", nargs="?", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    name = given.pop("measure")
    if name:
        measure(name, **given)
    else:
        main(**given)
