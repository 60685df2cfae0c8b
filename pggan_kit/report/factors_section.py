"""The section about a factorial ablation: the endpoint by the levels of each two factors, and what is aliased."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pggan_kit.report import plots
from pggan_kit.report.ablation_record import AblationRecord
from pggan_kit.report.page import Figure, Group, Section, make_plot

MOST_PLOTS = 10
"""Maximum of plots, one for each two factors."""


def factors_section(ablation: AblationRecord) -> Section:
    """Return the plots of each two factors; nothing where the plan has no factors."""
    section = Section("Factors")
    design = ablation.plan.get("design") or {}
    if design.get("kind") != "factorial":
        return section
    section.texts.append(
        "Means over the runs of all variants with these levels; the bars are one standard error over seeds. Parallel "
        "lines are factors that do not interact. The contrasts compare runs of one seed, and see more than these bars."
    )
    if design["resolution"] is not None:
        section.texts.append(
            f"A fraction of resolution {design['resolution']}: {design['runs']} of {design['full_runs']} combinations. "
            f"What cannot be told apart: {'; '.join(' = '.join(chain) for chain in design['aliases']) or 'nothing'}."
        )

    # A plot for each two factors.
    figures = []
    for one, other in combinations(design["factors"], 2):
        figure = _plot_two_factors(ablation, design, one, other)
        if figure is not None:
            figures.append(figure)
    if figures:
        section.groups.append(Group("", "plots", figures[:MOST_PLOTS]))
    return section


def _plot_two_factors(ablation: AblationRecord, design: dict[str, Any], one: str, other: str) -> Figure | None:
    """Return the plot of the endpoint by the levels of two factors; None where no run has a value."""
    # The means of each seed over the variants with both levels are what varies from seed to seed.
    values = ablation.select_plotted()
    cells: dict[str, dict[str, tuple[float, float, float]]] = {}
    described = []
    for line in design["factors"][other]:
        for level in design["factors"][one]:
            members = [
                name
                for name, levels in design["levels"].items()
                if levels[one] == level and levels[other] == line and name in values
            ]
            seeds = set.intersection(*(set(values[name]) for name in members)) if members else set()
            means = [_average([values[name][seed] for name in members], ablation.logarithmic) for seed in sorted(seeds)]
            if means:
                cell = _describe_cell(means, ablation.logarithmic)
                cells.setdefault(f"{other}: {line}", {})[level] = cell
                described.append(f"{one} {level} and {other} {line}: {cell[0]:.4g}")
    if not cells:
        return None

    alt = f"Line chart of the mean {ablation.primary} by {one} and {other}. {'; '.join(described)}."
    draw = plots.plot_interaction(cells, one, ablation.primary, ablation.logarithmic)
    return make_plot(f"{one} by {other}", draw, alt, f"{one} and {other}")


def _average(values: Sequence[float], logarithmic: bool) -> float:
    """Return the mean of values on the scale on which they are compared."""
    return math.fsum(math.log(value) if logarithmic else value for value in values) / len(values)


def _describe_cell(means: Sequence[float], logarithmic: bool) -> tuple[float, float, float]:
    """Return the mean, and what is one standard error below and above, in the metric's unit; of one seed no error."""
    center = float(np.mean(means))
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    middle, low, high = (center, center - error, center + error)
    if logarithmic:
        return math.exp(middle), math.exp(low), math.exp(high)
    return middle, low, high
