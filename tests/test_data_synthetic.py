import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tfq_sv import cli, files
from tfq_sv.data import synthetic, workers
from tfq_sv.data.synthetic import RATE, CorpusSpec, is_female, make_corpus
from tfq_sv.data.voices import Engine, draw_voice
from tfq_sv.errors import InputError

SPEC = CorpusSpec(speakers=3, test_speakers=4, utterances=5, test_utterances=3, seed=7)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "corpus"
    make_corpus(out, SPEC, workers=1, progress=False)
    return out


def test_layout_and_lists(corpus: Path) -> None:
    for part, first, speakers, utterances in (("train", 1, 3, 5), ("test", 10001, 4, 3)):
        keys = [
            f"id{first + k:05d}/s{u // 4 + 1}/{u % 4 + 1:05d}.wav"
            for k in range(speakers)
            for u in range(utterances)
        ]
        folder = corpus / part
        found = {str(path.relative_to(folder / "wav")) for path in folder.rglob("*.wav")}
        assert found == set(keys)
        assert (folder / "wav.scp").read_text().splitlines() == [f"{k} wav/{k}" for k in keys]
        assert (folder / "utt2spk").read_text().splitlines() == [f"{k} {k[:7]}" for k in keys]
    assert json.loads((corpus / "corpus.json").read_text())["settings"]["seed"] == 7


def test_audio_is_16_khz_16_bit_3_seconds_loud_and_not_clipped(corpus: Path) -> None:
    made = list(corpus.rglob("*.wav"))
    assert made
    for path in made:
        info = sf.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        samples, _ = sf.read(path)
        assert samples.size == 3 * RATE
        assert np.max(np.abs(samples)) < 0.995
        assert -36 < 10 * np.log10(np.mean(samples**2)) < -16
        assert abs(np.mean(samples)) < 0.01


def test_trials_are_balanced_without_duplicates(corpus: Path) -> None:
    trials = [line.split() for line in (corpus / "test" / "trials.txt").read_text().splitlines()]
    assert len({tuple(pair) for _, *pair in trials}) == len(trials)

    def kind(label: str, enroll: str, test: str) -> tuple[str, str]:
        a, b = int(enroll[2:7]), int(test[2:7])
        if a == b:
            return label, "same voice"
        return label, "same sex" if is_female(a - 10001) == is_female(b - 10001) else "other sex"

    assert Counter(kind(*trial) for trial in trials) == {
        ("1", "same voice"): 12,
        ("0", "same sex"): 12,
        ("0", "other sex"): 12,
    }


def test_a_worker_of_a_killed_run_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends its speaker while the run that was started again makes the same one."""
    spec = replace(SPEC, speakers=2, test_speakers=2)
    write, written = synthetic._write, [0]

    def interrupted(path: Path, audio: np.ndarray) -> None:
        written[0] += 1
        if written[0] == 4:  # of the first speaker's five
            make_corpus(tmp_path, spec, workers=1, progress=False)
        write(path, audio)

    monkeypatch.setattr(synthetic, "_write", interrupted)
    make_corpus(tmp_path, spec, workers=1, progress=False)
    assert len(list(tmp_path.glob("train/wav/*/*/*.wav"))) == 2 * 5
    assert not list(tmp_path.rglob(".*"))


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, before = synthetic._write, resource.getrlimit(resource.RLIMIT_FSIZE)

    def no_room(path: Path, audio: np.ndarray) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # less than a recording
        try:
            write(path, audio)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(synthetic, "_write", no_room)
    assert cli.main(["make-corpus", f"--out={tmp_path}", "--workers=1", "--quiet"]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"tfq-sv make-corpus: .*id00001: File too large\n", said)
    assert not list(tmp_path.rglob(".*"))


def test_speakers_are_on_the_disk_before_their_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    rename, sync = Path.rename, files.sync

    def note(path: Path) -> None:
        synced.append(path.name)
        sync(path)

    def renamed(path: Path, target: Path) -> Path:
        inside = {"00001.wav", "00002.wav", "00003.wav", "s1", path.name}
        assert inside <= set(synced)
        synced.clear()
        return rename(path, target)

    monkeypatch.setattr(synthetic, "sync", note)
    monkeypatch.setattr(Path, "rename", renamed)
    spec = replace(SPEC, test_speakers=2)
    make_corpus(tmp_path, spec, workers=1, progress=False, train=False)


@pytest.mark.slow
def test_workers_and_interruptions_change_nothing(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    shutil.copytree(corpus, out)
    for part in ("train", "test"):
        for name in ("wav.scp", "utt2spk"):
            (out / part / name).unlink()
    for speaker in ("train/wav/id00001", "train/wav/id00003", "test/wav/id10002"):
        shutil.rmtree(out / speaker)
    kept = out / "train/wav/id00002/s1/00001.wav"
    before = kept.stat().st_mtime_ns
    half = out / "train/wav/.id00001.part-0/s9/00001.wav"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half of a")
    make_corpus(out, SPEC, workers=2, progress=False)
    assert digests(out) == digests(corpus)
    assert not half.parents[1].exists()
    assert kept.stat().st_mtime_ns == before


def kill_at_seven(job: int) -> None:
    if job == 7:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_JOBS", 2)
    with pytest.raises(InputError, match=r"a worker was killed.* fewer --workers than 2"):
        list(workers.done_by(2, kill_at_seven, range(9)))


def test_test_part_depends_neither_on_train_nor_on_speakers(corpus: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path, replace(SPEC, speakers=9), workers=1, progress=False, train=False)
    assert not (tmp_path / "train").exists()
    assert digests(tmp_path / "test") == digests(corpus / "test")


def test_smaller_corpus_is_part_of_larger(corpus: Path, tmp_path: Path) -> None:
    smaller = replace(SPEC, speakers=1, utterances=2, test_speakers=1, test_utterances=2)
    make_corpus(tmp_path, smaller, workers=1, progress=False)
    made = {name: hash_ for name, hash_ in digests(tmp_path).items() if name.endswith(".wav")}
    assert len(made) == 4
    assert made.items() <= digests(corpus).items()


def test_engine_repeats_whatever_was_said_before_and_voices_differ() -> None:
    def say(seed: int) -> bytes:
        voice = draw_voice(np.random.default_rng(seed), female=bool(seed % 2))
        with closing(Engine(voice)) as engine:
            return b"".join(engine.say("good morning", seed=n).tobytes() for n in (1, 2))

    first, other, again = say(0), say(1), say(0)
    assert first == again
    assert first != other


def test_folder_with_other_settings_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed 7, not 8"):
        make_corpus(corpus, replace(SPEC, seed=8), progress=False)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="but no synthetic corpus"):
        make_corpus(tmp_path, SPEC, progress=False)


@pytest.mark.parametrize("wrong", [{"speakers": 0}, {"seconds": -1.0}, {"seed": -1}])
def test_impossible_specs_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be from"):
        CorpusSpec(**wrong)


def test_missing_engine_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match=r"pip install 'tfq-sv\[demo\]'"):
        make_corpus(tmp_path / "new", SPEC, progress=False)
    assert not (tmp_path / "new").exists()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--speakers=1", "--test_speakers=2", "--utterances=1", "--test_utterances=2"]
    out = tmp_path / "corpus"
    assert cli.main(["make-corpus", f"--out={out}", "--workers=1", *small]) == 0
    said = capsys.readouterr().out
    assert "2 other speakers x 2 utterances, 4 trials" in said
    assert f"tfq-sv train --corpus={out / 'train'}" in said
    assert cli.main(["make-corpus", f"--out={out}", "folder"]) == 1
    assert "unexpected argument 'folder'" in capsys.readouterr().err
