"""embed recordings: Kaldi's ark and scp, or a NumPy matrix; in shards if need be

Recordings are those of --corpus, or files on the command line; speakers need not be known.

--out=DIR keeps the embeddings in parts (Kaldi's .ark with .scp; `cat DIR/*.scp` lists them all). A
second run resumes where the first ended, and tfq-sv evaluate --embeddings=DIR uses them. With
--shard, each of several processes or machines embeds its share into the same folder; the folder
then holds them all. --out=FILE writes one .ark (and .scp), or one .npy (and names in .txt).

example:
  tfq-sv embed --model=model.tflite --corpus=corpus/test --out=kept
  tfq-sv embed --model=model.tflite --corpus=corpus/test --out=kept --shard=2/8
  tfq-sv embed --model=model.tflite --corpus=corpus/test --out=embeddings.npy
  tfq-sv embed --model=model.tflite --out=embeddings.npy first.wav second.flac
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.common import (
    check_network,
    define_signature,
    define_strict,
    fingerprint,
    open_encoder,
    print_corpus,
    print_skipped,
    reasons,
    required,
)
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import SUFFIXES, Embeddings
from tfq_sv.evaluation.extraction import Cache, extract
from tfq_sv.files import check_folder, require_file

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model", None, ".tflite, .keras, .h5, a checkpoint, or a shipped name", flag_values=FLAGS
)
flags.DEFINE_string("corpus", None, "speech: folder, raw.list, shard.list", flag_values=FLAGS)
flags.DEFINE_string("out", None, "folder, or a file: .ark, .scp or .npy", flag_values=FLAGS)
flags.DEFINE_string("shard", None, "i/n: the i-th of n shares, i from 1 to n", flag_values=FLAGS)
define_signature(FLAGS)
define_strict(FLAGS)
REQUIRED = ("model", "out")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Embeds and writes."""
    name, out = required(FLAGS, *REQUIRED)
    folder = _folder(arguments)
    file = Path(out).suffix in SUFFIXES
    number, shares = _shard(FLAGS.shard) if FLAGS.shard else (1, 1)
    if file and shares > 1:
        raise InputError(f"--shard goes with a folder that all shares write to; {out} is a file")
    (Embeddings.check_output if file else check_folder)(out)
    check_network(name, finished=True)
    corpus = Corpus.of_files(arguments) if arguments else Corpus.read(folder, unlabelled=True)
    if file:
        Embeddings.check_names(out, corpus.paths)
    fast = FLAGS.signature == "inflate"
    encoder = open_encoder(name, fast=fast)
    cache = None if file else Cache(out, fingerprint(name, encoder, fast=fast))
    # Neighbours stay together: they lie in one shard file, or one speaker's folder.
    keys = list(corpus.paths)
    first, last = (len(keys) * i // shares for i in (number - 1, number))
    keys = keys[first:last]
    extraction = extract(
        encoder,
        corpus,
        keys,
        cache=cache,
        strict=FLAGS.strict,
        progress="embedding",
        hold=file,
    )
    print_corpus(folder, corpus, extraction.changes + extraction.doubts)
    if extraction.skipped:
        print_skipped(extraction.skipped, len(keys))
    if keys and not extraction.count:  # of many shares, some may be empty
        raise InputError(f"{folder}: no recording of {len(keys)} could be embedded")
    if file:
        extraction.embeddings.write(out)
    share = f", share {number} of {shares}" if shares > 1 else ""
    reused = f"; {extraction.reused:,} were there" if extraction.reused else ""
    print(f"wrote {out}: {extraction.count:,} embeddings{share}{reused}")
    return {
        "out": out,
        "embeddings": extraction.count,
        "reused": extraction.reused,
        "skipped": reasons(extraction.skipped),
    }


def _folder(files: Sequence[str]) -> str:
    """What is embedded, for messages."""
    if files and FLAGS.corpus:
        raise InputError(f"give --corpus or files, not both: {files[0]}")
    if not files:
        return str(required(FLAGS, "corpus")[0])
    folders = [file for file in files if Path(file).is_dir()]
    if folders:
        raise InputError(f"{folders[0]} is a folder; give it as --corpus={folders[0]}")
    for file in files:  # named by hand, so a slip of the pen; of a corpus it would be skipped
        require_file(file, "recording")
    return "command line"


def _shard(text: str) -> tuple[int, int]:
    number, _, shares = text.partition("/")
    if not (number.isdecimal() and shares.isdecimal() and 1 <= int(number) <= int(shares)):
        raise InputError(f"--shard must be i/n with i from 1 to n, 2/8 for instance, not {text!r}")
    return int(number), int(shares)
