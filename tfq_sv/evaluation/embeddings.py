"""Embeddings by name, and the files that keep them: Kaldi's ark and scp, or a NumPy matrix."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfq_sv.data import kaldi_ark
from tfq_sv.data.corpus import read_lines
from tfq_sv.errors import InputError
from tfq_sv.files import atomic, check_output, require_file, sync

SUFFIXES = (".ark", ".npy", ".scp")
_BESIDE = {".ark": ".scp", ".npy": ".txt", ".scp": ".ark"}


class Embeddings(Mapping[str, npt.NDArray[np.float32]]):
    """Names and the rows of one matrix.

    >>> both = Embeddings(["a", "b"], np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> both["b"]
    array([0., 1.], dtype=float32)
    >>> both.averaged({"ann": ["a", "b"]})["ann"]
    array([0.5, 0.5], dtype=float32)
    >>> (both - both.mean())["a"]
    array([ 0.5, -0.5], dtype=float32)

    Attributes:
        names: N different names.
        matrix: float32 (N, embed_dim).
    """

    def __init__(self, names: Sequence[str], matrix: npt.ArrayLike) -> None:
        """Raises InputError if names and rows do not match, or there are duplicate names."""
        self.names = list(names)
        self.matrix = np.asarray(matrix, np.float32)
        if self.matrix.ndim != 2 or len(self.matrix) != len(self.names):
            raise InputError(
                f"{len(self.names)} names do not match embeddings of shape {self.matrix.shape}"
            )
        self._rows = {name: row for row, name in enumerate(self.names)}
        if len(self._rows) < len(self.names):
            twice = next(name for row, name in enumerate(self.names) if self._rows[name] != row)
            more = len(self.names) - len(self._rows)
            raise InputError(f"{more} duplicate names of embeddings (first: {twice})")

    @classmethod
    def of(cls, vectors: Mapping[str, npt.ArrayLike]) -> "Embeddings":
        """From a dictionary of vectors (embed_dim,)."""
        if isinstance(vectors, Embeddings):
            return vectors
        if not vectors:
            return cls([], np.zeros((0, 0)))
        try:
            return cls(list(vectors), np.stack(list(vectors.values())))
        except ValueError:
            raise InputError("embeddings must be vectors of one length") from None

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        return self.matrix[self._rows[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row of each name, int64; raises InputError if some have none."""
        missing = sorted({name for name in names if name not in self._rows})
        if missing:
            raise InputError(f"{len(missing)} utterances have no embedding (first: {missing[0]})")
        return np.fromiter((self._rows[name] for name in names), np.int64, len(names))

    def mean(self) -> npt.NDArray[np.float32]:
        """The mean embedding, float32 (embed_dim,)."""
        return self.matrix.mean(axis=0, dtype=np.float64).astype(np.float32)

    def __sub__(self, vector: npt.NDArray[np.floating]) -> "Embeddings":
        return Embeddings(self.names, self.matrix - np.asarray(vector, np.float32))

    def averaged(self, groups: Mapping[str, Sequence[str]]) -> "Embeddings":
        """Means of several embeddings each: of a speaker's, or of an enrolment's utterances."""
        means = [self.matrix[self.rows(names)].mean(axis=0) for names in groups.values()]
        return Embeddings(list(groups), np.reshape(means, (len(groups), -1)))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes X.ark with X.scp beside it, or X.npy with its names in X.txt.

        Raises:
            InputError: another suffix, or a file that is in the way, see `check_output`.
        """
        self.check_output(path)
        self.check_names(path, self.names)
        target = Path(path)
        if target.suffix in (".ark", ".scp"):
            self._write_kaldi(target.with_suffix(".ark"), target.with_suffix(".scp"))
            return
        with _atomic_pair(target.with_suffix(".txt"), target) as (names, matrix):
            with matrix.open("wb") as file:
                np.save(file, self.matrix)
            names.write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")

    @staticmethod
    def check_output(path: str | os.PathLike[str]) -> None:
        """Checks, before long work, that `write` can write there.

        Raises:
            InputError: another suffix; a place that cannot be written; a file beside it of the name
                that `write` would take, but of something else, such as trials.txt for trials.npy.
        """
        target = Path(path)
        if target.suffix not in _BESIDE:
            raise InputError(f"embeddings go into {', '.join(SUFFIXES)}, not {target}")
        beside = target.with_suffix(_BESIDE[target.suffix])
        for file in (target, beside):
            check_output(file)
        if beside.exists() and beside.stat().st_size and not target.exists():
            raise InputError(
                f"{beside} would be overwritten, and is of something else, as {target} does not "
                "exist; choose another name"
            )

    @staticmethod
    def check_names(path: str | os.PathLike[str], names: Iterable[str]) -> None:
        """Checks, before long work, that a file can hold such names.

        Raises:
            InputError: a name with a space, for Kaldi's files; with a tab or a line's end, for any.
        """
        kaldi = Path(path).suffix in (".ark", ".scp")
        for name in names:
            fine = [name] == (
                name.split() if kaldi else name.replace("\t", " ").strip().splitlines()
            )
            if not fine:
                what = "has a space" if " " in name else "is empty or has a tab or a line's end"
                instead = "; write a .npy" if kaldi and what == "has a space" else ""
                raise InputError(f"{name!r} {what}, which {path} cannot keep{instead}")

    def _write_kaldi(self, ark: Path, scp: Path) -> None:
        import kaldiio  # only where Kaldi's files are written

        with _atomic_pair(scp, ark) as (list_, archive):
            kaldiio.save_ark(str(archive), self, scp=str(list_))
            # The list names the archive as it will be called.
            listed = list_.read_text(encoding="utf-8").replace(f" {archive}:", f" {ark}:")
            list_.write_text(listed, encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Embeddings":
        """Reads what `write` wrote, or any .ark or .scp of vectors (an .scp may name many .ark).

        Nothing that a file holds is ever run, see `tfq_sv.data.kaldi_ark`.

        Raises:
            InputError: missing, damaged, not vectors of one length, a duplicate name.
        """
        file = require_file(path, "embeddings")
        if file.suffix == ".npy":
            return cls._read_numpy(file)
        if file.suffix not in SUFFIXES:
            raise InputError(f"embeddings come from {', '.join(SUFFIXES)}, not {file}")
        entries = kaldi_ark.read_list if file.suffix == ".scp" else kaldi_ark.read_archive
        names: list[str] = []
        values, length = bytearray(), 0  # which grows in place, as no array does
        for name, vector in entries(file):
            names.append(name)
            length = length or len(vector)
            with np.errstate(over="ignore"):  # infinite then, which scoring refuses by name
                values += vector.astype(np.float32).tobytes()
            if len(vector) != length:
                raise InputError(
                    f"{file} does not hold vectors of one length: {names[0]} has {length} "
                    f"values, {name} has {len(vector)}"
                )
        if not names:
            raise InputError(f"{file} does not hold vectors: it is empty")
        try:
            return cls(names, np.frombuffer(values, np.float32).reshape(-1, length))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None

    @classmethod
    def _read_numpy(cls, file: Path) -> "Embeddings":
        names = [line for _, line in read_lines(file.with_suffix(".txt"))]
        try:
            # Unlike np.load: no pickles, no archives, and no memory for values that are not there.
            matrix = np.lib.format.open_memmap(file, mode="r")
            if matrix.dtype.kind not in "fiu":
                raise InputError(f"it holds {matrix.dtype}, not numbers")
            return cls(names, np.array(matrix, np.float32))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except Exception as error:  # NumPy's header parser lets through whatever it meets
            raise InputError(f"{file} is not a NumPy matrix: {error!r:.100}") from None


@contextmanager
def _atomic_pair(names: Path, values: Path) -> Iterator[tuple[Path, Path]]:
    """Gives temporary paths of two files that are of use together only.

    The file of names is empty while the other is replaced: whenever the process is killed, no
    names are there that belong to other values.
    """
    with atomic(names) as listed, atomic(values) as temporary:
        yield listed, temporary
        sync(temporary)  # a full disk shows here, when nothing is lost
        with atomic(names):
            pass
