"""The examples in docstrings run, and every public thing has one docstring."""

import doctest
import importlib
import pkgutil

import pytest
from conftest import some

import tfq_sv

MODULES = sorted(
    {"tfq_sv", *(m.name for m in pkgutil.walk_packages(tfq_sv.__path__, "tfq_sv."))}
    - {"tfq_sv.assets.__main__"}
)
LONG = {"tfq_sv.quantization.folding"}
"""Their examples take seconds."""


@pytest.mark.parametrize("name", some(MODULES, *(set(MODULES) - LONG)))
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("name", tfq_sv.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(tfq_sv, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = tfq_sv.nothing
