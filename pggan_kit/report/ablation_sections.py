"""The sections about an ablation: its table, every seed, all variants' images for the same latents."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit.errors import RunError
from pggan_kit.report import plots
from pggan_kit.report.ablation_record import NUMBERS, AblationRecord, number
from pggan_kit.report.page import Block, Figure, Group, Section, Table, plot
from pggan_kit.report.pictures import Pictures
from pggan_kit.report.records import Curve, RunRecord
from pggan_kit.report.run_sections import grids_section, is_metric, tags_of, usual_stages


def result_sections(ablation: AblationRecord) -> list[Section]:
    """The table, each seed's result, and the plan."""
    result = Section(f"Result: {ablation.primary}")
    if ablation.table:
        result.blocks.append(Block("Table", ablation.table, open=True))
    result.tables.append(summary(ablation))
    contrasts = contrasts_of(ablation)
    if contrasts:
        result.tables.append(contrasts_table(contrasts))
    intervals = contrasts_figure(ablation, contrasts)
    figures = [intervals] if intervals else []
    values = ablation.final()
    if any(values.values()):
        means = {name: mean_of(own.values(), ablation.logarithmic) for name, own in values.items()}
        words = "; ".join(f"{name}: {mean:.4g}" for name, mean in means.items() if mean is not None)
        axis, kind = (", on a logarithmic axis", "geometric means") if ablation.logarithmic else ("", "means")
        each = plot(
            f"{ablation.primary} of each seed",
            plots.paired(values, ablation.primary, ablation.logarithmic),
            f"{ablation.primary} of each run by variant{axis}; gray lines join runs of one seed. "
            f"{kind.capitalize()}: {words}.",
            f"Each dot is a run, gray lines join runs of one seed; bars are {kind}. Runs without a value are left out.",
        )
        figures.append(each)
    result.groups += [Group("", "plots", figures)] if figures else []
    return [result, seeds_section(ablation), plan_section(ablation)]


def summary(ablation: AblationRecord) -> Table:
    """Each variant's runs: how many, how many died or gave no value, and the mean and spread of the endpoint."""
    values, rows = ablation.final(), []
    controls = ablation.plan.get("controls") or {}
    for name in ablation.variants:
        seeds = {row["seed"] for row in ablation.results if row["variant"] == name}
        dead = {
            row["seed"]
            for row in ablation.results
            if row["variant"] == name and (is_failed(row["failed"]) or lacks_value(row, ablation.primary))
        }
        own = list(values[name].values())
        spread = None
        if len(own) > 1:
            spread = float(np.std(np.log(own) if ablation.logarithmic else own, ddof=1))
        kind = "control" if name in controls else "variant"
        rows.append([name, kind, len(seeds), len(dead), mean_of(own, ablation.logarithmic), spread])
    mean, deviation = ("geometric mean", "sd of its logarithm") if ablation.logarithmic else ("mean", "sd")
    head = ["variant", "kind", "runs", "dead", f"{ablation.primary}, {mean}", deviation]
    return Table(head, rows, "variants")


def is_failed(text: str) -> bool:
    """Whether a row's `failed` says so: it is empty, 0 or false where the run did not die."""
    return text.strip().lower() not in ("", "0", "false", "no")


def lacks_value(row: Mapping[str, str], metric: str) -> bool:
    """Whether a row of a metric has no finite value."""
    return row["metric"] == metric and number(row["value"]) is None


def mean_of(values: Iterable[float], logarithmic: bool) -> float | None:
    """The mean, or the geometric mean of numbers above 0; None of none."""
    numbers = [math.log(value) if logarithmic else value for value in values]
    if not numbers:
        return None
    mean = math.fsum(numbers) / len(numbers)
    return math.exp(mean) if logarithmic else mean


def seeds_section(ablation: AblationRecord) -> Section:
    """Every seed as a thin line."""
    section = Section("Every seed", ["Thin lines are runs, thick ones the median of a variant's seeds."])
    runs = list(ablation.runs.values())
    if not runs:
        return section
    groups: dict[str, list[RunRecord]] = {}
    for (variant, _), run in ablation.runs.items():
        groups.setdefault(variant, []).append(run)
    shared = usual_stages(runs)
    wanted = [tag for tag in tags_of(runs) if is_metric(tag)] + [t for t in tags_of(runs) if t.startswith("Loss/")]
    figures = []
    for tag in wanted[:8]:
        named: dict[str, list[Curve]] = {name: [run.curve(tag) for run in own] for name, own in groups.items()}
        named = {name: [curve for curve in own if curve] for name, own in named.items()}
        label = tag.removeprefix("Metrics/")
        medians = {name: np.median([curve[-1][1] for curve in own]) for name, own in named.items() if own}
        ends = "; ".join(f"{name}: {median:.4g} in the median" for name, median in medians.items())
        alt = f"Line chart of {label} over images, every seed as a thin line, by variant. At the end: {ends}."
        figures.append(plot(f"{label} every seed", plots.seeds(named, label, shared), alt, label))
    section.groups.append(Group("", "plots", figures))
    return section


def plan_section(ablation: AblationRecord) -> Section:
    """What was planned."""
    plan, controls = ablation.plan, ablation.plan.get("controls") or {}
    rows = [[name, "control" if name in controls else "", "\n".join(own)] for name, own in plan["variants"].items()]
    contrasts = ", ".join(f"{one} against {other}" for one, other in plan["contrasts"])
    logarithm = ", in its logarithm" if ablation.logarithmic else ""
    text = (
        f"Contrasts: {contrasts}. Primary endpoint: {ablation.primary}. Margin of equivalence{logarithm}: "
        f"{plan.get('margin', '-')}. Seeds: {plan.get('seeds', '-')}; added later: {plan.get('exploratory') or 'none'}."
    )
    return Section("Plan", [text], tables=[Table(["variant", "", "bindings"], rows)])


def variants_section(runs: Sequence[RunRecord], pictures: Sequence[Pictures]) -> Section:
    """Grids of all variants."""
    section = grids_section(runs, pictures)
    section.title = "All variants, the same latents"
    return section


def contrasts_of(ablation: AblationRecord) -> list[Mapping[str, Any]]:
    """The contrasts of `analysis.json`; none before there is one.

    Raises:
        RunError: the file is damaged.
    """
    path = ablation.folder / "analysis.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["contrasts"]
        for entry in entries:
            if not {"variant", "against", "role", "n", "mean", "interval", "p", *NUMBERS} <= set(entry):
                raise ValueError("a contrast lacks an entry")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return list(entries)


def contrasts_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each contrast."""
    rows = []
    for entry in entries:
        low, high = entry["interval"] or (None, None)
        # As in `table.txt`: corrected where it is.
        same = entry.get("equivalence_holm", entry["equivalence"])
        others = [entry[name] for name in NUMBERS if name != "equivalence"]
        tests = [entry["p"], entry.get("holm"), same, *others, entry.get("verdict", "")]
        rows.append([named(entry), entry["role"], entry["n"], entry["mean"], low, high, *tests])
    head = ["contrast", "role", "n", "mean", "95 % from", "to", "p", "Holm", "TOST", "could see", "r", "verdict"]
    return Table(head, rows, "contrasts")


def contrasts_figure(ablation: AblationRecord, entries: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Means and intervals, against the margin of equivalence."""
    whole = {f"{named(entry)} ({entry['role']})": entry for entry in entries if entry["interval"]}
    if not whole:
        return None
    found = {name: (entry["mean"], *entry["interval"]) for name, entry in whole.items()}
    margin = number(str(ablation.plan.get("margin"))) or 0.0
    label = f"paired difference in {'log ' if ablation.logarithmic else ''}{ablation.primary}"
    words = "; ".join(f"{name}: {m:+.3f}, from {low:+.3f} to {high:+.3f}" for name, (m, low, high) in found.items())
    caption = f"Means with 95 % intervals; the gray ground is the margin of equivalence, +-{margin:g}."
    return plot("contrasts", plots.intervals(found, margin, label), f"Chart of each {label}. {words}.", caption)


def named(entry: Mapping[str, Any]) -> str:
    """A contrast for people."""
    return f"{entry['variant']} - {entry['against']}"
