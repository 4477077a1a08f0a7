"""Counts the recordings of a corpus that `data.speech_check` takes for no speech.

example:
  python benchmarks/speech_check.py LibriSpeech speechocean762/train
"""

import argparse
from collections import Counter

from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.speech_check import no_speech


def main() -> None:
    """Prints a line for each corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="+")
    for folder in parser.parse_args().corpus:
        corpus = Corpus.read(folder, unlabelled=True)
        reasons: Counter[str] = Counter()
        for path in corpus.paths.values():
            if reason := no_speech(audio.read(path).samples):
                reasons[reason.split(":")[0]] += 1
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
        print(f"{folder}: {sum(reasons.values())} of {len(corpus.paths):,} recordings ({listed})")


if __name__ == "__main__":
    main()
