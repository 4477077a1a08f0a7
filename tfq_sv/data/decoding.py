"""Decoding sound files, by their content rather than their names.

libsndfile takes what it knows: WAV (PCM, float, mu-law, ADPCM, GSM 6.10, G.721, ...), FLAC, OGG,
Opus, MP3, AIFF, AU, CAF, W64, NIST Sphere. PyAV, which carries FFmpeg's decoders, takes AAC, and
what lies in MP4, MOV, WebM and the like.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import soundfile

from tfq_sv.data.headers import Completed, completed, ffmpeg_format, mistaken
from tfq_sv.data.shards import Member
from tfq_sv.errors import InputError

NEED_FFMPEG = frozenset(
    {".3gp", ".aac", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma", ".amr"}
)
SUFFIXES = NEED_FFMPEG | {
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".sph",
    ".w64", ".wav",
}  # fmt: skip
MAX_CHANNELS = 64
RATES = (4000, 384_000)
"""Hz; outside, a header is wrong, and resampling would take or give thousands of times too much."""

# libsndfile and PyAV report damage in several ways: bad lengths and bad tags among them.
_UNREADABLE = (RuntimeError, TypeError, MemoryError, UnicodeDecodeError)
# Where writers cannot go back to fill the length in, to a pipe for instance, WAVs announce 2 or
# 4 GiB, less a few headers.
_STREAMED = 0x7F000000
# Bytes that writers announce too many who count their own headers in: no speech is lost.
_SLIP = 1024
# Seconds at the end of a file that nobody misses: a frame of a compressed one, or two.
_TAIL = 0.1
# Formats that both decoders know, libsndfile first.
_SHARED = frozenset({"wav", "ogg", "caf"})
_BLOCK = 1 << 18
# FLAC packs silence best: 65,535 samples into some 12 bytes.
_SAMPLES_PER_BYTE = 8192

T = TypeVar("T")
Sound = tuple[npt.NDArray[np.float32], int]
"""Samples (N, channels), and their rate."""


class NotAudioError(Exception):
    """Content that no decoder reads, or that states what cannot be."""


class CutShortError(Exception):
    """A file that ends before its sound does."""


class _Sequential(soundfile.SoundFile):
    """Reads from the beginning on, without going back: not every encoding can."""

    def seekable(self) -> bool:
        return False


class Sink(Protocol):
    """What takes decoded sound, in blocks."""

    def begin(self, rate: int, channels: int) -> None:
        """Sound of this rate in Hz comes, from the beginning, whatever came before."""

    def take(self, block: npt.NDArray[np.float32]) -> None:
        """The next samples, (N, channels)."""


class _SinkError(Exception):
    """What a sink raised: no decoder's fault."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class _Guarded:
    """A sink whose errors are told from the decoders'."""

    def __init__(self, sink: Sink) -> None:
        self.begin, self._sink = sink.begin, sink

    def take(self, block: npt.NDArray[np.float32]) -> None:
        try:
            self._sink.take(block)
        except Exception as error:
            raise _SinkError(error) from error


class _Whole:
    """Keeps all of it."""

    def begin(self, rate: int, channels: int) -> None:
        self.rate, self.blocks = rate, [np.zeros((0, channels), np.float32)]

    def take(self, block: npt.NDArray[np.float32]) -> None:
        self.blocks.append(block)


def decode(source: Path | Member, start: float, seconds: float | None) -> Sound:
    """Decodes a part of a file.

    Args:
        source: the file.
        start: seconds to skip.
        seconds: at most so many seconds; all if None.

    Raises:
        NotAudioError: not audio, or a header that states what cannot be.
        CutShortError: it ends too early.
        InputError: it needs PyAV, which is not installed.
    """
    whole = _Whole()
    stream(source, start, seconds, whole)
    return np.concatenate(whole.blocks), whole.rate


def stream(source: Path | Member, start: float, seconds: float | None, sink: Sink) -> None:
    """Decodes a part of a file in blocks; as `decode`, in a small memory.

    What the sink raises comes through as it is. Where one decoder fails in the middle and another
    takes over, the sink begins again.
    """
    guarded = _Guarded(sink)
    try:
        _with_fallback(
            source,
            lambda file, size: _sound(file, size, start, seconds, guarded),
            lambda file, kind: _av_sound(file, kind, start, seconds, guarded),
        )
    except _SinkError as error:
        raise error.error from None


def header(source: Path | Member) -> tuple[int, int, int]:
    """Returns frames, rate in Hz and channels; raises as `decode`."""
    return _with_fallback(source, _sound_header, _av_header)


def _with_fallback(
    source: Path | Member,
    sound: Callable[[Any, int], T],
    av_sound: Callable[[Any, str], T],
) -> T:
    """Runs libsndfile, and where it does not know the content, FFmpeg."""
    # A member is read once, whoever decodes it.
    data = None
    if isinstance(source, Member):
        data = source.read_bytes()
        head, size = data[:64], len(data)
    else:
        head, size = _head(source), source.stat().st_size
    kind = ffmpeg_format(head)
    try:
        if kind is not None and kind not in _SHARED:
            raise NotAudioError(kind)  # libsndfile has no reader of these
        return sound(source if data is None else io.BytesIO(data), size)
    except soundfile.LibsndfileError as error:
        reason: object = error.error_string
        if "SF_INFO struct incomplete" in error.error_string:
            reason = "its header states a rate that cannot be"
    except NotAudioError as error:
        if str(error) != kind:
            raise
        reason = "no decoder knows it"
    except _UNREADABLE as error:
        reason = error
    if kind is None and _suffix(source) in NEED_FFMPEG:
        kind = "mov"  # for the message, and for files that begin oddly
    if kind is None:
        raise NotAudioError(mistaken(head) or reason)
    try:
        import av
    except ImportError:
        if kind in _SHARED:
            raise NotAudioError(reason) from None
        raise InputError(
            f"{source} is AAC or the like, which needs a decoder: pip install 'tfq-sv[aac]' (PyAV)"
        ) from None
    try:
        return av_sound(source if data is None else io.BytesIO(data), kind)
    except av.FFmpegError as error:
        raise NotAudioError(reason if kind in _SHARED else error.strerror) from None
    except (IndexError, AttributeError):  # no stream of sound, or one without a decoder
        raise NotAudioError("it holds no sound") from None
    except (*_UNREADABLE, ValueError) as error:
        raise NotAudioError(error) from None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise NotAudioError(error.strerror) from None


def _suffix(source: Path | Member) -> str:
    name = source.name
    return name[name.rfind(".") :].lower()


@contextmanager
def _opened(file: Any, size: int) -> Iterator[soundfile.SoundFile]:
    raw: BinaryIO = file.open("rb") if isinstance(file, Path) else file
    try:
        head = completed(raw, size)
        raw.seek(0)
        # Bytes name any file; soundfile cannot encode a name that is not UTF-8.
        name: Any = raw
        if head is not None:
            name = Completed(raw, head)
        elif isinstance(file, Path):
            name = os.fsencode(file) if os.name == "posix" else file
        with _Sequential(name) as sound:
            _check_header(sound.samplerate, sound.channels)
            _check_whole(sound.extra_info)
            yield sound
    finally:
        raw.close()


def _check_header(rate: int, channels: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise NotAudioError(
            f"its header states a rate of {rate} Hz; expected {RATES[0]} to {RATES[1]} Hz"
        )
    if channels > MAX_CHANNELS:
        raise NotAudioError(
            f"its header states {channels} channels; expected {MAX_CHANNELS} at most"
        )


def _check_whole(log: str) -> None:
    """Refuses a file of which libsndfile's log says that it should go on."""
    if found := re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        announced, there = map(int, found.groups())
        if there + _SLIP < announced < _STREAMED:
            raise CutShortError(f"{announced:,} bytes of sound are announced, {there:,} are there")
    if found := re.search(r"^Ogg ?: (Last page lacks .*|Junk after the last page)", log, re.M):
        raise CutShortError(found[1])


def _known_frames(sound: soundfile.SoundFile, size: int) -> int | None:
    """How many frames the header announces; None where it does not say, or what cannot be."""
    frames = int(sound.frames)
    return frames if 0 < frames <= size * _SAMPLES_PER_BYTE else None


def _sound(file: Any, size: int, start: float, seconds: float | None, sink: Sink) -> None:
    with _opened(file, size) as sound:
        rate = sound.samplerate
        total = _known_frames(sound, size)
        first = int(start * rate)
        if total is not None:
            first = min(first, total)
        if first:
            _skip(sound, first)
        limit = None if total is None else total - first
        if seconds is not None:
            asked = int(np.ceil(seconds * rate))
            limit = asked if limit is None else min(limit, asked)
        sink.begin(rate, sound.channels)
        count = 0
        for block in _blocks(sound, limit):
            count += len(block)
            sink.take(block)
        if limit and not count and sound.format == "FLAC":
            raise NotAudioError("its frames are damaged")
        # An MP3, whose header alone says its length.
        if total is not None and limit is not None and limit - count > _TAIL * rate:
            end = (first + count) / rate
            raise CutShortError(
                f"{total / rate:.2f} s of sound are announced, it ends by {end:.2f}"
            )


def _skip(sound: soundfile.SoundFile, frames: int) -> None:
    # An MP3's frames need those before them.
    warm = min(frames, 8192) if sound.format == "MP3" else 0
    try:
        sound.seek(frames - warm)
        list(_blocks(sound, warm))
    except soundfile.LibsndfileError:
        while frames > 0 and (read := len(_block(sound, min(frames, _BLOCK)))):
            frames -= read


def _blocks(sound: soundfile.SoundFile, frames: int | None) -> Iterator[npt.NDArray[np.float32]]:
    """Reads so many frames, or all: what a header announces is not taken on trust."""
    while frames is None or frames > 0:
        block = _block(sound, _BLOCK if frames is None else min(frames, _BLOCK))
        if not len(block):
            return
        frames = None if frames is None else frames - len(block)
        yield block


def _block(sound: soundfile.SoundFile, frames: int) -> npt.NDArray[np.float32]:
    block: npt.NDArray[np.float32] = sound.read(frames, dtype="float32", always_2d=True)
    return block


def _sound_header(file: Any, size: int) -> tuple[int, int, int]:
    with _opened(file, size) as sound:
        frames = _known_frames(sound, size)
        if frames is None:
            frames = 0
            while read := len(_block(sound, _BLOCK)):
                frames += read
        return frames, sound.samplerate, sound.channels


def _av_blocks(container: Any, stream: Any) -> Iterator[npt.NDArray[np.float32]]:
    import av

    # Not one plane per channel: PyAV reads past the last one of eight or more.
    packed = av.AudioResampler(format="flt")
    first = None
    for frame in container.decode(stream):
        form = frame.sample_rate, len(frame.layout.channels)
        first = first or form
        if form != first:
            raise NotAudioError("its rate or its number of channels changes on the way")
        for part in packed.resample(frame):
            yield part.to_ndarray().reshape(-1, form[1])


@contextmanager
def _container(file: Path | io.BytesIO, kind: str) -> Iterator[Any]:
    """Opens a container by its file object, so that nothing inside it can name another file."""
    import av

    with (
        file.open("rb") if isinstance(file, Path) else file as stream,
        av.open(stream, format=kind, options={"protocol_whitelist": "none"}) as container,
    ):
        yield container


def _av_sound(file: Any, kind: str, start: float, seconds: float | None, sink: Sink) -> None:
    with _container(file, kind) as container:
        stream = container.streams.audio[0]
        rate = stream.rate
        _check_header(rate, stream.channels)
        first = int(start * rate)
        end = None if seconds is None else int(np.ceil((start + seconds) * rate))
        frames = 0
        for block in _av_blocks(container, stream):
            if not frames:
                sink.begin(rate, block.shape[1])
            stop = None if end is None else max(0, end - frames)
            sink.take(block[max(0, first - frames) : stop])
            frames += len(block)
            if end is not None and frames >= end:
                break
        if not frames:
            raise RuntimeError("it holds no sound")


def _av_header(file: Any, kind: str) -> tuple[int, int, int]:
    with _container(file, kind) as container:
        stream = container.streams.audio[0]
        rate, channels = stream.rate, stream.channels
        _check_header(rate, channels)
        if stream.duration:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / 1e6
        else:  # WebM from a browser's recorder does not say
            seconds = sum(len(block) for block in _av_blocks(container, stream)) / rate
        return round(seconds * rate), rate, channels
