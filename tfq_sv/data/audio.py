"""Reading recordings: any rate and channel count in, 16 kHz mono float32 out, and what was done.

`decoding` says which formats there are.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from tfq_sv import windows
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
# difference of channels in antiphase, with a little delay between them perhaps.
_ANTIPHASE = 0.5

# Seconds that a segment may reach beyond its recording, as for Kaldi's extract-segments.
_OVERSHOOT = 0.5

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

    def without_traceback(self) -> "BadAudioError":
        """Itself, for a list of what was skipped: the frames of a traceback hold the samples."""
        self.__context__ = None
        return self.with_traceback(None)


@dataclass(frozen=True)
class Recording:
    """Samples as the networks take them.

    Attributes:
        samples: float32 (N,), in [-1, 1], 16 kHz.
        changes: what reading changed, for people: "resampled from 44100 Hz", for instance.
    """

    samples: npt.NDArray[np.float32]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Windows(Generic[T]):
    """What a long recording gave.

    Attributes:
        found: what `use` made of each window, constants left out.
        count: how many windows there are.
        changes: as in `Recording`.
    """

    found: list[T]
    count: int
    changes: tuple[str, ...]


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
    first, length = _part(source, start, seconds)
    channels, rate = _decoded(source, lambda file: decoding.decode(file, first, length))
    if not np.isfinite(channels).all():
        raise BadAudioError("NaN", f"{source} holds NaN or infinite samples")
    samples, mixed, _ = _to_mono(source, channels)
    if whole:  # a part of a good file may well be short or silent
        _check_length(source, len(samples), rate)
        _check_sound(source, samples)
    if rate != SAMPLE_RATE:
        samples = _to_16_khz(samples, rate)
    return Recording(np.ascontiguousarray(samples, np.float32), (*mixed, *_resampled(rate)))


def _to_16_khz(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """What `librosa.resample(..., res_type="soxr_hq")` returns, without the weight of librosa."""
    import soxr

    length = math.ceil(len(samples) * (SAMPLE_RATE / rate))
    resampled = soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled)))


def read_windows(path: str | Source, use: Callable[[npt.NDArray[np.float32]], T]) -> Windows[T]:
    """Reads a long recording in the windows of `tfq_sv.windows`, in bounded memory.

    What `read` decides by the whole of it is decided here by the first minute (which channel) or by
    each window (silence).

    Args:
        path: the file.
        use: is given each window, float32 (N,), at 16 kHz, constants left out.

    Raises:
        BadAudioError: as `read`.
    """
    source = _source(path)
    first, length = _part(source, 0.0, None)
    sink = _WindowSink(source, use)

    def run(file: Path | Member) -> None:
        decoding.stream(file, first, length, sink)

    _decoded(source, run)
    return sink.end()


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
        if source.end is not None and source.end > frames / rate + _OVERSHOOT:
            raise BadAudioError(
                "past the end", f"{source} ends after its recording, of {frames / rate:.2f} s"
            )
        frames = max(0, end - round(source.start * rate))
    _check_length(source, frames, rate)
    chosen = _channel(source, channels) is not None
    mixed = (f"{channels} channels mixed down",) if channels > 1 and not chosen else ()
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
            bad[key] = error.without_traceback()
    return Survey(changes, bad)


def stamp(source: Source) -> str:
    """What changes when a file does: its size and time (and place in a shard).

    Raises:
        BadAudioError: missing.
    """
    if isinstance(source, Segment):
        channel = "" if source.channel is None else f"-{source.channel}"
        return f"{stamp(source.whole)}-{source.start}-{source.end}{channel}"
    file = source.archive if isinstance(source, Member) else source
    try:
        status = file.stat()
    except OSError:
        raise _missing(source) from None
    place = f"-{source.offset}" if isinstance(source, Member) else ""
    return f"{status.st_size}-{status.st_mtime_ns}{place}"


class _WindowSink:
    """Takes decoded blocks, and gives windows of 16 kHz mono to `use`."""

    def __init__(self, source: Source, use: Callable[[npt.NDArray[np.float32]], T]) -> None:
        self._source, self._use = source, use

    def begin(self, rate: int, channels: int) -> None:
        self._rate, self._frames = rate, 0
        self._pending: list[npt.NDArray[np.float32]] = []
        self._channel: int | None = None
        self._mixed: tuple[str, ...] | None = None
        self._splitter, self._found = windows.Splitter(SAMPLE_RATE), list[Any]()
        self._windows, self._resampler = 0, None
        if rate != SAMPLE_RATE:
            import soxr  # librosa's resampler

            self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32", "HQ")

    def take(self, block: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(block).all():
            raise BadAudioError("NaN", f"{self._source} holds NaN or infinite samples")
        self._frames += len(block)
        if self._mixed is None:
            self._pending.append(block)
            if self._frames < windows.WHOLE_SECONDS * self._rate:
                return
            block = self._first_mono()
        self._add(block, last=False)

    def end(self) -> Windows[Any]:
        _check_length(self._source, self._frames, self._rate)
        rest = self._first_mono() if self._mixed is None else np.zeros((0, 1), np.float32)
        self._add(rest, last=True)
        self._window(self._splitter.end())
        if not self._found:
            raise BadAudioError("silent", f"{self._source} is silent: constants and nothing else")
        changes = (*(self._mixed or ()), *_resampled(self._rate))
        return Windows(self._found, self._windows, changes)

    def _first_mono(self) -> npt.NDArray[np.float32]:
        """Decides by what is there so far how many channels become one; returns that one."""
        channels = np.concatenate(self._pending)
        self._pending = []
        mono, self._mixed, self._channel = _to_mono(self._source, channels)
        return mono[:, None]

    def _add(self, block: npt.NDArray[np.float32], *, last: bool) -> None:
        if block.shape[1] == 1:  # one channel, or chosen already
            mono = block[:, 0]
        else:
            mono = block.mean(axis=1) if self._channel is None else block[:, self._channel]
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(np.ascontiguousarray(mono), last=last)
        for window in self._splitter.add(mono):
            self._window(window)

    def _window(self, window: npt.NDArray[np.float32]) -> None:
        self._windows += 1
        if not windows.is_constant(window):
            self._found.append(self._use(window))


def _part(source: Source, start: float, seconds: float | None) -> tuple[float, float | None]:
    """Where a part of a recording lies in its file."""
    return source.part(start, seconds) if isinstance(source, Segment) else (start, seconds)


def _source(path: str | Source) -> Source:
    if isinstance(path, Member):
        return path
    if isinstance(path, Segment):
        _source(path.whole)
        return path
    file = Path(path)
    try:
        there = file.is_file()
    except OSError as error:  # a name that no file can have
        raise BadAudioError("missing", f"{file!s:.60}...: {error.strerror}") from None
    if not there:
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


def _to_mono(
    source: Source, channels: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], tuple[str, ...], int | None]:
    """One channel of many (N, channels), what was done, and which it is; None for their mix."""
    count = channels.shape[1]
    chosen = _channel(source, count)
    if chosen is not None:
        return channels[:, chosen], (), chosen
    if count == 1:
        return channels[:, 0], (), None
    mix = channels.mean(axis=1)
    powers = channels.var(axis=0, dtype=np.float64)
    if len(mix) and mix.var(dtype=np.float64) < _ANTIPHASE * powers.sum() / count**2:
        loudest = int(powers.argmax())
        changes = (f"channel {loudest + 1} of {count} in antiphase taken",)
        return channels[:, loudest], changes, loudest
    return mix, (f"{count} channels mixed down",), None


def _channel(source: Source, count: int) -> int | None:
    """Which of so many channels a segment is of; None where it is of all."""
    if not isinstance(source, Segment) or source.channel is None or (source.split and count == 1):
        return None
    if source.channel >= count:
        raise BadAudioError("no such channel", f"{source} has {count} channels")
    return source.channel


def _check_sound(source: Source, samples: npt.NDArray[np.float32]) -> None:
    low, high = float(samples.min()), float(samples.max())
    if low == high == 0:
        raise BadAudioError("silent", f"{source} is silent: every sample is zero")
    if high - low <= windows.CONSTANT:
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
