"""Every command that reads speakers can be told how deep they lie."""

from pathlib import Path
from typing import Any

import pytest

from tfq_sv import cli
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError


@pytest.mark.parametrize(
    ("command", "level"),
    [
        (["reproduce", "--model={}/net.keras", "--train={}/train", "--test={}", "--speaker_level=2",
          "--out={}/out"], 2),
        (["evaluate", "--model={}/net.keras", "--corpus={}/test", "--cohort={}",
          "--speaker_level=2"], 2),
        (["evaluate", "--model={}/net.keras", "--corpus={}/test", "--cohort={}",
          "--speaker_level=2", "--cohort_speaker_level=3", "--as_norm"], 3),
    ],
)  # fmt: skip
def test_the_level_arrives(
    command: list[str], level: int, tmp_path: Path, corpus_dir: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The corpus in question ends the command; the others are read."""
    real = Corpus.read

    def read(folder: Any, **options: Any) -> Corpus:
        if Path(folder) == tmp_path:
            raise InputError(f"read at level {options.get('speaker_level')}")
        if Path(folder).parent == tmp_path:
            options.pop("speaker_level", None)
            return real(corpus_dir / "test", **options)
        return real(folder, **options)

    (tmp_path / "net.keras").write_text("never read")
    monkeypatch.setattr(Corpus, "read", read)
    assert cli.main([part.format(tmp_path) for part in command]) == 1
    assert f"read at level {level}" in capsys.readouterr().err


def test_others_hand_the_level_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tfq_sv.cli import benchmark, search

    def read(folder: str, **options: Any) -> None:
        raise InputError(f"read at level {options['speaker_level']}")

    monkeypatch.setattr(benchmark, "read_corpus", read)
    benchmark.FLAGS(["benchmark", f"--corpus={tmp_path}", "--speaker_level=3"])
    with pytest.raises(InputError, match="read at level 3"):
        benchmark._corpus()
    monkeypatch.setattr(search, "read_corpus", read)
    search.FLAGS(["search", f"--test_corpus={tmp_path}", "--speaker_level=4"])
    with pytest.raises(InputError, match="read at level 4"):
        search._test()
