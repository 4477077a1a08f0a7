"""The command line: `tfq-sv <command> [flags]`. One file per command, loaded when it is called.

A command's module has a docstring (its help, with an example), `FLAGS` (absl flags of its own, so
that commands never clash), `REQUIRED` (names of those that must be given, if any) and
`run(arguments)`, which prints for people and returns the same for machines.
"""

import contextlib
import difflib
import faulthandler
import importlib
import importlib.util
import json
import logging
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from types import ModuleType

from absl import flags

from tfq_sv import __version__
from tfq_sv.cli.config import check_finite
from tfq_sv.errors import RUNTIME_ALONE, InputError

COMMANDS = {
    "demo": "end to end on synthetic speech: corpus, 4 to 1 bits, .tflite, EER, report",
    "make-corpus": "make speech files of many voices, when there is no corpus at hand",
    "train": "train an FP32 network: by speaker labels, or to embed as a teacher does",
    "import": "turn a published checkpoint into a Keras network",
    "info": "show what a network or a .tflite is made of",
    "quantize": "turn a network's weights into codebooks of 1-8 bits",
    "search": "choose each layer's bits, so that the file has at most a wanted size",
    "finetune": "fine-tune a quantized network, to recover accuracy",
    "reproduce": "make the paper's whole table from one network: every quantization, measured",
    "compare": "compare networks at several bit widths and file sizes, on one corpus",
    "export": "write a quantized network as a standard .tflite",
    "inflate": "write the fast .tflite that a small one holds: int8, static int8, float16",
    "embed": "embed a corpus: Kaldi's ark and scp, or a NumPy matrix; in shards if need be",
    "evaluate": "measure the EER of a network or a .tflite on a trial list",
    "threshold": "measure your own recordings: which threshold to take, and what it does",
    "benchmark": "measure a network's .tflite forms: size, speed, memory, EER",
    "verify": "say whether two recordings are of the same voice, or one is an enrolled speaker's",
    "enroll": "enroll a speaker from some recordings",
    "identify": "say which enrolled speaker recordings are of, if any",
}

COMMON_FLAGS = {
    "--json": "prints the result as JSON, and nothing else, on standard output",
    "--quiet": "hides progress: bars in a terminal, a line every minute elsewhere",
}
"""What every command takes."""

_NO_BARS = "TQDM_DISABLE"


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code: 0, or 1 for bad input."""
    name = argv[0] if argv else "help"
    try:
        if name in ("-h", "--help", "help"):
            print(_overview())
        elif name == "--version":
            print(f"tfq-sv {__version__}")
        elif name in COMMANDS:
            _run(name, list(argv[1:]))
        else:
            return _fail("", _unknown(name))
        sys.stdout.flush()
    except flags.Error as error:
        return _fail(name, f"{error}; see tfq-sv {name} --help")
    except InputError as error:
        return _fail(name, str(error))
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("tfq_sv."):
            raise
        lacking = "this command" if error.name == _module(name) else error.name
        return _fail(name, f"{lacking} {RUNTIME_ALONE}")
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough; Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 40) : error.end + 40]
        return _fail(name, f"{around!a} holds a name that is not UTF-8; rename it")
    except OSError as error:
        return _fail(
            name, ": ".join(str(x) for x in (error.filename, error.strerror or error) if x)
        )
    except KeyboardInterrupt as error:
        _fail(name, str(error) or "interrupted")
        return 130
    return 0


def _run(name: str, arguments: list[str]) -> None:
    command = importlib.import_module(_module(name))
    if "--help" in arguments or "-h" in arguments:
        print(_help(name, command))
        return
    given = parse(command.FLAGS, name, [x for x in arguments if x not in COMMON_FLAGS])
    with contextlib.ExitStack() as stack:
        quiet = "--quiet" in arguments or bool(os.environ.get(_NO_BARS))
        terminal = sys.stderr.isatty()
        if quiet or not terminal:
            stack.enter_context(_without_bars())  # of other libraries too
        if not quiet and not terminal:
            from tfq_sv import progress  # imports tqdm, which reads that variable once

            stack.enter_context(progress.logged())
        if "--json" in arguments:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        result = command.run(given)
    if "--json" in arguments:
        print(json.dumps(result, indent=2))  # ASCII: any terminal or pipe takes it


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    before = os.environ.pop(_NO_BARS, None)
    os.environ[_NO_BARS] = "1"
    try:
        yield
    finally:
        del os.environ[_NO_BARS]
        if before is not None:
            os.environ[_NO_BARS] = before


def run() -> None:
    """The console script."""
    _repair_streams()
    if not os.environ.get("TFQ_SV_DEBUG"):
        _mute_native_logs()
    sys.exit(main(sys.argv[1:]))


def _repair_streams() -> None:
    """Makes output that was closed (`>&-`) go nowhere, and any character printable."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            setattr(sys, name, os.fdopen(descriptor, "w"))
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _mute_native_logs() -> None:
    """Keeps stderr for Python: TensorFlow's C++ log has no switch and would bury our one line."""
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    faulthandler.enable(sys.stderr)  # a native crash still says where it was
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def parse(flag_values: flags.FlagValues, name: str, arguments: Sequence[str]) -> list[str]:
    """Parses a command's flags from their defaults; returns the positional arguments."""
    for flag in flag_values:
        flag_values[flag].unparse()
    positional = list(flag_values([name, *arguments])[1:])
    check_finite(flag_values)
    return positional


def _module(name: str) -> str:
    return f"tfq_sv.cli.{name.replace('-', '_')}"


def _overview() -> str:
    width = max(map(len, COMMANDS))
    here = [name for name in COMMANDS if importlib.util.find_spec(_module(name))]
    elsewhere = ", ".join(name for name in COMMANDS if name not in here)
    lacking = [textwrap.fill(f"The package tfq-sv also has {elsewhere}.", 100), ""]
    return "\n".join(
        [
            "usage: tfq-sv <command> [flags]",
            "",
            *(f"  {name:<{width}}  {COMMANDS[name]}" for name in here),
            "",
            *(lacking if elsewhere else []),
            "tfq-sv <command> --help shows a command's flags and an example.",
            "Every command takes --json (the result as JSON) and --quiet (no progress).",
            "tfq-sv --version prints the version.",
        ]
    )


def _help(name: str, command: ModuleType) -> str:
    required = getattr(command, "REQUIRED", ())
    lines = [f"tfq-sv {name}: {(command.__doc__ or '').strip()}", ""]
    if required:
        lines += ["required flags:", *(_flag_help(command.FLAGS[flag]) for flag in required), ""]
    others = sorted(set(command.FLAGS) - set(required))
    lines += ["flags:", *(_flag_help(command.FLAGS[flag]) for flag in others)]
    lines += [f"  {switch}: {what}" for switch, what in COMMON_FLAGS.items()]
    return "\n".join(lines)


def _flag_help(flag: flags.Flag) -> str:
    """A flag, and its default as people write it, on lines of at most 100 characters."""
    default = flag.default
    if isinstance(flag, flags.BooleanFlag):
        return _wrapped(f"--[no]{flag.name}: {flag.help} (default: {'yes' if default else 'no'})")
    if isinstance(default, list | tuple):
        default = ",".join(map(str, default))
    elif isinstance(default, float):
        default = f"{default:g}"
    shown = "" if default in (None, "") else f" (default: {default})"
    return _wrapped(f"--{flag.name}: {flag.help}{shown}")


def _wrapped(text: str) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        width=100,
        initial_indent=" " * 2,
        subsequent_indent=" " * 6,
        break_on_hyphens=False,
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*COMMANDS, "help"], n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(COMMANDS)}"
    return f"unknown command {name!r}; {hint}"


def _fail(name: str, message: str) -> int:
    print(f"tfq-sv {name}".rstrip() + f": {message}", file=sys.stderr)
    return 1
