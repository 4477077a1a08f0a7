"""Tables as aligned text and as Markdown."""

from collections.abc import Sequence
from typing import Self


class Table(str):
    """A table: text in aligned columns, the first to the left, the others to the right.

    Attributes:
        header: the columns' names.
        rows: the cells.

    >>> print(Table(["name", "bits"], [["conv1", "4"]]))
    name   bits
    -----  ----
    conv1     4
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __new__(cls, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Self:
        """Aligns the cells."""
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = [header, ["-" * width for width in widths], *rows]
        text = "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
        table = super().__new__(cls, text)
        table.header, table.rows = header, rows
        return table


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table: the first column to the left, others to the right.

    >>> markdown(["name", "bits"], [["conv1", "4"]])
    ['| name | bits |', '|---|--:|', '| conv1 | 4 |']
    """
    rule = "|".join(["---", *["--:"] * (len(header) - 1)])
    return ["| " + " | ".join(header) + " |", f"|{rule}|"] + [
        "| " + " | ".join(row) + " |" for row in rows
    ]
