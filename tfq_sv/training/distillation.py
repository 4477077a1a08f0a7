"""Distillation from a teacher's embeddings: extracting them once, and the targets of each batch.

The teacher embeds every utterance once, whole and without noise; the student sees augmented crops
of it. Speed changes the voice, so the teacher embeds each speed as well.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import UNKNOWN, Batch
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.evaluation.extraction import Cache, Encoder, extract
from tfq_sv.training.augment import change_speed

DistillationBatch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class TeacherEmbeddings:
    """A teacher's embeddings of a corpus's utterances, at every speed.

    Attributes:
        corpus: the utterances that could be embedded.
        speeds: at which they were embedded.
        matrix: float32 (speeds * utterances, D); utterance i, in the order of the sorted keys, at
            speed s is row s * utterances + i.
        teacher: which network it was.
        skipped: recordings that could not be used -> why.

    >>> corpus = Corpus(Path(), {"a": Path("a"), "b": Path("b")}, {"a": "ann"})
    >>> TeacherEmbeddings(corpus, (1.0,), np.eye(2, dtype=np.float32), "example").speakers()
    array([ 0, -1], dtype=int32)
    """

    corpus: Corpus
    speeds: tuple[float, ...]
    matrix: npt.NDArray[np.float32]
    teacher: str
    skipped: Mapping[str, BadAudioError] = field(default_factory=dict)

    def numbered(self) -> Corpus:
        """The corpus with each utterance as its own speaker.

        `data.chunks.batches` then labels a chunk with its row of the matrix.
        """
        return replace(self.corpus, speakers={key: key for key in self.corpus.paths})

    def speakers(self) -> npt.NDArray[np.int32]:
        """Each row's class: speaker + speed * number of speakers, or UNKNOWN; int32 (rows,)."""
        names = self.corpus.speaker_ids
        index = {name: i for i, name in enumerate(names)}
        whose = [self.corpus.speakers.get(key) for key in sorted(self.corpus.paths)]
        return np.array(
            [
                UNKNOWN if name is None else index[name] + speed * len(names)
                for speed in range(len(self.speeds))
                for name in whose
            ],
            np.int32,
        )


class DistillationTargets:
    """Looks up what a student learns from a batch of `TeacherEmbeddings.numbered`.

    Args:
        embeddings: the teacher's.
        embed_dim: length of the student's embedding.

    >>> corpus = Corpus(Path(), {"a": Path("a"), "b": Path("b")}, {"a": "ann"})
    >>> teacher = TeacherEmbeddings(corpus, (1.0,), np.eye(2, dtype=np.float32), "example")
    >>> DistillationTargets(teacher, 2)((np.zeros((1, 16000)), np.array([1])))[1:]
    (array([-1], dtype=int32), array([[0., 1.]], dtype=float32))
    """

    def __init__(self, embeddings: TeacherEmbeddings, embed_dim: int) -> None:
        self._speakers = embeddings.speakers()
        self._targets = resized(embeddings.matrix, embed_dim)

    def __call__(self, batch: Batch) -> DistillationBatch:
        """(waveforms (B, N), rows (B,)) -> (waveforms, classes (B,), targets (B, embed_dim))."""
        waveforms, rows = batch
        return waveforms, self._speakers[rows], self._targets[rows]


def teacher_embeddings(
    teacher: Encoder,
    name: str,
    corpus: Corpus,
    speeds: Sequence[float] = (1.0,),
    *,
    folder: str | os.PathLike[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> TeacherEmbeddings:
    """Embeds every utterance of a corpus at every speed, or reads what an earlier run has cached.

    Args:
        teacher: the network, `evaluation.measurement.KerasEncoder(model)` for instance.
        name: of the network, unique: a fingerprint.
        corpus: the utterances; nobody needs to know the speakers.
        speeds: as `Augmenter.speeds`.
        folder: of the cached embeddings, one `Cache` per speed; nothing is written if None.
        strict: raise the first bad recording instead of leaving it out.
        progress: show a bar per speed.

    Raises:
        InputError: no recording can be used, a bad one if `strict`, or a folder of something else.

    >>> import tempfile, soundfile
    >>> class Level:
    ...     def embed(self, waveform):
    ...         return np.array([1.0, np.abs(waveform).mean()], np.float32)
    >>> path = Path(tempfile.mkdtemp()) / "a.wav"
    >>> soundfile.write(path, np.tile([0.5, -0.5], 8000), 16000)
    >>> corpus = Corpus.of_files([path])
    >>> teacher_embeddings(Level(), "level", corpus, progress=False).matrix
    array([[1. , 0.5]], dtype=float32)
    """
    keys, extractions = sorted(corpus.paths), []
    skipped: dict[str, BadAudioError] = {}
    for speed in speeds:
        cache = None if folder is None else Cache(Path(folder) / f"sp{speed}", f"{name} {speed}")
        bar = f"teacher, speed {speed}" if progress else None
        encoder = _AtSpeed(teacher, speed)
        extractions.append(extract(encoder, corpus, keys, cache=cache, strict=strict, progress=bar))
        skipped |= extractions[-1].skipped
    good = [key for key in keys if key not in skipped]
    if not good:
        raise InputError(f"{corpus.root} has no good recording: {next(iter(skipped.values()))}")
    matrix = np.concatenate([x.embeddings.matrix[x.embeddings.rows(good)] for x in extractions])
    return TeacherEmbeddings(corpus.without(skipped), tuple(speeds), matrix, name, skipped)


@contextmanager
def last_norm_fixed(student: keras.Model) -> Iterator[None]:
    """Within, a BatchNorm without scale at a student's end, as CAM++ has, keeps its statistics.

    It would make all dimensions equally strong. The teacher's are not, and where the student cannot
    follow yet, noise would be made as strong: it then learns one direction alone.
    """
    ends = [output.node.layer for output in student.outputs]
    norms = [x for x in ends if isinstance(x, keras.layers.BatchNormalization) and not x.scale]
    learned = [norm.trainable for norm in norms]
    for norm in norms:
        norm.trainable = False
    try:
        yield
    finally:
        for norm, trainable in zip(norms, learned, strict=True):
            norm.trainable = trainable


def resized(embeddings: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.float32]:
    """Moves embeddings to another number of dimensions; their cosines change as little as possible.

    To fewer: onto their principal directions (no mean subtracted, since cosines subtract none),
    whose inner products are nearest to the matrix of cosines. To more: by a fixed rotation, which
    changes no cosine. A student that matches such targets scores as its teacher does, with no map
    to learn and none to drop afterwards. To equally many: unchanged, so that the student's
    embeddings can be compared with the teacher's.

    Args:
        embeddings: (N, D).
        size: wanted dimensions.

    Returns:
        float32 (N, size), of length 1 before they were moved.

    Source: classical scaling; Eckart and Young, 1936.

    >>> resized(np.array([[2.0, 0.0], [0.0, 3.0]]), 2)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    points = np.asarray(embeddings, np.float64)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    given = points.shape[1]
    if size < given:
        _, vectors = np.linalg.eigh(points.T @ points)
        basis = vectors[:, ::-1][:, :size]
        # An eigenvector's sign is the library's choice; a resumed run needs the same one.
        largest = np.abs(basis).argmax(axis=0)
        points = points @ (basis * np.sign(basis[largest, np.arange(size)]))
    elif size > given:
        rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, given)))
        points = points @ rotation.T
    return points.astype(np.float32)


class _AtSpeed:
    """An encoder whose input is played faster or slower first."""

    def __init__(self, encoder: Encoder, speed: float) -> None:
        self._encoder, self._speed = encoder, speed

    def embed(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return self._encoder.embed(change_speed(waveform, self._speed))
