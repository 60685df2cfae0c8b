"""Print the tables of `benchmarks/results/README.md` from a report: `python benchmarks/tables.py REPORT.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.benchmarking.tables import describe_measured_machine


def speeds(report: Mapping[str, Any]) -> str:
    """Return a table of images per second, with the ratio to the yardstick: a column for each contender."""
    contenders = list(dict.fromkeys(row["contender"] for row in report["rows"]))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in report["rows"]:
        text = f"{row['images_per_second']:.3g}"
        if "ratio" in row:
            text += f" ({row['ratio']:.2f})"
        cells.setdefault((row["size"], row["phase"]), {})[row["contender"]] = text

    lines = []
    for case, text_of in cells.items():
        lines.append([*case, *(text_of[name] for name in contenders)])
    return format_markdown(["size", "phase", *contenders], lines)


def costs(report: Mapping[str, Any], contender: str) -> str:
    """Return a table of the costs of an image at each size, after the fade."""
    lines = []
    for row in report["rows"]:
        if row["contender"] != contender or row["phase"] != "steady":
            continue
        milliseconds = 1000 / row["images_per_second"]
        gflops = row["gflops_per_image"]
        lines.append(
            [
                row["size"],
                f"{milliseconds:.3g}",
                f"{gflops:.3g}",
                f"{milliseconds / gflops:.3g}",
                f"{row['of_ceiling']:.0%}",
                f"{row['shares']['hooks']:.2%}",
            ]
        )
    head = ["size", "ms an image", "GFLOP an image", "ms a GFLOP", "of the ceiling", "outside the update"]
    return format_markdown(head, lines)


def format_markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def main() -> None:
    """Print the tables of the report that the command line names."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = json.loads(Path(sys.argv[1]).read_text())
    first_contender = report["rows"][0]["contender"]
    print(describe_measured_machine(report), speeds(report), costs(report, first_contender), sep="\n\n")


if __name__ == "__main__":
    main()
