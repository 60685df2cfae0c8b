"""Estimate what an ablation will cost, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.statistics import ALPHA, POWER, find_detectable_mean
from pggan_kit.benchmarking import plan as planning
from pggan_kit.errors import TrainingError
from pggan_kit.system.activities import track_items


def estimate_cost(
    config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[str | Path] = ()
) -> tuple[Plan, list[dict[str, Any]]]:
    """Return the plan of an ablation, and the cost of its trunks (if it has any) and of each variant.

    Args:
        config, bindings, plugins: See `pggan_kit.ablation.ablate`.

    Returns:
        The plan, and one row for the trunks and for each variant: `trial` (the variant, or `trunk`), `role`, `seeds`,
        `from` (the stage after whose end a trial begins; None: from scratch), and for one trial, without its trunk,
        `images`, `teraflops` (forward passes of both networks) and `hours` (as `pggan-kit plan` estimates them on
        this machine).
    """
    plan, _ = plans.read_plan(config, bindings, plugins)
    base = Path(config).parent / plan.base
    stages = {}
    for name, own_bindings in track_items(plan.variants.items(), "planning", len(plan.variants), "variants"):
        stages[name] = planning.plan(base, own_bindings, plugins)

    # The first stages of the variants that share a trunk are trained once for each seed.
    rows = []
    shared_stages = 0
    if plan.branch is not None:
        shared_stages = plan.branch + 1
        trunk_stages = stages[plan.shared[0]][:shared_stages]
        rows.append(_make_row(TRUNK, "trunk", len(list(plan.list_trunks())), None, trunk_stages))

    for name in plan.variants:
        role = "control" if name in plan.controls else "variant"
        seeds = len(plan.select_seeds(name))
        if name in plan.shared:
            rows.append(_make_row(name, role, seeds, plan.branch, stages[name][shared_stages:]))
        else:
            rows.append(_make_row(name, role, seeds, None, stages[name]))
    return plan, rows


def _make_row(name: str, role: str, seeds: int, branch: int | None, stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the cost of one trial that trains these stages, beginning after the stage `branch`."""
    return {
        "trial": name,
        "role": role,
        "seeds": seeds,
        "from": branch,
        "images": sum(_count_images(stage) for stage in stages),
        "teraflops": sum(_count_images(stage) * stage["gflops"] for stage in stages) / 1000,
        "hours": _sum_hours(name, stages),
    }


def _sum_hours(name: str, stages: Sequence[dict[str, Any]]) -> float:
    """Return the hours of a trial's stages.

    Raises:
        TrainingError: A stage does not fit into memory, and none before it does.
    """
    unknown = [stage["size"] for stage in stages if stage["hours"] is None]
    if unknown:
        raise TrainingError(f"{name}: memory ends at {unknown[0]}, and `pggan-kit plan` shows what would fit")
    return float(sum(stage["hours"] for stage in stages))


def _count_images(stage: dict[str, Any]) -> int:
    return int(stage["fade_images"] + stage["stable_images"])


def find_detectable_effect(plan: Plan) -> float:
    """Return the mean difference that a plan with confirmatory contrasts detects, in standard deviations."""
    deviations = find_detectable_mean(len(plan.seeds), ALPHA / len(plan.confirmatory))
    assert deviations is not None, "a plan with fewer seeds is refused"
    return deviations


def describe_cost(plan: Plan, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a dry run shows, for programs.

    Returns:
        `trials` (the rows of `estimate_cost`), `pairs` (seeds), `confirmatory` (contrasts), and, if there are any of
        these, `detectable`: the mean difference that the plan detects in 80 % of cases, in standard deviations of the
        pairs' differences.
    """
    description: dict[str, Any] = {
        "trials": list(rows),
        "pairs": len(plan.seeds),
        "confirmatory": len(plan.confirmatory),
    }
    if plan.confirmatory:
        description["detectable"] = find_detectable_effect(plan)
    return description


def describe_detectable_effect(plan: Plan) -> str:
    """Return a sentence on how large a difference the plan detects."""
    contrasts = len(plan.confirmatory)
    noun = "contrast" if contrasts == 1 else "contrasts"
    return (
        f"{len(plan.seeds)} pairs, {contrasts} confirmatory {noun}: sign flips detect a mean of "
        f"{find_detectable_effect(plan):.2g} standard deviations of the pairs' differences in {POWER:.0%} of cases"
    )


def build_cost_table(plan: Plan, rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows of `estimate_cost` as a table, with their sum and the detectable difference as its caption."""
    table = Table("trial", "role", "trials", "from", "images", "TFLOP", "time", "all", title=plan.name)
    for column in table.columns[2:]:
        column.justify = "right"

    # Each row shows one trial, and all trials of its kind.
    trials = 0
    total_hours = 0.0
    for row in rows:
        trials += row["seeds"]
        total_hours += row["hours"] * row["seeds"]
        seconds = row["hours"] * 3600
        table.add_row(
            row["trial"],
            row["role"],
            str(row["seeds"]),
            "scratch" if row["from"] is None else f"trunk@{row['from']}",
            f"{row['images']:,}",
            f"{row['teraflops']:.3g}",
            planning.format_duration(seconds),
            planning.format_duration(seconds * row["seeds"]),
        )

    table.caption = (
        f"{trials} trials, {planning.format_duration(total_hours * 3600)} one after another on this machine, "
        "without fades, observers and evaluation"
    )
    if plan.confirmatory:
        table.caption += f"\n{describe_detectable_effect(plan)}"
    return table
