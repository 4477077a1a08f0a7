"""What several commands share: flags of their own, models by path, refusing what is left over."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.codebook import check_bits
from tfq_sv.data.audio import MIN_SECONDS, BadAudioError, survey
from tfq_sv.data.chunks import MAX_SECONDS, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import Encoder, KerasEncoder
from tfq_sv.files import check_output
from tfq_sv.origin import Origin

LISTED = 100
"""Bad recordings that are printed one by one, at most."""

CALIBRATION_SECONDS = 2.0
"""Of a chunk of speech to calibrate on."""

MAX_SEED = 2**32 - 1
"""NumPy's and TensorFlow's."""


def no_positional(arguments: Sequence[str]) -> None:
    """Refuses arguments that no flag takes."""
    if arguments:
        raise InputError(
            f"unexpected argument {arguments[0]!r}; settings are given as --flag=value"
        )


def define_signature(flag_values: flags.FlagValues) -> None:
    """Defines --signature, for commands that run a .tflite on many recordings."""
    flags.DEFINE_enum(
        "signature",
        "inflate",
        ["inflate", "embed"],
        "how a .tflite runs: inflated first (fast) or decoding as it runs (small)",
        flag_values=flag_values,
    )


def define_strict(flag_values: flags.FlagValues) -> None:
    """Defines --strict, for commands that skip bad recordings."""
    flags.DEFINE_bool("strict", False, "stop at the first bad recording", flag_values=flag_values)


def define_speaker_level(flag_values: flags.FlagValues, of: str = "corpus") -> None:
    """Defines --speaker_level, for commands that need to know who speaks.

    Args:
        flag_values: a command's flags.
        of: which of its flags names the folder.
    """
    flags.DEFINE_integer(
        "speaker_level",
        None,
        f"depth of the speakers' folders in --{of}: 1 is its own sub-folders; found by names and "
        "structure if not given",
        lower_bound=1,
        flag_values=flag_values,
    )


def define_report(flag_values: flags.FlagValues) -> None:
    """Defines --report, for commands whose result people look at."""
    flags.DEFINE_string(
        "report", None, "write tables and pictures (.html)", flag_values=flag_values
    )


def define_chunks(flag_values: flags.FlagValues, batch_size: int, seed: str) -> None:
    """Defines --batch_size, --seconds and --seed, for commands that draw chunks of speech.

    Args:
        flag_values: a command's flags.
        batch_size: the default.
        seed: what the seed is of.
    """
    flags.DEFINE_integer(
        "batch_size",
        batch_size,
        "chunks per batch, over all devices",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        "seconds",
        2.0,
        "length of a chunk",
        lower_bound=MIN_SECONDS,
        upper_bound=MAX_SECONDS,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "seed", 0, seed, lower_bound=0, upper_bound=MAX_SEED, flag_values=flag_values
    )


def bit_widths(texts: Sequence[Any]) -> list[int]:
    """Reads a --bits: widths from 1 to 8."""
    return [check_bits(int(text) if text.isdecimal() else text) for text in texts]


def check_file(flag_values: flags.FlagValues, name: str, suffix: str = "") -> None:
    """Refuses a file of another kind, or that cannot be written, before the work is done."""
    value = flag_values[name].value
    if value and not value.endswith(suffix):
        raise InputError(f"--{name} {value} must end in {suffix}")
    if value:
        check_output(value)


def is_tflite(name: str) -> bool:
    """Whether a name is that of a .tflite."""
    return Path(name).suffix.lower() == ".tflite"


def required(flag_values: flags.FlagValues, *names: str) -> list[Any]:
    """Returns the values of flags that must be given."""
    for name in names:
        if flag_values[name].value in (None, "", [], [""]):
            raise InputError(f"--{name} is missing: {flag_values[name].help}")
    return [flag_values[name].value for name in names]


def output(path: str, *suffixes: str, keep: Sequence[str | None] = ()) -> Path:
    """Returns where a result goes; checked before the work is done, not after it.

    Args:
        path: the value of --out.
        suffixes: what it may end in.
        keep: networks that it must not replace, as they are still needed.
    """
    target = Path(path)
    if target.suffix not in suffixes:
        raise InputError(f"--out {path} must end in {' or '.join(suffixes)}")
    for name in filter(None, keep):
        if target.exists() and Path(name).exists() and target.samefile(name):
            raise InputError(f"--out {path} would replace {name}, which is needed; name another")
    check_output(target)
    return target


def megabytes(text: str) -> int:
    """Reads a --target_mb: MB of 10^6 bytes -> bytes."""
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e6:
        raise InputError(f"--target_mb must be sizes in MB such as 1.0, not {text!r}")
    return round(size * 1e6)


def check_network(name: str, *, finished: bool = False) -> None:
    """Refuses what is neither there nor shipped, before TensorFlow loads; a .tflite as well.

    Args:
        name: a flag's value.
        finished: whether a .tflite will do.
    """
    from tfq_sv import assets

    if is_tflite(name) and not finished:
        raise InputError(f"{name} is a finished file; give the network that it was made from")
    shipped = (*assets.NAMES, *assets.FILES)
    if not Path(name).exists() and name not in shipped:
        raise InputError(f"model {name} does not exist; shipped networks are {', '.join(shipped)}")


def load_network(name: str) -> Any:
    """Loads a Keras model or a published checkpoint, or a shipped network by its name."""
    from tfq_sv import assets

    check_network(name)
    path = Path(name)
    if not path.exists():
        return assets.load(name)
    from tfq_sv.models.checkpoint import SUFFIXES
    from tfq_sv.quantization.quantized_model import load_model

    if path.suffix.lower() in SUFFIXES or (
        path.is_dir() and not (path / "saved_model.pb").exists()
    ):
        from tfq_sv.models import load_checkpoint

        return load_checkpoint(name)
    return load_model(name)


def open_encoder(name: str, *, fast: bool = True) -> Encoder:
    """Opens a .tflite in the interpreter, or anything else as a Keras model."""
    if is_tflite(name):
        from tfq_sv import assets
        from tfq_sv.export import SpeakerEncoder

        return SpeakerEncoder(
            assets.file(name), fast=fast, check_speech=False
        )  # done where it is reported
    return KerasEncoder(load_network(name))


def encoder_origin(encoder: Any) -> Origin:
    """Where the network of an encoder is from, as far as it says."""
    known = getattr(encoder, "origin", None)
    return known or Origin.of(getattr(encoder, "about", {}).get("origin"))


def fingerprint(name: str, encoder: Encoder, *, fast: bool = True) -> str:
    """What changes when a network's embeddings do; thresholds stored in a .tflite are no part."""
    from tfq_sv import assets

    about = getattr(encoder, "about", None)
    if about is not None:
        kind = "inflate" if fast else "embed"
        return f"{about['inflated_sha256']} {kind} {sorted((about['frontend'] or {}).items())}"
    if name in assets.NAMES and not Path(name).exists():
        name = str(Path(assets.__file__).parent / f"{name}.h5.gz")
    path, digest = Path(name), hashlib.sha256()
    # A checkpoint's front end is in config.yaml, beside the weights that `name` may be.
    digest.update(repr(getattr(encoder, "fbank", None)).encode())
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def are_listed(trials: str | None, folder: str) -> bool:
    """Whether there is a list of trials, so that nobody needs to know the speakers."""
    root = Path(folder).parent if Path(folder).is_file() else Path(folder)
    return bool(trials) or (root / "trials.txt").is_file()


def read_trials(
    path: str | None, corpus: Corpus, *, enroll_map: str | None = None, strict: bool = True
) -> Trials:
    """The list asked for, or the corpus's own trials.txt, or pairs drawn at random."""
    own = corpus.root / "trials.txt"
    if not path and not own.is_file():
        if enroll_map:
            raise InputError("--enroll_map needs --trials")
        return Trials.all_pairs(corpus)
    trials = Trials.read(path or own, corpus, enroll_map=enroll_map, strict=strict)
    if trials.repeated:
        print(f"{trials.source}: {trials.repeated:,} duplicate trials; each counts")
    for note in trials.notes:
        print(note)
    return trials


def read_corpus(
    folder: str,
    *,
    strict: bool = False,
    speaker_level: int | None = None,
    unlabelled: bool = False,
) -> Corpus:
    """Reads a corpus, checks every file's header, and says what reading will change.

    Bad files are skipped and listed; if `strict`, the first one ends it.
    """
    corpus = Corpus.read(folder, speaker_level=speaker_level, unlabelled=unlabelled)
    probed = survey(corpus.paths, strict=strict, progress="checking audio")
    if len(probed.bad) == len(corpus.paths):
        raise InputError(f"{folder} has no good recording: {next(iter(probed.bad.values()))}")
    print_corpus(folder, corpus, probed.changes)
    if probed.bad:
        print_skipped(probed.bad, len(corpus.paths))
    return corpus.without(probed.bad)


def read_corpora(folders: Sequence[str], **options: Any) -> Corpus:
    """Reads several corpora as one, each as `read_corpus` does with these options."""
    return Corpus.joined([read_corpus(folder, **options) for folder in folders])


def speech_for_calibration(
    folder: str, minutes: float
) -> tuple[list[Any], dict[str, BadAudioError]]:
    """Chunks of a corpus, the same ones every time, and the bad recordings met.

    Returns:
        Batches of one: (waveforms (1, N), whose); recordings that were skipped.
    """
    chunks = max(1, round(minutes * 60 / CALIBRATION_SECONDS))
    corpus = read_corpus(folder, unlabelled=True)
    stream = batches(corpus, batch_size=1, seconds=CALIBRATION_SECONDS)
    speech = list(itertools.islice(stream, chunks))
    if stream.skipped:
        print_skipped(stream.skipped, len(corpus.paths))
    return speech, stream.skipped


def print_corpus(folder: str, corpus: Corpus, changes: Counter[str]) -> None:
    """Says how large a corpus is, how it was read, and what reading changes."""
    speakers = f" of {len(corpus.speaker_ids)} speakers" if corpus.speakers else ""
    print(f"{folder}: {len(corpus.paths)} utterances{speakers}")
    for note in corpus.notes:
        print(f"  {note}")
    for change, files in sorted(changes.items()):
        print(f"  {files} files: {change}")


def reasons(bad: Mapping[str, BadAudioError]) -> dict[str, str]:
    """Recordings that were skipped, and why, for --json."""
    return {key: str(error) for key, error in bad.items()}


def number(value: float) -> float | None:
    """A number for --json, which has no NaN."""
    return None if math.isnan(value) else value


def print_skipped(bad: Mapping[str, BadAudioError], total: int, trials: str = "") -> None:
    """Lists recordings that were skipped, with a count of each kind and each one's reason."""
    kinds = Counter(error.kind for error in bad.values())
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    print(f"skipped: {len(bad):,} of {total:,} recordings ({counts}){trials}")
    for key, error in list(bad.items())[:LISTED]:
        print(f"  {key}: {error}")
    if len(bad) > LISTED:
        print(f"  and {len(bad) - LISTED:,} more")
