"""Reading recordings: any rate and channel count in, 16 kHz mono float32 out, and what was done.

WAV, FLAC, OGG and MP3 through libsndfile; AAC (VoxCeleb2's .m4a) through PyAV, which carries
FFmpeg's decoders.
"""

import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tfq_sv.data.shards import Member
from tfq_sv.errors import InputError
from tfq_sv.progress import tqdm

SAMPLE_RATE = 16000
MIN_SECONDS = 0.2
AAC = frozenset({".aac", ".m4a"})
SUFFIXES = frozenset({".flac", ".mp3", ".ogg", ".wav"}) | AAC
# libsndfile and PyAV report damage in several ways: bad lengths and bad tags among them.
_UNREADABLE = (RuntimeError, TypeError, MemoryError, UnicodeDecodeError)
# Where writers cannot go back to fill the length in, to a pipe for instance, WAVs announce 2 or
# 4 GiB, less a few headers.
_STREAMED = 0x7F000000
# Bytes that writers announce too many who count their own headers in: no speech is lost.
_SLIP = 1024
# Seconds at the end of a file that nobody misses: a frame of a compressed one, or two.
_TAIL = 0.1
# What an MP4 file, QuickTime's too, may begin with.
_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})

Source = Path | Member
"""A file, or a file inside a shard."""


class BadAudioError(InputError):
    """A recording that cannot be used; `kind` says in a word or two why, for counting.

    >>> BadAudioError("silent", "a.wav is silent").kind
    'silent'
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _CutShortError(Exception):
    """A file that ends before its sound does."""


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
    """Reads a WAV, FLAC, OGG, MP3 or AAC file.

    Args:
        path: the file.
        start: seconds to skip.
        seconds: at most so many seconds; all if None.

    Raises:
        BadAudioError: missing, not audio, cut short, shorter than 0.2 s, NaN or pure silence.
        InputError: AAC, and no decoder is installed.
    """
    source = _source(path)
    channels, rate = _decoded(source, lambda file: _sound(file, start, seconds), _aac)
    if _is_aac(source):
        end = None if seconds is None else int(np.ceil((start + seconds) * rate))
        channels = channels[int(start * rate) : end]
    samples = channels.mean(axis=1) if channels.shape[1] > 1 else channels[:, 0]
    if not np.isfinite(samples).all():
        raise BadAudioError("NaN", f"{source} holds NaN or infinite samples")
    if not start and seconds is None:  # a part of a good file may well be short or silent
        _check_length(source, len(samples), rate)
        if not samples.any():
            raise BadAudioError("silent", f"{source} is silent: every sample is zero")
    if rate != SAMPLE_RATE:
        import librosa  # takes a second to import, and few corpora need it

        samples = librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    return Recording(np.ascontiguousarray(samples, np.float32), _changes(rate, channels.shape[1]))


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
    frames, rate, channels = _decoded(source, _sound_header, _aac_header)
    _check_length(source, frames, rate)
    return Header(frames / rate, _changes(rate, channels))


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
    file = Path(path)
    if not file.is_file():
        raise BadAudioError("missing", f"{file} is not a file") if file.exists() else _missing(file)
    if not file.stat().st_size:
        raise _unreadable(file, "the file is empty")
    return file


def _decoded(
    source: Source, sound: Callable[[Any], Any], aac: Callable[[Any], Any]
) -> tuple[Any, ...]:
    """Runs the decoder that a file's name asks for; all that it may throw becomes BadAudioError."""
    try:
        file: Path | io.BytesIO = source.open() if isinstance(source, Member) else source
        if not _is_aac(source):
            return sound(file)
        av = _av(source)
        try:
            found = aac(file)
        except av.FFmpegError as error:
            raise _unreadable(source, error.strerror) from None
        except (IndexError, AttributeError):  # no stream of sound, or one without a decoder
            raise _unreadable(source, "it holds no sound") from None
        if not found[1]:
            raise _unreadable(source, "its sample rate is 0")
        return found
    except _CutShortError as error:
        raise BadAudioError("cut short", f"{source} is cut short: {error}") from None
    except soundfile.LibsndfileError as error:
        raise _unreadable(source, error.error_string) from None
    except _UNREADABLE as error:
        raise _unreadable(source, error) from None


@contextmanager
def _opened(file: Any) -> Iterator[soundfile.SoundFile]:
    # Bytes name any file; soundfile cannot encode a name that is not UTF-8.
    name = os.fsencode(file) if isinstance(file, Path) and os.name == "posix" else file
    with soundfile.SoundFile(name) as sound:
        _check_whole(sound.extra_info)
        yield sound


def _check_whole(log: str) -> None:
    """Refuses a file of which libsndfile's log says that it should go on."""
    if found := re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        announced, there = map(int, found.groups())
        if there + _SLIP < announced < _STREAMED:
            raise _CutShortError(f"{announced:,} bytes of sound are announced, {there:,} are there")
    if found := re.search(r"^Ogg ?: (Last page lacks .*|Junk after the last page)", log, re.M):
        raise _CutShortError(found[1])


def _sound(file: Any, start: float, seconds: float | None) -> tuple[npt.NDArray[np.float32], int]:
    with _opened(file) as sound:
        rate = sound.samplerate
        left = sound.frames - sound.seek(min(int(start * rate), sound.frames))
        frames = left if seconds is None else min(left, int(np.ceil(seconds * rate)))
        samples = sound.read(frames, dtype="float32", always_2d=True)
        if frames - len(samples) > _TAIL * rate:  # an MP3, whose header alone says its length
            announced, end = sound.frames / rate, (sound.frames - left + len(samples)) / rate
            raise _CutShortError(f"{announced:.2f} s of sound are announced, it ends by {end:.2f}")
        return samples, rate


def _sound_header(file: Any) -> tuple[int, int, int]:
    with _opened(file) as sound:
        return sound.frames, sound.samplerate, sound.channels


@contextmanager
def _container(file: Path | io.BytesIO) -> Iterator[Any]:
    """Opens AAC, in MP4 or bare; FFmpeg would also guess playlists, and read what they name."""
    import av

    with file.open("rb") if isinstance(file, Path) else file as stream:
        head = stream.read(8)
        stream.seek(0)
        form = "mov" if head[4:] in _MP4_BOXES else "aac"
        with av.open(stream, format=form, options={"protocol_whitelist": "none"}) as container:
            yield container


def _aac(file: Any) -> tuple[npt.NDArray[np.float32], int]:
    import av

    with _container(file) as container:
        stream = container.streams.audio[0]
        plain = av.AudioResampler(format="fltp")
        frames = [x for frame in container.decode(stream) for x in plain.resample(frame)]
        if not frames:
            raise RuntimeError("it holds no sound")
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T, stream.rate


def _aac_header(file: Any) -> tuple[int, int, int]:
    with _container(file) as container:
        stream = container.streams.audio[0]
        seconds = float((stream.duration or 0) * stream.time_base)
        return round(seconds * stream.rate), stream.rate, stream.channels


def _is_aac(source: Source) -> bool:
    name = source.name
    return name[name.rfind(".") :].lower() in AAC


def _av(source: Source) -> Any:
    try:
        import av
    except ImportError:
        raise InputError(
            f"{source} is AAC, which needs a decoder: pip install 'tfq-sv[aac]' (PyAV)"
        ) from None
    return av


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


def _changes(rate: int, channels: int) -> tuple[str, ...]:
    changes = []
    if channels > 1:
        changes.append(f"{channels} channels mixed down")
    if rate != SAMPLE_RATE:
        changes.append(f"resampled from {rate} Hz")
    return tuple(changes)
