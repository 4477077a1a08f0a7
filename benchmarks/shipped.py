"""The shipped networks on real voices: error rates, and men against women at the stored threshold.

    python benchmarks/shipped.py --corpus=speechocean762/test

The corpus has a trials.txt. Who is a man and who a woman, its Kaldi lists say: spk2gender
(`speaker m` or `speaker f`) and, if it is there, spk2age (`speaker years`): children's voices are
left out. Every recording of a man is then compared with every one of a woman, and the share that
the file's own threshold accepts is printed, with its 95 % interval by a bootstrap over speakers.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv import assets
from tfq_sv.cli.common import encoder_origin, open_encoder
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.lists import read_lines
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import Evaluation, evaluate
from tfq_sv.verification.decision import OPERATING_POINT, find_threshold

ADULT = 16  # years
RESAMPLES = 2000


def main(options: argparse.Namespace) -> None:
    """Prints a paragraph for each network."""
    corpus = Corpus.read(options.corpus)
    trials = Trials.read(corpus.root / "trials.txt", corpus)
    lists = [Path(given or corpus.root / name) for name, given in
             (("spk2gender", options.spk2gender), ("spk2age", options.spk2age))]  # fmt: skip
    men, women = adults(*lists)
    print(f"{corpus.root.name}: {len(trials):,} trials, {len(corpus.speaker_ids)} speakers")
    for name in options.models.split(","):
        encoder = open_encoder(name)
        result = evaluate(encoder, corpus, trials, progress=name)
        print(f"\n{name}: {encoder_origin(encoder).speech}\n  EER {percent(result)}")
        about = getattr(encoder, "about", None)
        if about is not None:
            threshold = find_threshold(about, OPERATING_POINT, name).value
            accepted = accepted_by_speakers(result, corpus, men, women, threshold)
            print(f"  {said(accepted, threshold)}")


def adults(genders: Path, ages: Path) -> tuple[list[str], list[str]]:
    """Returns the men and the women of two Kaldi lists; all are adults where no ages are known."""
    years = {speaker: float(age) for speaker, age in fields(ages).items()} if ages.exists() else {}
    both: dict[str, list[str]] = {"m": [], "f": []}
    for speaker, gender in fields(genders).items():
        if gender not in both:
            raise InputError(f"{genders}: {speaker} is {gender!r}, neither m nor f")
        if years.get(speaker, ADULT) >= ADULT:
            both[gender].append(speaker)
    return both["m"], both["f"]


def fields(path: Path) -> dict[str, str]:
    """Reads Kaldi's `key value` lines."""
    return dict(line.split(maxsplit=1) for _, line in read_lines(path))


def accepted_by_speakers(
    result: Evaluation, corpus: Corpus, men: list[str], women: list[str], threshold: float
) -> npt.NDArray[np.float64]:
    """Returns (accepted, trials) of each pair of a man and a woman: (men, women, 2)."""
    assert result.extraction is not None
    embeddings = result.extraction.embeddings
    of: Mapping[str, str] = corpus.speakers
    units: dict[str, list[Any]] = {}
    for key in embeddings:
        vector = embeddings[key].astype(np.float64)
        units.setdefault(of[key], []).append(vector / np.linalg.norm(vector))
    sides = [[np.array(units[one]) for one in who if one in units] for who in (men, women)]
    if not all(sides):
        raise InputError(f"{corpus.root} has no men or no women, as the lists have them")
    return np.array([[(np.sum(a @ b.T >= threshold), len(a) * len(b)) for b in sides[1]]
                     for a in sides[0]], float)  # fmt: skip


def said(accepted: npt.NDArray[np.float64], threshold: float) -> str:
    """The share that was accepted, in words, with its interval."""
    men, women = accepted.shape[:2]
    hits, trials = accepted.sum((0, 1))
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(RESAMPLES):
        some = accepted[np.ix_(rng.integers(men, size=men), rng.integers(women, size=women))]
        drawn = some.sum((0, 1))
        shares.append(drawn[0] / drawn[1])
    low, high = np.quantile(shares, [0.025, 0.975])
    return (
        f"{men} men against {women} women: {hits:,.0f} of {trials:,.0f} trials accepted at "
        f"{threshold:.4f}, {100 * hits / trials:.2f} %  (95 %: {100 * low:.2f} to {100 * high:.2f})"
    )


def percent(result: Evaluation) -> str:
    """An EER with its interval."""
    interval = result.interval
    bounds = "  (95 %: {:.2f} to {:.2f})".format(*(100 * x for x in interval)) if interval else ""
    return f"{100 * result.eer:.2f} %{bounds}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--models", default=",".join((*assets.NAMES, *assets.FILES)))
    parser.add_argument("--spk2gender", help="if not in the corpus")
    parser.add_argument("--spk2age", help="if not in the corpus")
    main(parser.parse_args())
