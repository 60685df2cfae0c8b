"""Tables whose rows stay readable: empty columns are left out, and what is too wide is stacked."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

NATURAL = 10_000
"""Characters of a line in which every table has its natural width."""


class WideTable(Table):
    """A table of which the first columns name the row.

    Args:
        headers: Headers of the columns.
        keys: Number of the columns that name the row, aligned to the left. The others are aligned to the right.
        title: Title of the table.
    """

    def __init__(self, headers: Sequence[str], keys: int, title: str = "") -> None:
        super().__init__(title=title)
        self.keys = keys
        for number, header in enumerate(headers):
            self.add_column(header, justify="left" if number < keys else "right")

    def list_filled(self) -> list[int]:
        """Return the numbers of the columns that name the row or have a cell that is not empty."""
        return [
            number for number, column in enumerate(self.columns) if number < self.keys or any(map(str, column.cells))
        ]

    def list_filled_headers(self) -> list[str]:
        """Return the headers of these columns."""
        return [str(self.columns[number].header) for number in self.list_filled()]

    def stack(self, width: int) -> list[Table]:
        """Return the columns that are filled, as tables of at most a width if possible; each names its rows again."""
        keys = list(range(self.keys))
        blocks: list[list[int]] = [[]]
        for number in self.list_filled()[self.keys :]:
            if blocks[-1] and _measure(self._select([*keys, *blocks[-1], number])) > width:
                blocks.append([])
            blocks[-1].append(number)
        tables = [self._select([*keys, *block]) for block in blocks]
        for table in tables[1:]:
            table.title = f"{self.title}, continued"
        tables[-1].caption = self.caption
        return tables

    def _select(self, numbers: Sequence[int]) -> Table:
        """Return a table of some of the columns, without the caption."""
        table = Table(title=self.title)
        columns = [self.columns[number] for number in numbers]
        for column in columns:
            table.add_column(column.header, justify=column.justify)
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*row)
        return table


def _measure(table: Table) -> int:
    """Return the natural width of a table's rows."""
    bare = Console(file=io.StringIO(), width=NATURAL, markup=False)
    return bare.measure(table).maximum
