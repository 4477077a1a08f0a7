"""The one error that tells its reader what to do."""


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one line that names the file or the value, what was expected, and where it
    helps the next step. The command line prints it alone, without a traceback, and exits with 1.
    """
