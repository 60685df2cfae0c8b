"""The section about stages: the same latents at the end of each, and how far their pictures are from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit.pictures.frames import fill_cell
from pggan_kit.report import plots
from pggan_kit.report.page import Figure, Group, Section, Table, make_grid, make_plot
from pggan_kit.report.run_groups import RunGroup, begin_head, begin_row, find_median, has_several, list_runs
from pggan_kit.report.run_pictures import STRIP, RunPictures
from pggan_kit.report.run_record import Curve, RunRecord, is_finite
from pggan_kit.report.run_sections import STRIP_CELL, find_usual_stages, format_size

PREFIX = "Coherence/"
"""Prefix of the tags of pixels, which end with the size of the earlier stage."""

FEATURES_PREFIX = "Coherence_features/"
"""Prefix of the tags of features."""


def coherence_section(groups: Sequence[RunGroup], pictures: Sequence[RunPictures]) -> Section:
    """Return a strip of stages of each run that is drawn, and the measurements of `observers.Coherence`.

    Args:
        groups: The groups.
        pictures: What was drawn of the first groups' runs.
    """
    text = (
        "Each row is one latent, each column the end of a stage, all shown at one size: whether a network that has "
        "grown comes back to its picture, or draws another one."
    )
    section = Section("Across the stages", [text])
    for group, drawn in zip(groups[: len(pictures)], pictures, strict=True):
        if len(drawn.ends) > 1:
            run = group.shown
            section.groups.append(Group(run.name, "pixels", [draw_stages_figure(run, drawn)]))

    # Numbers are there where the observer wrote them.
    body = [[*begin_row(group, groups), *row] for group in groups for row in _tabulate(group)]
    if body:
        section.texts.append(
            "Measured by observers.Coherence: the distance of a latent's picture from its own at the end of an earlier "
            "stage, relative to that from other latents' pictures. 0 is the same picture, 1 another latent's."
        )
        if has_several(groups):
            section.texts.append("Numbers of a group are medians of its runs.")
        head = [*begin_head(groups), "from", "to", "after", "pixels", "features"]
        section.tables.append(Table(head, body, "coherence"))
        section.groups.append(Group("", "plots", [_plot_size(groups, size) for size in _list_sizes(list_runs(groups))]))
    return section


def draw_stages_figure(run: RunRecord, drawn: RunPictures) -> Figure:
    """Return the strip: a row for each latent, a column for each stage."""
    # All images at the largest size that fits.
    stages = sorted(drawn.ends)
    sizes = [drawn.ends[stage].shape[1:3] for stage in stages]
    fitting = [(height, width) for height, width in sizes if height <= STRIP_CELL]
    cell = max(fitting, default=sizes[0])
    columns = [np.stack([fill_cell(image, cell) for image in drawn.ends[stage][:STRIP]]) for stage in stages]
    images = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])

    # What the strip shows, in words.
    names = [format_size(drawn.sizes[stage]) for stage in stages]
    clocks = [f"{drawn.clocks[stage]:,}" for stage in stages]
    alt = (
        f"Strip across the stages of {run.name}: {len(columns[0])} latents from top to bottom, the sizes "
        f"{', '.join(names)} from left to right, enlarged or reduced to one size."
    )
    described = [f"{size} after {clock}" for size, clock in zip(names, clocks, strict=True)]
    return make_grid(images, len(stages), alt, f"{', '.join(described)} images", STRIP_CELL)


def _tabulate(group: RunGroup) -> list[list[Any]]:
    """Return a row for each pair of stages that have ended: both sizes, clock, pixels and features."""
    measured: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for run in group.runs:
        ends = {(stage.index, stage.end) for stage in run.stages}
        for row in run.coherence:
            # The row right after a growth has the clock of the end before, and the next stage.
            if (row.get("stage"), row.get("at")) not in ends:
                continue
            for size in _sizes_of(row):
                measured.setdefault((size, row.get("size"), row["at"]), []).append(row)

    body = []
    for (size, reached, clock), rows in measured.items():
        values = [find_median(row.get(f"{prefix}{size}") for row in rows) for prefix in (PREFIX, FEATURES_PREFIX)]
        body.append([size, reached, clock, *values])
    return body


def _sizes_of(row: Mapping[str, Any]) -> list[str]:
    """Return the sizes of the earlier stages that a row measures against."""
    return [tag.removeprefix(PREFIX) for tag in row if tag.startswith(PREFIX)]


def _list_sizes(runs: Sequence[RunRecord]) -> list[str]:
    return list(dict.fromkeys(size for run in runs for row in run.coherence for size in _sizes_of(row)))


def _plot_size(groups: Sequence[RunGroup], size: str) -> Figure:
    """Return the plot of the distance from the end of one stage, with a line for each group."""
    label = f"distance from the end of {size}"
    named: dict[str, Curve] = {}
    bands: dict[str, tuple[Curve, Curve]] = {}
    for group in groups:
        curves = [_find_curve(run, size) for run in group.runs]
        summary = plots.summarize_curves([curve for curve in curves if curve])
        named[group.label] = summary.median
        if summary.low:
            bands[group.label] = (summary.low, summary.high)
    draw = plots.plot_curves(named, label, find_usual_stages(list_runs(groups)), bands=bands)
    alt = plots.describe_lines(named, label)
    return make_plot(f"coherence {size}", draw, alt, f"{label}: 0 is the same picture, 1 another latent's")


def _find_curve(run: RunRecord, size: str) -> Curve:
    """Return a run's distance from the end of one stage over the clock."""
    points: list[tuple[Any, Any]] = [(row.get("at"), row.get(f"{PREFIX}{size}")) for row in run.coherence]
    return [(int(at), float(value)) for at, value in points if is_finite(at) and is_finite(value)]
