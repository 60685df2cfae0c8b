"""Analyse an ablation's results, contrast by contrast, by the rules that its plan fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pggan_kit.ablation import looks, sequential
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.comparison import Results, compare_variants, make_sample
from pggan_kit.ablation.contrasts import Contrast
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.robustness import name_value
from pggan_kit.ablation.tuning import describe_tuned
from pggan_kit.ablation.variant_summaries import compute_primary_profiles, summarise_variant
from pggan_kit.ablation.verdicts import add_looks, add_robustness, add_verdicts, withhold_verdicts
from pggan_kit.components import find_quantity


def analyse_results(plan: Plan, results: Results, *, decides: bool = True) -> dict[str, Any]:
    """Return the content of `analysis.json`.

    Args:
        plan: The plan.
        results: Results of the trials that have ended.
        decides: Whether contrasts get verdicts. If not, all of them are exploratory, nothing is corrected for their
            number, and values with further averages are among the `secondary` ones instead of `checks`.

    Returns:
        `contrasts`, one entry each as `compare_variants` gives it, with `holm`, `equivalence_holm` and `verdict` if it
        is confirmatory: first the planned ones, then those over seeds that were added later, and those that were added
        themselves; `secondary`, the same for all other metrics; `variants`, by name `trials`, `failed` (how many failed
        or have no finite value), `mean` (the geometric one if the scale is `log`), `censored` (how many never reached
        the quality, if that is the primary; there is no mean then), `iqm` (see `estimators.estimate_iqm`, in the
        metric's unit) and `floor` of the primary; `profiles` of the primary, see `estimators.compute_profiles`;
        `failed`, the variant, seed and reason of each run that failed;
        `exploratory`, with the `seeds` and `variants` that were added, and the runs that were `adopted` (variant, seed,
        directory); `metric`, with its `direction` and `scale`; `resample`, the bindings that vary between the trials of
        a variant, by the name of what they drive; `margin`, `alpha`, `hash`, `revisions`, `hardware`; `design`, see
        `designs.Design`.

        Where runs have values of which the plan states no direction and scale, `not_compared` has their names.

        Where variants are tuned, there is `tuned`: for each `bindings` (the chosen values), and the `trials` and
        `seeds` that they were chosen by.

        Where a plan has further averages or confirming metrics, a confirmatory contrast also has `robustness` and
        `checks`, see `robustness.judge_robustness`.

        With looks, a confirmatory contrast is compared over the seeds of its last look. Its entry has `looks`, one
        `sequential.Look` for each look that was taken, and the `verdict` of the last one; `interval` is the repeated
        confidence interval, and `bootstrap`, `smallest_effect`, `holm` and `equivalence_holm`, which are those of one
        look, are None. The analysis then also has `looks`: `pairs` of each look, `spending`, `futility`, `spent` (the
        error that may be spent by each look on all confirmatory contrasts), and `not_run`, the number of planned runs
        that no look needed, by variant. `estimates` of such a contrast are `naive`: their intervals are those of one
        look, although the contrast could have stopped at an earlier one.
    """
    # The verdicts come from the planned seeds alone, with looks from those of a contrast's last look.
    progress = None
    if plan.looks:
        progress = take_looks(plan, results)
    seeds = _choose_seeds(plan, progress)
    planned = _compare_planned(plan, results, seeds, progress, decides)

    # The record: what was planned, what it came to, and with what code and hardware.
    analysis = {
        "name": plan.name,
        "hash": plan.hash,
        "design": plan.design,
        "metric": plan.primary,
        **plan.get_quantity(plan.primary),
        "margin": plan.margin,
        "alpha": st.ALPHA,
        "resample": plan.resample,
        "contrasts": [*planned, *_compare_added(plan, results)],
        "secondary": _compare_other_values(plan, results, seeds, decides),
        "exploratory": {
            "seeds": plan.exploratory,
            "variants": plan.exploratory_variants,
            "adopted": [[row["variant"], row["seed"], row["run"]] for row in plan.adopted],
        },
        "variants": {name: summarise_variant(plan, results, name) for name in plan.variants},
        "failed": [[name, seed, result["failed"]] for (name, seed), result in results.items() if result["failed"]],
        "profiles": compute_primary_profiles(plan, results),
        "revisions": sorted({result["revision"] for result in results.values()}),
        "hardware": sorted({result["hardware"] for result in results.values()}),
    }
    unknown = _list_unknown(plan, results)
    if unknown:
        analysis["not_compared"] = unknown
    if plan.tune:
        analysis["tuned"] = describe_tuned(plan, results)
    if progress is not None:
        analysis["looks"] = _describe_looks(plan, progress)
    return analysis


def _choose_seeds(plan: Plan, progress: looks.Progress | None) -> dict[str, Sequence[int]]:
    """Return the seeds to compare by the contrast's name: the planned ones, or with looks those of its last look."""
    contrasts = [*plan.list_contrasts(), *plan.list_added_contrasts()]
    seeds: dict[str, Sequence[int]] = {contrast.name: plan.seeds for contrast in contrasts}
    if progress is not None:
        for name, taken in progress.looks.items():
            seeds[name] = plan.seeds[: taken[-1].pairs]
    return seeds


def _describe_looks(plan: Plan, progress: looks.Progress) -> dict[str, Any]:
    """Return how a plan spends its error over looks, and which planned runs no look needed."""
    return {
        "pairs": plan.looks,
        "spending": plan.spending,
        "futility": plan.futility,
        "spent": looks.spend_over_looks(plan),
        "not_run": looks.count_not_run(plan, progress),
    }


def _compare_planned(
    plan: Plan,
    results: Results,
    seeds: Mapping[str, Sequence[int]],
    progress: looks.Progress | None,
    decides: bool,
) -> list[dict[str, Any]]:
    """Return the entries of the planned contrasts, with their verdicts and what these depend on.

    Args:
        plan: The plan.
        results: Results of the trials that have ended.
        seeds: Seeds to compare, by the contrast's name.
        progress: Looks that were taken; None for a plan without looks.
        decides: Whether contrasts get verdicts.
    """
    # The values of each contrast, without a verdict.
    contrasts = plan.list_contrasts()
    if not decides and progress is None:  # nothing is corrected for their number
        confirmatory = [contrast.name for contrast in plan.confirmatory]
        contrasts = [replace(each, role="exploratory") if each.name in confirmatory else each for each in contrasts]
    planned = [compare_variants(plan, results, each, plan.primary, seeds[each.name]) for each in contrasts]

    # The verdicts, corrected for the number of contrasts, or for that of looks as well.
    if progress is None:
        add_verdicts(planned, len(plan.confirmatory))
    else:
        add_looks(plan, planned, progress)

    # What the verdicts depend on; an unfinished ablation or another evaluation has none to keep.
    if decides:
        add_robustness(plan, results, planned, progress)
    else:
        withhold_verdicts(planned)
    return planned


def _compare_added(plan: Plan, results: Results) -> list[dict[str, Any]]:
    """Return the entries of the confirmatory contrasts with the seeds that were added, and of the added contrasts."""
    entries = []
    if plan.exploratory:
        for contrast in plan.confirmatory:
            explored = replace(contrast, role="exploratory")
            entries.append(compare_variants(plan, results, explored, plan.primary, plan.all_seeds))
    for contrast in plan.list_added_contrasts():
        entries.append(compare_variants(plan, results, contrast, plan.primary, plan.all_seeds))
    return entries


def _compare_other_values(
    plan: Plan, results: Results, seeds: Mapping[str, Sequence[int]], decides: bool
) -> list[dict[str, Any]]:
    """Return how variants differ in all values but the primary, and those of checks where there are verdicts to check.

    Args:
        plan: The plan.
        results: Results of the trials that have ended.
        seeds: Seeds to compare, by the contrast's name.
        decides: Whether contrasts get verdicts.
    """
    metrics: set[str] = set()
    for result in results.values():
        metrics.update(row["metric"] for row in result["rows"])
    checked = set()
    if decides:
        checked = {name_value(metric, average) for metric in metrics for average in plan.averages}
    entries = []
    for metric in sorted(metrics - {plan.primary} - checked - set(_list_unknown(plan, results))):
        for contrast in [*plan.list_contrasts(), *plan.list_added_contrasts()]:
            # A variant with other stages may have no such value in any run, which is no failure.
            if not all(_has_metric(results, name, metric) for name in contrast.weights):
                continue
            secondary = replace(contrast, role="secondary")
            entries.append(compare_variants(plan, results, secondary, metric, seeds[contrast.name]))
    return entries


def _list_unknown(plan: Plan, results: Results) -> list[str]:
    """Return the names of values of which the plan states no direction and scale, so that they cannot be compared."""
    metrics = {row["metric"] for result in results.values() for row in result["rows"]}
    return sorted(metric for metric in metrics if find_quantity(plan.quantities, metric) is None)


def take_looks(plan: Plan, results: Results) -> looks.Progress:
    """Return what the looks of a plan decided by the results that are there, and which runs are needed."""

    def make_own_sample(contrast: Contrast, seeds: Sequence[int]) -> sequential.Sample:
        return make_sample(plan, results, contrast, plan.primary, seeds)

    return looks.follow_looks(plan, results.keys(), make_own_sample)


def _has_metric(results: Results, name: str, metric: str) -> bool:
    """Return whether runs of a variant may have a value: one has it, or failed before it could be measured."""
    own = [result for (variant, _), result in results.items() if variant == name]
    measured = [result["failed"] or metric in [row["metric"] for row in result["rows"]] for result in own]
    return not own or any(measured)
