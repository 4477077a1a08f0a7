"""Writes the project's public address where it belongs: metadata, README, notebooks, citation.

    python packaging/address.py https://github.com/OWNER/tfq-sv --ref=v0.2.0

The release workflow does this before it builds, so that the wheels' metadata has URLs and the links
of the README work on a package index. Run it again, and commit all but README.md, when the
repository moves: then notebooks have "Open in Colab" badges in the repository too.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)")
PAGES = {"Repository": "", "Issues": "/issues", "Changelog": "/blob/main/CHANGELOG.md"}


def main(address: str, ref: str, root: Path = ROOT) -> None:
    """Changes the files of a checkout; a second run changes nothing more."""
    address = address.rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://[^/\s]+/[^/\s]+/[^/\s]+", address):
        raise SystemExit(f"{address} is no repository's address: https://HOST/OWNER/NAME")
    change(root / "pyproject.toml", lambda text: with_urls(text, address))
    change(root / "README.md", lambda text: absolute(text, address, ref))
    change(root / "CITATION.cff", lambda text: cited(text, address))
    for notebook in sorted((root / "colab").glob("*.ipynb")):
        change(notebook, lambda text, name=notebook.name: with_badge(text, name, address))


def with_urls(text: str, address: str) -> str:
    """pyproject.toml with a table of URLs, in place of the one it may have."""
    table = "\n".join(f'{name} = "{address}{page}"' for name, page in PAGES.items())
    text = re.sub(r"\[project\.urls\]\n(.+\n)+\n", "", text)
    return text.replace(
        "[project.optional-dependencies]",
        f"[project.urls]\n{table}\n\n[project.optional-dependencies]",
        1,
    )


def absolute(text: str, address: str, ref: str) -> str:
    """Markdown whose relative links are addresses: pictures as they are, files as pages."""

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        kind = "raw" if label.startswith("!") else "blob"
        return f"{label}({address}/{kind}/{ref}/{target})"

    return LINK.sub(link, text)


def cited(text: str, address: str) -> str:
    """CITATION.cff with the repository."""
    text = re.sub(r"^repository-code:.*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^(license:.*\n)", rf"\1repository-code: {address}\n", text, flags=re.MULTILINE)


def with_badge(text: str, name: str, address: str) -> str:
    """A notebook whose first cell begins with a badge that opens it in Colab."""
    colab = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    badge = f"[![Open in Colab]({image})]({colab}/blob/main/colab/{name})\n"
    notebook = json.loads(text)
    lines = notebook["cells"][0]["source"]
    if lines[0].startswith("[![Open in Colab]"):
        del lines[:2]
    lines[:0] = [badge, "\n"]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def change(path: Path, edit: Callable[[str], str]) -> None:
    """Writes the edited text of a file."""
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="https://github.com/OWNER/tfq-sv")
    parser.add_argument("--ref", default="main", help="tag or branch that README's links go to")
    options = parser.parse_args()
    main(options.address, options.ref)
