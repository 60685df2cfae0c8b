"""The section about the analyses of an ablation beside the planned one: its runs, evaluated again in other ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError
from pggan_kit.report.ablation_record import AblationRecord, name_contrast, read_analysis_file
from pggan_kit.report.ablation_sections import format_failures, format_p
from pggan_kit.report.page import Section, Table

ANALYSES = "analyses"
"""Name of the folder of later analyses in an ablation's folder."""


def later_analyses_section(ablation: AblationRecord) -> Section:
    """Return the contrasts of each later analysis; nothing where there is none.

    Raises:
        RunError: The file of one is damaged, or cannot be read.
    """
    section = Section("Evaluated again")

    # A row for each contrast of each analysis.
    rows = []
    for path in sorted((ablation.folder / ANALYSES).glob("*/analysis.json")):
        analysis = _read_analysis(path)
        section.texts.append(f"{path.parent.name}: {_describe_evaluation(analysis['evaluated_again'])}.")
        if analysis.get("note"):
            section.texts.append(f"{path.parent.name}: {analysis['note']}")
        for contrast in analysis["contrasts"]:
            low, high = contrast["interval"] or (None, None)
            name = name_contrast(contrast)
            row = [path.parent.name, analysis["metric"], name, contrast["n"], contrast["mean"], low, high]
            rows.append([*row, format_p(contrast), format_failures(contrast)])

    # What all of them have in common is said once, above them.
    if rows:
        section.texts.insert(
            0,
            "The runs were later measured in other ways, after the results were known: all of this is exploratory, and "
            "no contrast of it has a verdict.",
        )
        head = ["analysis", "metric", "contrast", "n", "mean", "95 % from", "to", "p", "failed"]
        section.tables.append(Table(head, rows, "evaluated_again"))
    return section


def _read_analysis(path: Path) -> dict[str, Any]:
    """Return the content of the file of a later analysis.

    Raises:
        RunError: The file is damaged, or cannot be read.
    """
    analysis = read_analysis_file(path)
    is_later = isinstance(analysis.get("metric"), str) and isinstance(analysis.get("evaluated_again"), dict)
    if not is_later:
        raise RunError(f"{path} is damaged: it does not say what was evaluated again")
    return analysis


def _describe_evaluation(evaluated: Mapping[str, Any]) -> str:
    """Return how the runs were measured."""
    parts = [", ".join(evaluated.get("evaluation", ())) or "the plan's evaluation"]
    averages = [evaluated.get("average"), *evaluated.get("averages", ())]
    named = [str(average) for average in averages if average is not None]
    if named:
        parts.append(f"averages: {', '.join(named)}")
    if evaluated.get("curves"):
        parts.append(f"curves: {', '.join(evaluated['curves'])}")
    return "; ".join(parts)
