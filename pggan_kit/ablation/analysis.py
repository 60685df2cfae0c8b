"""What an ablation's results say, contrast by contrast, by the rules that its plan fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.plan import Plan

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""What `trial.result` gives, by (variant, seed)."""


def analyse(plan: Plan, results: Results) -> dict[str, Any]:
    """The content of `analysis.json`.

    Returns:
        `contrasts`, one entry each as `contrast` gives it, those over seeds that were added later after the others;
        `secondary`, the same of all other metrics; `variants`, by name `trials`, `died`, `mean` (the geometric one
        where the scale is `log`) and `floor` of the primary; `metric`, with its `direction` and `scale`; `margin`,
        `alpha`, `hash`, `revisions`, `hardware`.
    """
    planned = [contrast(plan, results, pair, plan.primary, plan.seeds) for pair in plan.contrasts]
    correct(planned)
    later = []
    if plan.exploratory:
        everyone = [*plan.seeds, *plan.exploratory]
        later = [contrast(plan, results, pair, plan.primary, everyone) for pair in plan.confirmatory]
        later = [{**entry, "role": "exploratory"} for entry in later]
    others = sorted({row["metric"] for found in results.values() for row in found["rows"]} - {plan.primary})
    secondary = [
        {**contrast(plan, results, pair, metric, plan.seeds), "role": "secondary"}
        for metric in others
        for pair in plan.contrasts
    ]
    return {
        "name": plan.name,
        "hash": plan.hash,
        "metric": plan.primary,
        **plan.quantities[plan.primary],
        "margin": plan.margin,
        "alpha": st.ALPHA,
        "contrasts": [*planned, *later],
        "secondary": secondary,
        "variants": {name: _variant(plan, results, name) for name in plan.variants},
        "revisions": sorted({found["revision"] for found in results.values()}),
        "hardware": sorted({found["hardware"] for found in results.values()}),
    }


def contrast(plan: Plan, results: Results, pair: Sequence[str], metric: str, seeds: Sequence[int]) -> dict[str, Any]:
    """How one variant differs from another, in pairs of runs with the same seed.

    Differences are `log variant - log against`, or without logarithms, as the metric states its `scale`. Interval,
    TOST and bootstrap are of pairs in which both have a finite one. Where a run has none, the test is that of signed
    ranks over all pairs: a run that failed or gave no finite value ranks worst, by the metric's `direction`, and a
    value of 0 on a logarithmic scale ranks below all others.
    """
    variant, against = pair
    seeds = [seed for seed in seeds if (variant, seed) in results and (against, seed) in results]
    values = [(_value(results, variant, seed, metric), _value(results, against, seed, metric)) for seed in seeds]
    scale, direction = plan.quantities[metric]["scale"], plan.quantities[metric]["direction"]
    worst = math.inf if direction == "lower" else -math.inf
    scaled = [(_on_scale(one, scale, worst), _on_scale(other, scale, worst)) for one, other in values]
    finite = [(one, other) for one, other in scaled if math.isfinite(one) and math.isfinite(other)]
    ours, theirs = [one for one, _ in finite], [other for _, other in finite]
    d = [one - other for one, other in finite]
    died = [(one is None, other is None) for one, other in values]
    controls = set(pair) & set(plan.controls)
    found: dict[str, Any] = {
        "variant": variant,
        "against": against,
        "role": "control" if controls else "confirmatory",
        "metric": metric,
        "direction": direction,
        "scale": scale,
        "seeds": seeds,
        "n": len(d),
        "failures": asdict(st.failures(died)),
        "correlation": st.correlation(ours, theirs),
        **_of_differences(d, plan.margin, len(plan.confirmatory)),
        "ranks": None,
    }
    if len(finite) < len(scaled):
        # Two runs that are alike without a finite value do not differ; their difference would be NaN.
        of_all = [0.0 if one == other else one - other for one, other in scaled]
        found["ranks"] = st.sign_flip(st.signed_ranks(of_all))._asdict()
        found["smallest_effect"] = None  # it is that of sign flips of the differences, which do not decide here
    test = found["ranks"] or found["sign_flip"]
    found["p"] = test["p"] if test else None
    return found


def _of_differences(d: Sequence[float], margin: float, confirmatory: int) -> dict[str, Any]:
    several = len(d) > 1
    bootstrap = st.bootstrap_interval(d)
    return {
        "mean": float(np.mean(d)) if d else None,
        "sd": float(np.std(d, ddof=1)) if several else None,
        "interval": list(st.t_interval(d)) if several else None,
        "bootstrap": list(bootstrap) if bootstrap else None,
        "sign_flip": st.sign_flip(d)._asdict() if d else None,
        "equivalence": st.equivalence(d, margin) if several else None,
        # The level is that of Holm's first step.
        "smallest_effect": st.smallest_effect(d, st.ALPHA / max(1, confirmatory)) if several else None,
    }


def _on_scale(value: float | None, scale: str, worst: float) -> float:
    """A value as runs are compared by it, perhaps infinite; `worst` where a run has none."""
    if value is None:
        return worst
    if scale == "plain":
        return value
    return math.log(value) if value > 0 else -math.inf


def correct(entries: Sequence[dict[str, Any]]) -> None:
    """Add `holm`, `equivalence_holm` and `verdict` to the entries that are confirmatory.

    Both tests are corrected for the number of these contrasts. Where a run has no value, no equivalence is claimed, and
    `equivalence_holm` is None.
    """
    asked = [entry for entry in entries if entry["role"] == "confirmatory"]
    differs = {str(place): entry["p"] for place, entry in enumerate(asked)}
    same = {str(place): None if entry["ranks"] else entry["equivalence"] for place, entry in enumerate(asked)}
    for name, found in (("holm", differs), ("equivalence_holm", same)):
        # A test that cannot be made still counts in the number of tests.
        adjusted = st.holm({place: 1.0 if p is None else p for place, p in found.items()})
        for place, entry in enumerate(asked):
            entry[name] = None if found[str(place)] is None else adjusted[str(place)]
    for entry in asked:
        entry["verdict"] = _verdict(entry)


def _verdict(entry: Mapping[str, Any]) -> str:
    differs = entry["holm"] is not None and entry["holm"] < st.ALPHA
    same = entry["equivalence_holm"] is not None and entry["equivalence_holm"] < st.ALPHA
    words = {
        (True, False): "different",
        (True, True): "different, by less than the margin",
        (False, True): "equivalent",
        (False, False): "undecided",
    }
    return words[differs, same]


def _value(results: Results, variant: str, seed: int, metric: str) -> float | None:
    """A run's value; None where it failed, or where the value is not finite."""
    rows = results[variant, seed]["rows"]
    value = next((row["value"] for row in rows if row["metric"] == metric), None)
    return value if value is not None and math.isfinite(value) else None


def _variant(plan: Plan, results: Results, name: str) -> dict[str, Any]:
    seeds = [seed for seed in plan.seeds if (name, seed) in results]
    found = [_value(results, name, seed, plan.primary) for seed in seeds]
    values = [value for value in found if value is not None]
    rows = [row for seed in seeds for row in results[name, seed]["rows"] if row["metric"] == plan.primary]
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    return {
        "trials": len(found),
        "died": len(found) - len(values),
        "mean": _mean(values, plan.quantities[plan.primary]["scale"]),
        "floor": float(np.mean(floors)) if floors else None,
    }


def _mean(values: Sequence[float], scale: str) -> float | None:
    """The geometric mean on a logarithmic scale, else the arithmetic one; None of none."""
    if not values:
        return None
    if scale == "plain":
        return float(np.mean(values))
    return math.exp(np.mean([math.log(value) for value in values])) if min(values) > 0 else 0.0
