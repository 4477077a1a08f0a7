"""What several commands share: flags of their own, models by path, refusing what is left over."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation import Encoder, KerasEncoder, changes


def no_positional(arguments: Sequence[str]) -> None:
    """Refuses arguments that no flag takes."""
    if arguments:
        raise InputError(
            f"unexpected argument {arguments[0]!r}; settings are given as --flag=value"
        )


def required(flag_values: flags.FlagValues, *names: str) -> list[Any]:
    """Returns the values of flags that must be given."""
    for name in names:
        if flag_values[name].value in (None, ""):
            raise InputError(f"--{name} is missing: {flag_values[name].help}")
    return [flag_values[name].value for name in names]


def output(path: str, *suffixes: str) -> Path:
    """Returns where a result goes; checked before the work is done, not after it."""
    target = Path(path)
    if target.suffix not in suffixes:
        raise InputError(f"--out {path} must end in {' or '.join(suffixes)}")
    if target.is_dir():
        raise InputError(f"--out {path} is a folder; name a file")
    return target


def load_network(name: str) -> Any:
    """Loads a Keras model from a path, or a shipped network by its name."""
    from tfq_sv import assets
    from tfq_sv.quantization import load_model

    if name in assets.NAMES and not Path(name).exists():
        return assets.load(name)
    if not Path(name).exists():
        raise InputError(
            f"model {name} does not exist; shipped networks are {', '.join(assets.NAMES)}"
        )
    return load_model(name)


def open_encoder(name: str, *, fast: bool = True) -> Encoder:
    """Opens a .tflite in the interpreter, or anything else as a Keras model."""
    if name.endswith(".tflite"):
        from tfq_sv.export import SpeakerEncoder

        return SpeakerEncoder(name, fast=fast)
    return KerasEncoder(load_network(name))


def read_trials(path: str | None, corpus: Corpus) -> Trials:
    """The list asked for, or the corpus's own trials.txt, or pairs drawn at random."""
    own = corpus.root / "trials.txt"
    if path or own.is_file():
        return Trials.read(path or own, corpus)
    return Trials.all_pairs(corpus)


def read_corpus(folder: str) -> Corpus:
    """Reads a corpus, checks every file's header, and says what reading will change."""
    corpus = Corpus.read(folder)
    changed = changes(corpus, progress="checking audio")
    print(f"{folder}: {len(corpus.paths)} utterances of {len(corpus.speaker_ids)} speakers")
    for change, files in sorted(changed.items()):
        print(f"  {files} files: {change}")
    return corpus
