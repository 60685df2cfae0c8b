"""The section about when the networks of an ablation's runs grew, where that differs between runs."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit.report.ablation_record import AblationRecord
from pggan_kit.report.page import Section, Table
from pggan_kit.report.run_groups import describe_values
from pggan_kit.report.run_record import RunRecord


def growth_section(ablation: AblationRecord) -> Section:
    """Return the images at which each stage began, by variant; nothing where all runs began their stages alike."""
    text = (
        "Images at which each stage began: a number that all seeds of a variant have in common, or the least and the "
        "greatest. A switch may decide them by what it measures, and a schedule by its budgets."
    )
    section = Section("When the networks grew", [text])
    starts = {key: {stage.height: stage.start for stage in run.stages} for key, run in ablation.runs.items()}
    if all(own == next(iter(starts.values())) for own in starts.values()):
        return section

    heights = sorted({height for own in starts.values() for height, start in own.items() if start > 0})
    rows = []
    for name in ablation.variants:
        runs = [run for (variant, _), run in ablation.runs.items() if variant == name]
        rows.append([name, len(runs), *(_describe_starts(runs, height) for height in heights)])
    section.tables.append(Table(["variant", "runs", *(f"{height} px" for height in heights)], rows, "growth"))
    return section


def _describe_starts(runs: Sequence[RunRecord], height: int) -> int | str | None:
    """Return the images at which runs began a stage, and how many never did; None where they have no such stage."""
    planned = [stage for run in runs for stage in run.about.get("schedule", {}).get("stages", ())]
    starts = [stage.start for run in runs for stage in run.stages if stage.height == height]
    if not starts:
        return "never" if any(stage["height"] == height for stage in planned) else None
    described: int | str = describe_values(starts)
    lacking = len(runs) - len(starts)
    return f"{described}; {lacking} never" if lacking else described
