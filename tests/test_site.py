"""The documentation's site: what it lists, and links that work in the repository, too."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "docs" / "site.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(site: ModuleType) -> Iterator[tuple[Path, str]]:
    for name in site.pages():
        if name.endswith(".md"):
            text = (ROOT / name).read_text()
            yield ROOT / name, re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_between_pages_work(site: ModuleType) -> None:
    shown = set(site.pages())
    count = 0
    for page, text in texts(site):
        for link in LINK.findall(text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.relative_to(ROOT).as_posix() in shown, f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}"
            count += 1
    assert count > 80


def test_every_page_is_in_the_navigation(site: ModuleType) -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"(?:- |: )(\S+\.md)$", nav, re.M)
    assert sorted(listed) == sorted(
        {x for x in site.pages() if x.endswith(".md")} | set(site.api())
    )


def test_every_public_name_has_its_place(site: ModuleType) -> None:
    documented = {name for names in site.modules().values() for name in names}
    stubs = [ROOT / "tfq_sv" / "__init__.pyi", *(ROOT / "tfq_sv").glob("*/__init__.pyi")]
    assert len(stubs) > 7
    for stub in stubs:
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        for home in re.findall(r"^from \.([\w.]+) import", stub.read_text(), re.M):
            assert f"{package}.{home}" in documented
    for module in documented:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module
    summaries = site.api()["api/README.md"].splitlines()
    assert any("calibration.quantize]" in row and "codebooks and codes" in row for row in summaries)


def test_doctests_are_fenced(site: ModuleType) -> None:
    text = "One.\n\n    >>> f(\n    ...     1)\n    1\n\nTwo.\n"
    expected = "One.\n\n    ```pycon\n    >>> f(\n    ...     1)\n    1\n    ```\n\nTwo.\n"
    assert site.as_code(text) == expected
    assert site.as_code("a > b >> c") == "a > b >> c"


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings_handlers", reason="MkDocs is in the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        'id="tfq_sv.quantization.calibration.quantize"'
        in (tmp_path / "api" / "quantization" / "index.html").read_text()
    )
