"""Show an ablation's analysis as tables of text."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pggan_kit.ablation.designs import list_design_notes
from pggan_kit.ablation.statistics import ALPHA, EXACT_UP_TO, POWER

WIDTH = 140
"""Characters of a line of `table.txt`."""


def render_text(analysis: Mapping[str, Any]) -> str:
    """Return the content of `table.txt`: the tables of an analysis, and what their columns mean."""
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, color_system=None)
    for table in build_tables(analysis):
        console.print(table)
    console.print("\n".join(list_notes(analysis)), soft_wrap=True, highlight=False, markup=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def build_tables(analysis: Mapping[str, Any]) -> list[Table]:
    """Return the tables of the variants, of the contrasts, and of the contrasts in other metrics if there are any."""
    quantity = analysis["metric"]
    if analysis["scale"] == "log":
        quantity = f"log {quantity}"
    tables = [
        _build_variant_table(analysis),
        _build_contrast_table(f"paired differences in {quantity}", analysis["contrasts"]),
    ]
    if "looks" in analysis:
        tables.append(_build_look_table(analysis))
    if analysis["secondary"]:
        tables.append(_build_contrast_table("other metrics, not corrected for their number", analysis["secondary"]))
    return tables


def _build_variant_table(analysis: Mapping[str, Any]) -> Table:
    table = Table("variant", "runs", "failed", analysis["metric"], "floor", title=analysis["name"])
    _align_right(table)
    for name, entry in analysis["variants"].items():
        table.add_row(
            name,
            str(entry["trials"]),
            str(entry["died"]),
            _format_number(entry["mean"]),
            _format_number(entry["floor"]),
        )
    return table


def _build_contrast_table(title: str, entries: list[Mapping[str, Any]]) -> Table:
    table = Table(title=title)
    for header in ("contrast", "role", "n", "mean [95 %]", "p", "Holm", "TOST", "detectable", "r", "failed", "verdict"):
        table.add_column(header)
    _align_right(table)

    for entry in entries:
        name = entry["name"]
        equivalence = _format_p(entry.get("equivalence_holm", entry["equivalence"]))
        if entry["role"] == "secondary":
            name = f"{entry['metric']}: {name}"
            if entry["scale"] != "log":
                name += " (no log)"
            equivalence = ""  # the margin is that of the primary
        p = _format_p(entry["p"])
        if entry["ranks"]:
            p += " (ranks)"
        table.add_row(
            name,
            entry["role"],
            str(entry["n"]),
            _format_mean(entry),
            p,
            _format_p(entry.get("holm")),
            equivalence,
            _format_number(entry["smallest_effect"]),
            "" if entry["correlation"] is None else f"{entry['correlation']:.2f}",
            _format_failures(entry["failures"]),
            entry.get("verdict", ""),
        )
    return table


def _build_look_table(analysis: Mapping[str, Any]) -> Table:
    table = Table(title="looks")
    headers = "contrast,look,pairs,abs mean,from,p,spent,TOST,below,predicted,decision"
    for header in headers.split(","):
        table.add_column(header)
    _align_right(table)
    for entry in analysis["contrasts"]:
        for look in entry.get("looks", ()):
            table.add_row(
                entry["name"],
                f"{look['look']} of {len(analysis['looks']['pairs'])}",
                str(look["pairs"]),
                _format_number(look["statistic"]),
                "never" if look["boundary"] is None else _format_number(look["boundary"]),
                _format_p(look["p"]) + (" (ranks)" if look["ranks"] else ""),
                _format_p(look["spent"]),
                _format_p(look["equivalence"]),
                _format_p(look["equivalence_boundary"]),
                "" if look["predicted"] is None else f"{look['predicted']:.0%}",
                look["decision"],
            )
    return table


def _list_notes_on_looks(looks: Mapping[str, Any]) -> list[str]:
    """Return lines that explain the table of looks, and say which runs were not needed."""
    rows = zip(looks["spent"], looks["pairs"], strict=True)
    spent = ", ".join(f"{error:.2%} by {pairs} pairs" for error, pairs in rows)
    notes = [
        f"looks: the error of all confirmatory contrasts that may be spent is {spent} ({looks['spending']}). A "
        "confirmatory contrast is compared over the pairs of its last look; its interval is the repeated one, which "
        "holds at all looks together. The mean of a contrast that stopped early is on average too far from 0.",
        "abs mean: of the differences, or of the signed ranks where a run has no value; a difference is found "
        "from the value `from` on. spent: the share of all sign patterns that were rejected by this look. below: "
        "equivalent if TOST is below.",
        "predicted: the predicted probability that the last look decides; a contrast stops as futile below "
        f"{looks['futility']:.0%}. Neither error counts on such a stop.",
    ]
    if looks["not_run"]:
        runs = ", ".join(f"{count} of {name}" for name, count in looks["not_run"].items())
        notes.append(f"planned and not run, since no look needed them: {runs}.")
    return notes


def list_notes(analysis: Mapping[str, Any]) -> list[str]:
    """Return lines that explain the columns, and those bootstrap intervals that the tables have no room for."""
    means = "means"
    differences = "differences, with Student's interval."
    if analysis["scale"] == "log":
        means = "geometric means"
        differences = "log differences, with Student's interval; 0.1 is about 10 %."

    # Tests of many pairs draw their sign patterns.
    tests = [entry["sign_flip"] for entry in analysis["contrasts"] if entry["sign_flip"]]
    drawn = sorted({test["patterns"] for test in tests if not test["exact"]})
    flips = f"all patterns up to {EXACT_UP_TO} pairs"
    if drawn:
        flips += f", else {drawn[0]:,} drawn ones"

    notes = [
        *list_design_notes(analysis["design"]),
        f"{analysis['metric']}: {means}; {analysis['direction']} is better; floor: the same metric between two halves "
        "of the real data.",
        f"mean [95 %]: mean of the pairs' {differences}",
        f"p: from sign flips ({flips}); where a run has no value, from signed ranks, in which it is the worst.",
        "Holm: p corrected for the number of confirmatory contrasts. "
        f"TOST: p of equivalence within +-{analysis['margin']:g}, corrected likewise.",
        f"detectable: the smallest mean that sign flips of this number of pairs detect in {POWER:.0%} of cases, "
        f"at {ALPHA:g} over the confirmatory contrasts.",
        "r: correlation between the runs of a pair. "
        "failed: runs that failed or gave no finite value, with McNemar's exact test.",
        f"revision: {', '.join(analysis['revisions'])}. hardware: {'; '.join(analysis['hardware'])}.",
    ]
    if "looks" in analysis:
        notes += _list_notes_on_looks(analysis["looks"])
    for entry in analysis["contrasts"]:
        if entry["bootstrap"]:
            low, high = entry["bootstrap"]
            name = entry["name"]
            notes.append(f"bootstrap (BCa) of {name}, {entry['role']}: [{low:+.3f}, {high:+.3f}]")
    return notes


def _align_right(table: Table) -> None:
    """Align all columns but the first to the right."""
    for column in table.columns[1:]:
        column.justify = "right"


def _format_mean(entry: Mapping[str, Any]) -> str:
    if entry["mean"] is None:
        return "-"
    if entry["interval"] is None:
        return f"{entry['mean']:+.3f}"
    low, high = entry["interval"]
    return f"{entry['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _format_number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}"


def _format_p(value: float | None) -> str:
    if value is None:
        return ""
    if value < 1e-4:
        return "<1e-4"
    return f"{value:.2g}"


def _format_failures(failures: Mapping[str, Any]) -> str:
    """Return the failed runs of both variants, with the test's p-value if they differ."""
    text = f"{failures['variant']}:{failures['against']}"
    if failures["p"] < 1:
        text += f" (p {_format_p(failures['p'])})"
    return text
