"""Whether a list's labels agree with each other, and with the speakers of the corpus."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError

if TYPE_CHECKING:
    from tfq_sv.data.trials import Trials

# From this share on, labels are not wrong here and there: the list means the opposite.
_OPPOSITE = 0.98


def check_labels(trials: "Trials", corpus: Corpus) -> list[str]:
    """Returns doubts about the labels, for people; an empty list where there are none.

    Args:
        trials: a list, its names those of the corpus.
        corpus: its speakers are compared with the labels, where they are known.

    Raises:
        InputError: a trial is called both target and nontarget, in either order; a recording is
            called another speaker's than itself; or nearly all labels say the opposite of the
            speakers.
    """
    enroll, test = _numbers(trials)
    _check_disputed(trials, enroll, test)
    doubts = []
    itself = int((enroll == test).sum())
    if itself:
        doubts.append(
            f"{trials.source}: {itself:,} trials compare a recording with itself, which scores 1"
        )
    several = {model: set(keys) for model, keys in trials.models.items() if len(keys) > 1}
    own = sum(
        test in several.get(enroll, ())
        for enroll, test in zip(trials.enroll, trials.test, strict=True)
    )
    if several and own:
        doubts.append(
            f"warning: {trials.source}: {own:,} trials test a recording of their own enrolment, "
            "which scores too high"
        )
    mixed = _mixed_models(trials, corpus)
    if mixed:
        doubts.append(
            f"{trials.source}: {len(mixed)} enrolments have recordings of several speakers "
            f"(first: {mixed[0]})"
        )
    whose = trials.speakers(corpus)
    if whose:
        doubts += _against_speakers(trials, corpus, whose)
    else:
        doubts += _against_each_other(trials, enroll, test)
    return doubts


def _numbers(trials: "Trials") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each name as a number; an enrolment of one utterance is that utterance."""
    single = {model: keys[0] for model, keys in trials.models.items() if len(keys) == 1}
    enroll = [
        single.get(name, ("enrolment", name)) if trials.models else name for name in trials.enroll
    ]
    place: dict[object, int] = {}
    first = [place.setdefault(name, len(place)) for name in enroll]
    second = [place.setdefault(name, len(place)) for name in trials.test]
    return np.array(first, np.int64), np.array(second, np.int64)


def _check_disputed(
    trials: "Trials", enroll: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> None:
    low, high = np.minimum(enroll, test), np.maximum(enroll, test)
    pair = low * (int(high.max()) + 1) + high
    both = np.intersect1d(pair[trials.labels], pair[~trials.labels])
    if both.size:
        i = int(np.flatnonzero(pair == both[0])[0])
        raise InputError(
            f"{trials.source} calls {both.size} trials both target and nontarget "
            f"(first: {trials.enroll[i]} {trials.test[i]})"
        )
    alien = np.flatnonzero((enroll == test) & ~trials.labels)
    if alien.size:
        raise InputError(
            f"{trials.source} calls {alien.size} trials of a recording with itself nontarget "
            f"(first: {trials.test[alien[0]]})"
        )


def _mixed_models(trials: "Trials", corpus: Corpus) -> list[str]:
    of = corpus.speakers
    return [
        model
        for model, keys in trials.models.items()
        if len({of[key] for key in keys if key in of}) > 1
    ]


def _against_speakers(
    trials: "Trials", corpus: Corpus, whose: tuple[list[str], list[str]]
) -> list[str]:
    same = np.fromiter((a == b for a, b in zip(*whose, strict=True)), bool, len(trials))
    wrong = np.flatnonzero(same != trials.labels)
    if not wrong.size:
        return []
    first = f"{trials.enroll[wrong[0]]} {trials.test[wrong[0]]}"
    found = f"{wrong.size:,} of {len(trials):,} labels contradict the speakers of {corpus.root}"
    if wrong.size >= _OPPOSITE * len(trials) and trials.labels.any() and not trials.labels.all():
        raise InputError(
            f"{trials.source}: {found} (first: {first}); they are the wrong way round: 1 or target "
            "means the same speaker"
        )
    targets = int(trials.labels[wrong].sum())
    return [
        f"warning: {trials.source}: {found}: {targets:,} targets of two speakers, "
        f"{wrong.size - targets:,} nontargets of one (first: {first}); the labels count"
    ]


def _against_each_other(
    trials: "Trials", enroll: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> list[str]:
    """Where a and b are one speaker, b and c too, a and c cannot be two."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = int(max(enroll.max(), test.max())) + 1
    target = trials.labels
    links = coo_matrix(
        (np.ones(int(target.sum()), np.int8), (enroll[target], test[target])), (size, size)
    )
    _, group = connected_components(links, directed=False)
    wrong = np.flatnonzero(~target & (group[enroll] == group[test]))
    if not wrong.size:
        return []
    i = wrong[0]
    share = wrong.size / int((~target).sum())
    hint = "; the labels may be the wrong way round" if share > _OPPOSITE else ""
    return [
        f"warning: {trials.source}: {wrong.size:,} nontarget trials compare recordings that target "
        f"trials say are of one speaker (first: {trials.enroll[i]} {trials.test[i]}){hint}"
    ]
