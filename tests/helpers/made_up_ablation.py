"""The plan and the results of an ablation that nobody ran."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pggan_kit.ablation.plan import Plan

SEEDS = list(range(10))
BASE = np.random.default_rng(0).normal(3.0, 0.3, len(SEEDS))
NOISE = np.random.default_rng(1).normal(0.0, 0.02, len(SEEDS))


def make_plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "name": "made_up",
        "base": "base.gin",
        "variants": {name: [] for name in ("a", "b", "c")},
        "seeds": SEEDS,
        "controls": {},
        "contrasts": [["b", "a"], ["c", "a"]],
        "primary": "FID",
        "margin": 0.1,
        "evaluation": [],
        "quantities": {
            "FID": {"direction": "lower", "scale": "log"},
            "signed": {"direction": "lower", "scale": "plain"},
            "Precision": {"direction": "higher", "scale": "plain"},
        },
        "shared": [],
        "branch": None,
        "configs": {},
        "plugins": {},
    }
    return Plan(**{**given, **changes})


def make_results(
    shifts: dict[str, Any], failed_runs: set[tuple[str, int]] = frozenset()
) -> dict[tuple[str, int], dict[str, Any]]:  # type: ignore[assignment]
    """Return results whose logarithm is that of the seed plus the variant's shift."""
    results = {}
    for name, shift in shifts.items():
        for seed, log in zip(SEEDS, BASE + shift, strict=True):
            rows = [
                {"stage": 2, "images": 1, "metric": "FID", "value": math.exp(log), "floor": 0.5},
                {"stage": 2, "images": 1, "metric": "signed", "value": -1.0, "floor": None},
            ]
            failed = "NaN" if (name, seed) in failed_runs else None
            trial = {"failed": failed, "rows": [] if failed else rows, "images": 1, "revision": "r", "hardware": "h"}
            results[name, seed] = trial
    return results
