"""Summarise the runs of each variant by itself: how many there are, their mean, and their performance profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pggan_kit.ablation.comparison import Results, find_value, has_failed
from pggan_kit.ablation.estimators import compute_profiles, estimate_iqm
from pggan_kit.ablation.plan import Plan
from pggan_kit.evaluation.scales import compute_mean, convert_to_scale


def summarise_variant(plan: Plan, results: Results, name: str) -> dict[str, Any]:
    """Return the number of a variant's trials and of those without a value, and mean and noise floor of the primary."""
    # A trial that has not ended, or that the variant does not have, is not counted.
    trials = 0
    failed = 0
    censored = 0
    values = []
    floors = []
    for seed in plan.seeds:
        if (name, seed) not in results:
            continue
        trials += 1
        value = find_value(results, name, seed, plan.primary)
        if value is not None:
            values.append(value)
        elif has_failed(results, name, seed, plan.primary):
            failed += 1
        else:
            censored += 1
        for row in results[name, seed]["rows"]:
            if row["metric"] == plan.primary and row["floor"] is not None:
                floors.append(row["floor"])

    # Means are over the runs that have a value.
    scale = plan.get_quantity(plan.primary)["scale"]
    return {
        "trials": trials,
        "failed": failed,
        "censored": censored,
        # A mean of those that reached the quality says nothing about the others.
        "mean": compute_mean(values, scale) if values and not censored else None,
        "iqm": _estimate_iqm(_list_values(plan, results, name), scale),
        "floor": float(np.mean(floors)) if floors else None,
    }


def compute_primary_profiles(plan: Plan, results: Results) -> dict[str, Any]:
    """Return the performance profiles of the primary over the planned seeds."""
    direction = plan.get_quantity(plan.primary)["direction"]
    return compute_profiles({name: _list_values(plan, results, name) for name in plan.variants}, direction)


def _list_values(plan: Plan, results: Results, name: str) -> list[float]:
    """Return the primary of each run of a variant over the planned seeds; infinite, and worst, where it has none."""
    worst = math.inf if plan.get_quantity(plan.primary)["direction"] == "lower" else -math.inf
    values = []
    for seed in plan.seeds:
        if (name, seed) in results:
            value = find_value(results, name, seed, plan.primary)
            values.append(worst if value is None else value)
    return values


def _estimate_iqm(values: Sequence[float], scale: str) -> dict[str, Any] | None:
    """Return the interquartile mean of values in their own unit, taken on their scale."""
    # A run without a value is infinite, and so is its logarithm.
    scaled = [value if math.isinf(value) else convert_to_scale(value, scale) for value in values]
    found = estimate_iqm(scaled)
    if found is None or scale == "plain":
        return found
    interval = found["interval"]
    if interval is not None:
        interval = [math.exp(end) for end in interval]
    return {"value": math.exp(found["value"]), "interval": interval}
