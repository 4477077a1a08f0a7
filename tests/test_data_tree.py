"""Links, hard links and tools' folders in a corpus: every file once, and every walk ends."""

import os
from pathlib import Path

import pytest

from tfq_sv.data.corpus import Corpus
from tfq_sv.data.tree import walk

KEYS = ["ann/1.wav", "ann/2.wav", "bob/1.wav", "bob/2.wav"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, key in enumerate(KEYS):
        file = tmp_path / "all" / "c1" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * number)
    return tmp_path / "all" / "c1"


def names(root: Path) -> list[str]:
    return list(walk(root, {".wav"}).files)


@pytest.mark.parametrize("links", [
    [("ann/up", "..")], [("ann/up", ".."), ("bob/up", "..")], [("ann/top", "../..")],
    [("ann/self", ".")], [("ann/slash", "/")], [("ann/bob", "../bob"), ("bob/ann", "../ann")],
    [("ann/loop", "loop")], [("ann/x", "y"), ("ann/y", "x")], [("cleo", "ann")],
    [("ann/deep", "../bob"), ("up", "."), ("bob/up", "../ann")],
])  # fmt: skip
def test_links_to_what_is_read_anyway_add_nothing(root: Path, links: list) -> None:
    for name, target in links:
        (root / name).symlink_to(target)
    assert names(root) == KEYS
    corpus = Corpus.read(root)
    assert corpus.speaker_ids == ["ann", "bob"]
    followed = any((root / name).is_dir() for name, _ in links)
    assert followed == any("links to folders" in note for note in corpus.notes)


def test_links_to_elsewhere_are_followed_and_may_lead_back(root: Path) -> None:
    """A corpus made of links is a common thing; what they lead to may have links of its own."""
    other = root.parent / "elsewhere" / "id7"
    other.mkdir(parents=True)
    (other / "1.wav").write_bytes(b"7")
    (other / "up").symlink_to("..")
    (other / "back").symlink_to(root)
    (other.parent / "id8").mkdir()
    (other.parent / "id8" / "1.wav").write_bytes(b"8")
    (root / "cleo").symlink_to(other)
    (root / "ann" / "3.wav").symlink_to(other.parent / "id8" / "1.wav")
    assert names(root) == ["ann/1.wav", "ann/2.wav", "ann/3.wav", *KEYS[2:], "cleo/1.wav"]


def test_a_corpus_of_links_alone(root: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for key in KEYS:
        (linked / key).parent.mkdir(parents=True, exist_ok=True)
        (linked / key).symlink_to(root / key)
    assert names(linked) == KEYS
    (tmp_path / "door").symlink_to(linked)
    assert list(Corpus.read(tmp_path / "door").paths) == KEYS


def test_a_file_that_is_reached_twice_counts_once(root: Path) -> None:
    (root / "ann" / "0.wav").symlink_to("1.wav")  # sorts before the real name
    (root / "bob" / "0.wav").symlink_to("../ann/2.wav")
    os.link(root / "bob" / "2.wav", root / "bob" / "3.wav")
    found = walk(root, {".wav"})
    assert list(found.files) == KEYS
    (note,) = found.notes
    assert "ann/0.wav (is ann/1.wav)" in note
    assert "bob/3.wav (is bob/2.wav)" in note


def test_a_link_to_nothing_stays_and_is_missing_when_it_is_read(root: Path) -> None:
    (root / "ann" / "9.wav").symlink_to("gone.wav")
    assert names(root) == ["ann/1.wav", "ann/2.wav", "ann/9.wav", *KEYS[2:]]


@pytest.mark.parametrize(
    "tool", [".git", "__MACOSX", "lost+found", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN"]
)
def test_folders_of_tools_are_no_speakers(root: Path, tool: str) -> None:
    for key in (f"{tool}/a.wav", f"ann/{tool}/b/c.wav", "ann/._1.wav"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"x")
    corpus = Corpus.read(root)
    assert list(corpus.paths) == KEYS
    assert any(tool in note for note in corpus.notes)


def test_a_hidden_folder_that_is_asked_for_is_read(root: Path) -> None:
    root.rename(root.parent / ".c1")
    assert names(root.parent / ".c1") == KEYS
