"""The sections about an ablation: its answer and tables, every seed, all variants' images for the same latents."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit.evaluation.settings import EvaluationSettings
from pggan_kit.report import plots
from pggan_kit.report.ablation_record import AblationRecord, name_contrast, parse_number
from pggan_kit.report.page import Block, Figure, Group, Section, Table, make_plot
from pggan_kit.report.run_groups import is_metric, list_tags
from pggan_kit.report.run_pictures import RunPictures
from pggan_kit.report.run_record import Curve, RunRecord, list_bindings
from pggan_kit.report.run_sections import find_usual_stages, grids_section

MOST_PLOTS = 8
"""Maximum of plots of every seed."""

VERDICTS = {
    "different": "{variant} differs from {against} in {endpoint}",
    "different, by less than the margin": (
        "{variant} differs from {against} in {endpoint}, by less than the margin of equivalence"
    ),
    "equivalent": "{variant} is equivalent to {against} in {endpoint}",
    "undecided": "whether {variant} differs from {against} in {endpoint} is undecided",
}
"""Clauses for the verdicts of confirmatory contrasts."""

NOT_FAILED = ("", "0", "false", "no")
"""Values of a row's `failed` where the run did not fail."""


def result_section(ablation: AblationRecord, analysis: Mapping[str, Any]) -> Section:
    """Return the answer in one sentence, the tables, and the plots of contrasts and of each seed's result.

    A note in `table.txt` or of the analysis stands before the answer: it may say that the answer is withdrawn, or that
    there is none yet. What was added or adopted is named below it.

    Args:
        ablation: The ablation.
        analysis: Content of its `analysis.json`.
    """
    section = Section(f"Result: {ablation.primary}")
    contrasts = analysis["contrasts"]
    note = ablation.note or analysis.get("note")
    if note:
        section.texts.append(note)
    answer = state_answer(ablation, contrasts)
    if answer:
        section.texts.append(answer)
    section.texts.append(describe_measurement(ablation))
    section.texts += describe_failures(analysis)
    added = describe_added(analysis)
    if added:
        section.texts.append(added)

    # Tables stand above the figures, and the text of `table.txt` below them.
    section.tables.append(tabulate_variants(ablation))
    if contrasts:
        section.tables.append(tabulate_contrasts(contrasts, analysis.get("exploratory") or {}))
    if ablation.table:
        section.blocks.append(Block("Table", ablation.table, open=True))

    figures = plot_contrasts(ablation, contrasts) + plot_results(ablation)
    if figures:
        section.groups.append(Group("", "plots", figures))
    return section


def state_answer(ablation: AblationRecord, contrasts: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdicts of the confirmatory contrasts in one sentence; empty where there are none."""
    clauses = []
    for contrast in contrasts:
        if contrast["role"] == "confirmatory" and contrast.get("verdict"):
            clause = _state_verdict(contrast, ablation.primary) + _state_difference(contrast, ablation)
            clauses.append(clause + _state_robustness(contrast))
    return f"Answer: {'; '.join(clauses)}." if clauses else ""


def _state_robustness(contrast: Mapping[str, Any]) -> str:
    """Return whether a verdict holds with the other averages and metrics; empty where the plan has none."""
    robustness = contrast.get("robustness")
    if robustness is None or robustness == "undecided throughout":
        return ""
    if robustness == "robust":
        return ", with each of the other averages and metrics, too"
    return f", a verdict that {robustness}"


def describe_measurement(ablation: AblationRecord) -> str:
    """Return a sentence on what was trained, and with which metrics, features and number of images it was measured."""
    own = list_bindings("\n".join(" ".join(text.split()) for text in ablation.plan.get("evaluation", ())))
    config = next(iter(ablation.plan.get("configs", {}).values()), "")

    # What the evaluation does not bind is that of the experiment, unless it chose other metrics.
    kinds = ["evaluation"]
    if "train.metrics" not in own:
        kinds += ["metrics", "features"]
    bindings = {"evaluation.count": str(EvaluationSettings.count)}
    for name, value in list_bindings(config).items():
        kind = name.rpartition("/")[2].partition(".")[0]
        if kind in kinds or (name == "train.metrics" and "metrics" in kinds):
            bindings[name] = value
    listed = "; ".join(f"{name} = {value}" for name, value in {**bindings, **own}.items())
    base = ablation.plan.get("base")
    trained = f"Each run is the experiment {base} with the bindings of its variant. " if base else ""
    return f"{trained}Its values were measured with {listed}."


def describe_failures(analysis: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each reason for which runs failed."""
    runs: dict[str, list[str]] = {}
    for name, seed, reason in analysis.get("failed", ()):
        runs.setdefault(reason, []).append(f"{name} {seed}")
    return [f"Failed: {', '.join(names)}: {reason}." for reason, names in runs.items()]


def describe_added(analysis: Mapping[str, Any]) -> str:
    """Return a sentence on the seeds, variants and runs that the first start did not have; empty where it had all."""
    exploratory = analysis.get("exploratory") or {}
    parts = []
    if exploratory.get("seeds"):
        parts.append(f"seeds {', '.join(map(str, exploratory['seeds']))} were added")
    if exploratory.get("variants"):
        parts.append(f"variants {', '.join(exploratory['variants'])} were added")
    if exploratory.get("adopted"):
        runs = ", ".join(f"{name} {seed}" for name, seed, _ in exploratory["adopted"])
        parts.append(f"{runs} are adopted runs, which were trained before")
    if not parts:
        return ""
    return f"Beside the plan: {'; '.join(parts)}. What rests on them is exploratory."


def _find_basis(contrast: Mapping[str, Any], exploratory: Mapping[str, Any]) -> str:
    """Return on which added or adopted runs a contrast rests; empty where on none."""
    added = [seed for seed in contrast.get("seeds", ()) if seed in (exploratory.get("seeds") or ())]
    variants = [name for name in contrast.get("weights", ()) if name in (exploratory.get("variants") or ())]
    parts = []
    if contrast.get("adopted"):
        parts.append(f"adopted runs (seeds {', '.join(map(str, contrast['adopted']))})")
    if added:
        parts.append(f"added seeds {', '.join(map(str, added))}")
    if variants:
        parts.append(f"added variant {', '.join(variants)}")
    return "; ".join(parts)


def _state_verdict(contrast: Mapping[str, Any], endpoint: str) -> str:
    verdict = str(contrast["verdict"])
    if "variant" not in contrast:
        return f"{name_contrast(contrast)} in {endpoint}: {verdict}"
    if verdict not in VERDICTS:
        return f"{contrast['variant']} against {contrast['against']} in {endpoint}: {verdict}"
    return VERDICTS[verdict].format(variant=contrast["variant"], against=contrast["against"], endpoint=endpoint)


def _state_difference(contrast: Mapping[str, Any], ablation: AblationRecord) -> str:
    """Return the mean difference and its interval in parentheses, in percent where logarithms were compared."""
    if contrast["mean"] is None or not contrast["interval"]:
        return ""
    low, high = contrast["interval"]
    numbers = []
    for value in (contrast["mean"], low, high):
        if ablation.logarithmic:
            numbers.append(f"{100 * math.expm1(value):+.1f} %")
        else:
            numbers.append(f"{value:+.4g}")
    mean, lower, upper = numbers
    return f" (mean difference {mean}, 95 % interval {lower} to {upper}, {contrast['n']} pairs of runs)"


def plot_results(ablation: AblationRecord) -> list[Figure]:
    """Return the plot of each run's endpoint; none where no run has one."""
    values = ablation.final()
    if not any(values.values()):
        return []
    axis = ""
    kind = "means"
    if ablation.logarithmic:
        axis = ", on a logarithmic axis"
        kind = "geometric means"
    if any(is_censored(row, ablation.primary) for row in ablation.results):
        kind += " of the runs that reached the quality"

    # The alternative text lists the means.
    described = []
    for name, own in values.items():
        if own:
            described.append(f"{name}: {average(own.values(), ablation.logarithmic):.4g}")
    alt = (
        f"{ablation.primary} of each run by variant{axis}; gray lines join runs of one seed. "
        f"{kind.capitalize()}: {'; '.join(described)}."
    )
    caption = (
        f"Each dot is a run, gray lines join runs of one seed; bars are {kind}. Runs without a value are left out."
    )
    draw = plots.plot_pairs(values, ablation.primary, ablation.logarithmic)
    return [make_plot(f"{ablation.primary} of each seed", draw, alt, caption)]


def tabulate_variants(ablation: AblationRecord) -> Table:
    """Return a row for each variant: its runs, how many failed or have no value, mean, spread and floor of the primary.

    If a run never reached the quality that is the endpoint, its variant has neither: they would be those of the others.
    """
    values = ablation.final()
    rows = []
    every_censored = []
    for name in ablation.variants:
        kind = "control" if name in ablation.controls else "variant"
        results = [row for row in ablation.results if row["variant"] == name]
        seeds = {row["seed"] for row in results}
        failed = {row["seed"] for row in results if is_failed(row) or lacks_value(row, ablation.primary)}

        censored = {row["seed"] for row in results if is_censored(row, ablation.primary)}
        every_censored.append(len(censored))

        # The spread is that of the numbers that are compared.
        own = [] if censored else list(values[name].values())
        mean = None
        deviation = None
        if own:
            mean = average(own, ablation.logarithmic)
        if len(own) > 1:
            compared = np.log(own) if ablation.logarithmic else np.array(own)
            deviation = float(np.std(compared, ddof=1))
        rows.append([name, kind, len(seeds), len(failed - censored), mean, deviation])

    floors = {name: ablation.list_floors(name) for name in ablation.variants}
    columns = [f"{ablation.primary}, mean", "sd"]
    if ablation.logarithmic:
        columns = [f"{ablation.primary}, geometric mean", "sd of its logarithm"]
    if any(every_censored):
        columns.append("never reached")
        rows = [[*row, count] for row, count in zip(rows, every_censored, strict=True)]
    if any(floors.values()):
        columns.append("noise floor")
        means = [float(np.mean(own)) if own else None for own in floors.values()]
        rows = [[*row, mean] for row, mean in zip(rows, means, strict=True)]
    return Table(["variant", "kind", "runs", "failed", *columns], rows, "variants")


def is_failed(row: Mapping[str, str]) -> bool:
    """Return whether a row of the results says that its run failed."""
    return row["failed"].strip().lower() not in NOT_FAILED


def is_censored(row: Mapping[str, str], metric: str) -> bool:
    """Return whether a row of the results is one of a metric and says that its run never reached the quality."""
    return row["metric"] == metric and bool(row.get("censored"))


def lacks_value(row: Mapping[str, str], metric: str) -> bool:
    """Return whether a row of the results is one of a metric and has no finite value."""
    return row["metric"] == metric and parse_number(row["value"]) is None


def average(values: Collection[float], logarithmic: bool) -> float:
    """Return the mean of one number or more, the geometric mean where they are compared by their logarithms."""
    if logarithmic:
        return math.exp(math.fsum(math.log(value) for value in values) / len(values))
    return math.fsum(values) / len(values)


def seeds_section(ablation: AblationRecord) -> Section:
    """Return the curves of every seed as thin lines."""
    section = Section("Every seed", ["Thin lines are runs, thick ones the median of a variant's seeds."])
    runs = list(ablation.runs.values())
    if not runs:
        return section
    groups: dict[str, list[RunRecord]] = {}
    for (variant, _), run in ablation.runs.items():
        groups.setdefault(variant, []).append(run)

    # Metrics come first.
    tags = list_tags(runs)
    metrics = [tag for tag in tags if is_metric(tag)]
    losses = [tag for tag in tags if tag.startswith("Loss/")]
    shared = find_usual_stages(runs)
    figures = []
    for tag in [*metrics, *losses][:MOST_PLOTS]:
        label = tag.removeprefix("Metrics/")
        curves = {name: _curves_of(members, tag) for name, members in groups.items()}
        alt = (
            f"Line chart of {label} over images, every seed as a thin line, by variant. "
            f"At the end: {_describe_ends(curves)}."
        )
        figures.append(make_plot(f"{label} every seed", plots.plot_seeds(curves, label, shared), alt, label))
    section.groups.append(Group("", "plots", figures))
    return section


def _curves_of(runs: Sequence[RunRecord], tag: str) -> list[Curve]:
    """Return a tag's curves of those runs that have it."""
    return [curve for curve in (run.curve(tag) for run in runs) if curve]


def _describe_ends(curves: Mapping[str, Sequence[Curve]]) -> str:
    """Return the median over seeds of the curves' last values, for each variant that has any."""
    described = []
    for name, members in curves.items():
        if members:
            median = np.median([curve[-1][1] for curve in members])
            described.append(f"{name}: {median:.4g} in the median")
    return "; ".join(described)


def plan_section(ablation: AblationRecord) -> Section:
    """Return the plan."""
    plan = ablation.plan
    pairs = [f"{variant} against {against}" for variant, against in plan["contrasts"]]
    contrasts = ", ".join([*pairs, *plan.get("effects", ())])
    logarithm = ", in its logarithm" if ablation.logarithmic else ""
    text = (
        f"Contrasts: {contrasts}. Primary endpoint: {ablation.primary}. Margin of equivalence{logarithm}: "
        f"{plan.get('margin', '-')}. Seeds: {plan.get('seeds', '-')}; added later: {plan.get('exploratory') or 'none'}."
    )

    # A variant is its bindings.
    headers = ["variant", "", "bindings"]
    tuned = {row["variant"]: row["tuned"] for row in ablation.results if row.get("tuned")}
    if tuned:
        headers.append("tuned")
    rows = []
    for name, bindings in plan["variants"].items():
        kind = "control" if name in ablation.controls else ""
        row = [name, kind, "\n".join(bindings)]
        if tuned:
            row.append(tuned.get(name, "").replace("; ", "\n"))
        rows.append(row)
    return Section("Plan", [text], tables=[Table(headers, rows)])


def variants_section(runs: Sequence[RunRecord], pictures: Sequence[RunPictures]) -> Section:
    """Return grids of all variants."""
    section = grids_section(runs, pictures)
    section.title = "All variants, the same latents"
    return section


def tabulate_contrasts(contrasts: Sequence[Mapping[str, Any]], exploratory: Mapping[str, Any]) -> Table:
    """Return a row for each contrast; where any rests on runs that were added or adopted, with a column that says so.

    Args:
        contrasts: The contrasts.
        exploratory: The seeds and variants that were added.
    """
    head = ["contrast", "role", "n", "mean", "95 % from", "to", "p", "Holm", "TOST", "detectable", "r", "verdict"]
    rows = []
    for contrast in contrasts:
        low, high = contrast["interval"] or (None, None)
        row = [
            name_contrast(contrast),
            contrast["role"],
            contrast["n"],
            contrast["mean"],
            low,
            high,
            contrast["p"],
            contrast.get("holm"),
            contrast.get("equivalence_holm", contrast["equivalence"]),  # as in `table.txt`, corrected where it is
            contrast["smallest_effect"],
            contrast["correlation"],
            contrast.get("verdict", ""),
        ]
        rows.append(row)

    bases = [_find_basis(contrast, exploratory) for contrast in contrasts]
    if any(bases):
        head.append("rests on")
        rows = [[*row, basis] for row, basis in zip(rows, bases, strict=True)]
    return Table(head, rows, "contrasts")


def plot_contrasts(ablation: AblationRecord, contrasts: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return the plot of means and intervals against the margin of equivalence; none where no contrast has any."""
    intervals: dict[str, tuple[float, float, float]] = {}
    described = []
    for contrast in contrasts:
        if not contrast["interval"]:
            continue
        name = f"{name_contrast(contrast)} ({contrast['role']})"
        mean = contrast["mean"]
        low, high = contrast["interval"]
        intervals[name] = (mean, low, high)
        described.append(f"{name}: {mean:+.3f}, from {low:+.3f} to {high:+.3f}")
    if not intervals:
        return []

    # The margin is on the scale of the differences.
    margin = parse_number(str(ablation.plan.get("margin"))) or 0.0
    endpoint = f"log {ablation.primary}" if ablation.logarithmic else ablation.primary
    label = f"paired difference in {endpoint}"
    alt = f"Chart of each {label}. {'; '.join(described)}."
    caption = f"Means with 95 % intervals; the gray area is the margin of equivalence, +-{margin:g}."
    return [make_plot("contrasts", plots.plot_intervals(intervals, margin, label), alt, caption)]
