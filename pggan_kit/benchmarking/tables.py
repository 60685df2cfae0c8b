"""A report for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def table(report: Mapping[str, Any]) -> Table:
    """The rows of `bench`."""
    ratios = any("ratio" in row for row in report["rows"])
    names = ["size", "phase", "contender", "images/s", "p10..p90", "ratio", "of ceiling", "GFLOP", "MiB", "first call"]
    if not ratios:
        names.remove("ratio")
    shown = Table(*names, "where its time goes")
    for column in shown.columns[3:-1]:
        column.justify = "right"
    last = None
    for row in report["rows"]:
        cells = [row["size"], row["phase"], row["contender"], f"{row['images_per_second']:.4g}"]
        cells.append(f"{row['p10']:.4g}..{row['p90']:.4g}")
        if ratios:
            cells.append(f"{row['ratio']:.2f}")
        cells.append(f"{row['of_ceiling']:.0%}" if "of_ceiling" in row else "")
        cells.append(f"{row['gflops_per_image']:.3g}" if "gflops_per_image" in row else "")
        cells += [f"{row['peak_memory_mib']:.0f}", f"{row['first_call_seconds']:.1f} s"]
        cells.append(", ".join(f"{piece} {share:.0%}" for piece, share in row.get("shares", {}).items()))
        if last not in (None, (row["size"], row["phase"])):
            shown.add_section()
        last = (row["size"], row["phase"])
        shown.add_row(*cells)
    shown.caption = machine(report)
    return shown


def machine(report: Mapping[str, Any]) -> str:
    """One line on what it was measured on."""
    own = report["machine"]
    products = ", ".join(f"{gflops:.0f} GFLOP/s in {name}" for name, gflops in own["matrix_product"].items())
    bf16 = "" if own["native_bfloat16"] else " without native bfloat16"
    return f"{own['device']}{bf16}, {own['threads']} threads, torch {own['torch']}; a large matrix product: {products}"
