"""A report as one HTML file: text, tables and pictures, nothing of which is elsewhere."""

import base64
import os
from html import escape
from pathlib import Path
from typing import Self

from tfq_sv.files import atomic
from tfq_sv.reports.table import Table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2530; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.lead { font-size: 1.15rem; padding: .9rem 1.1rem; background: #eef4fa; border-radius: .5rem; }
/* Shadows at the sides say that there is more to scroll to; at an end they are covered. */
.wide { overflow-x: auto; background:
        linear-gradient(to right, #fff 30%, #fff0) left / 2.5rem 100% no-repeat local,
        linear-gradient(to left, #fff 30%, #fff0) right / 2.5rem 100% no-repeat local,
        radial-gradient(farthest-side at left, #0004, #0000) left / .9rem 100% no-repeat scroll,
        radial-gradient(farthest-side at right, #0004, #0000) right / .9rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #d9e0e7; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { border-bottom: 2px solid #8a97a5; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .9rem; }
  /* Shrunk to the screen, their type could not be read. */
  img { max-width: none; width: 38rem; mix-blend-mode: multiply; }
}
figcaption, .note { color: #52606d; font-size: .9rem; }
"""


class Page:
    """Grows from top to bottom; every method returns the page.

    Args:
        title: what it is about.
        lead: the one sentence that a reader in a hurry needs.

    >>> page = Page("Small", "It is smaller.").table(Table(["file", "MB"], [["a", "1"]]))
    >>> "<td>a</td><td>1</td>" in page.html()
    True
    """

    def __init__(self, title: str, lead: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>']

    def heading(self, text: str) -> Self:
        """Begins a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")
        return self

    def text(self, text: str) -> Self:
        """Adds a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")
        return self

    def table(self, table: Table) -> Self:
        """Adds a table."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in table.rows
        )
        self._parts.append(
            f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>"
        )
        return self

    def picture(self, path: str | os.PathLike[str], caption: str) -> Self:
        """Adds a PNG file, by its content."""
        content = base64.b64encode(Path(path).read_bytes()).decode()
        self._parts.append(
            f'<figure><div class="wide"><img alt="{escape(caption)}" '
            f'src="data:image/png;base64,{content}"></div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
        return self

    def html(self) -> str:
        """Returns the whole page."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the page, atomically."""
        with atomic(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8", errors="backslashreplace")
