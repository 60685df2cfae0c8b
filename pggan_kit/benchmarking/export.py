"""Write a report of `bench` as other tools read it, which keep the history of a project's speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pggan_kit.benchmarking.compare import read_rows
from pggan_kit.errors import UserError, did_you_mean, suggest

Rows = dict[tuple[str, str, str], dict[str, Any]]
"""Rows of a report by contender, size and phase."""


def export(report: str | Path, tool: str) -> Any:
    """Return a report as another tool reads it, ready for JSON.

    Args:
        report: A file that `bench --json` wrote.
        tool: A name in `TOOLS`.

    Raises:
        UserError: The file is no report, the tool is unknown, or the report has no ratios, which it would show.
    """
    if tool not in TOOLS:
        raise UserError(f"--to {tool}: no such tool{suggest(did_you_mean(tool, TOOLS))}; tools are {', '.join(TOOLS)}")
    return TOOLS[tool](read_rows(Path(report)), str(report))


def _list_ratios(rows: Rows, report: str) -> list[dict[str, Any]]:
    """Return the ratios as github-action-benchmark reads them (`customBiggerIsBetter`).

    Its page draws a line for each name. Images per second would be a history of machines: hosted ones differ.

    Raises:
        UserError: The report has no ratios.
    """
    entries = []
    for (contender, size, phase), row in rows.items():
        if "ratio" in row:
            entry = {
                "name": _name_case(contender, size, phase),
                "unit": f"times {row.get('ratio_to', 'the reference')}",
                "value": row["ratio"],
            }
            if "ratio_p10" in row and "ratio_p90" in row:
                entry["range"] = f"{row['ratio_p10']:.4g} to {row['ratio_p90']:.4g}"
            entry["extra"] = f"{row['images_per_second']:.5g} images per second on this machine"
            entries.append(entry)
    if not entries:
        raise UserError(f"{report} has no ratios: measure with --against FILE.py:FUNCTION")
    return entries


def _list_measures(rows: Rows, report: str) -> dict[str, Any]:
    """Return images per second, and ratios where there are any, in the Bencher Metric Format."""
    benchmarks: dict[str, Any] = {}
    for case, row in rows.items():
        measures = {"images-per-second": _make_measure(row, "images_per_second", "p10", "p90")}
        if "ratio" in row:
            measures["ratio"] = _make_measure(row, "ratio", "ratio_p10", "ratio_p90")
        benchmarks[_name_case(*case)] = measures
    return benchmarks


def _make_measure(row: dict[str, Any], name: str, lower: str, upper: str) -> dict[str, float]:
    measure = {"value": row[name]}
    if lower in row and upper in row:
        measure["lower_value"] = row[lower]
        measure["upper_value"] = row[upper]
    return measure


def _name_case(contender: str, size: str, phase: str) -> str:
    return f"{contender} at {size} ({phase})"


TOOLS: dict[str, Callable[[Rows, str], Any]] = {"github-action-benchmark": _list_ratios, "bencher": _list_measures}
"""The tools that a report can be written for."""
