"""enroll a speaker from some recordings, for tfq-sv verify --speaker and identify

The recordings are those of one person; three or more, of some seconds each, are best. One with
little speech, too quiet, clipped, or unlike the others is refused by its name and figure, and then
nothing changes; --nocheck accepts them all the same, if they can be used at all. A speaker of that
name is replaced; --remove=ann forgets ann. The file belongs to the model's network, and holds
biometric data: keep it safe.

example:
  tfq-sv enroll --model=model.tflite --enrolled=speakers.json --speaker=ann first.wav second.flac
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.common import check_file, required
from tfq_sv.cli.enrolled import define_enrolled, open_verifier
from tfq_sv.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, ".tflite", flag_values=FLAGS)
define_enrolled(FLAGS)
flags.DEFINE_string("speaker", None, "whom to enroll", flag_values=FLAGS)
flags.DEFINE_string("remove", None, "a speaker to forget", flag_values=FLAGS)
flags.DEFINE_bool("check", True, "refuse unsuitable recordings", flag_values=FLAGS)
REQUIRED = ("model", "enrolled")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Enrolls or removes, and prints who is enrolled."""
    model, file = required(FLAGS, *REQUIRED)
    if bool(FLAGS.speaker) == bool(FLAGS.remove):
        raise InputError("give --speaker=NAME with recordings, or --remove=NAME")
    if FLAGS.remove and arguments:
        raise InputError(f"--remove takes no recordings, and {arguments[0]!r} was given")
    if FLAGS.speaker and not arguments:
        raise InputError(
            f"no recording of {FLAGS.speaker}: tfq-sv enroll --model=model.tflite "
            f"--enrolled=speakers.json --speaker={FLAGS.speaker} first.wav second.wav third.wav"
        )
    check_file(FLAGS, "enrolled", ".json")
    before = _state(file)
    verifier = open_verifier(model, file if FLAGS.remove or before else None)
    if FLAGS.remove:
        if not verifier.remove(FLAGS.remove):
            there = ", ".join(verifier.names) or "nobody"
            raise InputError(f"{FLAGS.remove} is not enrolled; enrolled: {there}")
        print(f"removed {FLAGS.remove}")
    else:
        again = FLAGS.speaker in verifier.names
        verifier.enroll(FLAGS.speaker, arguments, check=FLAGS.check)
        number = f"{len(arguments)} recording{'s' if len(arguments) > 1 else ''}"
        print(f"{'replaced' if again else 'enrolled'} {FLAGS.speaker} by {number}")
        if len(arguments) < 3:
            print("  with three or more, one that is another person's would be noticed")
    if _state(file) != before:
        raise InputError(
            f"{file} was changed meanwhile, by another tfq-sv enroll perhaps; it stays as it is, "
            "run this command again"
        )
    verifier.save(file)
    print(f"wrote {file}; enrolled: {', '.join(verifier.names) or 'nobody'}")
    return {"enrolled": file, "speakers": verifier.names}


def _state(file: str) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None if there is none."""
    try:
        stat = Path(file).stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
