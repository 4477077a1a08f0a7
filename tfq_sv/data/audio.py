"""Reading recordings: any rate and channel count in, 16 kHz mono float32 out, and what was done."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from tfq_sv.errors import InputError

SAMPLE_RATE = 16000
MIN_SECONDS = 0.2
SUFFIXES = frozenset({".wav", ".flac", ".ogg"})
# libsndfile reports damage in several ways.
_UNREADABLE = (soundfile.LibsndfileError, RuntimeError, TypeError)


@dataclass(frozen=True)
class Recording:
    """Samples as the networks take them.

    Attributes:
        samples: float32 (N,), in [-1, 1], 16 kHz.
        changes: what reading changed, for people: "resampled from 44100 Hz", for instance.
    """

    samples: npt.NDArray[np.float32]
    changes: tuple[str, ...] = ()


def read(path: str | Path, *, start: float = 0.0, seconds: float | None = None) -> Recording:
    """Reads a WAV, FLAC or OGG file.

    Args:
        path: the file.
        start: seconds to skip.
        seconds: at most so many seconds; all if None.

    Raises:
        InputError: missing, not audio, truncated, shorter than 0.2 s, NaN or pure silence.
    """
    file = _file(path)
    try:
        with soundfile.SoundFile(file) as sound:
            rate = sound.samplerate
            sound.seek(min(int(start * rate), sound.frames))
            frames = -1 if seconds is None else int(np.ceil(seconds * rate))
            channels = sound.read(frames, dtype="float32", always_2d=True)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from None
    samples = channels.mean(axis=1) if channels.shape[1] > 1 else channels[:, 0]
    if not np.isfinite(samples).all():
        raise InputError(f"{file} holds NaN or infinite samples")
    if not start and seconds is None:  # a part of a good file may well be short or silent
        _check_length(file, len(samples), rate)
        if not samples.any():
            raise InputError(f"{file} is silent: every sample is zero")
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


def probe(path: str | Path) -> Header:
    """Reads a file's header alone; raises InputError if it is missing, not audio or too short."""
    file = _file(path)
    try:
        info = soundfile.info(file)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from None
    _check_length(file, info.frames, info.samplerate)
    return Header(float(info.duration), _changes(info.samplerate, info.channels))


def _file(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file} is not a file" if file.exists() else f"{file} does not exist")
    return file


def _unreadable(file: Path, error: Exception) -> InputError:
    return InputError(f"{file} cannot be read as audio: {error}")


def _check_length(file: Path, frames: int, rate: int) -> None:
    if frames < MIN_SECONDS * rate:
        raise InputError(
            f"{file} holds {frames / rate:.3f} s of audio; at least {MIN_SECONDS} s are needed"
        )


def _changes(rate: int, channels: int) -> tuple[str, ...]:
    changes = []
    if channels > 1:
        changes.append(f"{channels} channels mixed down")
    if rate != SAMPLE_RATE:
        changes.append(f"resampled from {rate} Hz")
    return tuple(changes)
