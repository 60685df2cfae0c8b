"""Holding a report of `bench` against an earlier one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.benchmarking.bench import FORMAT
from pggan_kit.errors import UserError


@dataclass(frozen=True)
class Change:
    """One contender at one stage, then and now.

    Attributes:
        contender, size, phase: which.
        measure: `ratio` where both reports have one: it holds on machines of unequal speed; else `images_per_second`.
        before, after: its values.
        regressed: whether it became slower by more than the threshold.
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
        """`ladder at 8x8 (steady): ratio 1.21 -> 1.02 (-16%)`."""
        share = self.after / self.before - 1
        what = f"{self.measure.replace('_', ' ')} {self.before:.4g} -> {self.after:.4g} ({share:+.1%})"
        return f"{self.contender} at {self.size} ({self.phase}): {what}"


def compare(before: str | Path, after: str | Path, threshold: float = 0.05) -> list[Change]:
    """What changed from one report to another: a row for each contender, stage and phase that both have.

    Args:
        before, after: files that `bench --json` wrote.
        threshold: the share by which a figure may fall, in (0, 1).

    Raises:
        UserError: a file is no report, or they have nothing in common.
    """
    if not 0 < threshold < 1:
        raise UserError(f"--threshold must lie between 0 and 1, and is {threshold}")
    old, new = _rows(Path(before)), _rows(Path(after))
    changes = []
    for key in [key for key in old if key in new]:
        measure = "ratio" if "ratio" in old[key] and "ratio" in new[key] else "images_per_second"
        values = old[key][measure], new[key][measure]
        changes.append(Change(*key, measure, *values, regressed=values[1] < values[0] * (1 - threshold)))
    if not changes:
        raise UserError(f"{before} and {after} have no contender, stage and phase in common")
    return changes


def _rows(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["format"] != FORMAT:
            raise UserError(f"{path} has format {report['format']}; this version reads format {FORMAT}")
        rows = {(row["contender"], row["size"], row["phase"]): row for row in report["rows"]}
        good = all(math.isfinite(value) and value > 0 for row in rows.values() for value in _figures(row))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path} is no report of `pggan-kit bench --json`") from None
    if not good:
        raise UserError(f"{path} holds a figure that is not above 0")
    return rows


def _figures(row: dict[str, Any]) -> list[float]:
    return [row["images_per_second"], *([row["ratio"]] if "ratio" in row else [])]
