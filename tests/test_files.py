import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tfq_sv.errors import InputError
from tfq_sv.files import atomic, check_folder, check_output, require_file


def test_what_was_there_stays_if_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def full_disk() -> None:
        with atomic(target) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        full_disk()
    assert caught.value.filename == str(target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_power_cut_leaves_the_old_file_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is on the disk before the name is, and the name before `atomic` returns."""
    events: list[tuple[str, str]] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        events.append((f"sync {kind}", str(os.fstat(descriptor).st_size) if kind == "file" else ""))
        sync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        events.append(("replace", target.name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    with atomic(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"whole")
    assert events == [("sync file", "5"), ("replace", "a.bin"), ("sync folder", "")]


def test_the_suffix_stays_and_the_rights_are_usual(tmp_path: Path) -> None:
    with atomic(tmp_path / "deep" / "a.keras") as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_text("new")
    plain = tmp_path / "plain"
    plain.touch()
    written = tmp_path / "deep" / "a.keras"
    assert written.read_text() == "new"
    assert written.stat().st_mode == plain.stat().st_mode


def test_a_file_keeps_its_rights(tmp_path: Path) -> None:
    for rights in (0o600, 0o640, 0o444):
        private = tmp_path / "speakers.json"
        private.touch()
        private.chmod(rights)
        with atomic(private) as temporary:
            temporary.write_text("new")
        assert private.read_text() == "new"
        assert private.stat().st_mode & 0o777 == rights


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, before in {"whole": "old", "dangling": None}.items():
        target, link = tmp_path / "there" / name, tmp_path / name
        if before:
            target.write_text(before)
        link.symlink_to(Path("there") / name)
        with atomic(link) as temporary:
            temporary.write_text("new")
        assert link.is_symlink()
        assert target.read_text() == "new"
    assert len(list((tmp_path / "there").iterdir())) == 2


def test_a_pipe_and_a_device_are_written_into(tmp_path: Path) -> None:
    fifo, out, content = tmp_path / "fifo.txt", tmp_path / "out", bytes(range(256)) * 999
    os.mkfifo(fifo)
    reader = subprocess.Popen(["dd", f"if={fifo}", f"of={out}", "status=none"])
    with atomic(fifo) as temporary:
        temporary.write_bytes(content)
    assert reader.wait() == 0
    assert out.read_bytes() == content
    assert fifo.is_fifo()
    assert sorted(tmp_path.iterdir()) == [fifo, out]
    ours, theirs = os.openpty()
    terminal = os.ttyname(theirs)
    with atomic(terminal) as temporary:
        temporary.write_bytes(b"hello")
    assert os.read(ours, 9) == b"hello"
    assert os.isatty(theirs)


def test_standard_output_may_be_a_file(tmp_path: Path) -> None:
    # /dev/stdout is such a link; it is not named here, because root could lose it.
    link, out = tmp_path / "stdout", tmp_path / "out.txt"
    link.symlink_to("/proc/self/fd/1")
    program = (
        "from tfq_sv.files import atomic; print('before')\n"
        f"for name in ('/dev/fd/1', {str(link)!r}):\n"
        "    with atomic(name) as temporary: _ = temporary.write_text(name + '\\n')\n"
        "print('after')"
    )
    with out.open("w") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
    assert out.read_text().split() == ["before", "/dev/fd/1", str(link), "after"]
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [out, link]


def test_errors_name_the_file_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = False
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a folder"), atomic(tmp_path):
        entered = True
    with pytest.raises(InputError, match="file is not a folder"), atomic(tmp_path / "file" / "a"):
        entered = True
    assert not entered

    def failing(temporary: Path) -> None:
        temporary.unlink()
        temporary.write_text("")
        raise PermissionError(13, "Permission denied", str(temporary))

    with pytest.raises(PermissionError) as caught, atomic(tmp_path / "a.txt") as temporary:
        failing(temporary)
    assert caught.value.filename == str(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError) as missing, atomic(tmp_path / "a.txt"):
        (tmp_path / "other").read_text()
    assert missing.value.filename == str(tmp_path / "other")

    def refused(self: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system", str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="Read-only") as caught_, atomic(tmp_path / "a.txt"):
        pass
    assert caught_.value.filename == str(tmp_path / "a.txt")
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe .*none does not exist"):
        require_file(tmp_path / "none", "recipe")
    with pytest.raises(InputError, match="is not a file"):
        require_file(tmp_path, "recipe")


def test_an_output_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file" / "under")
    os.mkfifo(tmp_path / "fifo")
    for good in ("file", "new", "deep/er/new", "fifo", "/dev/null"):
        check_output(tmp_path / good)
    for good in (".", "new", "deep/er/new"):
        check_folder(tmp_path / good)
    for bad in ("file", "fifo"):
        with pytest.raises(InputError, match=f"{bad} is a file; name a folder"):
            check_folder(tmp_path / bad)
    for bad, message in [
        (".", "is a folder; name a file"),
        ("file/new", "cannot be written: .*file is not a folder"),
        ("file/deep/new", "cannot be written: .*file is not a folder"),
        ("link", "cannot be written: .*file is not a folder"),
        (300 * "x", "cannot be written: File name too long"),
    ]:
        for check in (check_output, check_folder) if bad != "." else (check_output,):
            with pytest.raises(InputError, match=message) as caught:
                check(tmp_path / bad)
            assert str(tmp_path / bad) in str(caught.value)
    if Path("/proc/self").exists():  # os.access says that root may write there
        for check in (check_output, check_folder):
            with pytest.raises(InputError, match="/proc/new cannot be written: "):
                check("/proc/new")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    for bad in ("file", "deep/new", "fifo"):
        with pytest.raises(InputError, match="cannot be written: no right to write to"):
            check_output(tmp_path / bad)
    for bad in (".", "deep/new"):
        with pytest.raises(InputError, match="cannot be written: no right to write to"):
            check_folder(tmp_path / bad)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["fifo", "file", "link"]
