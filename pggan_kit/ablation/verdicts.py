"""Decide what the comparisons of a plan say: verdicts, corrected for their number or taken look by look, and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pggan_kit.ablation import looks, sequential
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.comparison import Results, compare_variants, make_sample
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.robustness import Check, judge_robustness, list_checks


def add_verdicts(entries: Sequence[dict[str, Any]], family: int = 0) -> None:
    """Add `holm`, `equivalence_holm` and `verdict` to the confirmatory entries.

    Both tests are corrected for the number of these contrasts. If a run has no value, no equivalence is claimed, and
    `equivalence` and `equivalence_holm` are None.

    Args:
        entries: The planned contrasts.
        family: Number of contrasts that the plan corrects for, if more than are confirmatory: one that rests on adopted
            runs still counts, so that nobody gains by adopting.
    """
    confirmatory = [entry for entry in entries if entry["role"] == "confirmatory"]
    difference = [entry["p"] for entry in confirmatory]
    equivalence = [entry["equivalence"] for entry in confirmatory]

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


def withhold_verdicts(entries: Sequence[dict[str, Any]]) -> None:
    """Make entries exploratory: none is confirmatory, corrected or decided."""
    for entry in entries:
        if entry["role"] == "confirmatory":
            entry["role"] = "exploratory"
        for name in ("holm", "equivalence_holm", "verdict"):
            entry.pop(name, None)


def add_looks(plan: Plan, entries: Sequence[dict[str, Any]], progress: looks.Progress) -> None:
    """Add the looks to the confirmatory entries, and replace what is right for one look only."""
    rules = looks.make_rules(plan)
    for entry in entries:
        if entry["role"] != "confirmatory":
            continue
        # The verdict is that of the last look, and the interval holds over all of them.
        taken = progress.looks[entry["name"]]
        entry["looks"] = [asdict(look) for look in taken]
        entry["verdict"] = taken[-1].verdict
        if entry["interval"] is not None:
            n_mean_sd = (entry["n"], entry["mean"], entry["sd"])
            entry["interval"] = list(sequential.compute_repeated_interval(rules, taken[-1].look, *n_mean_sd))
        # These are right for a contrast that is looked at once.
        for name in ("bootstrap", "smallest_effect", "holm", "equivalence_holm"):
            entry[name] = None
        entry["estimates"]["naive"] = True


def add_robustness(
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
        same_looks = None
        if progress is not None:
            same_looks = _take_same_looks(plan, results, check.value, progress)
        for entry in confirmatory:
            # What was decided at an earlier look is compared over the pairs of that look.
            seeds = entry["seeds"]
            if same_looks is not None:
                seeds = seeds[: same_looks.looks[entry["name"]][-1].pairs]
            entries.append(compare_variants(plan, results, contrasts[entry["name"]], check.value, seeds))
        if same_looks is None:
            add_verdicts(entries, len(plan.confirmatory))
        else:
            add_looks(plan, entries, same_looks)
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
                samples[name] = [make_sample(plan, results, contrasts[name], metric, seeds) for seeds in pairs]
        if not samples:
            break  # this value decided everything earlier than the primary
        for name, look in sequential.take_look(rules, samples, taken).items():
            taken[name].append(look)
    return replace(progress, looks=taken)
