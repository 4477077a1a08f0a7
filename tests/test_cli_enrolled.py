"""enroll, identify and verify --speaker."""

import json
import shutil
from pathlib import Path

import pytest

import tfq_sv
from tfq_sv import cli
from tfq_sv.cli import enroll

RESOURCES = Path(__file__).parents[1] / "export/android/verifier/src/androidTest/resources"
GOLDEN = RESOURCES / "golden.tflite"
ANN = [str(RESOURCES / "ann-1.wav"), str(RESOURCES / "ann-2.wav")]
BOB = str(RESOURCES / "bob.wav")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main([arguments[0], f"--model={GOLDEN}", *arguments[1:]])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_from_enrolment_to_decisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enrolled = f"--enrolled={tmp_path}/speakers.json"
    code, said = run(capsys, "enroll", enrolled, "--speaker=ann", ANN[0])
    assert (code, "enrolled ann by 1 recording\n" in said) == (0, True)
    code, said = run(capsys, "enroll", enrolled, "--speaker=ann", *ANN)
    assert (code, "replaced ann by 2 recordings\n" in said) == (0, True)
    code, said = run(capsys, "enroll", enrolled, "--speaker=bob", BOB)
    assert (code, "enrolled: ann, bob\n" in said) == (0, True)
    for name, decision in (("ann", "accepted"), ("bob", "rejected")):
        code, said = run(capsys, "verify", enrolled, f"--speaker={name}", ANN[0])
        assert (code, f"decision   {decision}: {name}\n" in said) == (0, True)
        assert "(stored, at the EER of " in said
    code, said = run(capsys, "identify", enrolled, *ANN, BOB)
    assert code == 0
    assert [line.split(": ")[1].split(",")[0] for line in said.splitlines()[2:5]] == [
        "ann", "ann", "bob",
    ]  # fmt: skip
    assert "warning: the network has only heard synthetic speech" in said
    code, said = run(capsys, "identify", enrolled, "--threshold=1.01", BOB)
    assert (code, "nobody who is enrolled; most like bob" in said) == (0, True)
    code, said = run(capsys, "enroll", enrolled, "--remove=ann")
    assert (code, "enrolled: bob\n" in said) == (0, True)
    code, said = run(capsys, "identify", enrolled, "--operating_point=far_1e-2", BOB, "--json")
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert (found[BOB]["speaker"], found[BOB]["runner_up"]) == ("bob", None)


def test_a_file_that_another_command_changed_meanwhile_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, enrolled = tmp_path / "speakers.json", f"--enrolled={tmp_path}/speakers.json"
    real = enroll.open_verifier

    def slow(model: str, path: str | None) -> tfq_sv.SpeakerVerifier:
        verifier = real(model, path)
        with monkeypatch.context() as patch:  # what another process does at that time
            patch.setattr(enroll, "open_verifier", real)
            assert run(capsys, "enroll", enrolled, "--speaker=bob", BOB)[0] == 0
        return verifier

    monkeypatch.setattr(enroll, "open_verifier", slow)
    for _ in range(2):  # into no file, and into one
        code, said = run(capsys, "enroll", enrolled, "--speaker=ann", *ANN)
        assert (code, "speakers.json was changed meanwhile" in said) == (1, True)
        names = [entry["name"] for entry in json.loads(file.read_text())["speakers"]]
        assert names == ["bob"]


def test_two_recordings(capsys: pytest.CaptureFixture[str]) -> None:
    far = tfq_sv.export.read_about(GOLDEN)["thresholds"]["far_1e-2"]["threshold"]
    code, said = run(capsys, "verify", *ANN, "--operating_point=far_1e-2")
    assert code == 0
    assert f"threshold  {far:.4f}  (stored, at FAR 1e-2 " in said
    assert "decision   same speaker" in said
    assert cli.main(["verify", str(GOLDEN), *ANN]) == 0
    assert "(stored, at the EER of " in capsys.readouterr().out


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "speakers.json"
    enrolled = f"--enrolled={file}"
    for arguments, expected in [
        (["enroll", "--speaker=ann", *ANN], "--enrolled is missing"),
        (["enroll", enrolled, *ANN], "give --speaker=NAME with recordings, or --remove=NAME"),
        (["enroll", enrolled, "--speaker=ann"], "no recording of ann"),
        (["enroll", enrolled, "--remove=ann", BOB], "--remove takes no recordings"),
        (["enroll", enrolled, "--remove=ann"], "speakers.json does not exist"),
        (["enroll", f"{enrolled}.txt", "--speaker=ann", BOB], "must end in .json"),
        (["enroll", enrolled, "--speaker=ann", *ANN, BOB], "bob.wav does not fit the others"),
        (["verify", enrolled, "--speaker=ann", BOB], "speakers.json does not exist"),
        (["verify", "--speaker=ann", BOB], "--enrolled is missing"),
        (["verify", enrolled, "--speaker=ann", *ANN], "expected one recording, found 2"),
        (["verify", BOB], "expected a model and two recordings, found"),
        (["verify", *ANN, "--operating_point=far"], "no threshold 'far'; it has eer, far_1e-2"),
        (["identify", enrolled], "no recording"),
    ]:
        code, said = run(capsys, *arguments)
        assert code == 1
        assert expected in said
        assert len(said.splitlines()) == 1
        assert not file.exists()
    code, said = run(capsys, "enroll", enrolled, "--speaker=ann", "--nocheck", *ANN, BOB)
    assert code == 0
    code, said = run(capsys, "enroll", enrolled, "--remove=eve")
    assert (code, "eve is not enrolled; enrolled: ann" in said) == (1, True)
    other = shutil.copy(file, tmp_path / "other.json")
    other.write_text(file.read_text().replace("tfq-sv enrolment", "other"))
    code, said = run(capsys, "identify", f"--enrolled={other}", BOB)
    assert (code, "other.json is not a file of enrolled speakers" in said) == (1, True)
    assert cli.main(["identify", "--model=resnet18-small", enrolled, BOB]) == 1
    assert "must be a .tflite" in capsys.readouterr().err
