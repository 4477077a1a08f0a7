"""Scoring as long as VoxCeleb1-E and -H: `python benchmarks/scoring.py`.

600,000 random trials over 150,000 random embeddings of 256: cosine scores with EER and minDCF, the
bootstrap interval, and AS-norm against 5,994 speakers. Prints seconds, and the most memory that
the process has held so far. The embeddings are random: only time and memory mean something.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tfq_sv import metrics
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.evaluation.scoring import as_norm, cosine_scores


def main(trials: int, utterances: int, dim: int, cohort: int, speakers: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"id{i % speakers:05d}/video/{i:06d}.wav" for i in range(utterances)]
    embeddings = Embeddings(names, rng.standard_normal((utterances, dim), np.float32))
    others = Embeddings(
        [f"speaker {i}" for i in range(cohort)], rng.standard_normal((cohort, dim), np.float32)
    )
    first = rng.integers(utterances, size=trials)
    same = rng.random(trials) < 0.5
    # Utterances whose numbers differ by a multiple of `speakers` are of one speaker.
    step = speakers * rng.integers(1, utterances // speakers, size=trials)
    second = (first + np.where(same, step, rng.integers(utterances, size=trials))) % utterances
    labels = first % speakers == second % speakers
    listed = Trials([names[i] for i in first], [names[i] for i in second], labels, "random")
    whose = ([name[:7] for name in listed.enroll], [name[:7] for name in listed.test])

    print(f"{trials:,} trials, {utterances:,} embeddings of {dim}, cohort of {cohort:,}")
    with timed("cosine, EER, minDCF (0.01, 0.05)"):
        scores = cosine_scores(embeddings, listed)
        metrics.eer(scores, labels)
        metrics.min_dcf(scores, labels)
        metrics.min_dcf(scores, labels, 0.05)
    with timed("interval of the EER, 1000 draws"):
        metrics.eer_interval(scores, labels, whose)
    with timed("AS-norm"):
        as_norm(embeddings, listed, others)


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(f"  {what:<34} {seconds:6.1f} s   peak memory {peak / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=600_000)
    parser.add_argument("--utterances", type=int, default=150_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--cohort", type=int, default=5_994)
    parser.add_argument("--speakers", type=int, default=1_251)
    main(**vars(parser.parse_args()))
