"""A dataset as one stream of batches without end, whatever form it has. No TensorFlow."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from tfq_sv.errors import InputError


@runtime_checkable
class Endless(Protocol):
    """Batches without end, of which some can be skipped: `data.chunks.Batches` and `Stream`."""

    def __next__(self) -> Any:
        """Draws the next batch."""

    def skip(self, count: int, /) -> None:
        """Continues so many batches later."""


class Stream(Iterator[Any]):
    """Draws the batches of a dataset, which is restarted when it ends.

    Args:
        dataset: a list, a `tf.data.Dataset`, `data.chunks.batches`, or any other iterable.
        purpose: what the batches are for, in the error.

    Attributes:
        drawn: how many batches were drawn or skipped.

    Raises:
        InputError: it gives no batch, or is an iterator that ends.

    >>> stream = Stream("abc", "the example")
    >>> stream.skip(2)
    >>> next(stream), next(stream), stream.drawn
    ('c', 'a', 4)
    """

    def __init__(self, dataset: Iterable[Any], purpose: str) -> None:
        self._dataset, self._purpose = dataset, purpose
        self._batches = self._endless()
        self.drawn = 0

    @classmethod
    def of(cls, dataset: Iterable[Any], purpose: str) -> "Stream":
        """Returns the dataset's stream; one that is a stream already continues where it is."""
        return dataset if isinstance(dataset, Stream) else cls(dataset, purpose)

    def __next__(self) -> Any:
        batch = next(self._batches)
        self.drawn += 1
        return batch

    def skip(self, count: int) -> None:
        """Continues so many batches later; those of an `Endless` dataset are not even read."""
        if isinstance(self._dataset, Endless):
            self._dataset.skip(count)
            self.drawn += count
            return
        for _ in range(count):
            next(self)

    def _endless(self) -> Iterator[Any]:
        while True:
            before = self.drawn
            yield from self._dataset
            if self.drawn == before:
                raise InputError(
                    f"the dataset for {self._purpose} ended after {self.drawn} batches; give some, "
                    "and a list or a stream without end"
                )


def once(dataset: Iterable[Any], purpose: str) -> Iterator[Any]:
    """Draws all batches of a dataset that ends.

    Raises:
        InputError: it gives no batch, or is one of those that never end.

    >>> list(once("abc", "the example"))
    ['a', 'b', 'c']
    """
    if isinstance(dataset, Endless):
        raise InputError(
            f"the dataset for {purpose} never ends; give some of it: itertools.islice(batches, 3)"
        )
    batch = None
    for batch in dataset:
        yield batch
    if batch is None:
        raise InputError(f"the dataset for {purpose} gave no batch")
