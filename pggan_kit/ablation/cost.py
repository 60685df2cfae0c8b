"""What an ablation will cost, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.statistics import ALPHA, POWER, detectable
from pggan_kit.benchmarking import plan as planning


def cost(
    config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[str | Path] = ()
) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan of an ablation, and one row for the trunks (where there are any) and for each variant.

    Args:
        config, bindings, plugins: see `pggan_kit.ablation.ablate`.

    Returns:
        The plan; `trial` (the variant, or `trunk`), `role`, `seeds`, `from` (the stage whose end a trial begins from,
        None: from the start), and of one trial `images`, `teraflops` (of both networks' forward passes) and `hours`,
        all without its trunk's. The hours are those of `pggan_kit.planning.plan` on this machine.
    """
    plan, _ = plans.read(config, bindings, plugins)
    base = Path(config).parent / plan.base
    stages = {name: planning.plan(base, bindings, plugins) for name, bindings in plan.variants.items()}
    rows, first = [], 0
    if plan.branch is not None:
        first = plan.branch + 1
        rows.append(_row(TRUNK, "trunk", len(list(plan.trunks())), None, stages[plan.shared[0]][:first]))
    for name in plan.variants:
        role = "control" if name in plan.controls else "variant"
        begins, own = (plan.branch, stages[name][first:]) if name in plan.shared else (None, stages[name])
        rows.append(_row(name, role, len(plan.seeds_of(name)), begins, own))
    return plan, rows


def _row(name: str, role: str, seeds: int, begins: int | None, stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "trial": name,
        "role": role,
        "seeds": seeds,
        "from": begins,
        "images": sum(_images(stage) for stage in stages),
        "teraflops": sum(_images(stage) * stage["gflops"] for stage in stages) / 1000,
        "hours": sum(stage["hours"] for stage in stages),
    }


def _images(stage: dict[str, Any]) -> int:
    return int(stage["fade_images"] + stage["stable_images"])


def could_see(plan: Plan) -> str:
    """Say how large a difference must be so that the plan finds it."""
    pairs, contrasts = len(plan.seeds), len(plan.confirmatory)
    deviations = detectable(pairs, ALPHA / contrasts)
    assert deviations is not None, "a plan with fewer seeds is refused"
    return (
        f"{pairs} pairs, {contrasts} confirmatory contrast{'' if contrasts == 1 else 's'}: sign flips find a mean of "
        f"{deviations:.2g} standard deviations of the pairs' differences in {POWER:.0%} of cases"
    )


def table(plan: Plan, rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of `cost` for people."""
    shown = Table("trial", "role", "trials", "from", "images", "TFLOP", "time", "all", title=plan.name)
    for column in shown.columns[2:]:
        column.justify = "right"
    for row in rows:
        seconds = row["hours"] * 3600
        shown.add_row(
            row["trial"],
            row["role"],
            str(row["seeds"]),
            "start" if row["from"] is None else f"trunk@{row['from']}",
            f"{row['images']:,}",
            f"{row['teraflops']:.3g}",
            planning.duration(seconds),
            planning.duration(seconds * row["seeds"]),
        )
    trials, total = sum(row["seeds"] for row in rows), sum(row["hours"] * row["seeds"] for row in rows)
    shown.caption = (
        f"{trials} trials, {planning.duration(total * 3600)} one after another on this machine, without fades, "
        "observers and evaluation"
    )
    if plan.confirmatory:
        shown.caption += f"\n{could_see(plan)}"
    return shown
