"""What mkdocs.yml adds to MkDocs: the repository's layout, the pages of the API, doctests as code.

MkDocs loads it as a hook; Griffe, which reads docstrings, as an extension.
"""

import ast
import re
from pathlib import Path
from typing import Any

try:
    import griffe
    from mkdocs.structure.files import File, Files
except ModuleNotFoundError:  # tests look at the lists alone
    griffe = None

ROOT = Path(__file__).resolve().parents[1]
SHOWN = (
    "*.md", "docs/*.md", "docs/*.png", "docs/benchmarks/*.txt", "export/*.md", "export/*/README.md",
    "tfq_sv/assets/README.md", "colab/*.ipynb",
)  # fmt: skip
"""What the site holds, where the repository has it."""


def pages() -> list[str]:
    """Paths of the shown files, relative to the repository's root."""
    return sorted({x.relative_to(ROOT).as_posix() for glob in SHOWN for x in ROOT.glob(glob)})


def modules() -> dict[str, list[str]]:
    """The public modules of each part of tfq_sv, as its stub, or else its __init__.py, has them."""
    parts = re.findall(r"^from \. import (\w+)", _stub("tfq_sv"), re.M)
    return {part: _homes(part) or [f"tfq_sv.{part}"] for part in parts}


def _stub(package: str) -> str:
    path = ROOT / package / "__init__.pyi"
    return path.read_text() if path.is_file() else ""


def _homes(part: str) -> list[str]:
    folder = ROOT / "tfq_sv" / part
    if not folder.is_dir() or part == "assets":
        return []
    imports = r"^from \.(?:([a-z_.]+) import| import (\w+))"
    names = re.findall(imports, _stub(f"tfq_sv/{part}"), re.M)
    homes = {home or module for home, module in names}
    if not homes:
        text = (folder / "__init__.py").read_text()
        homes = set(re.findall(rf"^from tfq_sv\.{part}\.(\w+) import", text, re.M))
    return [
        f"tfq_sv.{part}.{home}"
        for home in sorted(homes or {path.stem for path in folder.glob("[a-z]*.py")})
    ]


def api() -> dict[str, str]:
    """The pages of the API: path -> Markdown."""
    texts = {
        f"api/{part}.md": f"# tfq_sv.{part}\n\n" + "".join(f"::: {name}\n\n" for name in names)
        for part, names in modules().items()
    }
    rows = sorted(
        f"| [`{name}`][tfq_sv.{home}.{name}] | {_summary(home, name)} |\n"
        for home, name in re.findall(r"^from \.([\w.]+) import (\w+)", _stub("tfq_sv"), re.M)
    )
    head = "# API\n\nWhat `import tfq_sv` offers at once:\n\n| name | |\n|---|---|\n"
    return texts | {"api/README.md": head + "".join(rows)}


def _summary(home: str, name: str) -> str:
    """The first line of an object's docstring."""
    path = ROOT / "tfq_sv" / f"{home.replace('.', '/')}.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0].replace("|", "\\|")
    return "another name of the same"


def on_files(files: Any, config: Any) -> Any:
    """Replaces what MkDocs found in docs/ by the repository's files and the API."""
    # The others are the theme's.
    others = [x for x in files if Path(x.src_uri).suffix not in (".md", ".png", ".txt", ".py")]
    shown = [File.generated(config, path, abs_src_path=str(ROOT / path)) for path in pages()]
    written = [File.generated(config, path, content=text) for path, text in api().items()]
    return Files([*others, *shown, *written])


def as_code(docstring: str) -> str:
    """Fences doctests, which Markdown takes for quotations.

    >>> print(as_code("One.\\n\\n>>> 1 + 1\\n2\\n"))
    One.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    """
    example = re.compile(r"^( *)>>> .*(?:\n *\S.*)*", re.M)
    return example.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", docstring)


if griffe:

    class Doctests(griffe.Extension):
        """Applies `as_code` to every docstring."""

        def on_instance(self, *, obj: Any, **_: Any) -> None:
            """Griffe calls it with each object that it has read."""
            if obj.docstring:
                obj.docstring.value = as_code(obj.docstring.value)
