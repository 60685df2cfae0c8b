"""Show a report of `bench` as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from pggan_kit.benchmarking.report import describe_failure


def build_table(report: Mapping[str, Any]) -> Table:
    """Return the rows of a report of `bench` as a table."""
    has_ratios = any("ratio" in row for row in report["rows"])
    names = ["size", "phase", "contender", "images/s", "p10..p90"]
    if has_ratios:
        names.append("ratio")
    names += ["of ceiling", "GFLOP", "MiB", "first call", "where its time goes"]
    shown = Table(*names)
    for column in shown.columns[3:-1]:
        column.justify = "right"

    # A line between cases.
    last_case = None
    for row in report["rows"]:
        case = (row["size"], row["phase"])
        if last_case not in (None, case):
            shown.add_section()
        last_case = case
        shown.add_row(*_format_cells(row, has_ratios))
    lines = [describe_measured_machine(report)]
    lines += [describe_failure(row) for row in report["failures"]]
    for row in report["left_out"]:
        lines.append(f"no time for {row['contender']} at {row['size']} ({row['phase']}): {row['what']}")
    shown.caption = "\n".join(lines)
    return shown


def _format_cells(row: Mapping[str, Any], has_ratios: bool) -> list[str]:
    cells = [row["size"], row["phase"], row["contender"]]
    cells.append(f"{row['images_per_second']:.4g}")
    cells.append(f"{row['p10']:.4g}..{row['p90']:.4g}")
    if has_ratios:  # there is none where memory did not suffice for the first foreign contender
        cells.append(f"{row['ratio']:.2f}" if "ratio" in row else "")
    # Foreign contenders have no ceiling and no counted operations.
    cells.append(f"{row['of_ceiling']:.0%}" if "of_ceiling" in row else "")
    cells.append(f"{row['gflops_per_image']:.3g}" if "gflops_per_image" in row else "")
    cells.append(f"{row['peak_memory_mib']:.0f}")
    cells.append(f"{row['first_call_seconds']:.1f} s")
    shares = row.get("shares", {})
    cells.append(", ".join(f"{piece} {share:.0%}" for piece, share in shares.items()))
    return cells


def describe_measured_machine(report: Mapping[str, Any]) -> str:
    """Return one line on the machine that a report was measured on."""
    facts = report["machine"]
    gflops = facts["matrix_product"]
    products = ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in gflops.items())
    lacks = "" if facts["native_bfloat16"] else " without native bfloat16"
    if not gflops:
        products = "no memory to measure one"
    elif "bfloat16" not in gflops:
        products += " (bfloat16 is not native here, and not measured)"
    return (
        f"{facts['device']}{lacks}, {facts['threads']} threads, torch {facts['torch']}; a large matrix product: "
        f"{products}"
    )
