"""Variants and contrasts that are added to an ablation after its first start."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit import ablation
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import plan_changes, plan_reading
from pggan_kit.ablation import statistics as st
from pggan_kit.errors import ConfigError, RunError

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]

Ablate = Callable[..., dict[str, Any]]

WITH_COSINE = (
    "ablate.variants = {'cosine': ['train.switch = @switches.Cosine()'], 'linear': [], "
    "'hard': ['train.switch = @switches.Hard()']}"
)
TWO_CONTRASTS = "ablate.contrasts = [('cosine', 'linear'), ('hard', 'linear')]"
ADDED = (WITH_COSINE, TWO_CONTRASTS)


def test_what_is_added_is_exploratory_and_changes_nothing_else(begun: Ablate, finished: Path) -> None:
    """Also where it stands first in the gin file; it shares the trunk, and stays exploratory at later starts."""
    first = json.loads((finished / "analysis.json").read_text())
    said: list[str] = []
    analysis = begun(*ADDED, said=said)
    assert said == ["5/6 cosine 0: done", "6/6 cosine 1: done"], "no trunk is trained again"

    planned, added = analysis["contrasts"]
    assert planned == first["contrasts"][0]
    assert (added["variant"], added["role"], added["n"]) == ("cosine", "exploratory", 2)
    assert "verdict" not in added and "holm" not in added
    assert (
        analysis["exploratory"] == {"seeds": [], "variants": ["cosine"], "adopted": []}
        and analysis["hash"] == first["hash"]
    )
    assert {entry["variant"] for entry in analysis["secondary"]} == {"hard", "cosine"}
    with open("out/results.csv", newline="") as file:
        marked = {row["variant"]: row["exploratory"] for row in csv.DictReader(file)}
    assert marked == {"linear": "0", "hard": "0", "cosine": "1"}

    plan = plans.load_plan(Path("out"))
    assert plan.planned_variants == ["linear", "hard"] and plan.shared == ["linear", "hard", "cosine"]
    assert plan.exploratory_contrasts == [["cosine", "linear"]] and plan.contrasts == [["hard", "linear"]]
    later = begun(*ADDED, "ablate.seeds = (0, 1, 2)")
    assert [(entry["variant"], entry["n"], entry["role"]) for entry in later["contrasts"]] == [
        ("hard", 2, "confirmatory"),
        ("hard", 3, "exploratory"),
        ("cosine", 3, "exploratory"),
    ]

    # What has run can neither be taken away nor become something else.
    with pytest.raises(RunError, match=r"variants \['cosine'\] were run there and are missing in ablate\.variants"):
        begun("ablate.seeds = (0, 1, 2)")
    other = WITH_COSINE.replace("Cosine", "Staircase")
    with pytest.raises(RunError, match=r"of another variant cosine \(its config was train\.switch = @switches\.Cosine"):
        begun(other, TWO_CONTRASTS, "ablate.seeds = (0, 1, 2)")

    # What changed in every variant is a change of the plan, and not of the one that was added.
    with pytest.raises(RunError, match=r"^out was begun with another plan \("):
        begun(*ADDED, "architectures.PGGAN.channels = 8", "ablate.seeds = (0, 1, 2)")


def test_an_added_variant_that_differs_from_the_start_has_no_trunk(begun: Ablate) -> None:
    variants = WITH_COSINE.replace("train.switch = @switches.Cosine()", "train.tick = 4").replace("cosine", "fast")
    plan, _ = plan_reading.read_plan("switch.gin", [variants], PLUGINS, Path("out"))
    assert plan.shared == ["linear", "hard"] and plan.branch == 0
    assert plan_changes.compare_with_fixed(plan, Path("out")).exploratory_variants == ["fast"]


def test_added_contrasts_need_no_more_seeds(begun: Ablate, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not corrected for: six seeds are enough for one planned contrast, and not for two."""
    monkeypatch.setattr("pggan_kit.ablation.settings.count_pairs_needed", st.count_pairs_needed)
    six = "ablate.seeds = (0, 1, 2, 3, 4, 5)"
    plan, rows = ablation.estimate_cost("switch.gin", [*ADDED, six], PLUGINS, "out")
    assert len(plan.confirmatory) == 1
    roles = {row["trial"]: row["role"] for row in rows}
    assert roles == {"trunk": "trunk", "linear": "variant", "hard": "variant", "cosine": "exploratory"}
    with pytest.raises(ConfigError, match=r"^-b '.*': ablate\.seeds must be at least 7 for 2 confirmatory contrasts"):
        ablation.estimate_cost("switch.gin", [*ADDED, six], PLUGINS, "elsewhere")
