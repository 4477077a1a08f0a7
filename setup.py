"""Package layout; all metadata and tool settings live in pyproject.toml."""

from setuptools import find_packages, setup

# tfq_sv/export is a link to export/, so that editors, mypy and Python itself find tfq_sv.export.
setup(packages=find_packages(include=["tfq_sv", "tfq_sv.*"]))
