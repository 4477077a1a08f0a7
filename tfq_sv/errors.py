"""The one error that tells its reader what to do, and names that one of the packages lacks."""

from collections.abc import Callable
from typing import Any


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one line that names the file or the value, what was expected, and where it
    helps the next step. The command line prints it alone, without a traceback, and exits with 1.
    """


RUNTIME_ALONE = (
    "is not part of tfq-sv-runtime, which runs finished .tflite files; for the rest: "
    "pip uninstall tfq-sv-runtime, then pip install tfq-sv"
)
"""What follows the name of a module that the smaller of the two packages leaves out."""


def lazy_names(package: str, find: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns a package's `__getattr__`: that of `lazy_loader`, which says what the runtime lacks.

    Args:
        package: its name.
        find: what `lazy_loader.attach_stub` returned first.
    """

    def find_or_explain(name: str) -> Any:
        try:
            return find(name)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("tfq_sv."):
                raise
            message = f"{package}.{name} {RUNTIME_ALONE}"
            raise ModuleNotFoundError(message, name=error.name) from None

    return find_or_explain
