"""Which folders of a tree are speakers: known layouts by their names, others by their structure.

The rule, from the corpus folder downwards, one level of folders at a time:

1. Folders of noise, music or impulse responses are left out, and those called `unknown` and the
   like that hold recordings beside speakers' folders. `ann - Copy` beside `ann` is refused.
2. If all folders of a level are called like parts of a corpus or conditions (`train-clean-100`,
   `dev`, `wav`, `CN-Celeb_flac`, `female`, `DR1`, `car`, `snr_5dB`, `2023-01-05`, ...), they are no
   speakers, and the level below counts. `folder_names` has the words.
3. Otherwise the level is the speakers if most of its folders hold recordings directly, if the
   files are named after it (`103/1240/103-1240-0000.flac`, `p225/p225_001.wav`), if the folders are
   called like speakers (`id10001`, `spk3`), if the folders below are called like parts or repeat as
   short numbers (sessions), or if there are ten folders or more, and not about as many names below
   that repeat.
4. What none of this decides is refused: a wrong guess makes every figure wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from tfq_sv.data import folder_names as names_of
from tfq_sv.errors import InputError

_MANY = 10
_CHOICE = "--speaker_level=N chooses another level"


class UnknownSpeakersError(InputError):
    """Nobody can say which folders are speakers."""


@dataclass(frozen=True)
class Level:
    """Where the speakers of a tree are.

    Attributes:
        containers: the folders, below the corpus folder, that hold the speakers' folders; "" is
            the corpus folder itself.
        excluded: folders that are no speech.
        note: the reading chosen, for people; empty where it is the plain one.
    """

    containers: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    note: str = ""

    def speaker(self, name: str) -> tuple[str, str]:
        """The container and the rest of a file's path, which begins with the speaker.

        Raises:
            KeyError: it lies in none of them.
        """
        known = self._known
        end = 0
        while True:
            container = name[:end]
            if container in known:
                return container, name[end + 1 :] if end else name
            end = name.find("/", end + 1)
            if end < 0:
                raise KeyError(name)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.containers)


@dataclass(slots=True)
class _Folder:
    path: str
    files: int = 0
    sample: str = ""
    folders: dict[str, "_Folder"] = field(default_factory=dict)


def find_level(root: str, files: Iterable[str]) -> Level:
    """Finds the folders that are speakers.

    Args:
        root: the corpus folder, for messages.
        files: paths of the recordings below it, with `/`.

    Raises:
        UnknownSpeakersError: recordings that lie in no speaker's folder, or a structure that can be
            read in two ways; the message says how to choose.

    >>> find_level("c", ["dev/ann/1.wav", "dev/bob/2.wav"]).containers
    ('dev',)
    """
    finder = _Finder(root)
    containers = finder.below(_folders(files), known=False)
    names = [part for container in containers for part in container.split("/") if part]
    note = finder.note
    if any(name.lower() not in ("wav", "aac") for name in names):
        listed = ", ".join(containers[:6]) + (", ..." if len(containers) > 6 else "")
        note = f"speakers: the folders in {listed}; {_CHOICE}"
    return Level(tuple(containers), tuple(finder.excluded), note)


def level_at(root: str, files: Iterable[str], level: int) -> Level:
    """The level that a person chose: 1 is the corpus folder's own sub-folders.

    Raises:
        InputError: a recording does not lie so deep.
    """
    containers = set()
    for name in files:
        parts = name.split("/")
        if len(parts) <= level:
            raise InputError(
                f"{root}/{name} does not lie in {level} folders below {root}, as "
                f"--speaker_level={level} says"
            )
        containers.add("/".join(parts[: level - 1]))
    return Level(tuple(sorted(containers)))


def same_speaker_parts(containers: Iterable[str]) -> bool:
    """Whether files of one name in two of these folders may well be different recordings.

    They are in `train/ann/1.wav` and `val/ann/1.wav`; known corpora, whose parts hold a folder
    of a format (`dev/wav`), name every recording once.
    """
    return not any(names_of.is_format(part) for path in containers for part in path.split("/"))


class _Finder:
    def __init__(self, root: str) -> None:
        self.root = root
        self.excluded: list[str] = []
        self.note = ""

    def below(self, folder: _Folder, *, known: bool) -> list[str]:
        """The folders that hold speakers' folders, from this one downwards."""
        here = f"{self.root}/{folder.path}" if folder.path else self.root
        children = []
        for name, child in folder.folders.items():
            alone = len(folder.folders) == 1
            nobody = names_of.is_nobody(name) and not child.folders and not alone
            if nobody or names_of.is_noise(name):
                self.excluded.append(child.path)
            else:
                children.append(child)
        if folder.files:
            level = folder.path.count("/") + 1 if folder.path else 0
            raise UnknownSpeakersError(
                f"{here}/{folder.sample} lies in no speaker's folder; "
                f"expected {here}/<speaker>/.../{folder.sample}, or an utt2spk in {self.root}"
                + (f"; if {_name(folder)} is a speaker: --speaker_level={level}" if level else "")
            )
        if not children:
            raise UnknownSpeakersError(f"{here} holds no speaker's folder")
        parts = [child for child in children if _is_part(child)]
        others = [child for child in children if not _is_part(child)]
        if others:  # people may be called Dev, or go by a letter
            parts = [child for child in parts if not names_of.is_weak(_name(child))]
            people = not any(names_of.is_no_person(_name(child)) for child in parts)
            files = all(child.files for child in parts) and any(child.files for child in others)
            if people and files:
                parts = []
        if not parts:
            others = children
            self._check_copies(here, folder, children)
        if parts and others:
            raise UnknownSpeakersError(
                f"{here} holds {_names(parts)}, which a corpus's parts are called, beside "
                f"{_names(others)}; {self._advice(folder)}"
            )
        if parts:
            self._check_parts(here, parts)
            return [path for child in parts for path in self.below(child, known=True)]
        direct = 2 * sum(child.files > 0 for child in children) >= len(children)
        if known and direct and _strong(_below(children)) <= _strong(list(map(_name, children))):
            return [folder.path]
        if self._deeper(folder, children):
            return [path for child in children for path in self.below(child, known=True)]
        self._check_speakers(here, folder, children)
        return [folder.path]

    def _check_parts(self, here: str, parts: list[_Folder]) -> None:
        train = [child for child in parts if names_of.is_train(_name(child))]
        test = [child for child in parts if names_of.is_held_out(_name(child))]
        if train and test and not any(child.files for child in (*train, *test)):
            raise UnknownSpeakersError(
                f"{here} holds two corpora; give {self.root}/{train[0].path} or "
                f"{self.root}/{test[0].path}"
            )

    def _check_copies(self, here: str, folder: _Folder, children: list[_Folder]) -> None:
        """Raises where a folder beside the speakers holds folders that are called like them."""
        names = {_name(child) for child in children}
        for name in sorted(names):
            original = names_of.copy_of(name)
            if original in names:
                level = folder.path.count("/") + 2 if folder.path else 1
                raise UnknownSpeakersError(
                    f"{here}/{name} is called like a copy of {original}; move it away, "
                    f"or --speaker_level={level} takes it for a speaker"
                )
        for child in children:
            inner = set(child.folders) - {_name(child)}
            # Sessions and speakers may both be numbered, or lettered.
            names_alike = inner <= names and any(len(x) > 2 and not x.isdigit() for x in inner)
            if not child.files and names_alike:
                raise UnknownSpeakersError(
                    f"{here}/{_name(child)} holds folders that are called like those beside it "
                    f"({', '.join(sorted(inner)[:3])}); move it away, or {self._advice(folder)}"
                )

    def _deeper(self, folder: _Folder, children: list[_Folder]) -> bool:
        """Whether the files or the names say that the speakers are one level further down."""
        if any(child.files for child in children):
            return False
        names, below = [_name(child) for child in children], _below(children)
        if _strong(below) > 0.9 and _strong(names) < 0.5:
            return True
        # A/B/A-B-0001.flac below these folders: A is the speaker.
        grand = [g for child in children for g in child.folders.values()]
        if grand and sum(_named_after_two(g) for g in grand) > 0.9 * len(grand):
            return True
        # One folder that holds a whole corpus, whatever its name.
        return len(children) == 1 and all(names_of.is_split(name) for name in below)

    def _check_speakers(self, here: str, folder: _Folder, children: list[_Folder]) -> None:
        """Raises unless these folders are surely speakers."""
        direct = sum(child.files > 0 for child in children)
        if 2 * direct >= len(children):
            return
        names, below = [_name(child) for child in children], _below(children)
        after = sum(_named_after(child, _name(child)) for child in children)
        numbered = sum(map(names_of.is_numbered, names))
        different = set(below)
        repeats = len(children) > 1 and len(below) - len(different) >= len(different) / 2
        sessions = all(map(names_of.is_session, different))
        # Folders that repeat below a few may be people in one condition after the other.
        doubtful = repeats and not sessions and 2 * len(different) > len(children)
        sure = (
            after >= 0.9 * len(children)
            or _strong(names) >= 0.9
            or (numbered == len(names) and len(names) >= 4 and _numbered(below))
            or (below and sessions and len(children) > 1 and (repeats or not _numbered(below)))
            or (len(children) >= _MANY and not doubtful)
        )
        if not sure or direct:
            unique = list(dict.fromkeys(below))
            inner = ", ".join(unique[:3]) + (", ..." if len(unique) > 3 else "")
            raise UnknownSpeakersError(
                f"{here}: which folders are speakers, its {len(children)} ({_names(children)}) or "
                f"the {len(unique)} in them ({inner})? {self._advice(folder)}"
            )
        self.note = f"speakers: the folders {_names(children)}; {_CHOICE}"

    def _advice(self, folder: _Folder) -> str:
        level = folder.path.count("/") + 2 if folder.path else 1
        return (
            f"say --speaker_level={level} or {level + 1}, give one of these folders, or put an "
            f"utt2spk into {self.root}"
        )


def _folders(files: Iterable[str]) -> _Folder:
    top = _Folder("")
    known = {"": top}
    for name in files:
        path, _, file = name.rpartition("/")
        folder = known.get(path)
        if folder is None:
            folder = top
            for part in path.split("/"):
                inner = f"{folder.path}/{part}" if folder.path else part
                folder = folder.folders.setdefault(part, _Folder(inner))
            known[path] = folder
        folder.files += 1
        folder.sample = folder.sample or file
    return top


def _name(folder: _Folder) -> str:
    return folder.path.rsplit("/", 1)[-1]


def _names(folders: list[_Folder]) -> str:
    listed = ", ".join(_name(folder) for folder in folders[:3])
    return listed + (", ..." if len(folders) > 3 else "")


def _is_part(folder: _Folder) -> bool:
    return names_of.is_part(_name(folder))


def _below(folders: list[_Folder]) -> list[str]:
    return [name for folder in folders for name in folder.folders]


def _strong(names: list[str]) -> float:
    """The share of names that say that they are speakers."""
    return sum(map(names_of.is_speaker, names)) / max(1, len(names))


def _numbered(names: list[str]) -> bool:
    return all(map(names_of.is_numbered, names))


def _leaf(folder: _Folder) -> _Folder:
    while not folder.sample and folder.folders:
        folder = next(iter(folder.folders.values()))
    return folder


def _named_after(folder: _Folder, name: str) -> bool:
    """Whether the first recording in a folder is called `name_...` or `name-...`."""
    sample = _leaf(folder).sample
    return sample.startswith(name) and sample[len(name) : len(name) + 1] in ("-", "_", ".")


def _named_after_two(folder: _Folder) -> bool:
    """Whether the first recording in A/B is called A-B-... or A_B_..."""
    leaf = _leaf(folder)
    inner = _name(leaf)
    return leaf is not folder and any(
        leaf.sample.startswith(f"{_name(folder)}{mark}{inner}{mark}") for mark in "-_"
    )
