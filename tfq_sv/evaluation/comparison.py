"""Several systems on the same trials: each one's error rates, and its difference to the first."""

from collections.abc import Mapping
from dataclasses import dataclass

from tfq_sv.data.corpus import Corpus
from tfq_sv.evaluation.measurement import Evaluation
from tfq_sv.metrics import eer_interval


@dataclass(frozen=True)
class System:
    """One row of a comparison.

    Attributes:
        name: what it is.
        result: its error rates.
        difference: 95 % interval of its EER less the first system's; None for the first.
    """

    name: str
    result: Evaluation
    difference: tuple[float, float] | None = None


def compare(results: Mapping[str, Evaluation], corpus: Corpus) -> list[System]:
    """Returns each result beside the first, of the same trials.

    Args:
        results: name -> error rates.
        corpus: where the trials' utterances are; its speakers are what the bootstrap draws.
    """
    first = next(iter(results.values()))
    whose, labels = first.trials.speakers(corpus), first.trials.labels
    return [
        System(
            name,
            result,
            None
            if result is first
            else whose and eer_interval(result.scores, labels, whose, minus=first.scores),
        )
        for name, result in results.items()
    ]
