"""Kaldi's archives: what is read is what kaldiio reads, and nothing that a file holds ever runs."""

import io
import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import kaldiio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import Embeddings

NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
BINARY = b"\0BFV \4" + struct.pack("<i", 2) + np.float32([1, 2]).tobytes()


@pytest.fixture
def ran(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile content would create; fails if it did."""
    path = tmp_path / "it_ran"
    yield path
    assert not path.exists()


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_the_payloads_run_in_kaldiio(tmp_path: Path) -> None:
    """Or else the tests below would prove nothing."""
    seen = tmp_path / "seen"
    (tmp_path / "x.ark").write_bytes(b"a PKL" + pickle.dumps(_Runs(seen)))
    list(kaldiio.load_ark(str(tmp_path / "x.ark")))
    assert seen.exists()


@pytest.mark.parametrize("suffix", [".ark", ".scp"])
def test_a_pickle_never_runs(suffix: str, ran: Path, tmp_path: Path) -> None:
    (tmp_path / "x.ark").write_bytes(b"a PKL" + pickle.dumps(_Runs(ran)))
    (tmp_path / "x.scp").write_text(f"a {tmp_path}/x.ark:2\n")
    with pytest.raises(InputError, match=r"x\.ark: a .*is no vector"):
        Embeddings.read(tmp_path / f"x{suffix}")


def test_numpy_entries_never_unpickle(ran: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Runs(ran)], object), allow_pickle=True)
    content = buffer.getvalue()
    size = struct.pack("<B", 2) + struct.pack("<H", len(content))
    (tmp_path / "x.ark").write_bytes(b"a NPY" + size + content)
    with pytest.raises(InputError, match="is no vector"):
        Embeddings.read(tmp_path / "x.ark")


@pytest.mark.parametrize(
    "place",
    [
        "| touch {ran}",
        "touch {ran} |",
        "| touch {ran} :0",
        "touch {ran} |:0",
        "touch {ran} | :0",
        "touch {ran} |[0:1]",
        "|touch {ran}[0:1]",
        "touch {ran} |:0[0:1]",
        "-",
        "-:0",
        "/dev/zero",
        "/dev/stdin",
        "{folder}",
        "{folder}/fifo",
        "{folder}/none.ark:4",
        "{folder}/x.ark:-1",
        "{folder}/x.ark:99999999999999999",
        "{folder}/x.ark:4[0:1]",
        "{folder}/" + "x" * 5000,
        "{folder}/\0",
    ],
)
def test_a_list_names_files_alone(place: str, ran: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "x.ark").write_bytes(b"a " + BINARY)
    (tmp_path / "x.scp").write_text(f"a {place.format(ran=ran, folder=tmp_path)}\n")
    expected = r"x\.scp(: a .*(expected `file` or `file:offset`|beyond)| is not a text file)"
    with pytest.raises(InputError, match=expected):
        Embeddings.read(tmp_path / "x.scp")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a", "a name and a space"),
        (b" ", "a name and a space"),
        (b"a\nb " + BINARY, "a name and a space"),  # found by mutation
        (b"\xff\xfe " + BINARY, "a name and a space"),
        (b"x" * 100_000, "a name and a space"),
        (b"a ", "no vector"),
        (b"a RIFF0000WAVE", "no vector"),
        (b"a fLaC", "no vector"),
        (b"a AUDIO\1\1x", "no vector"),
        (b"a \0B\4" + struct.pack("<i", 1) + b"\4" + struct.pack("<i", 1), "no vector"),
        (b"a \0BFM \4" + struct.pack("<i", 1) + b"\4" + struct.pack("<if", 1, 1), "no vector"),
        (b"a \0BCM " + struct.pack("<ffii", 0, 1, 1, 1) + bytes(9), "no vector"),
        (b"a \0BCM2 " + struct.pack("<ffii", 0, 1, 1, 1) + bytes(2), "no vector"),
        (b"a \0BFV \4", "no vector"),
        (b"a \0BFV \4\1\0", "no vector"),
        (b"a \0BFV \4" + struct.pack("<i", -1), "-1 values"),
        (b"a \0BFV \4" + struct.pack("<i", 0), "0 values"),
        (b"a \0BFV \4" + struct.pack("<i", 2**31 - 1), "2147483647 values"),
        (b"a \0BFV \4" + struct.pack("<i", 3) + bytes(11), "ends within"),
        (b"a [ 1 2\n", "no vector"),
        (b"a [ 1 two ]\n", "no vector"),
        (b"a [ ]\n", "0 values"),
        (b"a [\n  1 2\n  3 4 ]\n", "no vector"),
        (b"a [ " + b"1 " * 100_000 + b"]\n", "100000 values"),
    ],
)
def test_an_archive_holds_vectors_alone(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.ark").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Embeddings.read(tmp_path / "x.ark")
    assert str(caught.value).startswith(f"{tmp_path}/x.ark")
    assert "\n" not in str(caught.value)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(NAMES, min_size=1, max_size=5, unique=True),
    dimension=st.integers(1, 9),
    seed=st.integers(0, 9),
    kind=st.sampled_from([np.float32, np.float64]),
    text=st.booleans(),
)
def test_good_files_are_what_kaldiio_reads(
    names: list[str], dimension: int, seed: int, kind: type, text: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    vectors = {name: rng.normal(size=dimension).astype(kind) for name in names}
    ark, scp = tmp_path / "x.ark", tmp_path / "x.scp"
    kaldiio.save_ark(str(ark), vectors, scp=str(scp), text=text)
    expected = dict(kaldiio.load_ark(str(ark)))
    for file in (ark, scp):
        found = Embeddings.read(file)
        assert found.names == list(expected) == names
        np.testing.assert_array_equal(found.matrix, np.float32(list(expected.values())))


def test_a_file_without_offset_holds_one_vector(tmp_path: Path) -> None:
    (tmp_path / "one.vec").write_bytes(BINARY)
    (tmp_path / "x.scp").write_text(f"a {tmp_path}/one.vec\nb {tmp_path}/one.vec:0\n")
    np.testing.assert_array_equal(Embeddings.read(tmp_path / "x.scp").matrix, [[1, 2], [1, 2]])
