"""Tables as LaTeX, for papers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pggan_kit.report.page import Table, format_cell

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def escape_text(text: str) -> str:
    """Escape text so that LaTeX takes nothing in it for a command."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text.replace("\n", " "))


def format_latex(table: Table) -> str:
    """Return a table as a `tabular` with the rules of booktabs, its columns of numbers aligned to the right."""
    alignment = "".join("r" if is_numeric else "l" for is_numeric in table.find_numeric_columns())

    # The best cells of a row are bold.
    rows = []
    for number, row in enumerate(table.rows):
        best = [column for place, column in table.best if place == number]
        rows.append(_format_row(row, best))
    lines = [
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _format_row(table.head),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _format_row(cells: Sequence[Any], best: Collection[int] = ()) -> str:
    """Return a row; the cells in the columns `best` are bold."""
    texts = [escape_text(format_cell(cell)) for cell in cells]
    for column in best:
        texts[column] = rf"\textbf{{{texts[column]}}}"
    return " & ".join(texts) + r" \\"
