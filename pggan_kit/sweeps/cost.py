"""Estimate what a search will cost at most, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from pggan_kit.benchmarking.evaluation_cost import EvaluationClock, estimate_evaluations
from pggan_kit.benchmarking.plan_table import format_duration
from pggan_kit.sweeps.plan import SweepPlan
from pggan_kit.sweeps.plan_reading import PrepareWith
from pggan_kit.trials.stage_costs import sum_stage_costs


def estimate_trial(
    plan: SweepPlan, stages: Sequence[dict[str, Any]], clock: EvaluationClock, prepare_with: PrepareWith
) -> dict[str, Any]:
    """Return what one run of a trial costs that no pruner stops, without the values that are searched.

    Args:
        plan: The plan.
        stages: Cost of each stage, see `benchmarking.plan`.
        clock: The measured seconds of evaluations.
        prepare_with: Function that returns the experiment under further bindings.

    Returns:
        `runs` (of all trials), and of one of them `images`, `teraflops` (forward passes of both networks), `hours` (on
        this machine), `tick_evaluations`, `evaluation_images` and `evaluation_hours`, as
        `evaluation_cost.estimate_evaluations` gives them, with the evaluations at the ends of its stages.

    Raises:
        TrainingError: A stage does not fit into memory.
    """
    stage_costs = sum_stage_costs(plan.name, stages)

    # Evaluations at ticks, and at the ends of the stages that are measured.
    training = prepare_with([])
    evaluation = prepare_with(plan.evaluation)
    cost = estimate_evaluations(clock, training, None, range(len(stages)), 0)
    schedule = evaluation.schedule()
    for stage in plan.stages:
        seconds = clock.find_seconds("tuning", evaluation, schedule, schedule.stages[stage])
        cost["evaluation_images"] += evaluation.built.experiment.evaluation.count
        cost["evaluation_hours"] += seconds / 3600
    return {"runs": plan.trials * len(plan.seeds), **stage_costs, **cost}


def build_plan_table(plan: SweepPlan, cost: dict[str, Any]) -> Table:
    """Return the parameters of a sweep as a table, with the cost of its trials as the caption."""
    table = Table("parameter", "range", title=plan.name)
    for name, own_range in plan.space.items():
        table.add_row(name, own_range.describe())

    # The caption: the trials, how they are judged, and what they cost.
    seeds = "1 seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds"
    pruner = "no pruner"
    if plan.pruner is not None:
        pruner = f"{plan.pruner} may stop trials after {', '.join(plan.sizes[:-1])}"
    training = format_duration(cost["hours"] * 3600)
    measuring = format_duration(cost["evaluation_hours"] * 3600)
    everything = format_duration((cost["hours"] + cost["evaluation_hours"]) * cost["runs"] * 3600)
    table.caption = (
        f"{plan.trials} trials of {seeds} each, {plan.search}; {plan.metric}, {plan.direction} is better, measured at "
        f"{', '.join(plan.sizes)}; {pruner}\n"
        f"a run: {cost['images']:,} images, {cost['teraflops']:.3g} TFLOP, {training} and {measuring} for metrics; all "
        f"at most {everything} one after another on this machine"
    )
    return table
