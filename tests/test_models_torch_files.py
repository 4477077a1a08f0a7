"""Files of `torch.save`, read without PyTorch: as PyTorch reads them, whatever is in them."""

import collections
import io
import pickle
import struct
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tfq_sv.errors import InputError
from tfq_sv.models import torch_files, torch_pickle
from tfq_sv.models.checkpoint_files import read_tensors
from tfq_sv.models.torch_pickle import INERT, NoValues

BASE = torch.arange(24, dtype=torch.float32)
KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32]
KINDS += [torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128]
VIEWS = {
    "whole": BASE,
    "part": BASE[5:9],
    "transposed": BASE.reshape(4, 6).T,
    "steps": BASE.reshape(2, 3, 4)[:, ::2, 1:],
    "permuted": BASE.reshape(2, 3, 4).permute(2, 0, 1),
    "scalar": BASE[7],
    "empty": BASE[:0].reshape(0, 3),
    "one": BASE[3:4].expand(1, 1),
    "sparse": torch.eye(3).to_sparse(),
    "parameter": torch.nn.Parameter(BASE[:4]),
}


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_tensors_of_each_kind(kind: torch.dtype, archive: bool, tmp_path: Path) -> None:
    wanted = BASE.to(kind)
    torch.save({"x": wanted}, tmp_path / "a.pt", _use_new_zipfile_serialization=archive)
    found = torch_files.read(tmp_path / "a.pt")[0]["x"]
    if kind is torch.bfloat16:  # NumPy has none
        assert found.dtype == np.float32
        wanted = wanted.float()
    assert found.dtype == wanted.numpy().dtype
    np.testing.assert_array_equal(found, wanted.numpy())


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_and_containers(protocol: int, archive: bool, tmp_path: Path) -> None:
    settings = {"lr": 0.1, "steps": 7, "name": "ä", 3: None, "flags": (True, False), "big": 1 << 70}
    content = {
        "views": collections.OrderedDict(VIEWS),
        "settings": settings,
        "list": [VIEWS["part"], [VIEWS["whole"]]],
        "args": Namespace(lr=0.1),
        "set": {1, 2},
        "shape": torch.Size([2, 3]),
        "dtype": torch.float32,
    }
    torch.save(
        content,
        tmp_path / "a.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=archive,
    )
    found, objects = torch_files.read(tmp_path / "a.pt")
    assert "argparse.Namespace" in objects
    assert found["settings"] == settings
    assert found["shape"] == (2, 3)
    assert found["args"] is found["set"] is INERT
    for name, wanted in VIEWS.items():
        np.testing.assert_array_equal(found["views"][name], wanted.detach().to_dense().numpy())
    np.testing.assert_array_equal(found["list"][1][0], BASE.numpy())


def test_a_network_and_its_optimizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    torch.save({"net": network.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a")
    found, objects = torch_files.read(tmp_path / "a")
    assert not objects
    for name, wanted in network.state_dict().items():
        np.testing.assert_array_equal(found["net"][name], wanted.numpy())
    assert found["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)


def test_tensors_without_values(tmp_path: Path) -> None:
    content = {"meta": torch.ones(3, device="meta"), "small": torch.ones(3).to(torch.float8_e4m3fn)}
    torch.save(content, tmp_path / "a.pt")
    found = torch_files.read(tmp_path / "a.pt")[0]
    assert isinstance(found["meta"], NoValues)
    assert not isinstance(found["small"], np.ndarray)


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def short(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def storage(count: int, key: str = "0") -> bytes:
    parts = [short("storage"), b"ctorch\nFloatStorage\n", short(key), short("cpu")]
    return b"(" + b"".join(parts) + b"J" + struct.pack("<i", count) + b"tQ"


def tensor(count: int, offset: int, size: int, stride: int) -> bytes:
    numbers = [b"J" + struct.pack("<i", x) for x in (offset, size, stride)]
    rest = numbers[0] + numbers[1] + b"\x85" + numbers[2] + b"\x85" + b"\x89}"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(count) + rest + b"tR"


def archive(path: Path, content: bytes, data: bytes = bytes(16), **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("net/data.pkl", content)
        file.writestr("net/data/0", data)
        file.writestr("net/version", b"3")
    return path


def test_the_parts_above_make_a_tensor(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", pickled(tensor(4, 1, 3, 1)))
    np.testing.assert_array_equal(torch_files.read(path)[0], np.zeros(3))
    assert torch.equal(torch.load(path, weights_only=True), torch.zeros(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(4, 2, 3, 1), "larger than its storage"),
        (tensor(4, 0, 2, 4), "larger than its storage"),
        (tensor(4, 0, 1000, 0), "larger than its storage"),
        (tensor(4, -1, 2, 1), "no whole number"),
        (tensor(4, 0, 2, -1), "no whole number"),
        (tensor(5, 0, 2, 1), "another size than the file says"),
        (storage(4, "1"), "net/data/1"),
        (short("storage") + b"\x85Q", "not enough values"),
        (b"0", "takes more than there is"),
        (b"h\x07", "7"),
        (b"r\xff\xff\xff\xffN", ""),
        (b"i__builtin__\nexec\n", "opcode INST"),
        (b"\x82\x01", "opcode EXT1"),
    ],
)
def test_damage(content: bytes, message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", pickled(content))
    with pytest.raises(torch_files.UnreadableError, match=message):
        torch_files.read(path)
    with pytest.raises(InputError, match=r"a\.pt (is not a PyTorch checkpoint|holds more than)"):
        read_tensors(path)


def test_what_would_take_for_ever(tmp_path: Path) -> None:
    """Names, nestings and numbers whose cost would grow out of all proportion to the file."""
    long = "x" * 500_000
    laughs = b")" + b"q\x00h\x00\x86" * 60  # each a pair of what was before
    deep = b")" + b"\x85" * 500_000
    bomb = b"r\xff\xff\xff\x7f"
    for name, content in {
        "name": f"c{long}\n{long}\n".encode(),
        "function": laughs + b")R",
        "layout": b"ctorch.serialization\n_get_layout\n" + laughs + b"\x85R",
        "key": b"}" + deep + b"Ns",
        "memo": b"N" + bomb,
        "shape": tensor(4, 0, 2, 1).replace(b"\x85", b"\x85" * 100_000, 1),
    }.items():
        path = archive(tmp_path / f"{name}.pt", pickled(content))
        with pytest.raises(InputError, match=rf"{name}\.pt (is not|holds more)"):
            read_tensors(path)


def test_many_views_of_one_storage_are_too_large(tmp_path: Path) -> None:
    tensor = torch.zeros(1 << 20)
    views = {f"v{i}": tensor for i in range(300)}
    torch.save(views, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"would unpack to 1,258,291,200 bytes of weights"):
        read_tensors(tmp_path / "a.pt")


def test_archives_that_torch_save_does_not_write(tmp_path: Path) -> None:
    good = pickled(tensor(4, 0, 4, 1))
    compressed = archive(tmp_path / "a.pt", good, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(torch_files.UnreadableError, match="is compressed"):
        torch_files.read(compressed)
    other = archive(tmp_path / "b.pt", good)
    with zipfile.ZipFile(other, "a") as file:
        file.writestr("net/byteorder", b"big")
    with pytest.raises(torch_files.UnreadableError, match="big-endian"):
        torch_files.read(other)


def test_a_bare_pickle_names_what_it_asks_for() -> None:
    objects: list[str] = []
    content = io.BytesIO(pickle.dumps({"a": Path.write_text, 1: [b"x", 2.5, -3]}, protocol=2))
    found = torch_pickle.read(content, objects)
    assert found[1][1:] == [2.5, -3]
    assert found["a"] is INERT
    assert objects
