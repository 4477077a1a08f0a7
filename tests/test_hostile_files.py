"""A few dozen hostile files for every reader; benchmarks/fuzz.py runs them by the thousand."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import fuzz

from tfq_sv.cli import train
from tfq_sv.cli.config import apply_config
from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.synthetic import CorpusSpec, _claim_folder
from tfq_sv.errors import InputError
from tfq_sv.evaluation.extraction import Cache
from tfq_sv.export import about
from tfq_sv.mixed_precision import probes
from tfq_sv.models import checkpoint
from tfq_sv.quantization import QuantizationRecipe
from tfq_sv.run_folder import check_settings
from tfq_sv.training import multi_stage
from tfq_sv.verification import enrolment_file

SOUNDS = ["aac", "flac", "m4a", "mp3", "ogg", "wav"]
LISTS = ["embeddings .ark", "embeddings .npy", "embeddings .scp", "raw.list", "shard (tar)"]
LISTS += ["enroll map", "enrolled speakers", "list of files", "segments", "spk2utt", "trials"]
LISTS += ["utt2spk", "wav.scp"]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "names"), [("sounds", SOUNDS), ("lists", LISTS)])
def test_a_result_or_one_clear_line(group: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    readers = fuzz.GROUPS[group](tmp_path / "good")
    assert sorted(readers) == sorted(names)
    for name, reader in readers.items():
        for place, content in reader.good:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / place).write_bytes(content)
            reader.read(tmp_path / name / place)
        for number in range(40):
            kind, said = fuzz.try_one(reader, tmp_path / f"{name}-{number}", [0, number])
            assert kind in ("read", "refused"), f"{name} {number}: {said}"


FOUND = Path(__file__).parent / "data" / "hostile"


@pytest.mark.parametrize("path", sorted(FOUND.iterdir()), ids=lambda path: path.name)
def test_what_once_broke_something(path: Path) -> None:
    """Files that benchmarks/fuzz.py found."""
    pytest.importorskip("av")
    for call in (audio.probe, audio.read):
        with suppress(InputError):
            call(path)


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


DEEP = ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "2026-13-45", "[" * 400 + "]" * 400]
KEYS = "{'model': %s, 'layers': %s, 'steps': %s, 'network': %s, 'probes': %s, 'settings': %s}"


TRIES: dict[str, Callable[[Path], object]] = {
    "raw.list": Corpus.read,
    "recipe.json": QuantizationRecipe.from_json,
    "s.json": lambda path: enrolment_file.read(path, "0" * 64, 8),
    "network.json": lambda path: Cache(path.parent, "x"),
    "settings.json": lambda path: check_settings(path.parent, {"a": 1}, begun=True),
    "config.yaml": checkpoint._read_config,
    "configuration.json": checkpoint._three_d_speaker,
    "train.yaml": lambda path: apply_config(train.FLAGS, str(path)),
    "probes.json": lambda path: probes._cached(path, {"a": 1}, 3),
    "corpus.json": lambda path: _claim_folder(path.parent, CorpusSpec()),
    "drawn.json": lambda path: multi_stage._batches_drawn(path.parent, 1),
    "about.json": lambda path: about.parse(path.read_bytes()),
}


@pytest.fixture
def little_recursion() -> Iterator[None]:
    """Python's usual limit: PyYAML takes seconds to come back from the networks' one."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("little_recursion")
@pytest.mark.parametrize("name", TRIES)
@pytest.mark.parametrize("text", DEEP, ids=lambda text: text[:9])
def test_what_parsers_stumble_over(text: str, name: str, tmp_path: Path) -> None:
    """Recursion without end, integers that Python refuses to read, dates that are none."""
    for content in (text, KEYS.replace("'", '"').replace("%s", text)):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError) as caught:
            TRIES[name](tmp_path / name)
        assert len(str(caught.value)) < 600
        assert len(str(caught.value).splitlines()) == 1


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
