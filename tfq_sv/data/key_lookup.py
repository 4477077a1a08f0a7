"""Which utterance of a corpus a list means, where it spells the name in another way."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.lists import composed, printable

_AMBIGUOUS = ""


class KeyLookup:
    """Finds keys by other spellings: `./`, backslashes, absolute paths, another suffix or none.

    Attributes:
        readings: how names were read -> how many.

    >>> corpus = Corpus(Path("c"), {"ann/1.flac": Path("c/ann/1.flac")}, {})
    >>> KeyLookup(corpus).find("./ann/1.wav")
    'ann/1.flac'
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._found: dict[str, str | None] = {}
        self._files: dict[str, str] | None = None
        self._stems: dict[str, str] | None = None
        self._names: dict[str, str] | None = None
        self._lower: dict[str, str] = {}
        self._real: dict[str, str] | None = None
        self.readings: Counter[str] = Counter()
        self._examples: dict[str, tuple[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The key, or None."""
        if name in self._corpus.paths:
            return name
        if name not in self._found:
            key, reading = self._search(name)
            self._found[name] = key
            if key is not None:
                self.readings[reading] += 1
                self._examples.setdefault(reading, (name, key))
        return self._found[name]

    def forget(self) -> None:
        """Counts from zero again."""
        self._found.clear()
        self.readings.clear()
        self._examples.clear()

    def notes(self, path: Path) -> list[str]:
        """What was read otherwise than it stands in a list."""
        return [
            f"{path}: {count:,} names read by {reading} (first: {self._examples[reading][0]} is "
            f"{self._examples[reading][1]})"
            for reading, count in self.readings.items()
        ]

    def _search(self, name: str) -> tuple[str | None, str]:
        paths = self._corpus.paths
        plain = os.path.normpath(name.replace("\\", "/")).replace(os.sep, "/")
        if plain in paths:
            return plain, "their plain path"
        if self._files is None:
            self._index()
        assert self._files is not None
        assert self._stems is not None
        assert self._names is not None
        plain = composed(plain)
        for path in self._candidates(plain):
            for index, reading in ((self._files, "path"), (self._stems, "another suffix")):
                place = path if index is self._files else _stem(path)
                for spelled in dict.fromkeys((place, path)):
                    if key := index.get(spelled):
                        return key, reading
        if plain.startswith(("/", "../")) and (key := self._by_real_path(plain)):
            return key, "what they link to"
        for spelled in dict.fromkeys((plain, _stem(plain))):
            if "/" not in spelled and (key := self._names.get(spelled)):
                return key, "the file's name alone"
        for path in self._candidates(plain.lower()):
            if key := self._lower.get(path):
                return key, "another case"
        return None, ""

    def _candidates(self, plain: str) -> Iterable[str]:
        """The path itself, below the corpus folder, and less its first folders."""
        root = self._corpus.root
        for base in (str(root), os.path.abspath(root), os.path.realpath(root)):  # noqa: PTH100
            if plain.startswith(f"{base}/"):
                yield plain[len(base) + 1 :]
        parts = plain.split("/")
        for i in range(len(parts) - 1):
            yield "/".join(parts[i:])

    def _index(self) -> None:
        self._files, self._stems, self._names = {}, {}, {}
        root = f"{self._corpus.root}/"
        for key, source in self._corpus.paths.items():
            file = printable(str(source)) if isinstance(source, Path) else key
            file, spelled_key = composed(file.removeprefix(root)), composed(key)
            self._files[file] = key
            for stem in {_stem(file), _stem(spelled_key), spelled_key}:
                _add(self._stems, stem, key)
            for path in {file, spelled_key}:
                for spelled in {path.lower(), _stem(path.lower())}:
                    _add(self._lower, spelled, key)
                name = path.rpartition("/")[2]
                for spelled in {name, _stem(name)}:
                    _add(self._names, spelled, key)

    def _by_real_path(self, plain: str) -> str | None:
        if self._real is None:
            self._real = {
                os.path.realpath(source): key
                for key, source in self._corpus.paths.items()
                if isinstance(source, Path)
            }
        return self._real.get(os.path.realpath(plain))


def _stem(path: str) -> str:
    folder, _, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem or len(suffix) > 5:
        return path
    return f"{folder}/{stem}" if folder else stem


def _add(index: dict[str, str], spelled: str, key: str) -> None:
    if index.setdefault(spelled, key) != key:
        index[spelled] = _AMBIGUOUS
