"""Tables as LaTeX, for papers."""

from __future__ import annotations

from pggan_kit.report.page import Table, shown

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


def escaped(text: str) -> str:
    """Text of which LaTeX takes nothing for a command."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text.replace("\n", " "))


def latex(table: Table) -> str:
    """A `tabular` with rules of booktabs; numbers to the right."""
    align = "".join("r" if table.numeric(place) else "l" for place in range(len(table.head)))
    lines = [" & ".join(escaped(cell) for cell in table.head) + r" \\"]
    body = [" & ".join(escaped(shown(cell)) for cell in row) + r" \\" for row in table.rows]
    begin, end = rf"\begin{{tabular}}{{{align}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", *lines, r"\midrule", *body, r"\bottomrule", end, ""])
