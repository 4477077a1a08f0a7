"""Commands on folders as people have them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfq_sv import cli
from tfq_sv.export import SpeakerEncoder

RATE = 16000


@pytest.fixture
def speech(corpus_dir: Path) -> list[Path]:
    return sorted((corpus_dir / "test" / "wav").rglob("*.wav"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_libri_speech_as_it_is_unpacked(
    made: Path, speech: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "LibriSpeech"
    for number, path in enumerate(speech):
        speaker = int(path.parts[-3][-3:])
        part = ("train-clean-100", "dev-clean")[speaker % 2]
        file = root / part / f"{speaker}/{number}/{speaker}-{number}-0000.wav"
        file.parent.mkdir(parents=True)
        shutil.copy(path, file)
    for name in ("SPEAKERS.TXT", "README.TXT"):
        (root / name).write_text("text\n")
    code, out, _ = run(capsys, "evaluate", f"--model={made}/small.tflite", f"--corpus={root}")
    assert code == 0
    assert "18 utterances of 6 speakers" in out
    assert "speakers: the folders in dev-clean, train-clean-100; --speaker_level=N" in out
    _, chosen, _ = run(
        capsys, "evaluate", f"--model={made}/small.tflite", f"--corpus={root}", "--speaker_level=1"
    )
    assert "18 utterances of 2 speakers" in chosen


def test_cn_celeb_has_no_interval(
    made: Path, speech: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "eval"
    trials, enrolments = [], []
    for folder in ("enroll", "test", "lists"):
        (root / folder).mkdir(parents=True)
    speakers = sorted({path.parts[-3] for path in speech})
    for speaker in speakers:
        first, *others = (path for path in speech if path.parts[-3] == speaker)
        shutil.copy(first, root / f"enroll/{speaker}-enroll.wav")
        enrolments.append(f"{speaker}-enroll enroll/{speaker}-enroll.flac\n")  # as it lists them
        for number, path in enumerate(others):
            shutil.copy(path, root / f"test/{speaker}-{number}.wav")
            trials += [
                f"{other}-enroll test/{speaker}-{number}.flac {int(other == speaker)}\n"
                for other in speakers
            ]
    (root / "lists/trials.lst").write_text("".join(trials))
    (root / "lists/enroll.map").write_text("".join(enrolments))
    code, out, _ = run(
        capsys, "evaluate", f"--model={made}/small.tflite", f"--corpus={root}", "--json",
        f"--trials={root}/lists/trials.lst", f"--enroll_map={root}/lists/enroll.map",
        f"--report={tmp_path}/report.html", "--store",
    )  # fmt: skip
    assert code == 0, out
    assert json.loads(out)["interval"] is None
    code, out, _ = run(
        capsys, "evaluate", f"--model={made}/small.tflite", f"--corpus={root}",
        f"--trials={root}/lists/trials.lst", f"--enroll_map={root}/lists/enroll.map",
        f"--reference={made}/small.keras",
    )  # fmt: skip
    assert code == 0, out
    assert "speakers are not known" in out or "another suffix" in out
    code, _, err = run(capsys, "evaluate", f"--model={made}/small.tflite", f"--corpus={root}")
    assert code == 1
    assert "lies in no speaker's folder" in err


def test_embed_needs_no_speakers(
    made: Path, speech: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat, listed = tmp_path / "flat", tmp_path / "listed"
    flat.mkdir()
    listed.mkdir()
    for number, path in enumerate(speech[:3]):
        shutil.copy(path, flat / f"{number}.wav")
    (listed / "wav.scp").write_text("".join(f"u{i} {flat}/{i}.wav\n" for i in range(3)))
    results = []
    for given in (
        [f"--corpus={flat}"],
        [f"--corpus={listed}"],
        [f"{flat}/{i}.wav" for i in range(3)],
    ):
        out = tmp_path / f"{len(results)}.npy"
        code, _, err = run(capsys, "embed", f"--model={made}/small.tflite", f"--out={out}", *given)
        assert code == 0, err
        results.append(np.load(out))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    code, _, err = run(
        capsys, "quantize", f"--model={made}/model.keras", f"--out={tmp_path}/q.keras",
        f"--calibrate={flat}", "--minutes=0.1",
    )  # fmt: skip
    assert code == 0, err
    for given, message in (([str(flat)], "give it as --corpus"), ([], "--corpus is missing"),
                           ([f"--corpus={flat}", "x.wav"], "not both")):  # fmt: skip
        code, _, err = run(capsys, "embed", f"--model={made}/small.tflite", "--out=x.npy", *given)
        assert code == 1
        assert message in err


def test_what_is_no_speech_is_said(
    made: Path, speech: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    for speaker in ("ann", "bob"):
        (tmp_path / "c" / speaker).mkdir(parents=True)
        soundfile.write(tmp_path / "c" / speaker / "1.wav", noise, RATE)
        shutil.copy(speech[0 if speaker == "ann" else -1], tmp_path / "c" / speaker / "2.wav")
    files = [str(tmp_path / "c/ann/1.wav"), str(speech[0])]
    code, out, _ = run(capsys, "verify", f"{made}/small.tflite", *files, "--json")
    assert code == 0
    assert list(json.loads(out)["warnings"]) == files[:1]
    _, out, _ = run(capsys, "evaluate", f"--model={made}/small.tflite", f"--corpus={tmp_path}/c")
    assert "2 files: warning, perhaps no speech: steady noise or hum" in out
    encoder = SpeakerEncoder(made / "small.tflite", fast=False)
    with pytest.warns(UserWarning, match="perhaps no speech: steady noise"):
        encoder.embed(noise.astype(np.float32))
    soundfile.write(tmp_path / "muted.wav", np.full(2 * RATE, 0.1), RATE)
    code, _, err = run(capsys, "verify", f"{made}/small.tflite", f"{tmp_path}/muted.wav", files[1])
    assert code == 1
    assert "is silent: a constant of 0.1" in err


def test_copies_of_recordings_are_said(
    made: Path, speech: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under another speaker's name, and under another name of the same speaker."""
    for path in speech:
        file = tmp_path / path.parts[-3] / path.name
        file.parent.mkdir(exist_ok=True)
        shutil.copy(path, file)
    ann, bob, *_ = sorted(tmp_path.iterdir())
    original = sorted(ann.iterdir())[0]
    command = ("evaluate", f"--model={made}/small.tflite", f"--corpus={tmp_path}")
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert "copy" not in out
    for copy in (bob / "other.wav", ann / "zweite.flac"):
        soundfile.write(copy, *soundfile.read(original, dtype="int16"))
    code, out, _ = run(capsys, *command)
    assert code == 0
    name = f"{ann.name}/{original.name}"
    assert f"1 recordings are of several speakers at once (first: {bob.name}/other.wav is" in out
    assert name in out
    assert "trials compare a recording with its copy, which scores 1 (1 target)" in out
