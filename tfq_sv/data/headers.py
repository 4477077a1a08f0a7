"""Headers of sound files: which decoder the content asks for, and sizes that nobody filled in."""

import io
import struct
from typing import BinaryIO

# Chunks that follow sound; bytes that begin otherwise after a data chunk of size 0 are sound.
_CHUNKS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"fact", b"cue ", b"smpl", b"PEAK", b"fmt ", b"JUNK")
_MOST = 1 << 22  # bytes before the sound


def ffmpeg_format(head: bytes) -> str | None:
    """FFmpeg's name of a format by a file's first bytes; None where it is not to be asked.

    FFmpeg never guesses for itself: it would take text for playlists, which name other files.

    >>> ffmpeg_format(bytes(4) + b"ftypM4A ")
    'mov'
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    for mark, name in (
        (b"\x1aE\xdf\xa3", "matroska"),  # and WebM
        (b"0&\xb2u", "asf"),  # WMA
        (b"#!AMR", "amr"),
        (b"caff", "caf"),
        (b"OggS", "ogg"),  # Speex, for instance
        (b"FLV", "flv"),
        (b"RIFF", "avi" if head[8:12] == b"AVI " else _coded_wav(head)),
        (b"ADIF", "aac"),
    ):
        if head.startswith(mark):
            return name
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"  # ADTS; MP3 has other bits there
    return None


def mistaken(head: bytes) -> str | None:
    """What a file is that is often taken for a recording, and what to do; None for all others.

    >>> mistaken(b"<!DOCTYPE html>")
    'it is a page of HTML: its download failed'
    """
    start = head.lstrip().lower()
    for mark, what in (
        (b"version https://git-lfs", "it is a pointer of Git LFS: git lfs pull brings the file"),
        (b"<!doctype", "it is a page of HTML: its download failed"),
        (b"<html", "it is a page of HTML: its download failed"),
        (b"pk\3\4", "it is a zip archive: unpack it"),
        (b"\x1f\x8b", "gzip compressed it: gunzip it"),
    ):
        if start.startswith(mark):
            return what
    return None


def _coded_wav(head: bytes) -> str | None:
    """WAVs of AAC and the like; of what libsndfile knows, its word on a header is enough."""
    tag = int.from_bytes(head[20:22], "little")
    return None if head[12:16] != b"fmt " or tag in (1, 3, 6, 7, 0xFFFE) else "wav"


def completed(file: BinaryIO, size: int) -> bytes | None:
    """The beginning of a file, with the size of its sound filled in; None where it was.

    Writers that cannot go back (to a pipe), or that were stopped, leave 0 or -1 there, which means
    to the end of the file. libsndfile reads nothing of some of these.

    Args:
        file: at its beginning.
        size: how many bytes it has.
    """
    head = file.read(4096)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        # A list or a picture may stand before the sound.
        return _wav(head + file.read(max(0, _sound_at(file, head) - len(head))), size)
    if head[:4] == b".snd" and len(head) >= 24:
        offset, length = struct.unpack(">II", head[4:12])
        if length == 0 and 24 <= offset < size:
            return head[:8] + struct.pack(">I", size - offset) + head[12:]
    if head[:4] == b"caff":
        return _caf(head, size)
    return None


def _sound_at(file: BinaryIO, head: bytes) -> int:
    """Where a WAV's data chunk and its first bytes end, 0 if too far; the file stays as it is."""
    here, place = file.tell(), 12
    while place < _MOST:
        chunk = head[place : place + 8]
        if len(chunk) < 8:
            file.seek(place)
            chunk = file.read(8)
        if len(chunk) < 8 or chunk[:4] == b"data":
            break
        length = int.from_bytes(chunk[4:], "little")
        place += 8 + length + length % 2
    file.seek(here)
    return place + 12 if place < _MOST else 0


def _wav(head: bytes, size: int) -> bytes | None:
    place = 12
    while place + 8 <= len(head):
        name, length = struct.unpack("<4sI", head[place : place + 8])
        if name == b"data":
            begin = place + 8
            remaining = size - begin
            if head[:4] == b"RF64":
                at = head.find(b"ds64", 12, place)
                stated = struct.unpack_from("<q", head, at + 16)[0] if at > 0 else length
            else:
                stated = length
            unknown = stated <= 0 or stated >= 2**62
            if (
                not unknown
                or remaining <= 0
                or head[begin : begin + 4] in _CHUNKS
                or remaining > 2**32 - 9
            ):
                return None
            # As a plain WAV, whatever it was: the size of RF64 stands in another chunk.
            return (
                b"RIFF" + struct.pack("<I", min(size - 8, 2**32 - 1)) + head[8:place]
                + struct.pack("<4sI", b"data", remaining) + head[begin:]
            )  # fmt: skip
        place += 8 + length + length % 2
    return None


def _caf(head: bytes, size: int) -> bytes | None:
    place = 8
    while place + 12 <= len(head):
        name, length = struct.unpack(">4sq", head[place : place + 12])
        if name == b"data":
            remaining = size - place - 12
            if length > 0 or remaining <= 4:
                return None
            return head[: place + 4] + struct.pack(">q", remaining) + head[place + 12 :]
        if length < 0:
            return None
        place += 12 + length
    return None


class Completed(io.RawIOBase):
    """A file whose beginning is replaced; for reading.

    >>> Completed(io.BytesIO(b"abcdef"), b"ABC").read()
    b'ABCdef'
    """

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file, self._head = file, head

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As for any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As for any file."""
        return self._file.tell()

    def readinto(self, buffer: object) -> int:
        """Reads, from the new beginning where it reaches."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        place = self._file.tell()
        data = self._file.read(len(view))
        known = self._head[place : place + len(data)]
        view[: len(data)] = known + data[len(known) :]
        return len(data)

    def close(self) -> None:
        """Closes the file too."""
        if not self.closed:
            self._file.close()
        super().close()
