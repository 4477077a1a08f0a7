"""make speech files of many voices, when there is no corpus at hand

The voices are made by espeak-ng (pip install 'tfq-sv[demo]') and differ in pitch, vocal tract and
manner; every recording has its own words, room, microphone and noise. Folders and lists are in
VoxCeleb's form. An interrupted run resumes where it stopped.

example:
  tfq-sv make-corpus --out=corpus
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.common import no_positional, required
from tfq_sv.data.synthetic import CorpusSpec, make_corpus
from tfq_sv.files import check_folder

_DEFAULT = CorpusSpec()

FLAGS = flags.FlagValues()
flags.DEFINE_string("out", None, "folder to make", flag_values=FLAGS)
flags.DEFINE_integer("speakers", _DEFAULT.speakers, "speakers to train on", flag_values=FLAGS)
flags.DEFINE_integer(
    "test_speakers", _DEFAULT.test_speakers, "other speakers to test on", flag_values=FLAGS
)
flags.DEFINE_integer(
    "utterances", _DEFAULT.utterances, "utterances per training speaker", flag_values=FLAGS
)
flags.DEFINE_integer(
    "test_utterances",
    _DEFAULT.test_utterances,
    "utterances per test speaker",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seed", _DEFAULT.seed, "of voices, words and rooms", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_integer("workers", None, "processes; all cores if not given", flag_values=FLAGS)
flags.DEFINE_bool("train", True, "--notrain makes the test part alone", flag_values=FLAGS)
REQUIRED = ("out",)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Makes the corpus and says what is there."""
    no_positional(arguments)
    (folder,) = required(FLAGS, *REQUIRED)
    check_folder(folder)
    out = Path(folder)
    spec = CorpusSpec(
        speakers=FLAGS.speakers,
        test_speakers=FLAGS.test_speakers,
        utterances=FLAGS.utterances,
        test_utterances=FLAGS.test_utterances,
        seed=FLAGS.seed,
    )
    make_corpus(out, spec, workers=FLAGS.workers, train=FLAGS.train)
    if FLAGS.train:
        print(f"{out / 'train'}: {spec.speakers} speakers x {spec.utterances} utterances")
    trials = len((out / "test" / "trials.txt").read_text().splitlines())
    print(
        f"{out / 'test'}: {spec.test_speakers} other speakers x {spec.test_utterances} utterances, "
        f"{trials:,} trials"
    )
    if FLAGS.train:
        print(f"next: tfq-sv train --corpus={out / 'train'} --out=model.keras")
    return {"out": str(out), **asdict(spec), "trials": trials}
