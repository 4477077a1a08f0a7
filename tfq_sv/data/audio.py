"""Reading recordings: any rate and channel count in, 16 kHz mono float32 out, and what was done.

`decoding` says which formats there are.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tfq_sv.data import decoding
from tfq_sv.data.decoding import CutShortError, NotAudioError
from tfq_sv.data.segment import Segment
from tfq_sv.data.shards import Member
from tfq_sv.errors import InputError
from tfq_sv.progress import tqdm

T = TypeVar("T")

SAMPLE_RATE = 16000
MIN_SECONDS = 0.2
# A mix that has less than so much of the power that unrelated channels would give it is the
# difference of channels in antiphase.
_ANTIPHASE = 0.05
# A constant has this much of an int16 step, at most, around its mean.
_STEP = 2.0**-15

Source = Path | Member | Segment
"""A file, a file inside a shard, or a part of either."""


class BadAudioError(InputError):
    """A recording that cannot be used; `kind` says in a word or two why, for counting.

    >>> BadAudioError("silent", "a.wav is silent").kind
    'silent'
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Recording:
    """Samples as the networks take them.

    Attributes:
        samples: float32 (N,), in [-1, 1], 16 kHz.
        changes: what reading changed, for people: "resampled from 44100 Hz", for instance.
    """

    samples: npt.NDArray[np.float32]
    changes: tuple[str, ...] = ()


def read(path: str | Source, *, start: float = 0.0, seconds: float | None = None) -> Recording:
    """Reads a recording of any format of `decoding`.

    Args:
        path: the file.
        start: seconds to skip.
        seconds: at most so many seconds; all if None.

    Raises:
        BadAudioError: missing, not audio, cut short, shorter than 0.2 s, NaN, pure silence or a
            constant, or a header that states what cannot be.
        InputError: AAC or the like, and no decoder is installed.
    """
    source = _source(path)
    whole = not start and seconds is None
    if isinstance(source, Segment):
        first, length = source.part(start, seconds)
        channels, rate = _decoded(source, lambda file: decoding.decode(file, first, length))
    else:
        channels, rate = _decoded(source, lambda file: decoding.decode(file, start, seconds))
    if not np.isfinite(channels).all():
        raise BadAudioError("NaN", f"{source} holds NaN or infinite samples")
    samples, mixed = _mono(channels)
    if whole:  # a part of a good file may well be short or silent
        _check_length(source, len(samples), rate)
        _check_sound(source, samples)
    if rate != SAMPLE_RATE:
        import librosa  # takes a second to import, and few corpora need it

        samples = librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    return Recording(np.ascontiguousarray(samples, np.float32), (*mixed, *_resampled(rate)))


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        seconds: its length.
        changes: what `read` would change, as in `Recording`.
    """

    seconds: float
    changes: tuple[str, ...]


def probe(path: str | Source) -> Header:
    """Reads a header alone; raises BadAudioError if missing, not audio, cut or too short."""
    source = _source(path)
    frames, rate, channels = _decoded(source, decoding.header)
    if isinstance(source, Segment):
        end = frames if source.end is None else min(frames, round(source.end * rate))
        frames = max(0, end - round(source.start * rate))
    _check_length(source, frames, rate)
    mixed = (f"{channels} channels mixed down",) if channels > 1 else ()
    return Header(frames / rate, (*mixed, *_resampled(rate)))


@dataclass(frozen=True)
class Survey:
    """What the headers of many files say.

    Attributes:
        changes: what reading will change -> number of files.
        bad: key -> why the file cannot be used.
    """

    changes: Counter[str]
    bad: dict[str, BadAudioError]


def survey(
    paths: Mapping[str, Source], *, strict: bool = False, progress: str | None = None
) -> Survey:
    """Probes many files.

    Args:
        paths: key -> file.
        strict: raise the first bad file instead of collecting it.
        progress: name of the progress bar; none if None.

    Raises:
        BadAudioError: a bad file, if `strict`.
        InputError: AAC, and no decoder is installed.
    """
    changes: Counter[str] = Counter()
    bad = {}
    for key, path in tqdm(paths.items(), desc=progress, unit="file", disable=progress is None):
        try:
            changes.update(probe(path).changes)
        except BadAudioError as error:
            if strict:
                raise
            bad[key] = error
    return Survey(changes, bad)


def stamp(source: Source) -> str:
    """What changes when a file does: its size and time (and place in a shard).

    Raises:
        BadAudioError: missing.
    """
    if isinstance(source, Segment):
        return f"{stamp(source.whole)}-{source.start}-{source.end}"
    file = source.archive if isinstance(source, Member) else source
    try:
        status = file.stat()
    except OSError:
        raise _missing(source) from None
    place = f"-{source.offset}" if isinstance(source, Member) else ""
    return f"{status.st_size}-{status.st_mtime_ns}{place}"


def _source(path: str | Source) -> Source:
    if isinstance(path, Member):
        return path
    if isinstance(path, Segment):
        _source(path.whole)
        return path
    file = Path(path)
    if not file.is_file():
        raise BadAudioError("missing", f"{file} is not a file") if file.exists() else _missing(file)
    if not file.stat().st_size:
        raise _unreadable(file, "the file is empty")
    return file


def _decoded(source: Source, decoder: Callable[[Path | Member], T]) -> T:
    """Runs a decoder; all that it throws becomes BadAudioError."""
    try:
        return decoder(source.whole if isinstance(source, Segment) else source)
    except CutShortError as error:
        raise BadAudioError("cut short", f"{source} is cut short: {error}") from None
    except NotAudioError as error:
        raise _unreadable(source, error) from None
    except OSError as error:
        raise _unreadable(source, error.strerror or error) from None


def _mono(
    channels: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """One channel of many (N, channels), and what was done."""
    count = channels.shape[1]
    if count == 1:
        return channels[:, 0], ()
    mix = channels.mean(axis=1)
    powers = channels.var(axis=0, dtype=np.float64)
    if len(mix) and mix.var(dtype=np.float64) < _ANTIPHASE * powers.sum() / count**2:
        loudest = int(powers.argmax())
        return channels[:, loudest], (f"channel {loudest + 1} of {count} in antiphase taken",)
    return mix, (f"{count} channels mixed down",)


def _check_sound(source: Source, samples: npt.NDArray[np.float32]) -> None:
    low, high = float(samples.min()), float(samples.max())
    if low == high == 0:
        raise BadAudioError("silent", f"{source} is silent: every sample is zero")
    if high - low <= _STEP:
        raise BadAudioError(
            "silent", f"{source} is silent: a constant of {high:.4f}, from a muted input perhaps"
        )


def _missing(source: Source) -> BadAudioError:
    return BadAudioError("missing", f"{source} does not exist")


def _unreadable(source: Source, error: object) -> BadAudioError:
    return BadAudioError("not audio", f"{source} cannot be read as audio: {error}")


def _check_length(source: Source, frames: int, rate: int) -> None:
    if frames < MIN_SECONDS * rate:
        raise BadAudioError(
            "too short",
            f"{source} holds {frames / rate:.3f} s of audio; at least {MIN_SECONDS} s are needed",
        )


def _resampled(rate: int) -> tuple[str, ...]:
    return () if rate == SAMPLE_RATE else (f"resampled from {rate} Hz",)
