"""Texts of gin files for tests."""

import re
from collections.abc import Sequence

BOUND = re.compile(r"([\w./]+)\s*=")
"""Pattern of a line that binds something outside of a block."""


def bind_again(base: str, lines: Sequence[str]) -> str:
    """Return a gin text with more lines; of lines that bind the same the last stays, and the others are left empty.

    A file may bind nothing twice; all lines keep their numbers.
    """
    text = "".join(f"{line}\n" for line in [*base.splitlines(), *lines])
    kept = text.split("\n")
    last: dict[str, int] = {}
    for number, line in enumerate(kept):
        match = BOUND.match(line)
        if match is None:
            continue
        if match[1] in last:
            kept[last[match[1]]] = ""
        last[match[1]] = number
    return "\n".join(kept)
