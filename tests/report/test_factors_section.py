"""The report's section about factors: means by the levels of two factors, against sums by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.ablation_folders import COLUMNS, write_results
from helpers.reporting import Page, leave_out_figures, leave_out_plots

from pggan_kit.report import plots, write_report
from pggan_kit.report.ablation_record import read_ablation
from pggan_kit.report.factors_section import factors_section

LEVELS = {
    f"{switch}+{loss}": {"switch": switch, "loss": loss} for switch in ("soft", "hard") for loss in ("hinge", "wgan")
}
DESIGN: dict[str, Any] = {
    "kind": "factorial",
    "factors": {"switch": ["soft", "hard"], "loss": ["hinge", "wgan"]},
    "levels": LEVELS,
    "runs": 4,
    "full_runs": 4,
    "resolution": None,
    "generators": {},
    "aliases": [],
}
VALUES = {name: [4.0 + 3 * place, 5.0 + place] for place, name in enumerate(LEVELS)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a 2x2 of two seeds, whose last variant failed once."""
    write_results(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan |= {
        "variants": {name: [] for name in LEVELS},
        "contrasts": [],
        "effects": {"switch": {}, "switch x loss": {}},
        "design": DESIGN,
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    lines = [",".join(COLUMNS)]
    for name, values in VALUES.items():
        for seed, value in enumerate(values):
            if (name, seed) != ("hard+wgan", 1):
                lines.append(f"{name},{seed},2,40,FID,{value},0,abc,a CPU,0")
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_means_of_two_factors_are_geometric_where_logarithms_are_compared(folder: Path) -> None:
    section = factors_section(read_ablation(folder))
    (figure,) = section.groups[0].figures
    for name in ("soft+hinge", "soft+wgan", "hard+hinge"):
        switch, loss = name.split("+")
        mean = math.sqrt(VALUES[name][0] * VALUES[name][1])
        assert f"switch {switch} and loss {loss}: {mean:.4g}" in figure.alt
    assert f"switch hard and loss wgan: {VALUES['hard+wgan'][0]:.4g}" in figure.alt


def test_bars_are_one_standard_error() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    low, high = 5 - np.std([4, 6], ddof=1) / math.sqrt(2), 5 + np.std([4, 6], ddof=1) / math.sqrt(2)
    plots.plot_interaction({"loss: hinge": {"soft": (5.0, low, high)}}, "switch", "FID", log=False)(axes)
    (bars,) = axes.collections
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([4.0, 6.0])


def test_the_page_names_effects_and_aliases(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)
    leave_out_figures(monkeypatch)
    plan = json.loads((folder / "plan.json").read_text())
    fraction = {"resolution": "III", "runs": 4, "full_runs": 8, "aliases": [["loss", "-switch x data"]]}
    plan["design"] = {**DESIGN, **fraction}
    (folder / "plan.json").write_text(json.dumps(plan))
    write_report([folder], folder / "a.html", figures=folder / "figures")
    text = Page(folder / "a.html").text
    assert (
        "A fraction of resolution III: 4 of 8 combinations. What cannot be told apart: loss = -switch x data." in text
    )
    assert "Contrasts: switch, switch x loss." in text
    assert (folder / "figures" / "switch-by-loss.pdf").exists()


def test_other_plans_have_no_such_section(tmp_path: Path) -> None:
    write_results(tmp_path)
    assert factors_section(read_ablation(tmp_path)).empty
