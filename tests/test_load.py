"""One encoder and one verifier under several threads; benchmarks/load.py does it at length."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tfq_sv
from tfq_sv.verification.enrolment_file import Reference

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import load


@pytest.mark.slow
def test_threads_and_processes_answer_as_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main(clips=200, soak=0)
    said = capsys.readouterr().out
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip("| ") for row in rows] == list(load.KINDS)
    assert {row[2] for row in rows} == {"0"}


def test_no_change_is_lost_when_two_come_at_once() -> None:
    """A thread that forgets someone must not forget whom another one enrolls meanwhile."""
    enrolled, interval = tfq_sv.SpeakerVerifier(load.FILE), sys.getswitchinterval()
    references = [Reference(np.ones(enrolled.encoder.about["embed_dim"], np.float32), 1.0)]
    enrolled._speakers |= {f"other {number}": references for number in range(2000)}
    speech = np.random.default_rng(0).normal(0, 0.1, 16000)
    enrolled.encoder.embed = lambda samples: references[0].embedding  # type: ignore[method-assign]
    names = [f"new {number}" for number in range(40)]
    ended = threading.Event()

    def forget() -> None:
        while not ended.is_set():
            enrolled.remove("nobody")

    other = threading.Thread(target=forget)
    sys.setswitchinterval(1e-6)
    try:
        other.start()
        for name in names:
            enrolled.enroll(name, [speech], check=False)
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(interval)
    assert set(names) <= set(enrolled.names)
