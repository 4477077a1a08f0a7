"""Batches of random chunks of a corpus, read ahead by threads. No TensorFlow.

Batch k depends on the seed and k alone, so a resumed run sees what it would have seen, and each of
several workers reads its own rows of the same batch.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from tfq_sv.data import audio
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

MAX_SECONDS = 3600.0
"""An hour: a longer chunk is a mistake, and takes all memory."""

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


class Augmentation(Protocol):
    """What is done to a chunk, `training.augment.Augmenter` for instance."""

    @property
    def speeds(self) -> tuple[float, ...]:
        """Of which each utterance gets one; every speed but the first makes further speakers."""

    def __call__(
        self, samples: npt.NDArray[np.float32], speed: float, rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Samples (N,) -> (N / speed,), rounded up."""


UNKNOWN = -1
"""The class of an utterance whose speaker nobody knows, where others' are known."""


class Batches(Iterator[Batch]):
    """Batches by number, without end: what `batches` returns.

    Args:
        load: number of a batch -> the batch; threads call it.
        start: number of the first batch.
        workers: threads that load ahead.
        skipped: what `load` adds unusable recordings to; none if None.

    >>> stream = Batches(lambda number: (np.full(1, number), np.full(1, number)), 0, workers=1)
    >>> stream.skip(1000)
    >>> next(stream)[1]
    array([1000])
    """

    def __init__(
        self,
        load: Callable[[int], Batch],
        start: int,
        workers: int,
        skipped: Mapping[str, BadAudioError] | None = None,
    ) -> None:
        self._load, self._number, self._workers = load, start, workers
        self._skipped: Mapping[str, BadAudioError] = {} if skipped is None else skipped
        self._loaded = _ahead(load, start, workers)

    def __next__(self) -> Batch:
        batch = next(self._loaded)
        self._number += 1
        return batch

    @property
    def skipped(self) -> dict[str, BadAudioError]:
        """The recordings that could not be read so far, and why."""
        return dict(self._skipped)  # threads go on adding to it

    def skip(self, count: int) -> None:
        """Continues so many batches later; those between are not read. 0 ends its threads for now.

        It has no `close`: a generator that draws from it (`yield from`) would call that at its end.
        """
        self._loaded.close()
        self._number += count
        self._loaded = _ahead(self._load, self._number, self._workers)

    def dataset(self) -> "tf.data.Dataset":
        """Returns a `tf.data.Dataset` that draws from it, for `model.fit` and strategies."""
        import tensorflow as tf

        shapes = (tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32))
        drawn = tf.data.Dataset.from_generator(lambda: self, output_signature=shapes)
        return drawn.prefetch(tf.data.AUTOTUNE)


def _ahead(load: Callable[[int], Batch], start: int, workers: int) -> Generator[Batch, None, None]:
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(load, start + i) for i in range(2 * workers)]
        for number in count(start + len(ahead)):
            yield ahead.pop(0).result()
            ahead.append(pool.submit(load, number))


def batches(
    corpus: Corpus,
    *,
    batch_size: int = 32,
    seconds: float = 2.0,
    seed: int = 0,
    start: int = 0,
    workers: int = 2,
    augmentation: Augmentation | None = None,
    rows: slice = slice(None),
    strict: bool = False,
) -> Batches:
    """Returns batches without end; each epoch is a new random order of all utterances.

    A recording that cannot be read, good as its header may be, is replaced by the next one of the
    epoch's order, and listed in the `skipped` of what is returned.

    Args:
        corpus: where to read from.
        batch_size: chunks per batch.
        seconds: length of a chunk; shorter utterances are repeated to fill it.
        seed: of order, positions and augmentation.
        start: number of the first batch.
        workers: threads that read.
        augmentation: what is done to each chunk; its draws depend on seed, epoch and utterance.
        rows: which chunks of a batch are read, for one of several workers.
        strict: raise the first bad recording instead of skipping it.

    Returns:
        An iterator of (float32 (rows, seconds * 16000), int32 (rows,)): samples, and the speaker's
        index in `corpus.speaker_ids`, plus their number for each speed after the first; UNKNOWN
        for an utterance without a speaker; 0 where the corpus has none. It raises InputError at a
        bad recording, if `strict`, and if no good one is left.

    Raises:
        InputError: no chunks per batch, chunks below 0.2 s or above an hour, a negative seed, a
            corpus without recordings.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be positive, not {batch_size}")
    if workers < 1:
        raise InputError(f"workers must be positive, not {workers}")
    if not audio.MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise InputError(
            f"seconds must be from {audio.MIN_SECONDS} to {MAX_SECONDS:.0f}, not {seconds}"
        )
    if seed < 0:
        raise InputError(f"seed must not be negative, as {seed} is")
    keys = list(corpus.paths)
    if not keys:
        raise InputError(f"{corpus.root} has no recording")
    speakers = corpus.speaker_ids
    index = {speaker: i for i, speaker in enumerate(speakers)}
    skipped: dict[str, BadAudioError] = {}

    def draw(number: int, row: int, place: float) -> tuple[npt.NDArray[np.float32], int]:
        epoch, position = divmod(number * batch_size + row, len(keys))
        order = _order(len(keys), seed, epoch)
        for attempt in range(len(keys)):
            utterance = order[(position + attempt) % len(keys)]
            key = keys[utterance]
            rng = np.random.default_rng([seed, 2, epoch, int(utterance)])
            try:
                samples, speed = _chunk(corpus.paths[key], seconds, place, augmentation, rng)
            except BadAudioError as error:
                if strict:
                    raise
                skipped[key] = error.without_traceback()
                continue
            if speakers and key not in corpus.speakers:
                return samples, UNKNOWN
            speaker = index[corpus.speakers[key]] if speakers else 0
            return samples, speaker + speed * len(speakers)
        raise InputError(f"{corpus.root} has no good recording: {next(iter(skipped.values()))}")

    def load(number: int) -> Batch:
        places = np.random.default_rng([seed, 1, number]).random(batch_size)
        drawn = [draw(number, row, places[row]) for row in range(batch_size)[rows]]
        return np.stack([samples for samples, _ in drawn]), np.array([x for _, x in drawn], "i4")

    return Batches(load, start, workers, skipped)


def read(source: audio.Source, seconds: float, place: float) -> npt.NDArray[np.float32]:
    """Reads a chunk: float32 (seconds * 16000,); what is shorter is repeated.

    Args:
        source: the recording.
        seconds: length of the chunk.
        place: where in the recording, from 0 (its beginning) to 1.

    Raises:
        BadAudioError: it cannot be read, holds less than its header says, or is silent.
    """
    slack = max(0.0, audio.probe(source).seconds - seconds)
    samples = audio.read(source, start=slack * place, seconds=seconds).samples
    if not samples.any():
        audio.read(source)  # raises if all of it is silent
        if not samples.size:
            raise BadAudioError("not audio", f"{source} holds less audio than its header says")
    return np.resize(samples, round(seconds * audio.SAMPLE_RATE))


def _chunk(
    source: audio.Source,
    seconds: float,
    place: float,
    augmentation: Augmentation | None,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], int]:
    """A chunk, and the number of its speed."""
    if augmentation is None:
        return read(source, seconds, place), 0
    number = int(rng.integers(len(augmentation.speeds)))
    speed = augmentation.speeds[number]
    length = round(seconds * audio.SAMPLE_RATE)
    samples = read(source, math.ceil(length * speed) / audio.SAMPLE_RATE, place)
    return augmentation(samples, speed, rng)[:length], number


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(size)
