"""What people install: the wheel, made from the source distribution, in its own environment."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CACHES = shutil.ignore_patterns("__pycache__", "node_modules")
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "tfq_sv", "export")


def say(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; its other packages are those of the tests."""
    root = tmp_path_factory.mktemp("packaging")
    source = root / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=CACHES)
        else:
            shutil.copy(ROOT / name, source)
    say(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", root, cwd=source)
    (sdist,) = root.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    say(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", root, sdist, cwd=root)
    (wheel,) = root.glob("*.whl")
    home = root / "environment"
    venv.create(home, symlinks=True)
    say(*pip, "--python", home / "bin" / "python", "install", "-q", "--no-deps", wheel, cwd=root)
    (site,) = home.glob("lib/python*/site-packages")
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
