"""The left column of CONTRIBUTING.md's word list is in no file."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# CONTRIBUTING.md has the list; the changelog and printouts stay as they were written.
EXEMPT = re.compile(r"CONTRIBUTING\.md|CHANGELOG\.md|docs/benchmarks/.*\.txt|tests/test_words\.py")
PHRASES = re.findall(
    r"^\| ([^|]+?) +\| [^|]+\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
)[1:]


def texts() -> dict[str, str]:
    """Every tracked text file, with its lines joined."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    found = {}
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink() and not EXEMPT.fullmatch(name):
            content = path.read_bytes()
            if b"\0" not in content:
                found[name] = content.decode(errors="replace")
    return found


def test_plain_words() -> None:
    assert "made speech" in PHRASES
    places = {
        phrase: re.compile(r"\b" + r"[\s#*]+".join(map(re.escape, phrase.split())) + r"\b", re.I)
        for phrase in PHRASES
    }
    left = [
        f"{name}: {phrase}"
        for name, text in texts().items()
        for phrase, place in places.items()
        if place.search(text)
    ]
    assert not left
