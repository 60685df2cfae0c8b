"""Test the results that the repository publishes: plans as they were fixed, and figures that follow from the trials."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.modules import load_module
from scipy import stats

from pggan_kit.ablation.plan import load_plan

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments/results"
PUBLISHED = [path.parent for path in sorted(RESULTS.rglob("plan.json")) if not (path.parent / "WITHDRAWN.md").is_file()]
NAMES = [str(folder.relative_to(RESULTS)) for folder in PUBLISHED]


def read_values(folder: Path) -> dict[str, dict[tuple[str, int], float]]:
    """Return the values of the trials at their ends, by metric and average, then variant and seed."""
    values: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values[row["metric"]][row["variant"], int(row["seed"])] = float(row["value"])
    return values


def read_contrasts(folder: Path) -> list[dict[str, Any]]:
    contrasts: list[dict[str, Any]] = json.loads((folder / "analysis.json").read_text("utf-8"))["contrasts"]
    return contrasts


@pytest.mark.parametrize("folder", PUBLISHED, ids=NAMES)
def test_a_plan_is_the_one_that_was_fixed_and_its_table_follows_from_the_trials(folder: Path) -> None:
    plan = load_plan(folder)
    assert json.loads((folder / "analysis.json").read_text("utf-8"))["hash"] == plan.hash
    values = read_values(folder)
    contrasts = read_contrasts(folder)
    assert any(contrast["role"] == "confirmatory" for contrast in contrasts)
    for contrast in contrasts:
        assert set(contrast["seeds"]) <= set(plan.seeds)
        check_contrast(contrast, values[contrast["metric"]])
        for check in contrast.get("checks", []):
            name = check["metric"] if check["average"] is None else f"{check['metric']} {check['average']}"
            check_contrast(contrast | check, values[name])


def check_contrast(contrast: dict[str, Any], values: dict[tuple[str, int], float]) -> None:
    """Require the mean and Student's interval of the pairs' differences, in float64 by numpy and scipy."""
    scale = math.log if contrast["scale"] == "log" else float
    differences = [
        scale(values[contrast["variant"], seed]) - scale(values[contrast["against"], seed])
        for seed in contrast["seeds"]
    ]
    assert len(differences) == contrast["n"] >= 6
    mean = np.mean(differences)
    assert contrast["mean"] == pytest.approx(mean, abs=1e-9)
    interval = stats.t.interval(0.95, len(differences) - 1, loc=mean, scale=stats.sem(differences))
    assert contrast["interval"] == pytest.approx(interval, abs=1e-9)


@pytest.mark.parametrize("folder", PUBLISHED, ids=NAMES)
def test_the_page_has_the_figures_of_the_analyses(folder: Path) -> None:
    """Look for the confirmatory contrasts with all their averages, as the page writes them."""
    page = (RESULTS / "README.md").read_text("utf-8")
    for contrast in read_contrasts(folder):
        if contrast["role"] != "confirmatory":
            continue
        places = 3 if contrast["scale"] == "log" else 1
        low, high = contrast["interval"]
        assert f"{contrast['mean']:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}]" in page


def test_the_page_has_the_figures_of_other_learning_rates() -> None:
    values = {}
    with open(RESULTS / "emoji/rates.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values[row["variant"], row["rate"], int(row["images"]), int(row["seed"]), row["metric"]] = float(
                row["value"]
            )
    page = (RESULTS / "README.md").read_text("utf-8")
    sides = [(("8e-3", 43_000), "8e-3"), (("4e-3", 47_200), "4e-3"), (("4e-3", 47_200), "8e-3")]
    for (rate, images), linear_rate in sides:
        for metric in ("FID", "FID_b", "SWD"):
            whole = np.log([values["whole", rate, images, seed, metric] for seed in range(3)])
            linear = np.log([values["linear", linear_rate, 75_000, seed, metric] for seed in range(3)])
            mean = np.mean(whole - linear)
            low, high = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem(whole - linear))
            assert f" {mean:+.3f} [{low:+.3f}, {high:+.3f}] |" in page


def test_the_page_has_the_figures_of_both_rates_of_the_emoji() -> None:
    """Of two plans with other seeds: differences of means, with Welch's interval."""
    page = (RESULTS / "README.md").read_text("utf-8")
    recipe, half = (read_values(RESULTS / folder) for folder in ("emoji", "emoji/rate"))
    for metric, compared in (("FID", True), ("FID_b", True), ("SWD", False)):
        whole, linear = (
            {rate: np.log([value for (name, _), value in sorted(values[metric].items()) if name == variant])
             for rate, values in (("8e-3", recipe), ("4e-3", half))}
            for variant in ("whole", "linear")
        )  # fmt: skip
        better = stats.ttest_ind(whole["4e-3"], linear["8e-3"], equal_var=False)
        low, high = better.confidence_interval()
        mean = whole["4e-3"].mean() - linear["8e-3"].mean()
        assert f"{abs(mean):.3f} [{low:+.3f}, {high:+.3f}]" in page
        if compared:
            first, second = (whole[rate] - linear[rate] for rate in ("8e-3", "4e-3"))
            low, high = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
            assert f"{first.mean() - second.mean():.3f} [{low:+.3f}, {high:+.3f}]" in page


def test_the_picture_of_the_first_page_is_drawn_from_the_analyses() -> None:
    script = load_module(ROOT / "scripts/draw_switches.py")
    shown = script.read_numbers(script.PICTURE.read_text("utf-8"))
    assert shown == script.read_differences(), "run: python scripts/draw_switches.py"
