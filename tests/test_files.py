import os
from pathlib import Path

import pytest

from tfq_sv.errors import InputError
from tfq_sv.files import atomic, check_output, existing


def test_what_was_there_stays_if_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def full_disk() -> None:
        with atomic(target) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        full_disk()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_suffix_stays_and_the_rights_are_usual(tmp_path: Path) -> None:
    with atomic(tmp_path / "deep" / "a.keras") as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_text("new")
    plain = tmp_path / "plain"
    plain.touch()
    written = tmp_path / "deep" / "a.keras"
    assert written.read_text() == "new"
    assert written.stat().st_mode == plain.stat().st_mode


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe .*none does not exist"):
        existing(tmp_path / "none", "recipe")
    with pytest.raises(InputError, match="is not a file"):
        existing(tmp_path, "recipe")


def test_an_output_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file" / "under")
    os.mkfifo(tmp_path / "fifo")
    for good in ("file", "new", "deep/er/new", "fifo", "/dev/null"):
        check_output(tmp_path / good)
    for bad, message in [
        (".", "is a folder; name a file"),
        ("file/new", "cannot be written: .*file is not a folder"),
        ("file/deep/new", "cannot be written: .*file is not a folder"),
        ("link", "cannot be written: .*file is not a folder"),
        (300 * "x", "cannot be written: File name too long"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            check_output(tmp_path / bad)
        assert str(tmp_path / bad) in str(caught.value)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    for bad in ("file", "deep/new", "fifo"):
        with pytest.raises(InputError, match="cannot be written: no right to write to"):
            check_output(tmp_path / bad)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["fifo", "file", "link"]
