"""Variants and contrasts that are added to an ablation after its first start."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.made_up_ablation import make_plan
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit import ablation
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import plan_changes, plan_reading
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.plan_changes import compare_with_fixed
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

    # The trials of a third seed are as those of the second.
    for name in ("trunks", "runs/linear", "runs/hard", "runs/cosine"):
        shutil.copytree(f"out/{name}/1", f"out/{name}/2")
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


@pytest.mark.slow
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


ONE_PAIR: dict[str, Any] = {
    "variants": {"a": [], "b": []},
    "contrasts": [["b", "a"]],
    "seeds": list(range(6)),
    "configs": {"a": "a", "b": "b"},
}


def test_what_was_added_may_not_be_taken_back_or_cut(tmp_path: Path) -> None:
    """Otherwise a contrast that was seen to say something else could be left out."""
    plans.write_plan(make_plan(**ONE_PAIR, exploratory_contrasts=[["a", "b"]]), tmp_path)
    with pytest.raises(RunError, match=r"the contrast a - b was added there and is missing in ablate\.contrasts now"):
        compare_with_fixed(make_plan(**ONE_PAIR), tmp_path)

    # A control that is added may have seeds that are added.
    added = {
        **ONE_PAIR,
        "variants": {name: [] for name in "abc"},
        "configs": {name: name for name in "abc"},
        "seeds": list(range(10)),
        "exploratory_variants": ["c"],
        "exploratory_contrasts": [["c", "a"]],
    }
    plans.write_plan(make_plan(**ONE_PAIR), tmp_path)
    current = compare_with_fixed(make_plan(**added, controls={"c": 8}), tmp_path)
    assert current.select_seeds("c") == list(range(8)) and current.select_seeds("a") == list(range(10))
    plans.write_plan(current, tmp_path)
    for controls in ({}, {"c": 2}):
        with pytest.raises(RunError, match=r"ablate\.controls was .*'c': 8.* The number of seeds of c was chosen"):
            compare_with_fixed(make_plan(**added, controls=controls), tmp_path)

    # Its seeds are the first of those that were added, however these are listed now; new ones follow.
    for later in ([9, 8, 7, 6], [10, 7, 8, 9, 6]):
        now = compare_with_fixed(make_plan(**{**added, "seeds": [*range(6), *later]}, controls={"c": 8}), tmp_path)
        assert now.select_seeds("c") == list(range(8)) and now.all_seeds == list(range(6 + len(later)))


def test_a_plan_that_differs_as_text_alone_is_described(tmp_path: Path) -> None:
    plans.write_plan(make_plan(**ONE_PAIR, looks=[3, 6]), tmp_path)
    with pytest.raises(RunError, match=r"looks was \[3, 6\] and is \[3\.0, 6\]"):
        compare_with_fixed(make_plan(**ONE_PAIR, looks=[3.0, 6]), tmp_path)
