"""Batches of random chunks of a corpus, read ahead by threads. No TensorFlow.

Batch k depends on the seed and k alone, so a resumed run sees what it would have seen.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count

import numpy as np
import numpy.typing as npt

from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


def batches(
    corpus: Corpus,
    *,
    batch_size: int = 32,
    seconds: float = 2.0,
    seed: int = 0,
    start: int = 0,
    workers: int = 2,
) -> Iterator[Batch]:
    """Yields batches without end; each epoch is a new random order of all utterances.

    Args:
        corpus: where to read from.
        batch_size: chunks a batch.
        seconds: length of a chunk; shorter utterances are repeated to fill it.
        seed: of order and positions.
        start: number of the first batch.
        workers: threads that read.

    Yields:
        (float32 (batch_size, seconds * 16000), int32 (batch_size,)): samples, and the speaker's
        index in `corpus.speaker_ids`.

    Raises:
        InputError: an utterance cannot be read.
    """
    keys = list(corpus.paths)
    index = {speaker: i for i, speaker in enumerate(corpus.speaker_ids)}

    def load(number: int) -> Batch:
        drawn = [_position(len(keys), seed, number * batch_size + i) for i in range(batch_size)]
        chosen = [keys[position] for position in drawn]
        rng = np.random.default_rng([seed, 1, number])
        samples = [chunk(corpus, key, seconds, rng) for key in chosen]
        labels = [index[corpus.speakers[key]] for key in chosen]
        return np.stack(samples), np.array(labels, np.int32)

    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(load, start + i) for i in range(2 * workers)]
        for number in count(start + len(ahead)):
            yield ahead.pop(0).result()
            ahead.append(pool.submit(load, number))


def chunk(
    corpus: Corpus, key: str, seconds: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Reads a chunk at a random position: float32 (seconds * 16000,)."""
    wanted = round(seconds * audio.SAMPLE_RATE)
    path = corpus.paths[key]
    slack = max(0.0, audio.probe(path).seconds - seconds)
    samples = audio.read(path, start=rng.uniform(0.0, slack), seconds=seconds).samples
    return np.resize(samples, wanted)


def _position(size: int, seed: int, draw: int) -> int:
    epoch, place = divmod(draw, size)
    return int(_order(size, seed, epoch)[place])


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(size)
