"""Reading trial lists, as every program and data set writes them, and saying how."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from sys import intern

from tfq_sv.data.lists import read_text
from tfq_sv.errors import InputError

_TARGET = frozenset(
    "target tgt tar same true genuine client yes y positive pos p match matched mated t accept "
    "accepted intra within wahr vrai verdadero vero 是 相同".split()
)
_NONTARGET = frozenset(
    "nontarget nontgt nontar non imp impostor imposter different diff false no n negative neg "
    "mismatch nonmatch nonmated unmatched unmated notmatched f other reject rejected inter between "
    "notsame notarget falsch faux falso 否 不同".split()
)
# What people write beside these words: `is_same_speaker`, `target-trial`.
_BESIDE = re.compile(r"(?<=.)(speakers?|spkr?s?|persons?|voices?|pairs?|trials?)$")
_NUMBER = re.compile(r"[+-]?\d(\.\d*)?(e[+-]?\d{1,3})?")
_PLAIN = frozenset({"0", "1", "target", "nontarget"})
_HEADING = re.compile(
    r"(is[-_ ]?)?(labels?|targets?|same([-_ ]?speakers?)?|match|key|enrol\w*|test\w*|utt\w*|"
    r"files?|filename|path|wav|audio|scores?|cosine|sim\w*|spk\w*|speakers?|models?|trials?|id|"
    r"left|right|reference|ref|probe|query|first|second|gender|type|class|a|b|x|y|llr)"
    r"([-_ ]?(\d|a|b|id|path|file|name|wav|utt))*",
    re.IGNORECASE,
)
_LABEL = re.compile(r"label|target|same|match|key|class")
# Titles of a column that say that 1 is one speaker, and those that say the opposite.
_SURE_LABEL = re.compile(
    r"(is)?(label|target|same|match|key|groundtruth|truth|ytrue|(target|trial)type|"
    r"same(speaker|spk|person|voice|identity))s?"
)
_OPPOSITE = re.compile(
    r"(is|label)?(non?target|impost[eo]r|diff(erent)?|mismatch|not?same|distance|nonmatch|negative)"
    r"(speaker|spk|person|trial|label)?s?"
)
_SAMPLE = 1000
# Tabs first: names may contain the others, and `Trials.write` relies on it.
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_WORD = re.compile(r"[^\W\d][\w .:#()?-]*|", re.IGNORECASE)


@dataclass(frozen=True)
class TrialList:
    """A list as it was read.

    Attributes:
        enroll: first name of each trial.
        test: second name.
        labels: whether it is a target trial.
        note: the reading chosen, for people; empty where it is one of the two plain ones.
    """

    enroll: list[str]
    test: list[str]
    labels: list[bool]
    note: str


@lru_cache(maxsize=1024)
def label_of(text: str) -> bool | None:
    """What a word says of a trial; None if it is no label.

    >>> label_of("tgt"), label_of("0.0"), label_of("1.0e+00"), label_of("ann/1.wav")
    (True, False, True, None)
    """
    word = _plain(text)
    if _NUMBER.fullmatch(text.strip().lower()):
        return {1.0: True, 0.0: False, -1.0: False}.get(float(text))
    word = _BESIDE.sub("", word)
    if word in _TARGET:
        return True
    return False if word in _NONTARGET else None


def _plain(text: str) -> str:
    """A word less its case, its hyphens and the like, and a leading `is`.

    >>> _plain("is_Same-Speaker")
    'samespeaker'
    """
    word = re.sub(r"[-_ ]+", "", text.lower())
    return word.removeprefix("is") if len(word) > 4 else word


def read_list(path: Path, known: Callable[[str], bool] = lambda name: False) -> TrialList:
    """Reads lines of two names and a label, in any order, with or without more columns.

    Args:
        path: UTF-8 or UTF-16; separated by spaces, tabs, commas or semicolons; a heading may be
            there. Labels are 1 and 0, target and nontarget, or others that `label_of` knows.
        known: whether a name is one of the corpus, to tell names from other columns.

    Raises:
        InputError: missing, no trial, or a line that is none.
    """
    lines = [
        (number, line)
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise InputError(f"{path} lists no trial")
    separator = _separator([line for _, line in lines[:_SAMPLE]])
    sample = [_fields(line, separator) for _, line in lines[:_SAMPLE]]
    heading = [field.lower() for field in sample[0]]
    headed = _is_heading(heading, sample[1:], known)
    if headed:
        sample, lines = sample[1:], lines[1:]
    if not lines:
        raise InputError(f"{path} lists no trial")
    label, first, second = _columns(path, lines[0], sample, heading if headed else [], known)
    width = max(label, first, second) + 1
    enroll, test, labels = [], [], []
    spellings = set()
    for number, line in lines:
        fields = _fields(line, separator)
        value = label_of(fields[label]) if len(fields) >= width else None
        if value is None:
            raise _malformed(path, number, line)
        # Interned: a long list names every utterance many times.
        enroll.append(intern(fields[first]))
        test.append(intern(fields[second]))
        labels.append(value)
        spellings.add(fields[label])
    note = _note(separator, headed, len(sample[0]), (label, first, second), spellings)
    return TrialList(enroll, test, labels, f"{path}: read as {note}" if note else "")


def _is_heading(
    first: Sequence[str], rows: Sequence[Sequence[str]], known: Callable[[str], bool]
) -> bool:
    """Whether the first line titles the columns: usual words all, or some above what is no word."""
    if len(first) < 3 or not any(len(field) > 2 or not field.isascii() for field in first):
        return False
    if any(known(field) for field in first):
        return False
    labels = [i for i, field in enumerate(first) if label_of(field) is not None]
    for i in labels:
        # A word for nontargets is a title above numbers alone.
        numbers = bool(rows) and all(len(row) > i and _is_number(row[i]) for row in rows)
        if first[i] not in _TARGET and not (numbers and len(first[i]) > 2):
            return False
    usual = [_HEADING.fullmatch(field) is not None or i in labels for i, field in enumerate(first)]
    others = [i for i in range(len(first)) if i not in labels]
    named = any(usual) or any(known(field) for row in rows for field in row)
    # What pandas writes has no title for its numbers; people call labels what they like.
    return all(usual) or (
        named
        and all(_WORD.fullmatch(field) and "." not in field for field in first)
        and any(all(len(row) > i and label_of(row[i]) is not None for row in rows) for i in others)
        and bool(rows)
    )


def _separator(lines: Sequence[str]) -> str | None:
    for mark in _SEPARATORS:
        counts = {line.count(mark) for line in lines}
        if len(counts) == 1 and counts.pop() >= 2:
            return mark
    return None


def _fields(line: str, separator: str | None) -> list[str]:
    if separator is None and '"' not in line:
        return line.split()
    if separator is None:
        line, separator = " ".join(line.split()), " "
    if '"' in line:
        try:
            return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
        except csv.Error:  # a field of over 131,072 characters: no trial
            return [line]
    return [field.strip() for field in line.split(separator)]


def _columns(
    path: Path,
    first_line: tuple[int, str],
    sample: Sequence[Sequence[str]],
    heading: Sequence[str],
    known: Callable[[str], bool],
) -> tuple[int, int, int]:
    """Where the label and both names are."""
    width = max(map(len, sample))
    columns = [[row[i] for row in sample if i < len(row)] for i in range(width)]
    share = [sum(label_of(x) is not None for x in column) / len(sample) for column in columns]
    candidates = [i for i in range(width) if share[i] > 0.5]
    if width < 3 or not candidates:
        scores = width >= 3 and all(map(_is_number, columns[-1]))
        hint = "; its last column holds scores, no labels" if scores else ""
        raise _malformed(path, *first_line, hint)
    # Where all is numbered, as by pandas, and the labels stand elsewhere.
    counted = [i for i in candidates if columns[i] == [str(n) for n in range(len(sample))]]
    candidates = [i for i in candidates if i not in counted] or candidates
    titled = [i for i in candidates if i < len(heading) and _LABEL.search(heading[i])]
    words = [i for i in candidates if not any(_is_number(x) or len(x) == 1 for x in columns[i])]
    if len(candidates) > 1 and width == 3:
        unknown = [i for i in candidates if not any(known(x) for x in columns[i])]
        label = 2 if 2 in (unknown or candidates) else (unknown or candidates)[0]
    else:
        sure = [i for i in titled if _SURE_LABEL.fullmatch(_plain(heading[i]))]
        likely = sure or titled or words or candidates
        label = likely[0]
        other = next((i for i in likely if not _agree(columns[label], columns[i])), None)
        if other is not None:
            raise InputError(
                f"{path}: columns {label + 1} and {other + 1} may both be labels, and do not "
                "agree; leave one out"
            )
    if label < len(heading) and _OPPOSITE.fullmatch(_plain(heading[label])):
        raise InputError(
            f"{path}: column {label + 1} is called {heading[label]!r}, where 1 means two speakers; "
            "turn it around, 1 or target means the same speaker"
        )
    others = [i for i in range(width) if i != label]
    names = others
    if len(names) > 2:
        names = [i for i in others if not all(map(_is_number, columns[i]))]
    if len(names) > 2:
        found = [i for i in names if sum(map(known, columns[i])) > len(sample) / 2]
        headed = [
            i for i in names
            if i < len(heading) and re.match(r"enrol|test|utt|file|path|wav|audio", heading[i])
        ]  # fmt: skip
        names = next((some for some in (found, headed) if len(some) == 2), names)
    if len(names) < 2:
        names = others
    return label, names[0], names[1]


def _agree(first: Sequence[str], second: Sequence[str]) -> bool:
    return [label_of(text) for text in first] == [label_of(text) for text in second]


def _note(
    separator: str | None,
    headed: bool,
    width: int,
    columns: tuple[int, int, int],
    spellings: set[str],
) -> str:
    plain = columns in ((0, 1, 2), (2, 0, 1)) and width == 3
    notes = []
    if not plain or separator not in (None, "\t") or headed:
        label, first, second = (column + 1 for column in columns)
        notes.append(f"names in columns {first} and {second}, labels in column {label}")
        if separator:
            notes.append(f"separated by {_SEPARATORS[separator]}")
    if headed:
        notes.append("a heading skipped")
    if not spellings <= _PLAIN:
        target = sorted(word for word in spellings if label_of(word))
        other = sorted(word for word in spellings if not label_of(word))
        notes.append(f"target is {' or '.join(target)}, nontarget is {' or '.join(other)}")
    return ", ".join(notes)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _malformed(path: Path, number: int, line: str, hint: str = "") -> InputError:
    return InputError(
        f"{path}:{number}: expected `1 enroll test` or `enroll test target`, found "
        f"{line.strip()[:200]!r}{hint}"
    )
