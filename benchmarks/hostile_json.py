"""JSON in Python, Kotlin and the page: `python benchmarks/hostile_json.py --count=17000`.

Metadata and files of enrolled speakers, changed at random: values, numbers written in other ways,
strings, bytes, nesting. Each document must be taken by all three readers or refused by all three.
Prints what they disagree about. `--write=200` makes tests/data/hostile.json, which the tests of all
three read. Kotlin runs on the JVM, as in tests/test_export_android.py.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile import Rng, change_json, flip

from tfq_sv.errors import InputError
from tfq_sv.export import about
from tfq_sv.verification import enrolment_file

TESTS = Path(__file__).parents[1] / "tests"
VECTORS = TESTS / "data" / "hostile.json"
NETWORK, SIZE = "0123456789abcdef" * 4, 3
_THRESHOLDS = {"eer": {"threshold": 0.25, "eer": 0.01}, "far_1e-3": {"threshold": None}}
_REFERENCE = {"seconds": 2.5, "embedding": [0.6, 0.8, 0]}
GOOD: dict[str, Any] = {
    "metadata": {
        "format": 1,
        "input": "waveform",
        "compute": "int8",
        "feat_dim": 80,
        "embed_dim": 128,
        "sample_rate": 16000,
        "min_samples": 3200,
        "frontend": {"num_bins": 80},
        "score": "cosine",
        "thresholds": _THRESHOLDS,
        "inflated_sha256": NETWORK,
        "more": [True, "a\u00e9", 1, 0.5, -3],
    },
    "enrolled": {
        "format": "tfq-sv enrolment",
        "version": 1,
        "network": NETWORK,
        "embed_dim": SIZE,
        "more": [True, "a\u00e9", 1, 0.5, -3, {"b": "c"}, 4],
        "speakers": [{"name": "ann", "references": [_REFERENCE]}, {"name": "bob \u00e9"}],
    },
}
GOOD["enrolled"]["speakers"][1]["references"] = [_REFERENCE, _REFERENCE]
_NUMBERS = [
    *("80.0", "8e1", "8E+1", "0.8e2", "80.00000000000000000001", "80.5", "080", "+80", "-80", "-0"),
    *("0x50", "80d", "80f", "80L", "8_0", ".5", "5.", "1e400", "-1e400", "1e-400", "9" * 400),
    *(
        "9" * 5000,
        "NaN",
        "Infinity",
        "-Infinity",
        "2147483647",
        "2147483648",
        "2147483647.0",
        "--1",
    ),
    *("0.0", "0e0", "1e", "1e+", "-", "1 2", "\u0661", "4503599627370497.5", "true", "null", "0.1"),
]
_STRINGS = [
    *(
        "\\n",
        "\n",
        "\t",
        "\0",
        "\x7f",
        "\\x41",
        "\\'",
        "\\u00e",
        "\\u00e9",
        "\\uD83D",
        "\\ud83d\\ude00",
    ),
    *("\\/", "\\", "\u2028", "\ufeff", "\u00e9", "\\u0000", "\\v", "\ud83d"),
]
_SPACES = ["\n", "\t", "\r", "\v", "\f", "\u00a0", "\u2028", "\ufeff", "\0", "//\n", "/**/", "#\n"]
_ENDS = ["", ",", "]", "}", "x", "{}", "\n\n", "\0", ";"]
_NUMBER, _STRING = re.compile(r"(?<=[ \[])-?[0-9][0-9.e+-]*"), re.compile(r'"[^"]*"')
_WORDS = ["True", "none", "undefined", "abc", "'a'", "", "[1,]", '{"a": 1,}', "{a: 1}", '"', "NULL"]


def document(kind: str, rng: Rng) -> bytes:
    """One hostile document."""
    text = json.dumps(GOOD[kind], ensure_ascii=bool(rng.integers(2)))
    for _ in range(1 + (rng.random() < 0.3)):
        text = _changed(text, rng)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        data = flip(data, rng)
    if rng.random() < 0.06:
        codes = ["utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-16-le"]
        data = data.decode("latin-1").encode(str(rng.choice(codes)), "replace")
    return data


def _changed(text: str, rng: Rng) -> str:
    match rng.integers(9):
        case 0 | 1 | 2:
            return _replaced(text, _NUMBER, _one(_NUMBERS, rng), rng)
        case 3:
            string = _one(_STRINGS, rng)
            found = list(_STRING.finditer(text))
            at = found[rng.integers(len(found))].end() - 1 if found else 0
            return text[:at] + string + text[at:]
        case 4:
            return _replaced(text, re.compile(" "), _one(_SPACES, rng), rng)
        case 5:
            depth = int(rng.choice([1, 61, 62, 63, 64, 100, 300, 3000]))
            deep = (
                "[" * depth + "]" * depth
                if rng.random() < 0.5
                else '{"a":' * depth + "1" + "}" * depth
            )
            return _replaced(text, re.compile(r'(?<=: )("[^"]*"|[0-9.]+)'), deep, rng)
        case 6:
            return _replaced(text, re.compile(r'(?<=: )("[^"]*"|[0-9.]+)'), _one(_WORDS, rng), rng)
        case 7:
            return _one(_ENDS, rng) + text if rng.random() < 0.3 else text + _one(_ENDS, rng)
    try:
        return change_json(text.encode(), rng).decode("utf-8", "surrogateescape")
    except (ValueError, RecursionError, IndexError):
        return text


def _one(values: list[str], rng: Rng) -> str:
    return values[rng.integers(len(values))]


def _replaced(text: str, pattern: re.Pattern[str], by: str, rng: Rng) -> str:
    found = list(pattern.finditer(text))
    if not found:
        return text
    first, last = found[rng.integers(len(found))].span()
    return text[:first] + by + text[last:]


def taken(kind: str, data: bytes) -> bool:
    """Whether Python works by a document; of metadata, in an encoder that takes waveforms."""
    try:
        if kind == "metadata":
            return bool(about.parse(data)["input"] == "waveform")
        return enrolment_file.loads(data, NETWORK, SIZE) is not None
    except InputError:
        return False


def cases(count: int, seed: int, longest: int = 10**9) -> dict[str, Any]:
    """So many documents of each kind, less those that are too long, and what Python says."""
    found: dict[str, Any] = {"network": NETWORK, "embed_dim": SIZE}
    for kind in GOOD:
        documents = [document(kind, np.random.default_rng([seed, n])) for n in range(count)]
        found[kind] = [
            {"bytes": data.decode("latin-1"), "taken": taken(kind, data)}
            for data in dict.fromkeys(documents)
            if len(data) <= longest
        ]
    return found


def page(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page's readers, in node, say otherwise."""
    sys.path.append(str(TESTS))
    from node import web

    script = """
      const { parseAbout } = await import(at("about.js"));
      const { readEnrolment } = await import(at("enrolment.js"));
      const taken = (bytes, read) => {
        try {
          read(Uint8Array.from(bytes, (character) => character.charCodeAt(0)));
          return true;
        } catch (error) {
          if (error.constructor.name !== "InputError") throw error;
          return false;
        }
      };
      const { network, embed_dim } = input;
      const enrolled = (data) => readEnrolment(data, network, embed_dim, "a.json");
      const metadata = (data) => parseAbout(data, "a.tflite");
      const wrong = (cases, read) => cases.filter((one) => taken(one.bytes, read) !== one.taken);
      const all = [...wrong(input.metadata, metadata), ...wrong(input.enrolled, enrolled)];
      console.log(JSON.stringify(all));
    """
    said: list[dict[str, Any]] = web(script, found)
    return said


def kotlin(found: dict[str, Any], run: Callable[[Path], str]) -> str:
    """What Kotlin's readers say otherwise; `run` runs HostileTest on a folder's hostile.json."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hostile.json").write_text(json.dumps(found))
        return run(Path(folder))


def main(count: int, seed: int) -> bool:
    """Returns whether all three agree."""
    sys.path.append(str(TESTS))
    import test_export_android as android

    found = cases(count, seed)
    for kind in GOOD:
        good = sum(one["taken"] for one in found[kind])
        print(f"{kind}: {len(found[kind]):,} documents, Python takes {good:,}", flush=True)
    wrong = page(found)
    print(f"the page says otherwise of {len(wrong)}")
    for one in wrong[:20]:
        print(f"  Python {'takes' if one['taken'] else 'refuses'} {one['bytes'][:1500]!r}")
    with tempfile.TemporaryDirectory() as folder:
        classes = android.compiled(Path(folder))

        def run(place: Path) -> str:
            return android.run(f"{place}:{classes}", place, ["tfq.sv.HostileTest"])

        said = kotlin(found, run)
    print(said[:20000])
    return not wrong and said.count("PASSED") == 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="documents of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=int, help="so many for the tests, instead")
    arguments = parser.parse_args()
    if arguments.write:
        text = json.dumps(cases(arguments.write, 0, 1000)).replace('{"bytes"', '\n{"bytes"')
        VECTORS.write_text(text + "\n")
        sys.exit()
    sys.exit(not main(arguments.count, arguments.seed))
