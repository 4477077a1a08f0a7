"""`SpeakerVerifier`: enrolment, decisions and its file, with a real network."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import tfq_sv
from tfq_sv.errors import InputError
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.export import write_about
from tfq_sv.verification import decision
from tfq_sv.verification.decision import Threshold

ROOT = Path(__file__).parents[1]
RESOURCES = ROOT / "export/android/verifier/src/androidTest/resources"
GOLDEN = RESOURCES / "golden.tflite"
ANN = [RESOURCES / "ann-1.wav", RESOURCES / "ann-2.wav"]
BOB = RESOURCES / "bob.wav"


@pytest.fixture(scope="module")
def enrolled() -> tfq_sv.SpeakerVerifier:
    verifier = tfq_sv.SpeakerVerifier(GOLDEN)
    verifier.enroll("bob", [BOB])
    verifier.enroll("ann", [ANN[0]])
    return verifier


def test_verify_and_identify(enrolled: tfq_sv.SpeakerVerifier) -> None:
    assert enrolled.names == ["ann", "bob"]
    same, other = enrolled.verify("ann", ANN[1]), enrolled.verify("bob", str(ANN[1]))
    assert (same.accepted, other.accepted) == (True, False)
    samples = soundfile.read(ANN[1], dtype="float32")[0]
    embeddings = (enrolled.encoder.embed(soundfile.read(x, dtype="float32")[0]) for x in ANN)
    assert same.score == pytest.approx(cosine(*embeddings), abs=1e-5)
    assert enrolled.verify("ann", samples) == same
    found = enrolled.identify(samples)
    assert (found.speaker, found.runner_up) == ("ann", "bob")
    assert found.margin == pytest.approx(same.score - other.score)
    assert found.threshold.value == enrolled.encoder.threshold
    assert "stored, at the EER" in found.threshold.source
    nobody = enrolled.identify(samples, threshold=1.01)
    assert (nobody.speaker, nobody.name, nobody.threshold.source) == (None, "ann", "given")
    stored = enrolled.encoder.about["thresholds"]["far_1e-2"]["threshold"]
    assert enrolled.verify("ann", samples, "far_1e-2").threshold.value == stored


def test_save_load_remove(enrolled: tfq_sv.SpeakerVerifier, tmp_path: Path) -> None:
    path = tmp_path / "speakers.json"
    enrolled.save(path)
    again = tfq_sv.SpeakerVerifier(GOLDEN)
    again.enroll("gone", [BOB])
    again.load(path)
    assert again.names == enrolled.names
    assert again.identify(ANN[1]) == enrolled.identify(ANN[1])
    assert again.remove("ann")
    assert not again.remove("ann")
    assert again.identify(ANN[1]).runner_up is None
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"speakers\.json is not a file of enrolled speakers"):
        again.load(path)
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        again.load(tmp_path / "none.json")
    assert again.names == ["bob"]


def test_what_enroll_refuses(tmp_path: Path) -> None:
    verifier = tfq_sv.SpeakerVerifier(GOLDEN)
    hum = tmp_path / "hum.wav"
    soundfile.write(hum, 0.1 * np.sin(np.arange(32000) * 0.02), 16000)
    refused: list[tuple[Callable[[], None], str]] = [
        (lambda: verifier.enroll("ann", [*ANN, BOB]), "ann: .*bob.wav does not fit the others: "),
        (lambda: verifier.enroll("ann", [BOB, *ANN]), "ann: .*bob.wav does not fit the others: "),
        (lambda: verifier.enroll("ann", [ANN[0], hum]), "hum.wav: perhaps no speech: a tone"),
        (lambda: verifier.enroll("ann", []), "no recording"),
        (lambda: verifier.enroll("", [BOB]), "name"),
        (lambda: verifier.enroll("\ud800", [BOB]), "name"),
        (lambda: verifier.enroll("ann", str(BOB)), "a list of one"),
        (lambda: verifier.enroll("ann", np.zeros(16000)), "a list of one"),
        (lambda: verifier.enroll("ann", [np.zeros((2, 16000))]), r"shape \(N,\)"),
        (lambda: verifier.enroll("ann", [np.ones(100)], check=False), "recording 1: 100 samples"),
        (lambda: verifier.enroll("ann", [tmp_path / "none.wav"]), "none.wav does not exist"),
        (lambda: verifier.verify("ann", BOB), "ann is not enrolled; nobody is"),
        (lambda: verifier.identify(BOB), "nobody is enrolled"),
        (lambda: verifier.identify(BOB, "far_1e-9"), r"no threshold 'far_1e-9'; it has eer, far"),
        (lambda: verifier.identify(BOB, float("nan")), "finite"),
        (lambda: verifier.identify(BOB, None), "a threshold is a finite score, not None"),  # type: ignore[arg-type]
        (lambda: verifier.enroll("ann", None), "a list of them, not None"),  # type: ignore[arg-type]
        (lambda: verifier.enroll("ann", [ANN[0], np.full(32000, np.nan)]), "recording 2: .*NaN"),
        (lambda: verifier.enroll("ann", [ANN[0], np.zeros((2, 9))]), "recording 2: a recording is"),
    ]  # fmt: skip
    for call, said in refused:
        with pytest.raises(InputError, match=said):
            call()
        assert verifier.names == []
    verifier.enroll("ann", iter([*ANN, BOB]), check=False)  # type: ignore[arg-type]
    assert verifier.verify("ann", hum).doubt.startswith("a tone")
    with pytest.raises(InputError, match="bob is not enrolled; there are ann"):
        verifier.verify("bob", BOB)


def test_thresholds(tmp_path: Path) -> None:
    path = shutil.copy(GOLDEN, tmp_path / "model.tflite")
    thresholds = {"eer": {"threshold": 0.25}, "far_1e-3": {"threshold": None}}
    write_about(path, thresholds=thresholds, trials="any text")
    verifier = tfq_sv.SpeakerVerifier(path)
    verifier.enroll("bob", [BOB])
    assert verifier.verify("bob", BOB).threshold == Threshold(0.25, "stored, at the EER")
    with pytest.raises(InputError, match="'far_1e-3': too few trials to say; it has eer"):
        verifier.verify("bob", BOB, "far_1e-3")
    write_about(path, thresholds=None)
    verifier = tfq_sv.SpeakerVerifier(path)
    verifier.enroll("bob", [*ANN, BOB])  # nothing says how alike they should be
    with pytest.raises(InputError, match="tfq-sv evaluate --store"):
        verifier.verify("bob", BOB)
    assert verifier.verify("bob", BOB, 0.1).accepted


def test_another_networks_file_is_refused(enrolled: tfq_sv.SpeakerVerifier, tmp_path: Path) -> None:
    path = tmp_path / "speakers.json"
    enrolled.save(path)
    path.write_text(path.read_text().replace(enrolled.encoder.about["inflated_sha256"], "0" * 64))
    with pytest.raises(InputError, match="another network"):
        enrolled.load(path)


def test_nobody_is_missing_while_others_are_enrolled(enrolled: tfq_sv.SpeakerVerifier) -> None:
    errors: list[Exception] = []

    def change() -> None:
        try:
            for number in range(200):
                enrolled._speakers = {**enrolled._speakers, f"{number}": enrolled._speakers["ann"]}
                enrolled.remove(f"{number}")
        except Exception as error:
            errors.append(error)

    other = threading.Thread(target=change)
    other.start()
    while other.is_alive():
        assert {"ann", "bob"} <= set(enrolled.names)
    other.join()
    assert not errors


def test_no_tensorflow() -> None:
    script = (
        "import sys, tfq_sv; "
        f"tfq_sv.SpeakerVerifier({str(GOLDEN)!r}).enroll('ann', [{str(BOB)!r}]); "
        "heavy = {'tensorflow', 'librosa', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_score_is_never_above_one() -> None:
    """Rounding leads out of [-1, 1]: half of these would."""
    rng = np.random.default_rng(0)
    for size in rng.integers(2, 300, 300):
        same = decision.unit(rng.normal(size=size))
        assert decision.score(same[None], same) <= 1
        assert decision.score(same[None], -same) >= -1
        assert decision.score(np.stack([same, same, same]), same) < 1
