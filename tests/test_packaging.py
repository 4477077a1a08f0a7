"""What people install: the wheels, made from the source distribution, in their own environment."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CACHES = shutil.ignore_patterns("__pycache__", "node_modules", "build", "*.egg-info", ".*_cache")
SOURCES = (
    "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md",
    "CITATION.cff", "CONTRIBUTING.md", "Makefile", "SECURITY.md", "constraints.txt",
    "mkdocs.yml", "tfq_sv", "export", "packaging", "tests",
)  # fmt: skip


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # No PYTHONPATH: what was installed must be found, not this folder.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=env)


MACHINE = re.compile(rb"/(home|root|Users|tmp|mnt|work)/[\w.-]+/")


def test_no_shipped_file_names_a_folder_of_its_makers_machine() -> None:
    """Texts are reviewed; of archives, networks and pictures nobody sees what they hold."""
    assert MACHINE.search(b"source /home/ann/corpus/trials.txt")
    binary = {".gz", ".npz", ".npy", ".tflite", ".keras", ".wav", ".png", ".h5", ".ipynb", ".json"}
    folders = ("tfq_sv", "export", "tests/data", "colab", "docs")
    files = {x for folder in folders for x in (ROOT / folder).rglob("*") if x.suffix in binary}
    files = {x for x in files if "node_modules" not in x.parts}
    assert {x.suffix for x in files} >= {".gz", ".npz", ".tflite", ".keras"}
    for path in sorted(files):
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        if path.suffix == ".gz":
            contents.append(gzip.decompress(contents[0]))
        for content in contents:
            assert not (found := MACHINE.search(content)), f"{path}: {found}"


def say(*command: str | Path, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packaging")
    source = root / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=CACHES, symlinks=name == "packaging")
        else:
            shutil.copy(ROOT / name, source)
    say(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", root, cwd=source)
    (sdist,) = root.glob("*.tar.gz")
    return sdist


def wheel_of(source: Path, into: Path) -> Path:
    into.mkdir(exist_ok=True)
    say(*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", into, source, cwd=into)
    (wheel,) = into.glob("*.whl")
    return wheel


def installed(wheel: Path, home: Path) -> Path:
    """Makes an environment with the wheel alone; returns its site-packages."""
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    say(*PIP, "--python", python, "install", "-q", "--no-deps", wheel, cwd=wheel.parent)
    (site,) = home.glob("lib/python*/site-packages")
    return site


@pytest.fixture(scope="module")
def environment(sdist: Path) -> Path:
    """An environment with the wheel; its other packages are those of the tests."""
    root = sdist.parent
    home = root / "environment"
    site = installed(wheel_of(sdist, root), home)
    others = [folder for folder in sys.path if folder.endswith("-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    return home


@pytest.mark.slow
def test_every_file_is_in_the_wheel(environment: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    for folder, package in (("tfq_sv", "tfq_sv"), ("export", "tfq_sv/export")):
        for path in (ROOT / folder).rglob("*"):
            place = path.relative_to(ROOT / folder)
            if place.parts[0] in ("android", "web"):  # are Kotlin's and JavaScript's
                assert not (site / package / place).exists()
            elif path.is_file() and "__pycache__" not in path.parts and path.name != "README.md":
                assert (site / package / place).read_bytes() == path.read_bytes(), place


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tfq_sv", "tfq_sv.export", "tfq_sv.export.encoder"])
def test_imports_load_no_tensorflow(environment: Path, tmp_path: Path, module: str) -> None:
    code = f"import sys, {module}; print({module}.__file__, 'tensorflow' in sys.modules)"
    file, loaded = say(environment / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(environment)
    assert loaded == "False"


@pytest.mark.slow
def test_the_command_works(environment: Path, tmp_path: Path) -> None:
    command, python = environment / "bin" / "tfq-sv", environment / "bin" / "python"
    assert "tfq-sv verify model.tflite" in say(command, "verify", "--help", cwd=tmp_path)
    code = "from tfq_sv.cli import config; print(*config.shipped_recipes())"
    assert "resnet_lm" in say(python, "-c", code, cwd=tmp_path).split()
    code = "import importlib.metadata as m, tfq_sv; print(m.version('tfq-sv'), tfq_sv.__version__)"
    stated, own = say(python, "-c", code, cwd=tmp_path).split()
    assert stated == own


@pytest.mark.slow
def test_the_source_distribution_builds_and_tests(sdist: Path) -> None:
    """It holds all that the repository has of the package, its tests and the other readers."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"MANIFEST.in", "Makefile", "constraints.txt", "packaging/runtime/setup.py"} <= names
    assert "tfq_sv/assets/README.md" in names  # a page of the site
    for folder in ("tests", "export/android", "export/web"):
        for path in (ROOT / folder).rglob("*"):
            place = path.relative_to(ROOT)
            skipped = {"__pycache__", "node_modules", "build", ".gradle"} & set(place.parts)
            if path.is_file() and not skipped and place.name != "model.tflite":
                assert place.as_posix() in names, place


RUNTIME = (
    "_cffi_backend", "_soundfile", "_soundfile_data", "absl", "ai_edge_litert", "backports", "cffi",
    "flatbuffers", "google", "kaldiio", "lazy_loader", "ml_dtypes", "numpy", "packaging",
    "soundfile", "soxr", "tqdm", "typing_extensions",
)  # fmt: skip
"""The top-level modules that the runtime wheel's dependencies, and theirs, install."""


@pytest.fixture(scope="module")
def runtime(sdist: Path) -> Path:
    """An environment with the runtime wheel, built from the source distribution's files.

    Its dependencies are links to the tests' own: nothing else can be imported.
    """
    root = sdist.parent / "runtime"
    root.mkdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(root, filter="data")
    (source,) = root.iterdir()
    wheel = wheel_of(source / "packaging" / "runtime", root / "wheel")
    site = installed(wheel, root / "environment")
    for folder in (Path(folder) for folder in sys.path if folder.endswith("-packages")):
        for entry in folder.iterdir():
            if re.split(r"[.-]", entry.name)[0] in RUNTIME:
                (site / entry.name).symlink_to(entry)
    return root / "environment"


@pytest.mark.slow
def test_the_runtime_wheel_verifies_without_tensorflow(runtime: Path, tmp_path: Path) -> None:
    command, voices = runtime / "bin" / "tfq-sv", ROOT / "export/android/verifier/src/androidTest"
    model = ROOT / "tests" / "data" / "today" / "file.tflite"
    pair = [voices / "resources" / f"ann-{number}.wav" for number in (1, 2)]
    assert "score" in say(command, "verify", model, *pair, cwd=tmp_path)
    assert "decision" in say(command, "verify", "resnet18-real.tflite", *pair, cwd=tmp_path)
    enroll = [f"--model={model}", "--enrolled=voices.json", "--speaker=ann", "--threshold=-1"]
    say(command, "enroll", *enroll[:3], *pair, cwd=tmp_path)
    assert "accepted" in say(command, "verify", *enroll, pair[0], cwd=tmp_path)
    assert "inflated_sha256" in say(command, "info", model, cwd=tmp_path)
    code = (
        "import importlib.util, tfq_sv; from tfq_sv.export import SpeakerEncoder; "
        "print(tfq_sv.SpeakerVerifier, importlib.util.find_spec('tensorflow'))"
    )
    assert say(runtime / "bin" / "python", "-c", code, cwd=tmp_path).endswith(" None\n")
    for line in ("from tfq_sv import quantize", "from tfq_sv.export import export_tflite"):
        done = run(runtime / "bin" / "python", "-c", line, cwd=tmp_path)
        assert "is not part of tfq-sv-runtime" in done.stderr
    overview = say(command, cwd=tmp_path)
    assert "\n  verify " in overview
    assert "\n  train " not in overview
    assert "The package tfq-sv also has demo, make-corpus, train" in overview
    half = [f"--model={model}", "--form=float16", "--out=half.tflite"]
    assert "pip install ai-edge-quantizer" in run(command, "inflate", *half, cwd=tmp_path).stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "quantize", "export", "demo", "evaluate"])
def test_the_runtime_names_the_package_of_what_it_lacks(
    runtime: Path, tmp_path: Path, command: str
) -> None:
    done = run(runtime / "bin" / "tfq-sv", command, cwd=tmp_path)
    assert done.returncode == 1
    assert f"tfq-sv {command}: this command is not part of tfq-sv-runtime" in done.stderr
    assert "pip install tfq-sv" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_runtime_wheel_is_part_of_the_full_one(runtime: Path, environment: Path) -> None:
    (wheel,) = (runtime.parent / "wheel").glob("tfq_sv_runtime-*.whl")
    (full,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".dist-info/" not in name:
                assert archive.read(name) == (full / name).read_bytes(), name
        folders = {name.split("/")[1] for name in archive.namelist() if name.count("/") > 1}
    assert not folders & {"training", "quantization", "models", "experiments"}


def constraints() -> dict[str, str]:
    """Name -> version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def direct_dependencies() -> list[Requirement]:
    """What `make` installs with the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(x) for x in [*project["dependencies"], *extras["demo"], *extras["dev"]]]


def test_constraints_satisfy_what_the_package_asks_for() -> None:
    pins = constraints()
    for asked in direct_dependencies():
        assert asked.specifier.contains(pins[canonicalize_name(asked.name)]), asked


def test_constraints_name_what_dependencies_need() -> None:
    """One that is left out is the newest, and changes what others get."""
    pins, needed = constraints(), set[str]()
    found = reversed([*metadata.distributions()])  # the first counts: setuptools brings others
    installed = {canonicalize_name(x.name): x for x in found}
    left = [canonicalize_name(asked.name) for asked in direct_dependencies()]
    while left:
        name = left.pop()
        if name in needed:
            continue
        needed.add(name)
        version = installed[name].version.partition("+")[0] if name in installed else ""
        if version != pins.get(name, version):
            pytest.skip("other versions are installed than those of constraints.txt")
        asked = [Requirement(text) for text in installed[name].requires or []]
        here = [x for x in asked if x.marker is None or x.marker.evaluate({"extra": ""})]
        left += [canonicalize_name(x.name) for x in here]
    assert needed <= pins.keys()


def test_the_address_gets_into_metadata_readme_notebooks_and_citation(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "CITATION.cff", "packaging/address.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "colab", tmp_path / "colab")
    address = "https://github.com/OWNER/tfq-sv"
    command = (sys.executable, "packaging/address.py", address, "--ref=v1")
    say(*command, cwd=tmp_path)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    say(*command, cwd=tmp_path)
    assert written == {path: path.read_bytes() for path in written}
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    before = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project.pop("urls")["Repository"] == address
    assert project == {key: value for key, value in before.items() if key != "urls"}
    links = re.findall(r"\]\(([^)]+)\)", (tmp_path / "README.md").read_text())
    own = [link.removeprefix(address) for link in links if link.startswith(address)]
    assert all(link.startswith("https://") for link in links)
    assert own
    assert all((ROOT / link.split("/v1/")[1].split("#")[0]).exists() for link in own)
    assert f"\nrepository-code: {address}\n" in (tmp_path / "CITATION.cff").read_text()
    for notebook in (tmp_path / "colab").iterdir():
        first = json.loads(notebook.read_text())["cells"][0]["source"][0]
        assert first.endswith(f"/github/OWNER/tfq-sv/blob/main/colab/{notebook.name})\n")
