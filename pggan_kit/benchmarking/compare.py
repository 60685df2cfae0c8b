"""Compare a report of `bench` with an earlier one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.benchmarking.bench import FORMAT
from pggan_kit.errors import UserError
from pggan_kit.system.files import read_text

HARDWARE = ("device", "processor", "native_bfloat16", "threads", "tf32", "cudnn_benchmark")
"""Entries of a report's machine in which two machines differ, or the ways in which they choose their kernels."""

SOFTWARE = ("pggan_kit", "python", "torch", "cuda", "cudnn", "driver", "triton")
"""Entries of a report's machine that may change on one machine, and its speed with them."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Change:
    """The speed of one contender at one stage, before and after.

    Attributes:
        contender: The contender's name.
        size: The stage's size.
        phase: `steady` or `fading`.
        measure: `ratio` where both reports have one to the same contender, as it holds on machines of unequal speed;
            else `images_per_second`.
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


def compare(
    before: str | Path, after: str | Path, threshold: float = 0.05, *, different_machines: bool = False
) -> list[Change]:
    """Return the changes from one report to another, one for each contender, stage and phase that both have.

    Args:
        before: The earlier file that `bench --json` wrote.
        after: The later one.
        threshold: The share by which a figure may fall, in (0, 1).
        different_machines: Whether the reports may be of different machines.

    Raises:
        UserError: A file is no report, they have nothing in common, or they are of different machines or batches.
    """
    if not 0 < threshold < 1:
        raise UserError(f"--threshold must lie between 0 and 1, and is {threshold}")
    old_rows = read_rows(Path(before))
    new_rows = read_rows(Path(after))
    differences = list_differences(before, after, HARDWARE)
    if differences and not different_machines:
        raise UserError(
            f"{before} and {after} are of different machines: {'; '.join(differences)}; measure both on one, or "
            "compare them all the same with --different-machines, which says so"
        )

    changes = []
    for case, old in old_rows.items():
        if case not in new_rows:
            continue
        new = new_rows[case]
        if old.get("batch") != new.get("batch"):
            raise UserError(
                f"{before} and {after} are of different batches: {old.get('batch')} and {new.get('batch')} images at "
                f"{case[1]}; measure both with one schedule.batch_size"
            )
        # Only ratios to the same contender hold on machines of unequal speed.
        have_ratios = "ratio" in old and "ratio" in new
        measure = "ratio" if have_ratios and old.get("ratio_to") == new.get("ratio_to") else "images_per_second"
        regressed = new[measure] < old[measure] * (1 - threshold)
        changes.append(Change(*case, measure, old[measure], new[measure], regressed))
    if not changes:
        raise UserError(f"{before} and {after} have no contender, stage and phase in common")
    return changes


def list_differences(before: str | Path, after: str | Path, names: Sequence[str]) -> list[str]:
    """Return the entries in which the machines of two reports differ: `threads: 1 -> 2`.

    Args:
        before: The earlier report.
        after: The later one.
        names: Entries of the machine, as `HARDWARE` or `SOFTWARE`. One that a report lacks is unknown.

    Raises:
        UserError: A file is no report.
    """
    old = _read_report(Path(before)).get("machine", {})
    new = _read_report(Path(after)).get("machine", {})
    differences = []
    for name in names:
        values = [machine.get(name, UNKNOWN) for machine in (old, new)]
        if values[0] != values[1]:
            differences.append(f"{name}: {values[0]} -> {values[1]}")
    return differences


def _read_report(path: Path) -> dict[str, Any]:
    """Return a report.

    Raises:
        UserError: The file cannot be read, or is no report.
    """
    try:
        report = json.loads(read_text(path))
        if report["format"] != FORMAT:
            raise UserError(f"{path} has format {report['format']}; this version reads format {FORMAT}")
        if not isinstance(report.get("machine", {}), dict):
            raise ValueError
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path} is not a report of `pggan-kit bench --json`") from None
    return dict(report)


def read_rows(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the rows of a report by contender, size and phase.

    Raises:
        UserError: The file cannot be read, is no report, or holds a figure that is not above 0.
    """
    report = _read_report(path)
    try:
        rows = {(row["contender"], row["size"], row["phase"]): row for row in report["rows"]}
        # Figures by which others are divided.
        figures = []
        for row in rows.values():
            figures += _list_figures(row)
        are_positive = all(math.isfinite(figure) and figure > 0 for figure in figures)
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
