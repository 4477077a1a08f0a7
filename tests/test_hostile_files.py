"""A few dozen hostile files for every reader; benchmarks/fuzz.py runs them by the thousand."""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import fuzz

SOUNDS = ["aac", "flac", "m4a", "mp3", "ogg", "wav"]
LISTS = ["embeddings .ark", "embeddings .npy", "embeddings .scp", "raw.list", "shard (tar)"]
LISTS += ["trials", "utt2spk", "wav.scp"]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "names"), [("sounds", SOUNDS), ("lists", LISTS)])
def test_a_result_or_one_clear_line(group: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    readers = fuzz.GROUPS[group](tmp_path / "good")
    assert sorted(readers) == names
    for name, reader in readers.items():
        for place, content in reader.good:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / place).write_bytes(content)
            reader.read(tmp_path / name / place)
        for number in range(40):
            kind, said = fuzz.try_one(reader, tmp_path / f"{name}-{number}", [0, number])
            assert kind in ("read", "refused"), f"{name} {number}: {said}"


@pytest.mark.slow
def test_networks_too(tmp_path: Path) -> None:
    """In this process: what would crash it is for benchmarks/fuzz.py to find."""
    (tmp_path / "good").mkdir()
    for name, reader in fuzz.GROUPS["networks"](tmp_path / "good").items():
        said = Counter[str]()
        for number in range(8):
            kind, why = fuzz.try_one(reader, tmp_path / f"{name}-{number}", [0, number])
            assert kind in ("read", "refused"), f"{name} {number}: {why}"
            said[kind] += 1
        assert said["refused"], name


def test_limits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies or hangs is counted, and the next input is tried."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, time\n"
        "print('begin', flush=True)\n"
        "for number in range(int(sys.argv[5]), int(sys.argv[6])):\n"
        "    if number == 1: os.abort()\n"
        "    while number == 2: pass\n"
        "    print('read', flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(script))
    monkeypatch.setattr(fuzz, "SECONDS", 0)
    said = fuzz.fuzz("lists", "trials", 5, 0, tmp_path / "out")
    assert said == {"read": 3, "crash": 1, "slow": 1}
    assert "trials\t1\tcrash" in (tmp_path / "out" / "findings.txt").read_text()
