"""Estimate what an ablation will cost, before anything is trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.ablation import looks, plan_reading
from pggan_kit.ablation.designs import list_design_notes
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.sources import EVERYTHING
from pggan_kit.ablation.statistics import ALPHA, POWER, find_detectable_mean
from pggan_kit.ablation.wide_tables import WideTable
from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.benchmarking import plan as planning
from pggan_kit.benchmarking.evaluation_cost import EvaluationClock, estimate_evaluations
from pggan_kit.benchmarking.plan_table import format_duration
from pggan_kit.sweeps.cost import estimate_trial
from pggan_kit.system.activities import track_items
from pggan_kit.trials.settings_files import choose_folder
from pggan_kit.trials.stage_costs import sum_stage_costs

EXPECTED_AT = (0, 1, 2)
"""Multiples of the detectable mean for which a dry run says how many runs the looks will need."""


def estimate_cost(
    config: str | Path,
    bindings: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    out: str | Path | None = None,
) -> tuple[Plan, list[dict[str, Any]]]:
    """Return the plan of an ablation, and the cost of its trunks (if it has any) and of each variant.

    Args:
        config, bindings, plugins, out: See `pggan_kit.ablation.ablate`.

    Returns:
        The plan, and one row for the search within each variant (if they are tuned; `seeds` is the number of all its
        runs), for the trunks and for each variant: `trial` (the variant, or `trunk`), `role`, `seeds`,
        `from` (the stage after whose end a trial begins; None: from scratch), and for one trial, without its trunk,
        `images`, `teraflops` (forward passes of both networks) and `hours` (as `pggan-kit plan` estimates them on
        this machine), and what its metrics cost beside these, see `evaluation_cost.estimate_evaluations`.
    """
    plan, _ = plan_reading.read_plan(config, bindings, plugins, choose_folder(config, out))
    base = Path(config).parent / plan.base
    stages = {}
    warned: dict[str, list[str]] = {}
    clock = EvaluationClock()
    evaluations: dict[str, dict[str, Any]] = {}
    for name, own_bindings in track_items(plan.variants.items(), "planning", len(plan.variants), "variants"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # Metrics have a clock of their own, which measures those of all variants once.
            stages[name] = planning.plan(base, own_bindings, plugins, with_metrics=False)
        for warning in caught:
            warned.setdefault(str(warning.message), []).append(name)
        evaluations |= _estimate_evaluations_of(plan, base, name, len(stages[name]), clock, plugins)

    # What several variants are warned of is said once.
    for message, names in warned.items():
        warnings.warn(f"{', '.join(names)}: {message}", stacklevel=2)

    # Trials are run in this order: searches, trunks, variants.
    tuning_rows = _list_tuning_rows(plan, base, stages, clock, plugins)
    return plan, [*tuning_rows, *_list_training_rows(plan, stages, evaluations)]


def _estimate_evaluations_of(
    plan: Plan, base: Path, name: str, stage_count: int, clock: EvaluationClock, plugins: Sequence[str | Path]
) -> dict[str, dict[str, Any]]:
    """Return what the metrics of a variant's trial cost, by its name; and those of its trunk, with the first variant.

    Args:
        plan: The plan.
        base: Gin file of the experiment.
        name: The variant.
        stage_count: Number of its stages.
        clock: The measured seconds of evaluations.
        plugins: Files of plugins.
    """
    # Metrics of ticks are those of the training, metrics of the end those of the evaluation.
    own_bindings = plan.variants[name]
    training = prepare(base, own_bindings, plugins)
    evaluation = prepare(base, [*own_bindings, *plan.evaluation], plugins)

    # What variants share is trained and measured once, by the trunk.
    estimates = {}
    own_stages = range(stage_count)
    if name in plan.shared and plan.branch is not None:
        if name == plan.shared[0]:
            estimates[TRUNK] = estimate_evaluations(clock, training, None, own_stages[: plan.branch + 1], 0)
        own_stages = own_stages[plan.branch + 1 :]
    averages = 1 + len(plan.averages)
    estimates[name] = estimate_evaluations(clock, training, evaluation, own_stages, averages)
    return estimates


def _list_training_rows(
    plan: Plan, stages: Mapping[str, Sequence[dict[str, Any]]], evaluations: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the cost of the trunks, if there are any, and of each variant.

    Args:
        plan: The plan.
        stages: Cost of each stage, by the variant.
        evaluations: What metrics cost, by the variant, and `TRUNK`.
    """
    # The first stages of the variants that share a trunk are trained once for each seed.
    rows = []
    shared_stages = 0
    if plan.branch is not None:
        shared_stages = plan.branch + 1
        trunk_stages = stages[plan.shared[0]][:shared_stages]
        row = _make_row(TRUNK, "trunk", len(list(plan.list_trunks())), None, trunk_stages)
        rows.append({**row, **evaluations[TRUNK]})

    for name in plan.variants:
        role = "control" if name in plan.controls else "variant"
        if name in plan.exploratory_variants:
            role = "exploratory"
        seeds = len(plan.select_seeds(name))
        if name in plan.shared:
            row = _make_row(name, role, seeds, plan.branch, stages[name][shared_stages:])
        else:
            row = _make_row(name, role, seeds, None, stages[name])
        rows.append({**row, **evaluations[name]})
    return rows


def _list_tuning_rows(
    plan: Plan,
    base: Path,
    stages: Mapping[str, Sequence[dict[str, Any]]],
    clock: EvaluationClock,
    plugins: Sequence[str | Path],
) -> list[dict[str, Any]]:
    """Return the cost of the search within each variant, if no trial ends early."""
    rows = []
    for name, search in plan.searches.items():

        def prepare_with(further: Sequence[str], name: str = name) -> Prepared:
            return prepare(base, [*plan.variants[name], *further], plugins)

        cost = estimate_trial(search, stages[name], clock, prepare_with)
        rows.append({"trial": name, "role": "tuning", "seeds": cost.pop("runs"), "from": None, **cost})
    return rows


def _make_row(name: str, role: str, seeds: int, branch: int | None, stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the cost of one trial that trains these stages, beginning after the stage `branch`."""
    return {
        "trial": name,
        "role": role,
        "seeds": seeds,
        "from": branch,
        **sum_stage_costs(name, stages),
    }


def find_confirmatory_level(plan: Plan) -> float:
    """Return the level at which Holm's first step tests a confirmatory contrast; with looks, that of the last look."""
    if plan.looks:
        return looks.find_levels(plan)[-1]
    return ALPHA / len(plan.confirmatory)


def find_detectable_effect(plan: Plan) -> float:
    """Return the mean difference that a plan with confirmatory contrasts detects, in standard deviations."""
    deviations = find_detectable_mean(len(plan.seeds), find_confirmatory_level(plan))
    assert deviations is not None, "a plan with fewer seeds is refused"
    return deviations


def describe_cost(plan: Plan, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a dry run shows, for programs.

    Returns:
        `trials` (the rows of `estimate_cost`), `pairs` (seeds), `confirmatory` (number of such contrasts), `contrasts`
        (see `describe_contrasts`), `design` (see `designs.Design`; empty if the variants were written one by one), and,
        if there are confirmatory contrasts, `detectable`: the mean difference that the plan detects in 80 % of cases,
        in standard deviations of the pairs' differences. With looks also what `plan_looks` gives.
    """
    description: dict[str, Any] = {
        "trials": list(rows),
        "pairs": len(plan.seeds),
        "confirmatory": len(plan.confirmatory),
        "contrasts": describe_contrasts(plan),
        "design": plan.design,
    }

    # What only some plans have.
    if plan.confirmatory:
        description["detectable"] = find_detectable_effect(plan)
    if plan.looks:
        description |= plan_looks(plan)
    return description


def plan_looks(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Return what the looks of a plan can see, and what they save.

    Returns:
        `looks`: for each its `pairs`, `spent` (the error that may be spent by it on all confirmatory contrasts) and
        `detectable` (the mean that it detects by itself in 80 % of cases, in standard deviations; None if it detects
        none); and `expected`: for some `mean` of all confirmatory contrasts, in standard deviations, the number of
        `runs` that the looks will need, trunks left out.
    """
    rows = []
    columns = (plan.looks, looks.spend_over_looks(plan), looks.find_detectable_means(plan))
    for pairs, spent, deviations in zip(*columns, strict=True):
        rows.append({"pairs": pairs, "spent": spent, "detectable": deviations})
    means = [multiple * find_detectable_effect(plan) for multiple in EXPECTED_AT]
    return {"looks": rows, "expected": [{"mean": mean, "runs": looks.expect_runs(plan, mean)} for mean in means]}


def describe_looks(plan: Plan) -> str:
    """Return lines on the looks of a plan: the error spent, the effect that each sees, and the runs that they save."""
    description = plan_looks(plan)
    pairs = []
    for row in description["looks"]:
        sees = "none" if row["detectable"] is None else f"{row['detectable']:.2g}"
        pairs.append(f"{row['pairs']} pairs ({row['spent']:.2%}, {sees})")
    runs = [f"{row['runs']:.0f} at {row['mean']:.2g}" for row in description["expected"]]
    return (
        f"looks ({plan.spending}; error spent, mean detected): {', '.join(pairs)}\n"
        f"expected runs, of {len(list(plan.list_runs()))}, by the mean of all confirmatory contrasts in "
        f"standard deviations: {', '.join(runs)}"
    )


def describe_contrasts(plan: Plan) -> list[dict[str, Any]]:
    """Return what each contrast compares and how small a difference it can see.

    Returns:
        For each contrast `name`, `role`, `weights`, and `pairs`, the number of its seeds; `detectable`: the mean that
        sign flips detect in 80 % of cases, in standard deviations of the seeds' differences, corrected as Holm's first
        step if the contrast is confirmatory; and `detectable_in_runs`, the same in standard deviations of a single run,
        if the runs of a seed were independent: pairing can only improve on it where runs of a seed are alike. Both
        are None where so few seeds detect nothing.
    """
    entries = []
    for contrast in plan.list_contrasts():
        pairs = min(len([seed for seed in plan.select_seeds(name) if seed in plan.seeds]) for name in contrast.weights)
        # Seeds that were added later are not among them: they decide nothing.
        level = ALPHA
        if contrast.role == "confirmatory":
            level = find_confirmatory_level(plan)
        detectable = find_detectable_mean(pairs, level)

        # In units of one run: variances of independent runs add up.
        in_runs = None
        if detectable is not None:
            in_runs = detectable * math.sqrt(sum(weight**2 for weight in contrast.weights.values()))
        entries.append(
            {
                "name": contrast.name,
                "role": contrast.role,
                "weights": dict(contrast.weights),
                "pairs": pairs,
                "detectable": detectable,
                "detectable_in_runs": in_runs,
            }
        )
    return entries


def describe_detectable_effect(plan: Plan) -> str:
    """Return a sentence on how large a difference the plan detects."""
    contrasts = len(plan.confirmatory)
    noun = "contrast" if contrasts == 1 else "contrasts"
    return (
        f"{len(plan.seeds)} pairs, {contrasts} confirmatory {noun}: sign flips detect a mean of "
        f"{find_detectable_effect(plan):.2g} standard deviations of the pairs' differences in {POWER:.0%} of cases"
    )


def build_contrast_table(plan: Plan) -> WideTable:
    """Return what each contrast can see as a table, with the aliases of a fraction as its caption."""
    # A row for each contrast.
    headers = ("contrast", "role", "pairs", "variants", "detectable", "in sd of runs")
    table = WideTable(headers, keys=2, title="contrasts")
    for entry in describe_contrasts(plan):
        numbers = [entry["detectable"], entry["detectable_in_runs"]]
        cells = ["-" if number is None else f"{number:.2g}" for number in numbers]
        table.add_row(entry["name"], entry["role"], str(entry["pairs"]), str(len(entry["weights"])), *cells)

    # What the rows mean.
    lines = list_design_notes(plan.design)
    lines.append(
        f"detectable: the mean that is detected in {POWER:.0%} of cases, in standard deviations of the pairs' "
        "differences; and in those of single runs, if the runs of a seed were independent"
    )
    table.caption = "\n".join(lines)
    return table


def build_cost_table(plan: Plan, rows: Sequence[dict[str, Any]]) -> WideTable:
    """Return the rows of `estimate_cost` as a table, with their sum and the detectable difference as its caption."""
    headers = ("trial", "role", "trials", "from", "images", "TFLOP", "time", "measured", "time of it", "all")
    table = WideTable(headers, keys=2, title=plan.name)

    # Each row shows one trial, and all trials of its kind.
    trials = 0
    total_hours = 0.0
    evaluation_hours = 0.0
    for row in rows:
        trials += row["seeds"]
        hours = row["hours"] + row["evaluation_hours"]
        total_hours += hours * row["seeds"]
        evaluation_hours += row["evaluation_hours"] * row["seeds"]
        table.add_row(
            row["trial"],
            row["role"],
            str(row["seeds"]),
            "scratch" if row["from"] is None else f"trunk@{row['from']}",
            f"{row['images']:,}",
            f"{row['teraflops']:.3g}",
            format_duration(row["hours"] * 3600),
            f"{row['evaluation_images']:,}",
            format_duration(row["evaluation_hours"] * 3600),
            format_duration(hours * row["seeds"] * 3600),
        )

    # The sum, and what it leaves out.
    sentence = (
        f"{trials} trials, {format_duration(total_hours * 3600)} one after another on this machine, of which "
        f"metrics of images take {format_duration(evaluation_hours * 3600)}; without fades, observers and "
        "metrics of runs. measured: fakes of the evaluations at ticks and in the end"
    )
    table.caption = "\n".join([sentence, *_list_design_lines(plan)])
    return table


def _list_design_lines(plan: Plan) -> list[str]:
    """Return lines on how the trials of a plan come about, and on how small an effect they can show."""
    # How trials come about.
    lines = []
    for search in list(plan.searches.values())[:1]:
        pruning = "" if search.pruner is None else f"; {search.pruner} may stop some early"
        lines.append(
            f"tuning: {search.trials} trials of each variant on seeds {', '.join(search.seeds)} before the "
            f"comparison, {search.search} over {', '.join(search.parameters)}{pruning}"
        )
    if plan.resample != EVERYTHING:
        lines.append(f"varies between the trials of a variant: {'; '.join(plan.resample.values())}")

    # What they can show.
    if plan.confirmatory:
        lines.append(describe_detectable_effect(plan))
    if plan.looks:
        lines.append(describe_looks(plan))
    return lines
