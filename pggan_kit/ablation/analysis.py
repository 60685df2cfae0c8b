"""Analyse an ablation's results, contrast by contrast, by the rules that its plan fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from pggan_kit.ablation import looks, sequential
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.contrasts import Contrast, compare_failures
from pggan_kit.ablation.endpoints import CENSORED, compare_times
from pggan_kit.ablation.estimators import compute_profiles, estimate_contrast, estimate_iqm
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.robustness import Check, judge_robustness, list_checks, name_value

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""Results as `trial.read_result` gives them, by (variant, seed)."""


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
        themselves; `secondary`, the same for all other metrics; `variants`, by name `trials`, `died` (how many failed
        or have no finite value), `mean` (the geometric one if the scale is `log`), `censored` (how many never reached
        the quality, if that is the primary; there is no mean then), `iqm` (see `estimators.estimate_iqm`, in the
        metric's unit) and `floor` of the primary; `profiles` of the primary, see `estimators.compute_profiles`;
        `exploratory`, with the `seeds` and `variants` that were added, and the runs that were `adopted` (variant, seed,
        directory); `metric`, with its `direction` and `scale`; `resample`, the bindings that vary between the trials of
        a variant, by the name of what they drive; `margin`, `alpha`, `hash`, `revisions`, `hardware`; `design`, see
        `designs.Design`.

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
    # The verdicts come from the planned seeds alone.
    contrasts = plan.list_contrasts()
    seeds = {contrast.name: plan.seeds for contrast in [*contrasts, *plan.list_added_contrasts()]}
    progress = None
    if plan.looks:
        progress = take_looks(plan, results)
        for name, taken in progress.looks.items():
            seeds[name] = plan.seeds[: taken[-1].pairs]
    planned = [compare_variants(plan, results, each, plan.primary, seeds[each.name]) for each in contrasts]
    if progress is None:
        add_verdicts(planned, len(plan.confirmatory))
    else:
        _add_looks(plan, planned, progress)
    if decides:
        _add_robustness(plan, results, planned, progress)
    else:
        _withhold_verdicts(planned)

    exploratory = []
    if plan.exploratory:
        for contrast in plan.confirmatory:
            entry = compare_variants(plan, results, contrast, plan.primary, plan.all_seeds)
            exploratory.append({**entry, "role": "exploratory"})
    for contrast in plan.list_added_contrasts():
        exploratory.append(compare_variants(plan, results, contrast, plan.primary, plan.all_seeds))

    analysis = {
        "name": plan.name,
        "hash": plan.hash,
        "design": plan.design,
        "metric": plan.primary,
        **plan.get_quantity(plan.primary),
        "margin": plan.margin,
        "alpha": st.ALPHA,
        "resample": plan.resample,
        "contrasts": [*planned, *exploratory],
        "secondary": _compare_other_values(plan, results, seeds, decides),
        "exploratory": {
            "seeds": plan.exploratory,
            "variants": plan.exploratory_variants,
            "adopted": [[row["variant"], row["seed"], row["run"]] for row in plan.adopted],
        },
        "variants": {name: _summarise_variant(plan, results, name) for name in plan.variants},
        "profiles": _compute_profiles(plan, results),
        "revisions": sorted({result["revision"] for result in results.values()}),
        "hardware": sorted({result["hardware"] for result in results.values()}),
    }
    if progress is not None:
        analysis["looks"] = {
            "pairs": plan.looks,
            "spending": plan.spending,
            "futility": plan.futility,
            "spent": looks.spend_over_looks(plan),
            "not_run": looks.count_not_run(plan, progress),
        }
    return analysis


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
    for metric in sorted(metrics - {plan.primary} - checked):
        for contrast in [*plan.list_contrasts(), *plan.list_added_contrasts()]:
            # A variant with other stages may have no such value in any run, which is no failure.
            if not all(_has_metric(results, name, metric) for name in contrast.weights):
                continue
            entry = compare_variants(plan, results, contrast, metric, seeds[contrast.name])
            entries.append({**entry, "role": "secondary"})
    return entries


def take_looks(plan: Plan, results: Results) -> looks.Progress:
    """Return what the looks of a plan decided by the results that are there, and which runs are needed."""

    def make_sample(contrast: Contrast, seeds: Sequence[int]) -> sequential.Sample:
        return _make_sample(plan, results, contrast, plan.primary, seeds)

    return looks.follow_looks(plan, results.keys(), make_sample)


def _make_sample(
    plan: Plan, results: Results, contrast: Contrast, metric: str, seeds: Sequence[int]
) -> sequential.Sample:
    """Return what a look knows of a contrast over some seeds: differences, or signed ranks where a run has no value."""
    scaled = _scale_values(plan, results, contrast, metric, seeds)
    differences = [contrast.sum_values(values) for values in scaled]
    if all(math.isfinite(value) for values in scaled for value in values.values()):
        return sequential.Sample(np.array(differences), np.array(differences))
    return sequential.Sample(np.array(st.rank_with_signs(differences)), None)


def _add_looks(plan: Plan, entries: Sequence[dict[str, Any]], progress: looks.Progress) -> None:
    """Add the looks to the confirmatory entries, and replace what is right for one look only."""
    rules = looks.make_rules(plan)
    for entry in entries:
        if entry["role"] != "confirmatory":
            continue
        taken = progress.looks[entry["name"]]
        entry["looks"] = [asdict(look) for look in taken]
        entry["verdict"] = taken[-1].verdict
        if entry["interval"] is not None:
            n_mean_sd = (entry["n"], entry["mean"], entry["sd"])
            entry["interval"] = list(sequential.compute_repeated_interval(rules, taken[-1].look, *n_mean_sd))
        for name in ("bootstrap", "smallest_effect", "holm", "equivalence_holm"):
            entry[name] = None
        entry["estimates"]["naive"] = True


def _withhold_verdicts(entries: Sequence[dict[str, Any]]) -> None:
    """Make entries exploratory: none is confirmatory, corrected or decided."""
    for entry in entries:
        if entry["role"] == "confirmatory":
            entry["role"] = "exploratory"
        for name in ("holm", "equivalence_holm", "verdict"):
            entry.pop(name, None)


def compare_variants(
    plan: Plan, results: Results, contrast: Contrast, metric: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return how the variants of a contrast differ, seed by seed.

    The difference of a seed is the weighted sum of its runs' logarithms, or of their values, as the metric states its
    `scale`. Interval, TOST and bootstrap use the seeds of which all runs have a finite value. If a run has none, the
    test is that of signed ranks over all seeds: a run that failed or gave no finite value ranks worst, by the metric's
    `direction`, and a value of 0 on a logarithmic scale ranks below all others.

    Args:
        plan: The plan.
        results: Results of the trials that have ended.
        contrast: The contrast.
        metric: Name of the compared value.
        seeds: Seeds to compare; those that not all variants of the contrast have are left out.

    Returns:
        `name`, `weights`, and of a pair `variant` and `against`; `role`, `metric`, `direction`, `scale`; the compared
        `seeds`, and `n`, the number of those of which all runs have a finite value; `failures`, see
        `compare_failures`; `correlation` of the contrast's two sides; the statistics of the differences; `ranks` if
        these decide; `p`; `sign` of what `p` tests, -1, 0 or 1; `estimates`, see `estimators.estimate_contrast`.
        Images to a quality also have `censored`, see `_describe_censored`.
    """
    seeds = [seed for seed in seeds if all((name, seed) in results for name in contrast.weights)]
    quantity = plan.get_quantity(metric)

    # Each seed on the scale of the metric, and whether its runs failed.
    scaled = _scale_values(plan, results, contrast, metric, seeds)
    failed = []
    for seed in seeds:
        failed.append({name: _has_failed(results, name, seed, metric) for name in contrast.weights})
    finite = [values for values in scaled if all(math.isfinite(value) for value in values.values())]
    differences = [contrast.sum_values(values) for values in finite]
    one_side = [contrast.sum_side(values, 1) for values in finite]
    other_side = [contrast.sum_side(values, -1) for values in finite]

    # What was known before the plan was fixed confirms nothing.
    adopted = [seed for seed in seeds if any(plan.find_adopted(name, seed) is not None for name in contrast.weights)]
    entry: dict[str, Any] = {"name": contrast.name, "weights": dict(contrast.weights)}
    if contrast.pair is not None:
        entry["variant"], entry["against"] = contrast.pair
    entry |= {
        "role": "exploratory" if adopted else contrast.role,
        "metric": metric,
        "direction": quantity["direction"],
        "scale": quantity["scale"],
        "seeds": seeds,
        "adopted": adopted,
        "n": len(differences),
        "failures": asdict(compare_failures(contrast, failed)),
        "correlation": st.correlate_pairs(one_side, other_side),
        **_describe_differences(differences, plan.margin, len(plan.confirmatory)),
        "ranks": None,
        "sign": None,
        "estimates": estimate_contrast(
            contrast, scaled, quantity["direction"], _find_margin(plan, metric), len(plan.confirmatory)
        ),
    }
    if differences:
        entry["sign"] = int(np.sign(np.mean(differences)))
    if any(CENSORED in _find_row(results, name, seed, metric) for seed in seeds for name in contrast.weights):
        entry["censored"] = _describe_censored(results, contrast, seeds, metric)

    # Without a finite value in each run, signed ranks decide.
    if len(finite) < len(scaled):
        all_differences = [contrast.sum_values(values) for values in scaled]
        ranks = st.rank_with_signs(all_differences)
        entry["ranks"] = st.run_sign_flip_test(ranks)._asdict()
        entry["sign"] = int(np.sign(sum(ranks)))
        entry["smallest_effect"] = None  # it belongs to sign flips of the differences, which do not decide here
    test = entry["ranks"] or entry["sign_flip"]
    entry["p"] = test["p"] if test else None
    return entry


def _describe_differences(d: Sequence[float], margin: float, confirmatory: int) -> dict[str, Any]:
    """Return the statistics of differences; None where there are too few of them.

    Args:
        d: Differences of the pairs in which both runs have a finite value.
        margin: Largest difference that counts as none.
        confirmatory: Number of confirmatory contrasts.
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
        statistics["sd"] = float(np.std(d, ddof=1))
        statistics["interval"] = list(st.compute_t_interval(d))
        statistics["equivalence"] = st.run_equivalence_test(d, margin)
        level_of_holms_first_step = st.ALPHA / max(1, confirmatory)
        statistics["smallest_effect"] = st.find_smallest_effect(d, level_of_holms_first_step)

    bootstrap = st.bootstrap_mean(d)
    if bootstrap is not None:
        statistics["bootstrap"] = list(bootstrap)
    return statistics


def _scale_values(
    plan: Plan, results: Results, contrast: Contrast, metric: str, seeds: Sequence[int]
) -> list[dict[str, float]]:
    """Return the values of a contrast's variants on the scale of a metric, for each seed; see `_convert_to_scale`."""
    quantity = plan.get_quantity(metric)
    worst = math.inf if quantity["direction"] == "lower" else -math.inf
    scaled = []
    for seed in seeds:
        values = {name: _find_value(results, name, seed, metric) for name in contrast.weights}
        scaled.append({name: _convert_to_scale(value, quantity["scale"], worst) for name, value in values.items()})
    return scaled


def _convert_to_scale(value: float | None, scale: str, worst: float) -> float:
    """Return a value on the scale on which runs are compared, perhaps infinite; `worst` if a run has none."""
    if value is None:
        return worst
    if scale == "plain":
        return value
    return math.log(value) if value > 0 else -math.inf


def add_verdicts(entries: Sequence[dict[str, Any]], family: int = 0) -> None:
    """Add `holm`, `equivalence_holm` and `verdict` to the confirmatory entries.

    Both tests are corrected for the number of these contrasts. If a run has no value, no equivalence is claimed, and
    `equivalence_holm` is None.

    Args:
        entries: The planned contrasts.
        family: Number of contrasts that the plan corrects for, if more than are confirmatory: one that rests on adopted
            runs still counts, so that nobody gains by adopting.
    """
    confirmatory = [entry for entry in entries if entry["role"] == "confirmatory"]
    difference = [entry["p"] for entry in confirmatory]
    equivalence = [None if entry["ranks"] else entry["equivalence"] for entry in confirmatory]

    # Differences and equivalences are two families of tests; each is corrected for itself.
    others: list[float | None] = [None] * (family - len(confirmatory))
    difference_holm = _adjust_p_values([*difference, *others])
    equivalence_holm = _adjust_p_values([*equivalence, *others])

    for index, entry in enumerate(confirmatory):
        entry["holm"] = difference_holm[index]
        entry["equivalence_holm"] = equivalence_holm[index]
        entry["verdict"] = _decide_verdict(entry)


def _adjust_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted by Holm's method. A test that cannot be made is None, and still counts as a test."""
    named = {str(index): 1.0 if p is None else p for index, p in enumerate(p_values)}
    adjusted = st.adjust_by_holm(named)
    return [None if p is None else adjusted[str(index)] for index, p in enumerate(p_values)]


def _decide_verdict(entry: Mapping[str, Any]) -> str:
    is_different = entry["holm"] is not None and entry["holm"] < st.ALPHA
    is_equivalent = entry["equivalence_holm"] is not None and entry["equivalence_holm"] < st.ALPHA
    if is_different and is_equivalent:
        return "different, by less than the margin"
    if is_different:
        return "different"
    if is_equivalent:
        return "equivalent"
    return "undecided"


def _find_value(results: Results, variant: str, seed: int, metric: str) -> float | None:
    """Return a run's value; None if it failed, or if the value is not finite."""
    for row in results[variant, seed]["rows"]:
        if row["metric"] == metric:
            value: float | None = row["value"]
            return value if value is not None and math.isfinite(value) else None
    return None


def _find_row(results: Results, variant: str, seed: int, metric: str) -> Mapping[str, Any]:
    """Return a run's row of a metric; an empty one if it has none."""
    for row in results[variant, seed]["rows"]:
        if row["metric"] == metric:
            return dict(row)
    return {}


def _has_failed(results: Results, variant: str, seed: int, metric: str) -> bool:
    """Return whether a run has no finite value, for another reason than that it never reached a quality."""
    is_censored = _find_row(results, variant, seed, metric).get(CENSORED) is not None
    return _find_value(results, variant, seed, metric) is None and not is_censored


def _find_margin(plan: Plan, metric: str) -> float | None:
    """Return the margin of a metric; None where it has none of its own."""
    answering = [check.value for check in list_checks(plan.primary, plan.confirm, plan.averages)]
    return plan.margin if metric in (plan.primary, *answering) else None


def _describe_censored(results: Results, contrast: Contrast, seeds: Sequence[int], metric: str) -> dict[str, Any]:
    """Return how many runs never reached a quality, by variant as `runs`, and the log-rank test of a pair.

    Returns:
        `runs`; `logrank`: the p-value of the test between runs that are not paired, None for more than two variants.
        A failed run is one that never reached the quality, however long it might have trained.
    """
    runs = {}
    times: dict[str, list[tuple[float, bool]]] = {}
    for name in contrast.weights:
        rows = [_find_row(results, name, seed, metric) for seed in seeds]
        runs[name] = sum(row.get(CENSORED) is not None for row in rows)
        values = [_find_value(results, name, seed, metric) for seed in seeds]
        times[name] = []
        for row, value in zip(rows, values, strict=True):
            ended = row.get(CENSORED) or math.inf
            times[name].append((ended, False) if value is None else (value, True))

    # A failed run stays among those that have not reached it until the last other run has.
    longest = max(time for own in times.values() for time, _ in own if math.isfinite(time))
    finite = {name: [(min(time, longest), reached) for time, reached in own] for name, own in times.items()}
    logrank = None
    if contrast.pair is not None:
        logrank = compare_times(finite[contrast.pair[0]], finite[contrast.pair[1]])
    return {"runs": runs, "logrank": logrank}


def _add_robustness(
    plan: Plan, results: Results, planned: Sequence[dict[str, Any]], progress: looks.Progress | None
) -> None:
    """Add what the verdicts depend on to the confirmatory entries; see `judge_robustness`.

    Args:
        plan: The plan.
        results: Results of the trials that have ended.
        planned: Entries of the planned contrasts, with their verdicts.
        progress: Looks that were taken; None for a plan without looks.
    """
    checks = list_checks(plan.primary, plan.confirm, plan.averages)
    if not checks:
        return
    contrasts = {contrast.name: contrast for contrast in plan.confirmatory}
    confirmatory = [entry for entry in planned if entry["name"] in contrasts and entry["role"] == "confirmatory"]

    # Each check is a family of tests of its own, like the planned one, over the same seeds.
    compared: dict[str, list[tuple[Check, dict[str, Any]]]] = {name: [] for name in contrasts}
    for check in checks:
        entries = []
        for entry in confirmatory:
            contrast = contrasts[entry["name"]]
            entries.append(compare_variants(plan, results, contrast, check.value, entry["seeds"]))
        if progress is None:
            add_verdicts(entries, len(plan.confirmatory))
        else:
            _add_looks(plan, entries, _take_same_looks(plan, results, check.value, progress))
        for entry in entries:
            compared[entry["name"]].append((check, entry))
    for entry in confirmatory:
        entry |= judge_robustness(entry, compared[entry["name"]])


def _take_same_looks(plan: Plan, results: Results, metric: str, progress: looks.Progress) -> looks.Progress:
    """Return what another value would have decided at the looks at which the primary was compared."""
    rules = looks.make_rules(plan)
    contrasts = {contrast.name: contrast for contrast in plan.confirmatory}
    taken: dict[str, list[sequential.Look]] = {name: [] for name in progress.looks}
    for number in range(1, progress.count + 1):
        samples = {}
        for name, own in progress.looks.items():
            is_decided = bool(taken[name]) and taken[name][-1].decision != sequential.GOES_ON
            if len(own) >= number and not is_decided:
                pairs = [plan.seeds[:count] for count in plan.looks[:number]]
                samples[name] = [_make_sample(plan, results, contrasts[name], metric, seeds) for seeds in pairs]
        for name, look in sequential.take_look(rules, samples, taken).items():
            taken[name].append(look)
    return replace(progress, looks=taken)


def _compute_profiles(plan: Plan, results: Results) -> dict[str, Any]:
    """Return the performance profiles of the primary over the planned seeds."""
    direction = plan.get_quantity(plan.primary)["direction"]
    return compute_profiles({name: _list_values(plan, results, name) for name in plan.variants}, direction)


def _list_values(plan: Plan, results: Results, name: str) -> list[float]:
    """Return the primary of each run of a variant over the planned seeds; infinite, and worst, where it has none."""
    worst = math.inf if plan.get_quantity(plan.primary)["direction"] == "lower" else -math.inf
    values = []
    for seed in plan.seeds:
        if (name, seed) in results:
            value = _find_value(results, name, seed, plan.primary)
            values.append(worst if value is None else value)
    return values


def _has_metric(results: Results, name: str, metric: str) -> bool:
    """Return whether runs of a variant may have a value: one has it, or failed before it could be measured."""
    own = [result for (variant, _), result in results.items() if variant == name]
    measured = [result["failed"] or metric in [row["metric"] for row in result["rows"]] for result in own]
    return not own or any(measured)


def _summarise_variant(plan: Plan, results: Results, name: str) -> dict[str, Any]:
    """Return the number of a variant's trials and of those without a value, and mean and noise floor of the primary."""
    # A trial that has not ended, or that the variant does not have, is not counted.
    trials = 0
    died = 0
    censored = 0
    values = []
    floors = []
    for seed in plan.seeds:
        if (name, seed) not in results:
            continue
        trials += 1
        value = _find_value(results, name, seed, plan.primary)
        if value is not None:
            values.append(value)
        elif _has_failed(results, name, seed, plan.primary):
            died += 1
        else:
            censored += 1
        for row in results[name, seed]["rows"]:
            if row["metric"] == plan.primary and row["floor"] is not None:
                floors.append(row["floor"])

    scale = plan.get_quantity(plan.primary)["scale"]
    return {
        "trials": trials,
        "died": died,
        "censored": censored,
        # A mean of those that reached the quality says nothing about the others.
        "mean": None if censored else _compute_mean(values, scale),
        "iqm": _estimate_iqm(_list_values(plan, results, name), scale),
        "floor": float(np.mean(floors)) if floors else None,
    }


def _estimate_iqm(values: Sequence[float], scale: str) -> dict[str, Any] | None:
    """Return the interquartile mean of values in their own unit, taken on their scale."""
    # A run without a value is infinite, and so is its logarithm.
    scaled = [value if math.isinf(value) else _convert_to_scale(value, scale, math.inf) for value in values]
    found = estimate_iqm(scaled)
    if found is None or scale == "plain":
        return found
    interval = found["interval"]
    if interval is not None:
        interval = [math.exp(end) for end in interval]
    return {"value": math.exp(found["value"]), "interval": interval}


def _compute_mean(values: Sequence[float], scale: str) -> float | None:
    """Return the geometric mean on a logarithmic scale, else the arithmetic one; None if there are no values."""
    if not values:
        return None
    if scale == "plain":
        return float(np.mean(values))
    if min(values) <= 0:
        return 0.0
    return math.exp(np.mean([math.log(value) for value in values]))
