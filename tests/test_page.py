"""Reports as HTML: whole, in one file, and true to what they are given."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfq_sv import codebook
from tfq_sv.codebook import Codebook
from tfq_sv.reports.codebooks import codebook_figure
from tfq_sv.reports.page import Page
from tfq_sv.reports.table import Table


class Reader(HTMLParser):
    """Text, cells and sources of a page; fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_a_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    Figure().savefig(tmp_path / "a.png")
    table = Table(["system", "EER %"], [["<b> & co", "2.91"], ["4 bit", "2.90"]])
    page = Page("A & B", "One < two.").heading("x > y").text("<p>").table(table)
    page.picture(tmp_path / "a.png", 'a "caption"').write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert reader.cells == ["system", "EER %", "<b> & co", "2.91", "4 bit", "2.90"]
    (source,) = reader.sources
    kind, content = source.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == (tmp_path / "a.png").read_bytes()
    assert not re.search(r"https?://", text)


def test_pictures_of_codebooks(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)
    books = {}
    for bits in (1, 4):
        centroids = codebook.fit(kernel, bits)
        books[f"{bits} bits"] = Codebook(centroids, codebook.assign(kernel, centroids))
    codebook_figure(kernel, books, tmp_path / "books.png", "a layer")
    assert (tmp_path / "books.png").read_bytes().startswith(b"\x89PNG")
