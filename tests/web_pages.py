"""The pages of export/web in a headless Chromium, served from a folder: fixtures.

tests/chromium.py says where the browser and the page's packages come from.
"""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import chromium
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tfq_sv.data.corpus import Corpus

EXPORT = Path(__file__).parents[1] / "export"
GOLDEN = EXPORT / "android/verifier/src/androidTest/resources/golden.tflite"  # has thresholds

PATIENCE = 120_000  # ms: 5 s, which is usual, can be too short for a busy machine
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> Path:
    return chromium.installed(request.config.cache.mkdir("web"))


@pytest.fixture(scope="module")
def browser(packages: Path, corpus_dir: Path) -> Iterator[Browser]:
    """Its microphone hears the first recording of the test corpus."""
    speech = next(iter(Corpus.read(corpus_dir / "test").paths.values()))
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright, packages, speech)
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is served: the page's files, as yet without packages and a network."""
    for path in chromium.WEB.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(base_url=f"http://127.0.0.1:{server.server_port}")
    page.set_default_timeout(PATIENCE)
    errors: list[object] = []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    server.shutdown()
    server.server_close()
    assert not errors


@pytest.fixture
def ready(page: Page, packages: Path, folder: Path) -> Page:
    """The page, with its packages and the golden network beside it."""
    (folder / "node_modules").symlink_to(packages / "node_modules")
    (folder / "model.tflite").symlink_to(GOLDEN)
    page.goto("/")
    expect(page.locator("#model-line")).to_contain_text("128-d")
    return page
