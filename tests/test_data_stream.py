"""Streams of batches: any dataset, skipped without reading where that can be."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfq_sv.data.chunks import Batches, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.stream import Stream
from tfq_sv.errors import InputError


class Counted:
    """Loads batches that hold their number, and notes which."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        self.loaded.append(number)
        return np.full((2, 3), number, np.float32), np.full(2, number, np.int32)


def numbers(stream: Batches | Stream, count: int) -> list[int]:
    return [int(next(stream)[1][0]) for _ in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_skipped_is_not_read(workers: int) -> None:
    load = Counted()
    stream = Batches(load, 5, workers)
    stream.skip(1000)
    assert not load.loaded
    assert numbers(stream, 2) == [1005, 1006]
    stream.skip(0)
    assert numbers(stream, 1) == [1007]
    stream.skip(10)
    assert numbers(stream, 1) == [1018]
    assert min(load.loaded) == 1005
    assert max(load.loaded) < 1018 + 2 * workers + 2


def test_any_dataset_is_a_stream_without_end() -> None:
    wanted = [1, 2, 0, 1]
    whole = [Counted()(number) for number in range(3)]
    as_tf = tf.data.Dataset.from_tensor_slices([x for x, _ in whole]).map(
        lambda x: (x, tf.cast(x[:, 0], tf.int32))
    )
    for dataset in (whole, as_tf):
        stream = Stream(dataset, "a test")
        stream.skip(4)
        assert numbers(stream, 4) == wanted
        assert stream.drawn == 8
        assert Stream.of(stream, "another") is stream
    assert numbers(Stream(iter(whole), "a test"), 3) == [0, 1, 2]


def test_a_stream_of_batches_skips_as_they_do() -> None:
    load = Counted()
    stream = Stream.of(Batches(load, 0, 2), "a test")
    stream.skip(40)
    assert numbers(stream, 2) == [40, 41]
    assert (min(load.loaded), stream.drawn) == (40, 42)


def test_batches_go_on_when_who_drew_from_them_is_gone() -> None:
    """One stream of batches serves calibration, and then fine-tuning after fine-tuning."""
    load = Batches(Counted(), 0, 2)
    for first in (0, 2, 4):
        stream = Stream(load, "a test")
        assert numbers(stream, 2) == [first, first + 1]
        del stream
        gc.collect()


def test_skipping_nothing_ends_the_threads() -> None:
    before = threading.active_count()
    load = Batches(Counted(), 0, 3)
    numbers(load, 2)
    assert threading.active_count() > before
    load.skip(0)
    assert threading.active_count() == before


def test_what_ends_says_for_what_it_was() -> None:
    with pytest.raises(InputError, match="dataset for a test ended after 0 batches"):
        next(Stream([], "a test"))
    stream = Stream(iter("ab"), "a test")
    stream.skip(2)
    with pytest.raises(InputError, match="ended after 2 batches; give some, and a list"):
        next(stream)


def test_the_same_through_tf_data(corpus_dir: Path) -> None:
    corpus = Corpus.read(corpus_dir / "train")
    plain = batches(corpus, batch_size=3, seconds=0.3, seed=1)
    stream = batches(corpus, batch_size=3, seconds=0.3, seed=1)
    for waveforms, labels in stream.dataset().take(4):
        wanted = next(plain)
        np.testing.assert_array_equal(waveforms, wanted[0])
        np.testing.assert_array_equal(labels, wanted[1])
