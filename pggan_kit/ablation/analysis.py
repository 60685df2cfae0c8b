"""What an ablation's results say, contrast by contrast, by the rules that its plan fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.plan import Plan
from pggan_kit.errors import RunError

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""What `trial.result` gives, by (variant, seed)."""


def analyse(plan: Plan, results: Results) -> dict[str, Any]:
    """The content of `analysis.json`.

    Returns:
        `contrasts`, one entry each as `contrast` gives it, those over seeds that were added later after the others;
        `secondary`, the same of all other metrics; `variants`, by name `trials`, `died`, `geometric_mean` and `floor`
        of the primary; `metric`, `margin`, `alpha`, `hash`, `revisions`, `hardware`.

    Raises:
        RunError: a value of the primary metric that has no logarithm.
    """
    _require_positive(plan, results)
    planned = [contrast(plan, results, pair, plan.primary, plan.seeds) for pair in plan.contrasts]
    _correct(plan, planned)
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

    Differences are `log variant - log against`, or without logarithms where a metric has values that are not above 0
    (`scale`). Interval, TOST and bootstrap are of pairs in which both live. Where a run died, the test is that of
    signed ranks over all pairs, in which it ranks worst.
    """
    variant, against = pair
    seeds = [seed for seed in seeds if (variant, seed) in results and (against, seed) in results]
    values = [(_value(results, variant, seed, metric), _value(results, against, seed, metric)) for seed in seeds]
    alive = [(one, other) for one, other in values if one is not None and other is not None]
    scale = "log" if all(one > 0 and other > 0 for one, other in alive) else "plain"
    ours, theirs = ([math.log(v) if scale == "log" else v for v in side] for side in _sides(alive))
    d = [one - other for one, other in zip(ours, theirs, strict=True)]
    died = [
        (results[variant, seed]["failed"] is not None, results[against, seed]["failed"] is not None) for seed in seeds
    ]
    controls = set(pair) & set(plan.controls)
    found: dict[str, Any] = {
        "variant": variant,
        "against": against,
        "role": "control" if controls else "confirmatory",
        "metric": metric,
        "scale": scale,
        "seeds": seeds,
        "n": len(d),
        "failures": asdict(st.failures(died)),
        "correlation": st.correlation(ours, theirs),
        **_of_differences(d, plan.margin, len(plan.confirmatory)),
        "ranks": None,
    }
    if any(map(any, died)):
        found["ranks"] = st.sign_flip(st.signed_ranks(_with_dead(values)))._asdict()
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


def _sides(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [one for one, _ in pairs], [other for _, other in pairs]


def _with_dead(values: Sequence[tuple[float | None, float | None]]) -> list[float]:
    """Differences in which a run that died is infinitely bad; two that died do not differ."""
    found = []
    for one, other in values:
        if one is None and other is None:
            found.append(0.0)
        elif one is None or other is None:
            found.append(math.inf if one is None else -math.inf)
        else:
            found.append(math.log(one) - math.log(other) if min(one, other) > 0 else one - other)
    return found


def _correct(plan: Plan, entries: Sequence[dict[str, Any]]) -> None:
    """Adds `holm` and `verdict` to what is confirmatory."""
    asked = {(e["variant"], e["against"]): e for e in entries if e["role"] == "confirmatory"}
    adjusted = st.holm({"\0".join(pair): e["p"] for pair, e in asked.items() if e["p"] is not None})
    for pair, entry in asked.items():
        entry["holm"] = adjusted.get("\0".join(pair))
        entry["verdict"] = _verdict(entry)


def _verdict(entry: Mapping[str, Any]) -> str:
    differs = entry["holm"] is not None and entry["holm"] < st.ALPHA
    same = entry["equivalence"] is not None and entry["equivalence"] < st.ALPHA and not entry["ranks"]
    words = {
        (True, False): "different",
        (True, True): "different, by less than the margin",
        (False, True): "equivalent",
        (False, False): "undecided",
    }
    return words[differs, same]


def _value(results: Results, variant: str, seed: int, metric: str) -> float | None:
    """A run's value; None where it died."""
    rows = results[variant, seed]["rows"]
    return next((row["value"] for row in rows if row["metric"] == metric), None)


def _variant(plan: Plan, results: Results, name: str) -> dict[str, Any]:
    found = [results[name, seed] for seed in plan.seeds if (name, seed) in results]
    rows = [row for trial in found for row in trial["rows"] if row["metric"] == plan.primary]
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    return {
        "trials": len(found),
        "died": sum(trial["failed"] is not None for trial in found),
        "geometric_mean": math.exp(np.mean([math.log(row["value"]) for row in rows])) if rows else None,
        "floor": float(np.mean(floors)) if floors else None,
    }


def _require_positive(plan: Plan, results: Results) -> None:
    for (variant, seed), found in results.items():
        for row in found["rows"]:
            if row["metric"] == plan.primary and not 0 < row["value"] < math.inf:
                raise RunError(
                    f"ablate.primary: {plan.primary} of {variant} with seed {seed} is {row['value']}, whose logarithm "
                    "cannot be compared; choose a metric that is above 0"
                )
