"""Compare a report of `bench` with an earlier one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.benchmarking.bench import FORMAT
from pggan_kit.errors import UserError
from pggan_kit.system.files import read_text


@dataclass(frozen=True)
class Change:
    """The speed of one contender at one stage, before and after.

    Attributes:
        contender: The contender's name.
        size: The stage's size.
        phase: `steady` or `fading`.
        measure: `ratio` where both reports have one, as it holds on machines of unequal speed; else
            `images_per_second`.
        before: The value in the earlier report.
        after: The value in the later one.
        regressed: Whether it became slower by more than the threshold.
    """

    contender: str
    size: str
    phase: str
    measure: str
    before: float
    after: float
    regressed: bool

    @property
    def text(self) -> str:
        """The change in a line: `ladder at 8x8 (steady): ratio 1.21 -> 1.02 (-16%)`."""
        share = self.after / self.before - 1
        measure = self.measure.replace("_", " ")
        values = f"{self.before:.4g} -> {self.after:.4g} ({share:+.1%})"
        return f"{self.contender} at {self.size} ({self.phase}): {measure} {values}"


def compare(before: str | Path, after: str | Path, threshold: float = 0.05) -> list[Change]:
    """Return the changes from one report to another, one for each contender, stage and phase that both have.

    Args:
        before: The earlier file that `bench --json` wrote.
        after: The later one.
        threshold: The share by which a figure may fall, in (0, 1).

    Raises:
        UserError: A file is no report, or they have nothing in common.
    """
    if not 0 < threshold < 1:
        raise UserError(f"--threshold must lie between 0 and 1, and is {threshold}")
    old_rows = _read_rows(Path(before))
    new_rows = _read_rows(Path(after))

    changes = []
    for case, old in old_rows.items():
        if case not in new_rows:
            continue
        # A ratio is to the same contender in both reports, and so holds on machines of unequal speed.
        new = new_rows[case]
        measure = "ratio" if "ratio" in old and "ratio" in new else "images_per_second"
        regressed = new[measure] < old[measure] * (1 - threshold)
        changes.append(Change(*case, measure, old[measure], new[measure], regressed))
    if not changes:
        raise UserError(f"{before} and {after} have no contender, stage and phase in common")
    return changes


def _read_rows(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the rows of a report by contender, size and phase."""
    try:
        report = json.loads(read_text(path))
        if report["format"] != FORMAT:
            raise UserError(f"{path} has format {report['format']}; this version reads format {FORMAT}")
        rows = {(row["contender"], row["size"], row["phase"]): row for row in report["rows"]}
        # Figures by which others are divided.
        figures = []
        for row in rows.values():
            figures += _list_figures(row)
        are_positive = all(math.isfinite(figure) and figure > 0 for figure in figures)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path} is not a report of `pggan-kit bench --json`") from None
    if not are_positive:
        raise UserError(f"{path} holds a figure that is not above 0")
    return rows


def _list_figures(row: dict[str, Any]) -> list[float]:
    figures = [row["images_per_second"]]
    if "ratio" in row:
        figures.append(row["ratio"])
    return figures
