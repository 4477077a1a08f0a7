"""evaluate --conditions: one table of networks under codecs, noise, rooms and short speech."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE, write

from tfq_sv import cli
from tfq_sv.cli import condition_table
from tfq_sv.cli.common import open_encoder
from tfq_sv.data.codecs import AMR, CODECS
from tfq_sv.data.conditions import CONDITIONS
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation import conditions
from tfq_sv.evaluation.scoring import cosine

RESOURCES = Path(__file__).parents[1] / "export/android/verifier/src/androidTest/resources"
SOME = tuple(one for one in CONDITIONS if one.name in ("GSM 6.10", "noise 0 dB", "1 s", "6 s"))


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve speakers, each a buzz of its own pitch, two recordings of 1.2 s; one has 0.8 s."""
    root = tmp_path_factory.mktemp("voices")
    rng = np.random.default_rng(4)
    for speaker in range(12):
        for number in range(2):
            size = round((0.8 if (speaker, number) == (3, 1) else 1.2) * RATE)
            time = np.arange(size) / RATE
            pitch = 90 + 17 * speaker + rng.uniform(-2, 2)
            parts = [np.sin(6.28 * (pitch * k * time + rng.random())) for k in range(1, 20)]
            wave = 0.03 * np.sum(parts, axis=0) * (0.6 + 0.4 * np.sin(6.28 * 3 * time))
            folder = root / f"s{speaker:02}"
            folder.mkdir(exist_ok=True)
            write(folder / f"{number}.wav", (wave + rng.normal(0, 0.01, size)).astype(np.float32))
    return root


@pytest.fixture(autouse=True)
def some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "CONDITIONS", SOME)


@pytest.mark.slow
def test_one_table_for_both_networks(
    voices: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    golden = RESOURCES / "golden.tflite"
    other = shutil.copy(golden, tmp_path / "other.tflite")
    page = tmp_path / "page.html"
    command = [
        "evaluate", f"--model={golden}", f"--reference={other}", f"--corpus={voices}",
        "--conditions", f"--embeddings={tmp_path / 'kept'}", f"--report={page}", "--json",
    ]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    first, second = (found[str(name)] for name in (golden, other))
    assert first == second  # which they are
    assert first["source"].startswith("stored, at FAR 1e-2 ")
    rows = first["conditions"]
    assert list(rows) == ["as recorded", *(one.name for one in SOME)]
    assert rows["6 s"] is None
    trials = rows["as recorded"]["trials"]
    assert 0 < rows["1 s"]["trials"] < trials
    assert trials == rows["GSM 6.10"]["trials"]
    assert (
        f"fewer trials, as recordings are shorter or bad: 1 s {rows['1 s']['trials']}" in said.err
    )
    assert rows["noise 0 dB"]["eer"][0] > rows["as recorded"]["eer"][0]
    for row in filter(None, rows.values()):
        for rate in ("eer", "far", "frr"):
            value, low, high = row[rate]
            assert 0 <= low <= value + 1e-9
            assert value <= high + 1e-9 <= 1 + 2e-9
    assert "noise 0 dB" in page.read_text()
    assert ("PyAV" in said.err) == (AMR not in CODECS)
    monkeypatch.delitem(CODECS, AMR, raising=False)
    assert cli.main(command) == 0  # from what was kept
    said = capsys.readouterr()
    assert json.loads(said.out) == found
    assert "without AMR 12.2 kbit/s, which needs PyAV below 19: pip install 'av" in said.err


def test_networks_of_one_file_name_keep_their_embeddings_apart(tmp_path: Path) -> None:
    places = [
        cache.folder
        for network in ("one", "another")
        for cache in condition_table._caches(str(tmp_path), f"{network}/m.tflite", network).values()
    ]
    assert len(set(places)) == len(places)


def test_bad_and_unknown_recordings_are_left_out_with_their_trials(
    voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "voices"
    shutil.copytree(voices, root)
    (root / "s00" / "1.wav").write_bytes(b"no audio")
    corpus = Corpus.read(root)
    trials = Trials.all_pairs(corpus, limit=24)
    listed = root / "list.txt"
    trials.write(listed)
    with listed.open("a") as file:
        file.write("0 s01/0.wav s02/lost.wav\n")
    command = ["evaluate", f"--model={RESOURCES / 'golden.tflite'}", f"--corpus={root}",
               f"--trials={listed}", "--conditions", "--json"]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr()
    (found,) = json.loads(said.out).values()
    assert sorted(found["skipped"]) == ["s00/1.wav", "s02/lost.wav"]
    assert "skipped: 2 of 25 recordings" in said.err
    kept = sum("s00/1.wav" not in pair for pair in zip(trials.enroll, trials.test, strict=True))
    assert found["conditions"]["as recorded"]["trials"] == kept
    assert cli.main([*command, "--strict"]) == 1
    assert "names 1 utterances that" in capsys.readouterr().err
    trials.write(listed)
    assert cli.main([*command, "--strict"]) == 1
    assert "1.wav cannot be read as audio" in capsys.readouterr().err


def test_rates_are_those_of_changed_recordings(voices: Path) -> None:
    """By brute force: the second recording changed, the first as it was."""
    from tfq_sv.data import audio

    encoder, corpus = open_encoder(str(RESOURCES / "golden.tflite")), Corpus.read(voices)
    trials = Trials.all_pairs(corpus)
    at, _ = threshold = (0.8, "given")
    found = conditions.measure_conditions(encoder, corpus, trials, threshold=threshold)
    gsm = next(one for one in SOME if one.name == "GSM 6.10")
    waves = {key: audio.read(corpus.paths[key]).samples for key in corpus.paths}
    accepted = np.array([
        cosine(encoder.embed(waves[a]), encoder.embed(gsm(waves[b]))) >= at
        for a, b in zip(trials.enroll, trials.test, strict=True)
    ])  # fmt: skip
    row = found.rows["GSM 6.10"]
    assert row
    assert row.far.value == pytest.approx(accepted[~trials.labels].mean())
    assert row.frr.value == pytest.approx(1 - accepted[trials.labels].mean())


def test_what_is_refused(voices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = f"--model={RESOURCES / 'golden.tflite'}"
    few = Corpus.read(voices)
    few = few.without({key for key in few.paths if few.speakers[key] > "s08"})
    encoder = open_encoder(str(RESOURCES / "golden.tflite"))
    with pytest.raises(InputError, match=r"tests 9 speakers; error rates of fewer than 10"):
        conditions.measure_conditions(encoder, few, Trials.all_pairs(few))
    for arguments, expected in [
        ([golden, "--store"], "--conditions only compares; leave --store out"),
        ([], "--model is missing"),
    ]:
        assert cli.main(["evaluate", f"--corpus={voices}", "--conditions", *arguments]) == 1
        assert expected in capsys.readouterr().err
