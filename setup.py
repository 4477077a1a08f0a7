"""Package layout; all metadata and tool settings live in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tfq_sv", "tfq_sv.*"]), "tfq_sv.export"],
    package_dir={"tfq_sv.export": "export"},
)
