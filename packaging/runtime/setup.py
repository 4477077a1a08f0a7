"""Builds `tfq-sv-runtime`, a second wheel from the sources of tfq-sv.

    pip wheel --no-deps packaging/runtime

It takes the modules below from `tfq_sv`, and version, lower bounds and classifiers from the
pyproject.toml of tfq-sv, so that the two cannot drift apart.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCE = "../.."  # a relative path: setuptools refuses others
REQUIRES = [
    "absl-py",
    "ai-edge-litert",
    "flatbuffers",
    "kaldiio",
    "lazy_loader",
    "numpy",
    "soundfile",
    "soxr",
    "tqdm",
]

ALL = None
MODULES = {
    "tfq_sv": ALL,
    "tfq_sv.assets": ["__init__"],
    "tfq_sv.cli": [
        "__init__", "common", "config", "embed", "enroll", "enrolled", "identify", "inflate",
        "info", "verify",
    ],
    "tfq_sv.data": ALL,
    "tfq_sv.evaluation": ALL,
    "tfq_sv.export": [
        "__init__", "about", "cache", "encoder", "fast", "fixed_lengths", "flatbuffer", "metadata",
        "seal",
    ],
    "tfq_sv.verification": ALL,
}  # fmt: skip
LEFT_OUT = {"tfq_sv.data.synthetic", "tfq_sv.data.voices", "tfq_sv.run_folder"}


class RuntimeModules(build_py):
    """Takes only the modules that a finished file needs."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """As setuptools does, less what is left out."""
        wanted = MODULES[package]
        return [
            entry
            for entry in super().find_package_modules(package, package_dir)
            if (wanted is ALL or entry[1] in wanted) and f"{package}.{entry[1]}" not in LEFT_OUT
        ]


project = tomllib.loads(Path(SOURCE, "pyproject.toml").read_text(encoding="utf-8"))["project"]
bounds = {re.split(r"[<>=!~\[ ]", entry, maxsplit=1)[0]: entry for entry in project["dependencies"]}

setup(
    version=project["version"],
    classifiers=project["classifiers"],
    project_urls=project.get("urls", {}),
    install_requires=[bounds[name] for name in REQUIRES],
    extras_require={name: project["optional-dependencies"][name] for name in ("aac", "forms")},
    packages=list(MODULES),
    package_dir={"": SOURCE, "tfq_sv.export": f"{SOURCE}/export"},
    package_data={
        "tfq_sv": ["py.typed"],
        "tfq_sv.assets": ["*.tflite"],
        "tfq_sv.evaluation": ["*.pyi"],
        "tfq_sv.export": ["*.pyi", "*.md"],
        "tfq_sv.verification": ["*.pyi"],
        "": ["__init__.pyi"],
    },
    cmdclass={"build_py": RuntimeModules},
)
