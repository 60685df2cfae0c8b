"""Read a table of results: a CSV file with a row for each value of each run, perhaps saved by another program."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path

from pggan_kit.errors import RunError
from pggan_kit.system.files import read_text

COLUMNS = ("variant", "seed", "stage", "images", "metric", "value", "failed", "revision", "hardware")
"""Columns that a table of results has at least."""

FAILED = {"": "0", "0": "0", "false": "0", "no": "0", "1": "1", "true": "1", "yes": "1"}
"""What stands in the column `failed`, in lower case, and what is read of it."""

WHOLE = re.compile(r"([0-9]+)(?:\.0*)?")
"""Pattern of a whole number, which some programs write as a float."""


def read_results(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of results; none if there is no such file.

    Returns:
        The cells of each row by their columns. `seed` and `images` are whole numbers; `stage` and `censored` are too,
        or empty; `value` is a finite number or empty; `failed` is "0" or "1".

    Raises:
        RunError: The file cannot be read, or is damaged; the message names the line and the column.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: it is no text in UTF-8") from error
    if not text.strip():
        return []

    # The head says what the cells are.
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise RunError(
            f"{path} is damaged: line 1 lacks {', '.join(missing)}; the names of the columns stand there, separated by "
            "commas"
        )

    rows: list[dict[str, str]] = []
    lines: dict[tuple[str, str, str], int] = {}
    try:
        for cells in reader:
            row = _read_row(cells)
            # A second value would be taken by some who read it, and the first by others.
            key = (row["variant"], row["seed"], row["metric"])
            if key in lines:
                raise ValueError(f"variant {key[0]} has {key[2]} of seed {key[1]} already, in line {lines[key]}")
            lines[key] = reader.line_num
            rows.append(row)
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged: line {reader.line_num}: {error}") from error
    return rows


def _read_row(cells: Mapping[str | None, str | None]) -> dict[str, str]:
    """Return the cells of a row, each number written in one way.

    Raises:
        ValueError: A cell is missing, or is not what its column holds; the message names the column.
    """
    # Cells beyond the head stand under None, for example where a program wrote decimal commas.
    if None in cells:
        raise ValueError("it has more cells than the head")
    row = {}
    for column, cell in cells.items():
        if cell is None:
            raise ValueError(f"it ends before the column {column}; the file may have been cut")
        row[str(column)] = cell

    # Numbers, and what stands for yes and no.
    for column in ("seed", "images", "stage", "censored"):
        may_be_empty = column in ("stage", "censored")
        if column in row and not (may_be_empty and not row[column]):
            match = WHOLE.fullmatch(row[column].strip())
            if match is None:
                raise ValueError(f"{row[column]!r} in the column {column} is no whole number")
            row[column] = match[1]
    failed = FAILED.get(row["failed"].strip().lower().removesuffix(".0"))
    if failed is None:
        raise ValueError(f"{row['failed']!r} in the column failed is neither 0 nor 1")
    row["failed"] = failed
    row["value"] = _read_value(row["value"])
    return row


def _read_value(cell: str) -> str:
    """Return a cell of the column `value`; an empty one where the value is not finite.

    Raises:
        ValueError: It is no number.
    """
    if not cell.strip():
        return ""
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{cell!r} in the column value is no number") from None
    return cell if math.isfinite(value) else ""
