"""The one error that tells its reader what to do."""


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
