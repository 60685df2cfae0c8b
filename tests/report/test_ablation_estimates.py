"""The report's further sections about an ablation: estimates, profiles, checks, looks and curves with bands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.ablation_folders import CONTRAST, write_results
from helpers.reporting import Page, leave_out_figures

from pggan_kit.report import plots, write_report
from pggan_kit.report.ablation_estimates import bands_section, estimates_section, looks_section, robustness_section
from pggan_kit.report.ablation_record import read_ablation
from pggan_kit.report.run_record import RunRecord, Ticks

ESTIMATES: dict[str, Any] = {
    "iqm": {"value": 0.6, "interval": [0.4, 0.8]},
    "improvement": {
        "paired": {"value": 0.25, "interval": [0.1, 0.6]},
        "unpaired": {"value": 0.375, "interval": None},
    },
    "posterior": {"better": 0.01, "within": 0.04, "worse": 0.95},
    "pairing_saved": 0.31,
    "pairs_for_equivalence": 70,
    "pairs_for_difference": 9,
}
PROFILES = {
    "thresholds": [18.0, 9.0, 8.0, 4.0],
    "variants": {
        "soft": {"share": [1.0, 1.0, 0.5, 0.5], "low": [1.0, 1.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0, 1.0]},
        "hard": {"share": [1.0, 0.5, 0.5, 0.0], "low": [1.0, 0.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0, 0.0]},
    },
}
CHECK = {
    "metric": "FID",
    "average": "short",
    "n": 2,
    "mean": -0.2,
    "interval": [-0.4, 0.1],
    "holm": 0.04,
    "equivalence_holm": 0.9,
    "verdict": "different",
    "agrees": False,
}
LOOKS = [
    {
        "look": 1,
        "pairs": 8,
        "statistic": 0.21,
        "boundary": None,
        "p": 0.07,
        "spent": 0.0,
        "equivalence": 0.6,
        "equivalence_boundary": 0.01,
        "predicted": 0.85,
        "decision": "goes on",
    },
    {
        "look": 2,
        "pairs": 14,
        "statistic": 0.33,
        "boundary": 0.29,
        "p": 0.011,
        "spent": 0.03,
        "equivalence": 0.8,
        "equivalence_boundary": 0.02,
        "predicted": None,
        "decision": "different",
    },
]
SEQUENTIAL = {
    "pairs": [8, 14, 20],
    "spending": "pocock",
    "spent": [0.02, 0.03, 0.05],
    "not_run": {"hard": 6, "soft": 0},
}


def test_estimates_and_profiles_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_figures(monkeypatch)
    write_results(tmp_path)
    analysis = {"contrasts": [{**CONTRAST, "estimates": ESTIMATES}], "profiles": PROFILES}
    (tmp_path / "analysis.json").write_text(json.dumps(analysis))
    write_report([tmp_path], tmp_path / "a.html", figures=tmp_path / "figures")
    page = Page(tmp_path / "a.html")
    assert "hard - soft confirmatory 0.6 0.4 0.8 0.25 0.375 0.01 0.04 0.95 31% 70 9" in page.text
    (alt,) = [alt for alt in page.alts if alt.startswith("Performance profiles")]
    assert "soft: 4, 4, 9; hard: 8, 8, 18" in alt
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"estimates.tex", "performance-profiles.pdf"} <= names


def test_estimates_of_contrasts_with_looks_are_called_naive(tmp_path: Path) -> None:
    write_results(tmp_path)
    looked = {**CONTRAST, "estimates": {**ESTIMATES, "naive": True}}
    section = estimates_section(read_ablation(tmp_path), {"contrasts": [looked]})
    assert "Looks could have stopped hard - soft earlier: the intervals of these" in section.texts[1]
    assert len(estimates_section(read_ablation(tmp_path), {"contrasts": [CONTRAST]}).texts) == 0


def test_a_profile_holds_between_the_values_of_runs() -> None:
    """Of the values 4 and 9, half are at most 5, 6 and 8.9."""
    from matplotlib.cbook import STEP_LOOKUP_MAP
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    plots.plot_profiles(PROFILES, "FID", log=True)(axes)
    soft = axes.lines[0]
    x, y = STEP_LOOKUP_MAP[soft.get_drawstyle()](soft.get_xdata(), soft.get_ydata())
    drawn = sorted(zip(x, y, strict=True))
    for value in (5.0, 6.0, 8.9):
        right = next(height for place, height in drawn if place > value)
        left = [height for place, height in drawn if place < value][-1]
        assert left == right == 0.5


def test_estimates_of_too_few_pairs_are_dashes(tmp_path: Path) -> None:
    write_results(tmp_path)
    nothing = dict.fromkeys(ESTIMATES) | {"improvement": {"paired": None, "unpaired": None}}
    analysis = {"contrasts": [{**CONTRAST, "estimates": nothing}], "profiles": {"thresholds": [], "variants": {}}}
    section = estimates_section(read_ablation(tmp_path), analysis)
    assert section.tables[0].rows == [["hard - soft", "confirmatory", *[None] * 8, "-", None, None]]
    assert not section.groups


def test_what_a_verdict_depends_on_is_shown() -> None:
    checked = {**CONTRAST, "metric": "FID", "equivalence_holm": 0.7, "checks": [CHECK]}
    section = robustness_section({"contrasts": [{**checked, "robustness": "depends on the average"}, CONTRAST]})
    assert section.texts == ["hard - soft: depends on the average."]
    own, other = section.tables[0].rows
    assert own[2] == "the endpoint's" and own[-2:] == ["undecided", ""]
    assert other[2] == "short" and other[-2:] == ["different", "no"]


def test_the_decision_at_each_look_is_shown() -> None:
    section = looks_section({"contrasts": [{**CONTRAST, "looks": LOOKS}, CONTRAST], "looks": SEQUENTIAL})
    assert [row[-1] for row in section.tables[0].rows] == ["goes on", "different"]
    assert "Planned runs that no look needed: 6 of hard." in section.texts
    (figure,) = section.groups[0].figures
    assert "after 8 pairs 0.21, boundary none: goes on; after 14 pairs 0.33, boundary 0.29: different" in figure.alt
    assert looks_section({"contrasts": [CONTRAST]}).empty


def make_run(variant: str, seed: int) -> RunRecord:
    """Return a run of three ticks whose FID falls from 8 by the seed."""
    rows = Ticks([{"images": 10 * tick, "Metrics/FID": 8.0 - seed * tick} for tick in range(3)])
    return RunRecord(f"{variant}, seed {seed}", Path("nowhere"), None, {}, "", "", rows, [], [])


def test_curves_have_a_median_and_a_band(tmp_path: Path) -> None:
    write_results(tmp_path)
    ablation = read_ablation(tmp_path)
    runs = {(variant, seed): make_run(variant, seed) for variant in ("soft", "hard") for seed in range(3)}
    (figure,) = bands_section(replace(ablation, runs=runs)).groups[0].figures
    assert "soft goes from 8 at 0 images to 6 at 20;" in figure.alt

    # One run of each variant has no band.
    alone = {key: run for key, run in runs.items() if key[1] == 0}
    assert bands_section(replace(ablation, runs=alone)).empty


def test_a_band_holds_the_quantiles_of_the_runs() -> None:
    """Against numpy's quantiles: five runs at two clocks."""
    from matplotlib.figure import Figure

    values = np.random.default_rng(0).uniform(1, 2, (5, 2))
    curves = [[(0, float(first)), (10, float(second))] for first, second in values]
    axes = Figure().add_subplot()
    plots.plot_bands({"soft": plots.summarize_curves(curves)}, "FID")(axes)
    (band,) = axes.collections
    drawn = band.get_paths()[0].vertices
    for place, clock in enumerate((0, 10)):
        heights = drawn[drawn[:, 0] == clock, 1]
        low, high = np.quantile(values[:, place], (0.1, 0.9))
        assert heights.min() == pytest.approx(low)
        assert heights.max() == pytest.approx(high)
