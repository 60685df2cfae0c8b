"""An ablation's analysis, and its cost beforehand, as tables for people."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pggan_kit.ablation.statistics import ALPHA, EXACT_UP_TO

WIDTH = 140


def text(analysis: Mapping[str, Any]) -> str:
    """`table.txt`."""
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, color_system=None)
    for shown in tables(analysis):
        console.print(shown)
    console.print("\n".join(notes(analysis)), soft_wrap=True, highlight=False, markup=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def tables(analysis: Mapping[str, Any]) -> list[Table]:
    """The variants, the contrasts, and those of the other metrics."""
    metric = analysis["metric"]
    title = f"paired differences in {'log ' if analysis['scale'] == 'log' else ''}{metric}"
    found = [_variants(analysis), _contrasts(title, analysis["contrasts"])]
    if analysis["secondary"]:
        found.append(_contrasts("other metrics, not corrected for their number", analysis["secondary"]))
    return found


def _variants(analysis: Mapping[str, Any]) -> Table:
    shown = Table("variant", "runs", "died", analysis["metric"], "floor", title=analysis["name"])
    _right(shown)
    for name, entry in analysis["variants"].items():
        numbers = (_number(entry[key]) for key in ("mean", "floor"))
        shown.add_row(name, str(entry["trials"]), str(entry["died"]), *numbers)
    return shown


def _contrasts(title: str, entries: list[Mapping[str, Any]]) -> Table:
    shown = Table(
        *("contrast", "role", "n", "mean [95 %]", "p", "Holm", "TOST", "could see", "r", "died", "verdict"), title=title
    )
    _right(shown)
    for entry in entries:
        name = f"{entry['variant']} - {entry['against']}"
        if entry["role"] == "secondary":
            name = f"{entry['metric']}: {name}" + ("" if entry["scale"] == "log" else " (no log)")
        died = entry["failures"]
        secondary = entry["role"] == "secondary"  # the margin is the primary's
        shown.add_row(
            name,
            entry["role"],
            str(entry["n"]),
            _mean(entry),
            _p(entry["p"]) + (" (ranks)" if entry["ranks"] else ""),
            _p(entry.get("holm")),
            "" if secondary else _p(entry.get("equivalence_holm", entry["equivalence"])),
            _number(entry["smallest_effect"]),
            "" if entry["correlation"] is None else f"{entry['correlation']:.2f}",
            f"{died['variant']}:{died['against']}" + (f" (p {_p(died['p'])})" if died["p"] < 1 else ""),
            entry.get("verdict", ""),
        )
    return shown


def notes(analysis: Mapping[str, Any]) -> list[str]:
    """What the columns are, in lines."""
    tests = [entry["sign_flip"] for entry in analysis["contrasts"] if entry["sign_flip"]]
    drawn = sorted({test["patterns"] for test in tests if not test["exact"]})
    flips = f"all patterns up to {EXACT_UP_TO} pairs" + (f", else {drawn[0]:,} drawn ones" if drawn else "")
    means, differences = "means", "differences, with Student's interval."
    if analysis["scale"] == "log":
        means, differences = "geometric means", "log differences, with Student's interval; 0.1 is about 10 %."
    found = [
        f"{analysis['metric']}: {means}; {analysis['direction']} is better; floor: the same between halves of the real "
        "data.",
        f"mean [95 %]: of the pairs' {differences}",
        f"p: sign flips ({flips}); signed ranks, a run without a value the worst, where there is one.",
        "Holm: p corrected over the confirmatory contrasts. "
        f"TOST: equivalence within +-{analysis['margin']:g}, corrected likewise.",
        "could see: the smallest mean that sign flips of so many pairs find in 80 % of cases, "
        f"at {ALPHA:g} over the confirmatory contrasts.",
        "r: correlation between the runs of a pair. "
        "died: runs that failed or gave no finite value, with McNemar's exact test.",
        f"revision: {', '.join(analysis['revisions'])}. hardware: {'; '.join(analysis['hardware'])}.",
    ]
    for entry in analysis["contrasts"]:
        if entry["bootstrap"]:
            name, (low, high) = f"{entry['variant']} - {entry['against']}, {entry['role']}", entry["bootstrap"]
            found.append(f"bootstrap (BCa) of {name}: [{low:+.3f}, {high:+.3f}]")
    return found


def _right(table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"


def _mean(entry: Mapping[str, Any]) -> str:
    if entry["mean"] is None:
        return "-"
    if entry["interval"] is None:
        return f"{entry['mean']:+.3f}"
    low, high = entry["interval"]
    return f"{entry['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2g}" if value >= 1e-4 else "<1e-4"
