import struct
from pathlib import Path

import numpy as np
import pytest

from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import Embeddings


@pytest.fixture
def some() -> Embeddings:
    matrix = np.random.default_rng(0).normal(size=(5, 3))
    return Embeddings([f"id{i}/a.wav" for i in range(5)], matrix)


@pytest.mark.parametrize("suffix", [".ark", ".scp", ".npy"])
def test_round_trips(suffix: str, some: Embeddings, tmp_path: Path) -> None:
    some.write(tmp_path / f"x{suffix}")
    back = Embeddings.read(tmp_path / f"x{suffix}")
    assert back.names == some.names
    np.testing.assert_array_equal(back.matrix, some.matrix)
    assert not list(tmp_path.glob(".*"))


def test_the_archive_is_kaldis_byte_for_byte(some: Embeddings, tmp_path: Path) -> None:
    some.write(tmp_path / "x.ark")
    expected, places = b"", []
    for name, vector in some.items():
        expected += name.encode() + b" "
        places.append(f"{name} {tmp_path / 'x.ark'}:{len(expected)}\n")
        expected += b"\0BFV \4" + struct.pack("<i", 3) + vector.tobytes()
    assert (tmp_path / "x.ark").read_bytes() == expected
    assert (tmp_path / "x.scp").read_text() == "".join(places)


def test_a_list_may_name_many_archives(some: Embeddings, tmp_path: Path) -> None:
    for i, name in enumerate(some):
        Embeddings([name], some[name][None]).write(tmp_path / f"{i}.ark")
    lists = sorted(tmp_path.glob("*.scp"))
    (tmp_path / "all.scp").write_text("".join(path.read_text() for path in lists))
    np.testing.assert_array_equal(Embeddings.read(tmp_path / "all.scp").matrix, some.matrix)


def test_bad_files_are_named(some: Embeddings, tmp_path: Path) -> None:
    some.write(tmp_path / "cut.ark")
    (tmp_path / "cut.ark").write_bytes((tmp_path / "cut.ark").read_bytes()[:60])
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.txt").write_text("a\n")
    (tmp_path / "text.ark").write_text("hello")
    some.write(tmp_path / "short.npy")
    (tmp_path / "short.txt").write_text("a\n")
    (tmp_path / "piped.scp").write_text(f"a touch {tmp_path}/never |\n")
    for name, message in [
        ("none.ark", "does not exist"),
        ("cut.ark", "is cut short"),
        ("text.ark", "does not hold vectors"),
        ("text.npy", "is not a NumPy matrix"),
        ("short.npy", "1 names do not match"),
        ("piped.scp", "commands are never run"),
        ("text.txt", "embeddings come from .ark, .npy, .scp"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            Embeddings.read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "never").exists()
    with pytest.raises(InputError, match="embeddings go into"):
        some.write(tmp_path / "x.txt")


def test_a_numpy_file_holds_one_whole_matrix_of_numbers(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\n")
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 100000000000), }"
    huge = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    (tmp_path / "x.npy").write_bytes(huge)
    with pytest.raises(InputError, match="is not a NumPy matrix"):
        Embeddings.read(tmp_path / "x.npy")
    for content in (
        np.array([[{}]], object),
        np.array([["1"]]),
        np.zeros((1, 2), [("a", "f4")]),
        np.zeros((1, 2), "m8[s]"),
    ):
        np.save(tmp_path / "x.npy", content, allow_pickle=True)
        with pytest.raises(InputError, match=r"is not a NumPy matrix|not numbers"):
            Embeddings.read(tmp_path / "x.npy")
    broken = b"\x93NUMPY\1\0" + struct.pack("<H", 9) + b"{'a': (\n \n"  # found by mutation
    (tmp_path / "x.npy").write_bytes(broken)
    with pytest.raises(InputError, match="is not a NumPy matrix"):
        Embeddings.read(tmp_path / "x.npy")
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, np.ones((1, 2)))
    with pytest.raises(InputError, match="is not a NumPy matrix"):
        Embeddings.read(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("named", "beside"), [("trials.npy", "trials.txt"), ("wav.ark", "wav.scp")]
)
def test_a_list_of_something_else_is_not_overwritten(
    named: str, beside: str, some: Embeddings, tmp_path: Path
) -> None:
    (tmp_path / beside).write_text("1 a b\n")
    with pytest.raises(
        InputError, match=rf"{beside} would be overwritten, .*{named} does not exist"
    ):
        some.write(tmp_path / named)
    assert [path.name for path in tmp_path.iterdir()] == [beside]
    assert (tmp_path / beside).read_text() == "1 a b\n"
    for _ in range(2):
        some.write(tmp_path / f"other{named}")
    some.write(tmp_path / "list.scp")
    (tmp_path / "list.ark").unlink()
    some.write(tmp_path / "list.scp")  # is named, so it may


@pytest.mark.parametrize("suffix", [".ark", ".scp", ".npy"])
def test_names_never_go_with_other_vectors(
    suffix: str, some: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a kill hits, what is there is the old, the new, or refused; and can be replaced."""
    new = Embeddings(some.names[::-1], some.matrix + 1)
    replace = Path.replace

    def is_whole(file: Path) -> None:
        try:
            found = Embeddings.read(file)
        except InputError:
            return
        assert any(
            found.names == one.names and np.array_equal(found.matrix, one.matrix)
            for one in (some, new)
        )

    for old in (False, True):
        for last in range(5):
            folder = tmp_path / f"{old} {last}"
            folder.mkdir()
            target, moves = folder / f"x{suffix}", [0]
            if old:
                some.write(target)

            def move(path: Path, to: Path, last: int = last, moves: list[int] = moves) -> Path:
                if moves[0] == last:
                    raise KeyboardInterrupt
                moves[0] += 1
                return replace(path, to)

            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", move)
                try:
                    new.write(target)
                except KeyboardInterrupt:
                    is_whole(target)
                    if suffix != ".npy":
                        for other in (".ark", ".scp"):
                            is_whole(target.with_suffix(other))
            new.write(target)
            assert Embeddings.read(target).names == new.names


def test_an_output_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "x.txt").mkdir()
    for name, message in [
        ("x.bin", "embeddings go into"),
        ("x.npy", "is a folder"),
        ("x.txt/y.ark", None),
        ("new/y.npy", None),
    ]:
        if message is None:
            Embeddings.check_output(tmp_path / name)
        else:
            with pytest.raises(InputError, match=message):
                Embeddings.check_output(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["x.txt"]


def test_names_and_rows_must_match() -> None:
    with pytest.raises(InputError, match=r"1 duplicate names of embeddings \(first: a\)"):
        Embeddings(["a", "a"], np.ones((2, 3)))
    with pytest.raises(InputError, match="3 names do not match"):
        Embeddings(["a", "b", "c"], np.ones((2, 3)))
    with pytest.raises(InputError, match="vectors of one length"):
        Embeddings.of({"a": np.ones(2), "b": np.ones(3)})
    assert len(Embeddings.of({})) == 0


@pytest.mark.parametrize(
    ("out", "name", "message"),
    [
        ("x.ark", "a b.wav", "'a b.wav' has a space, which .*x.ark cannot keep; write a .npy"),
        ("x.scp", "a\u00a0b", "is empty or has a tab"),
        ("x.ark", "", "'' is empty"),
        ("x.npy", "a\tb", "has a tab or a line's end"),
        ("x.npy", "a\nb", "has a tab or a line's end"),
        ("x.npy", "a\u2028b", "has a tab or a line's end"),
        ("x.npy", " a", "has a space, which .*x.npy cannot keep$"),
    ],
)
def test_names_that_a_file_cannot_keep(out: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        Embeddings([name, "b"], np.eye(2)).write(tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_names_with_spaces_and_of_any_language(tmp_path: Path) -> None:
    names = ["zo\u00eb/a b.wav", "\u8bf4\u8bdd\u4eba"]
    Embeddings(names, np.eye(2)).write(tmp_path / "x.npy")
    assert Embeddings.read(tmp_path / "x.npy").names == names
