"""Compare the runs of a contrast's variants, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pggan_kit.ablation import sequential
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.contrasts import Contrast, compare_failures
from pggan_kit.ablation.endpoints import CENSORED, compare_times
from pggan_kit.ablation.estimators import estimate_contrast
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.robustness import list_checks
from pggan_kit.evaluation.scales import convert_to_scale

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""Results as `trial.read_result` gives them, by (variant, seed)."""

ESTIMATES_OF_DIFFERENCES = ("iqm", "posterior", "pairing_saved", "pairs_for_equivalence", "pairs_for_difference")
"""Estimates that take the differences themselves, and not their order alone: there are none where ranks decide."""


def compare_variants(
    plan: Plan, results: Results, contrast: Contrast, metric: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return how the variants of a contrast differ, seed by seed.

    The difference of a seed is the weighted sum of its runs' logarithms, or of their values, as the metric states its
    `scale`. Interval, TOST and bootstrap use the seeds of which all runs have a finite value. If a run has none, the
    test is that of signed ranks over all seeds: a run that failed or gave no finite value ranks worst, by the metric's
    `direction`, and a value of 0 on a logarithmic scale ranks below all others. Estimates of the size of the difference
    and equivalence, which would be those of the other seeds alone, are None then.

    Args:
        plan: The plan.
        results: Results of the trials that have ended.
        contrast: The contrast. If its role is `confirmatory`, levels are those of Holm's first step.
        metric: Name of the compared value. It has a margin, and a test of equivalence, if it is the primary or answers
            for it.
        seeds: Seeds to compare; those that not all variants of the contrast have are left out.

    Returns:
        `name`, `weights`, and of a pair `variant` and `against`; `role`, `metric`, `direction`, `scale`; the compared
        `seeds`, and `n`, the number of those of which all runs have a finite value; `failures`, see
        `compare_failures`; `correlation` of the contrast's two sides; the statistics of the differences; `ranks` if
        these decide; `p`; `sign` of what `p` tests, -1, 0 or 1; `estimates`, see `estimators.estimate_contrast`.
        If runs ended without a finite value, `without_value` has their seeds, by variant, and `without_logarithm` those
        of values of 0 (or below) on a logarithmic scale. Images to a quality also have `censored`, see
        `_describe_censored`. If a run never reached it, or a value has no logarithm, the statistics of the differences
        are None, since a mean of the others says nothing about these, and `order` has the number of seeds whose
        difference is `above` 0, `below` 0, and `equal`, in the order of the ranks.
    """
    seeds = [seed for seed in seeds if all((name, seed) in results for name in contrast.weights)]

    # The values, seed by seed, and those of the seeds of which every run has a finite one.
    quantity = plan.get_quantity(metric)
    scaled = _scale_values(plan, results, contrast, metric, seeds)
    finite = [values for values in scaled if all(math.isfinite(value) for value in values.values())]

    # What is compared. What was known before the plan was fixed confirms nothing.
    adopted = [seed for seed in seeds if any(plan.find_adopted(name, seed) is not None for name in contrast.weights)]
    role = contrast.role
    if adopted and role != "secondary":
        role = "exploratory"
    family = len(plan.confirmatory) if role == "confirmatory" else 1
    margin = _find_margin(plan, metric)
    entry = {
        **_name_sides(contrast),
        "role": role,
        "metric": metric,
        "direction": quantity["direction"],
        "scale": quantity["scale"],
        "seeds": seeds,
        "adopted": adopted,
        "n": len(finite),
        "failures": asdict(compare_failures(contrast, _list_failures(results, contrast, seeds, metric))),
        "correlation": _correlate_sides(contrast, finite),
    }
    without_value = _list_without_value(results, contrast, seeds, metric)
    if without_value:
        entry["without_value"] = without_value
    without_logarithm = _list_without_logarithm(results, contrast, seeds, metric, quantity["scale"])
    if without_logarithm:
        entry["without_logarithm"] = without_logarithm

    # Where a run never reached a quality, or is perfect, differences of the others have no mean that would be one of
    # all.
    if any(CENSORED in find_row(results, name, seed, metric) for seed in seeds for name in contrast.weights):
        entry["censored"] = _describe_censored(results, contrast, seeds, metric)
    is_censored = "censored" in entry and any(entry["censored"]["runs"].values())
    has_no_mean = is_censored or bool(without_logarithm)
    entry |= _test_differences(contrast, scaled, [] if has_no_mean else finite, margin, family)
    if has_no_mean:
        entry["order"] = _count_order(contrast, scaled)

    # Where ranks decide, the seeds with finite differences may say the opposite.
    entry["estimates"] = estimate_contrast(contrast, scaled, quantity["direction"], margin, family)
    if entry["ranks"]:
        entry["estimates"] |= dict.fromkeys(ESTIMATES_OF_DIFFERENCES)
    return entry


def _name_sides(contrast: Contrast) -> dict[str, Any]:
    """Return the name of a contrast, its weights, and of a pair the variants."""
    entry: dict[str, Any] = {"name": contrast.name, "weights": dict(contrast.weights)}
    if contrast.pair is not None:
        entry["variant"], entry["against"] = contrast.pair
    return entry


def _list_failures(results: Results, contrast: Contrast, seeds: Sequence[int], metric: str) -> list[dict[str, bool]]:
    """Return for each seed which runs failed, by variant."""
    failed = []
    for seed in seeds:
        failed.append({name: has_failed(results, name, seed, metric) for name in contrast.weights})
    return failed


def _correlate_sides(contrast: Contrast, finite: Sequence[Mapping[str, float]]) -> float | None:
    """Return the correlation of a contrast's two sides over the seeds of which every run has a finite value."""
    one_side = [contrast.sum_side(values, 1) for values in finite]
    other_side = [contrast.sum_side(values, -1) for values in finite]
    return st.correlate_pairs(one_side, other_side)


def _test_differences(
    contrast: Contrast,
    scaled: Sequence[Mapping[str, float]],
    finite: Sequence[Mapping[str, float]],
    margin: float | None,
    family: int,
) -> dict[str, Any]:
    """Return the statistics of differences, `ranks`, `sign` and `p`: of signed ranks where not every run has a value.

    Args:
        contrast: The contrast.
        scaled: For each seed the value of each variant, on the scale of the metric.
        finite: Those of them whose differences are described.
        margin: Largest difference that counts as none; None where the metric has none.
        family: Number of contrasts that are corrected together.
    """
    differences = [contrast.sum_values(values) for values in finite]
    entry = _describe_differences(differences, margin, family)
    entry |= {"ranks": None, "sign": None}
    if differences:
        entry["sign"] = int(np.sign(np.mean(differences)))
    if len(finite) < len(scaled):
        ranks = st.rank_with_signs([contrast.sum_values(values) for values in scaled])
        entry["ranks"] = st.run_sign_flip_test(ranks)._asdict()
        entry["sign"] = int(np.sign(sum(ranks)))
        # These belong to the differences, which do not decide here.
        entry["smallest_effect"] = None
        entry["equivalence"] = None
    test = entry["ranks"] or entry["sign_flip"]
    entry["p"] = test["p"] if test else None
    return entry


def _count_order(contrast: Contrast, scaled: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Return of how many seeds the difference is above 0, below it, and 0; runs without a value are infinite."""
    signs = [np.sign(contrast.sum_values(values)) for values in scaled]
    return {"above": signs.count(1), "below": signs.count(-1), "equal": signs.count(0)}


def _list_without_value(
    results: Results, contrast: Contrast, seeds: Sequence[int], metric: str
) -> dict[str, list[int]]:
    """Return the seeds of the runs that trained to their end and count as failed, by variant: their value is missing
    or not finite."""
    listed = {}
    for name in contrast.weights:
        own = [seed for seed in seeds if not results[name, seed]["failed"] and has_failed(results, name, seed, metric)]
        if own:
            listed[name] = own
    return listed


def _list_without_logarithm(
    results: Results, contrast: Contrast, seeds: Sequence[int], metric: str, scale: str
) -> dict[str, list[int]]:
    """Return the seeds of the runs whose finite value has no logarithm although it is compared by it, by variant."""
    listed = {}
    for name in contrast.weights:
        own = []
        for seed in seeds:
            value = find_value(results, name, seed, metric)
            if value is not None and math.isinf(convert_to_scale(value, scale)):
                own.append(seed)
        if own:
            listed[name] = own
    return listed


def _describe_differences(d: Sequence[float], margin: float | None, family: int) -> dict[str, Any]:
    """Return the statistics of differences; None where there are too few of them.

    Args:
        d: Differences of the pairs in which both runs have a finite value.
        margin: Largest difference that counts as none; None where the metric has none.
        family: Number of contrasts that are corrected together.
    """
    statistics: dict[str, Any] = {
        "mean": None,
        "sd": None,
        "interval": None,
        "bootstrap": None,
        "sign_flip": None,
        "equivalence": None,
        "smallest_effect": None,
    }

    # A spread takes two pairs, a bootstrap more.
    if d:
        statistics["mean"] = float(np.mean(d))
        statistics["sign_flip"] = st.run_sign_flip_test(d)._asdict()
    if len(d) > 1:
        statistics["sd"] = st.compute_spread(d)
        statistics["interval"] = list(st.compute_t_interval(d))
        level_of_holms_first_step = st.ALPHA / family
        statistics["smallest_effect"] = st.find_smallest_effect(d, level_of_holms_first_step)
        if margin is not None:
            statistics["equivalence"] = st.run_equivalence_test(d, margin)

    bootstrap = st.bootstrap_mean(d)
    if bootstrap is not None:
        statistics["bootstrap"] = list(bootstrap)
    return statistics


def _describe_censored(results: Results, contrast: Contrast, seeds: Sequence[int], metric: str) -> dict[str, Any]:
    """Return how many runs never reached a quality, by variant as `runs`, and the log-rank test of a pair.

    Returns:
        `runs`; `logrank`: the p-value of the test between runs that are not paired, None for more than two variants,
        and where no run reached the quality.
        A failed run is one that never reached the quality, however long it might have trained.
    """
    runs = {}
    times: dict[str, list[tuple[float, bool]]] = {}
    for name in contrast.weights:
        rows = [find_row(results, name, seed, metric) for seed in seeds]
        runs[name] = sum(row.get(CENSORED) is not None for row in rows)
        values = [find_value(results, name, seed, metric) for seed in seeds]
        times[name] = []
        for row, value in zip(rows, values, strict=True):
            ended = row.get(CENSORED) or math.inf
            times[name].append((ended, False) if value is None else (value, True))

    # A failed run stays among those that have not reached it until the last other run has; where all failed, there is
    # no other run.
    longest = max((time for own in times.values() for time, _ in own if math.isfinite(time)), default=math.inf)
    finite = {name: [(min(time, longest), reached) for time, reached in own] for name, own in times.items()}
    logrank = None
    if contrast.pair is not None:
        logrank = compare_times(finite[contrast.pair[0]], finite[contrast.pair[1]])
    return {"runs": runs, "logrank": logrank}


def _find_margin(plan: Plan, metric: str) -> float | None:
    """Return the margin of a metric; None where it has none of its own."""
    answering = [check.value for check in list_checks(plan.primary, plan.confirm, plan.averages)]
    return plan.margin if metric in (plan.primary, *answering) else None


def make_sample(
    plan: Plan, results: Results, contrast: Contrast, metric: str, seeds: Sequence[int]
) -> sequential.Sample:
    """Return what a look knows of a contrast over some seeds: differences, or signed ranks where a run has no value."""
    scaled = _scale_values(plan, results, contrast, metric, seeds)
    differences = [contrast.sum_values(values) for values in scaled]
    if all(math.isfinite(value) for values in scaled for value in values.values()):
        return sequential.Sample(np.array(differences), np.array(differences))
    return sequential.Sample(np.array(st.rank_with_signs(differences)), None)


def _scale_values(
    plan: Plan, results: Results, contrast: Contrast, metric: str, seeds: Sequence[int]
) -> list[dict[str, float]]:
    """Return the values of a contrast's variants on the scale of a metric, seed by seed; the worst of a run without."""
    quantity = plan.get_quantity(metric)
    worst = math.inf if quantity["direction"] == "lower" else -math.inf
    scaled = []
    for seed in seeds:
        values = {name: find_value(results, name, seed, metric) for name in contrast.weights}
        own = {}
        for name, value in values.items():
            own[name] = worst if value is None else convert_to_scale(value, quantity["scale"])
        scaled.append(own)
    return scaled


def find_value(results: Results, variant: str, seed: int, metric: str) -> float | None:
    """Return a run's value; None if it failed, or if the value is not finite."""
    for row in results[variant, seed]["rows"]:
        if row["metric"] == metric:
            value: float | None = row["value"]
            return value if value is not None and math.isfinite(value) else None
    return None


def find_row(results: Results, variant: str, seed: int, metric: str) -> Mapping[str, Any]:
    """Return a run's row of a metric; an empty one if it has none."""
    for row in results[variant, seed]["rows"]:
        if row["metric"] == metric:
            return dict(row)
    return {}


def has_failed(results: Results, variant: str, seed: int, metric: str) -> bool:
    """Return whether a run has no finite value, for another reason than that it never reached a quality."""
    is_censored = find_row(results, variant, seed, metric).get(CENSORED) is not None
    return find_value(results, variant, seed, metric) is None and not is_censored
