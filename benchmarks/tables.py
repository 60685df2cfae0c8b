"""Print the tables of `benchmarks/results/README.md` from a report: `python benchmarks/tables.py REPORT.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.benchmarking.tables import machine


def speeds(report: Mapping[str, Any]) -> str:
    """Images per second, and behind them the ratio to the yardstick: a column for each contender."""
    contenders = list(dict.fromkeys(row["contender"] for row in report["rows"]))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in report["rows"]:
        text = f"{row['images_per_second']:.3g}" + (f" ({row['ratio']:.2f})" if "ratio" in row else "")
        cells.setdefault((row["size"], row["phase"]), {})[row["contender"]] = text
    return markdown(
        ["size", "phase", *contenders],
        [[*case, *(found[name] for name in contenders)] for case, found in cells.items()],
    )


def costs(report: Mapping[str, Any], contender: str) -> str:
    """What an image costs at each size, once its fade is over."""
    rows = [row for row in report["rows"] if (row["contender"], row["phase"]) == (contender, "steady")]
    lines = []
    for row in rows:
        milliseconds = 1000 / row["images_per_second"]
        outside = f"{row['shares']['hooks']:.2%}"
        figures = (milliseconds, row["gflops_per_image"], milliseconds / row["gflops_per_image"])
        lines.append([row["size"], *(f"{value:.3g}" for value in figures), f"{row['of_ceiling']:.0%}", outside])
    return markdown(
        ["size", "ms an image", "GFLOP an image", "ms a GFLOP", "of the ceiling", "outside the update"], lines
    )


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    read = json.loads(Path(sys.argv[1]).read_text())
    print(machine(read), speeds(read), costs(read, read["rows"][0]["contender"]), sep="\n\n")
