import shutil
from pathlib import Path

import pytest

from tfq_sv.errors import InputError
from tfq_sv.run_folder import LABEL, check_settings, remove

SETTINGS = {"network": "small", "steps": 10, "bits": {"a": 2}, "rate": 0.1, "kinds": ("x",)}


def test_only_the_same_run_goes_on(tmp_path: Path) -> None:
    check_settings(tmp_path, SETTINGS, begun=False)
    check_settings(tmp_path, SETTINGS, begun=True)
    for other, message in [
        ({**SETTINGS, "steps": 20}, "holds a run with steps 10, not 20; finish it"),
        ({**SETTINGS, "bits": {"a": 3}}, "holds a run with another bits;"),
        ({**SETTINGS, "head": 7}, "holds a run with head None, not 7;"),
        ({k: v for k, v in SETTINGS.items() if k != "rate"}, "rate 0.1, not None"),
    ]:
        with pytest.raises(InputError, match=message):
            check_settings(tmp_path, other, begun=True)
    check_settings(tmp_path, SETTINGS, begun=True)


def test_a_run_that_left_nothing_makes_way(tmp_path: Path) -> None:
    check_settings(tmp_path, SETTINGS, begun=False)
    check_settings(tmp_path, {"steps": 20}, begun=False)
    check_settings(tmp_path, {"steps": 20}, begun=True)


@pytest.mark.parametrize("text", [None, "", "[1]", "7"])
def test_what_is_no_label(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / LABEL).write_text(text)
    with pytest.raises(InputError, match="holds a run, but no readable settings"):
        check_settings(tmp_path, SETTINGS, begun=True)
    check_settings(tmp_path, SETTINGS, begun=False)
    check_settings(tmp_path, SETTINGS, begun=True)


def test_one_worker_writes(tmp_path: Path) -> None:
    check_settings(tmp_path, SETTINGS, begun=False, write=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_elsewhere_is_removed_as_often_as_it_is_linked(tmp_path: Path) -> None:
    there, link = tmp_path / "scratch", tmp_path / "m.keras.state"
    for _ in range(2):
        there.mkdir()
        link.symlink_to(there)
        check_settings(link, SETTINGS, begun=False)
        remove(link)
        assert not list(tmp_path.iterdir())


def test_a_kill_while_a_folder_is_removed_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left would be a damaged state, which the same command then refused."""
    folder = tmp_path / "m.keras.state"
    check_settings(folder, SETTINGS, begun=False)
    (folder / "checkpoint").touch()

    def killed(path: Path, **_: object) -> None:
        if path.exists():
            (path / LABEL).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(folder)
    assert not folder.exists()
    check_settings(folder, SETTINGS, begun=False)
    remove(folder)
    remove(folder)
    assert not list(tmp_path.iterdir())
