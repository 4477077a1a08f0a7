"""Embedding many recordings: bad ones are collected, finished ones are kept from run to run."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tfq_sv import windows
from tfq_sv.data import audio
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.corpus import Corpus, read_pairs
from tfq_sv.data.speech_check import no_speech
from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.files import atomic
from tfq_sv.progress import tqdm

PART = 1000
"""Utterances a part of a cache: what an interruption can cost at most."""


WINDOWS = (
    f"longer than {windows.WHOLE_SECONDS} s, so the mean of windows of {windows.WINDOW_SECONDS} s"
)
"""How the output says it."""


class Encoder(Protocol):
    """What turns a recording into an embedding."""

    def embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Samples in [-1, 1] at 16 kHz, (N,) -> (embed_dim,)."""


@dataclass(frozen=True, eq=False)
class Extraction:
    """What came out.

    Attributes:
        embeddings: of the utterances that could be read.
        skipped: the others, and why.
        changes: what reading changed -> number of files read ("resampled from 44100 Hz": 12).
        reused: how many embeddings come from a cache.
        doubts: what recordings seem to be rather than speech -> number of files.
        count: how many embeddings there are, those that are only in the cache included.
    """

    embeddings: Embeddings
    skipped: dict[str, BadAudioError] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)
    reused: int = 0
    doubts: Counter[str] = field(default_factory=Counter)
    count: int = 0


class Cache:
    """A folder that keeps a network's embeddings, in parts that many processes may write.

        network.json                which network they are of
        1f0c2a....ark, .scp         a part, in Kaldi's form: `cat *.scp` makes one list
        1f0c2a....stamps            `utterance stamp`: size and time of the file it was made from

    An embedding is used again if the network is the same, and the utterance's name and its file's
    size and time are.
    """

    def __init__(self, folder: str | os.PathLike[str], network: str) -> None:
        """Opens or makes a folder for the embeddings of a network, named by a fingerprint.

        Raises:
            InputError: it holds another network's embeddings, or is something else.
        """
        self.folder = Path(folder)
        about = self.folder / "network.json"
        if not about.is_file():
            # Hidden files are those that another process is about to write, or was when it ended.
            there = self.folder.iterdir() if self.folder.exists() else ()
            if all(path.name.startswith(".") for path in there):
                with atomic(about) as temporary:
                    temporary.write_text(json.dumps({"network": network}) + "\n")
            elif not about.is_file():  # nor has another process made it by now
                raise InputError(f"{self.folder} is not empty, and no cache of embeddings")
        try:
            found = json.loads(about.read_text(encoding="utf-8"))["network"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{about} is not what a cache of embeddings has there") from None
        if found != network:
            raise InputError(
                f"{self.folder} holds embeddings of another network, or of an earlier state of "
                "this one; name another folder, or delete it"
            )

    def parts(self, stamps: Mapping[str, str]) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """Embeddings of the utterances whose stamps (`audio.stamp`) are what they were, by part."""
        for path in sorted(self.folder.glob("[!.]*.stamps")):
            cached = read_pairs(path)
            same = [key for key, stamp in cached.items() if stamps.get(key) == stamp]
            if same:
                part = Embeddings.read(path.with_suffix(".ark"))
                yield {key: part[key] for key in same if key in part}

    def write(self, embeddings: Embeddings, stamps: Mapping[str, str]) -> None:
        """Adds a part."""
        lines = "".join(f"{key} {stamps[key]}\n" for key in embeddings)
        # Named by what is in it: processes do not collide, and a repeated one changes nothing.
        part = self.folder / hashlib.sha256(lines.encode()).hexdigest()[:16]
        embeddings.write(part.with_suffix(".ark"))
        with atomic(part.with_suffix(".stamps")) as temporary:
            temporary.write_text(lines, encoding="utf-8")


def extract(
    encoder: Encoder,
    corpus: Corpus,
    keys: Sequence[str],
    *,
    cache: Cache | None = None,
    strict: bool = False,
    progress: str | None = None,
    hold: bool = True,
) -> Extraction:
    """Embeds utterances whole.

    Args:
        encoder: what embeds.
        corpus: where the utterances are.
        keys: which ones.
        cache: where embeddings come from that it has, and where new ones go.
        strict: raise the first bad recording instead of leaving it out.
        progress: name of the progress bar; none if None.
        hold: return the embeddings; else they go into the cache alone, of which any number fits.

    Raises:
        InputError: a bad recording, if `strict`; a cache or a decoder that fails.
    """
    stamps: dict[str, str] = {}
    skipped: dict[str, BadAudioError] = {}
    changes: Counter[str] = Counter()
    doubts: Counter[str] = Counter()
    for key in keys if cache else ():
        if len(key.split()) != 1:
            raise InputError(f"{key!r} has a space; Kaldi's files cannot keep such a name")
        if key in corpus.paths:
            try:
                stamps[key] = audio.stamp(corpus.paths[key])
            except BadAudioError:
                continue  # met again below
    rows = _Rows(keys, hold=hold)
    for part in cache.parts(stamps) if cache else ():
        rows.add(part)
    reused = rows.count
    fresh: dict[str, npt.NDArray[np.float32]] = {}

    def keep() -> None:
        if cache and fresh:
            cache.write(Embeddings.of(fresh), stamps)
        rows.add(fresh)
        fresh.clear()

    missing = rows.missing()
    try:
        for key in tqdm(missing, desc=progress, unit="utt", disable=progress is None):
            try:
                fresh[key], changed, doubt = _embedded(encoder, corpus, key)
            except BadAudioError as error:
                if strict:
                    raise
                skipped[key] = error.without_traceback()
                continue
            changes.update(changed)
            doubts.update(doubt)
            if len(fresh) == PART:
                keep()
    finally:
        keep()
    return Extraction(rows.embeddings(), skipped, changes, reused, doubts, rows.count)


class _Rows:
    """Embeddings in one matrix as they come; beside it, a million vectors would double memory."""

    def __init__(self, keys: Sequence[str], *, hold: bool) -> None:
        self._rows = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        self._there, self._hold = np.zeros(len(self._rows), bool), hold
        self._matrix: npt.NDArray[np.float32] | None = None

    @property
    def count(self) -> int:
        """How many have come."""
        return int(self._there.sum())

    def missing(self) -> list[str]:
        """The others."""
        return [key for key, row in self._rows.items() if not self._there[row]]

    def add(self, part: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Copies vectors of one length to where they belong."""
        for key, vector in part.items():
            row = self._rows[key]
            self._there[row] = True
            if self._hold:
                if self._matrix is None:
                    self._matrix = np.empty((len(self._rows), len(vector)), np.float32)
                if len(vector) != self._matrix.shape[1]:
                    raise InputError("embeddings must be vectors of one length")
                self._matrix[row] = vector

    def embeddings(self) -> Embeddings:
        """Those that are held, in the order of the keys."""
        if self._matrix is None:
            return Embeddings.of({})
        if self._there.all():
            return Embeddings(list(self._rows), self._matrix)
        names = [key for key, row in self._rows.items() if self._there[row]]
        for place, row in enumerate(np.flatnonzero(self._there)):  # in place: no second matrix
            self._matrix[place] = self._matrix[row]
        return Embeddings(names, self._matrix[: len(names)])


def from_file(
    path: str | os.PathLike[str],
    keys: Sequence[str],
    *,
    corpus: Corpus | None = None,
    strict: bool = False,
) -> Extraction:
    """Embeddings that somebody else extracted.

    Utterances that the file lacks are skipped, and so are those that the corpus, if one is given,
    does not contain: nobody knows their speakers.

    Raises:
        InputError: a file that is not one, or one that lacks an utterance, if `strict`.
    """
    every = Embeddings.read(path)
    if strict:
        every.rows(keys)
    skipped = {
        key: BadAudioError("without embedding", f"{path} has no {key}")
        for key in keys
        if key not in every
    }
    for key in keys if corpus else ():
        if corpus and key not in corpus.paths:
            skipped[key] = _unknown(corpus, key)
    kept = [key for key in keys if key not in skipped]
    return Extraction(Embeddings(kept, every.matrix[every.rows(kept)]), skipped)


@dataclass(frozen=True, eq=False)
class Embedded:
    """A recording's embedding.

    Attributes:
        embedding: float32 (embed_dim,).
        changes: what reading changed, and whether windows were taken, for people.
        doubt: why it seems to be no speech; empty where nothing says so.
    """

    embedding: npt.NDArray[np.float32]
    changes: tuple[str, ...]
    doubt: str


def embed_recording(encoder: Encoder, source: str | audio.Source) -> Embedded:
    """Embeds a recording of any length, in bounded memory; a long one as `tfq_sv.windows` says.

    An encoder with a true attribute `in_one` hears its first 60 s alone, in one piece.

    Raises:
        BadAudioError: as `audio.read`; refused by the network, or answered by zero or NaN.
    """

    def embed(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        try:
            found = encoder.embed(samples)
        except InputError as error:
            raise BadAudioError("refused by the network", f"{source}: {error}") from None
        if not np.isfinite(found).all() or not found.any():
            raise BadAudioError("without embedding", f"{source}: the network answers zero or NaN")
        return found

    long_one = audio.probe(source).seconds > windows.WHOLE_SECONDS
    if not long_one or getattr(encoder, "in_one", False):
        recording = audio.read(source, seconds=windows.WHOLE_SECONDS if long_one else None)
        if windows.is_constant(recording.samples):
            raise BadAudioError("silent", f"{source} is silent in its first minute")
        return Embedded(embed(recording.samples), recording.changes, no_speech(recording.samples))
    long = audio.read_windows(source, lambda samples: (embed(samples), no_speech(samples)))
    embeddings, doubts = zip(*long.found, strict=True)
    changes = (*long.changes, WINDOWS) if long.count > 1 else long.changes
    doubt = doubts[0] if all(doubts) else ""
    return Embedded(windows.mean(list(embeddings)), changes, doubt)


def _embedded(
    encoder: Encoder, corpus: Corpus, key: str
) -> tuple[npt.NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    if key not in corpus.paths:
        raise _unknown(corpus, key)
    result = embed_recording(encoder, corpus.paths[key])
    doubt = result.doubt.split(":")[0]
    doubts = (f"warning, perhaps no speech: {doubt}",) if doubt else ()
    return result.embedding, result.changes, doubts


def _unknown(corpus: Corpus, key: str) -> BadAudioError:
    return BadAudioError("unknown", f"{corpus.root} has no {key}")
