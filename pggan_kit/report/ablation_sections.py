"""The sections about an ablation: its answer and tables, every seed, all variants' images for the same latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit.evaluation.scales import compute_mean, convert_to_scale
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
    "different": "{variant} {differs} {against} in {endpoint}",
    "different, by less than the margin": (
        "{variant} {differs} {against} in {endpoint}, by less than the margin of equivalence"
    ),
    "equivalent": "{variant} is equivalent to {against} in {endpoint}",
    "undecided": "whether {variant} differs from {against} in {endpoint} is undecided",
}
"""Clauses for the verdicts of confirmatory contrasts."""


def result_section(ablation: AblationRecord, analysis: Mapping[str, Any]) -> Section:
    """Return the answer in one sentence, the tables, and the plots of contrasts and of each seed's result.

    Before the answer stands what the analysis lacks of the plan, and a note in `table.txt` or of the analysis: it may
    say that the answer is withdrawn, or that there is none yet. What was added or adopted is named below it.

    Args:
        ablation: The ablation.
        analysis: Content of its `analysis.json`.
    """
    section = Section(f"Result: {ablation.primary}")
    contrasts = analysis["contrasts"]
    for note in (describe_unanalysed(ablation, analysis), ablation.note or analysis.get("note")):
        if note:
            section.texts.append(note)
    answer = state_answer(ablation, contrasts)
    if answer:
        section.texts.append(answer)
    section.texts.append(describe_measurement(ablation))
    section.texts += describe_failures(analysis)
    section.texts += describe_without_logarithm(ablation)
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
            clause = _state_verdict(contrast, ablation) + _state_basis(contrast, ablation)
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


def describe_without_logarithm(ablation: AblationRecord) -> list[str]:
    """Return a sentence for each variant with values of 0 although its logarithms are compared."""
    sentences = []
    for name, values in ablation.final().items():
        count = sum(math.isinf(convert_to_scale(value, ablation.scale)) for value in values.values())
        if count:
            sentences.append(
                f"{count} of {len(values)} runs of {name} have a {ablation.primary} of 0, which has no logarithm: it "
                "ranks below all other values, and the geometric mean is 0."
            )
    return sentences


def describe_unanalysed(ablation: AblationRecord, analysis: Mapping[str, Any]) -> str:
    """Return a sentence on what was added to the plan after the analysis was written; empty where nothing was."""
    # Before there is an analysis, its note says so.
    if not analysis["contrasts"]:
        return ""
    plan = ablation.plan
    exploratory = analysis.get("exploratory") or {}
    names = [name_contrast(contrast) for contrast in analysis["contrasts"]]
    seeds = [seed for seed in plan.get("exploratory", ()) if seed not in exploratory.get("seeds", ())]
    variants = [name for name in plan.get("exploratory_variants", ()) if name not in exploratory.get("variants", ())]
    pairs = [f"{variant} - {against}" for variant, against in plan.get("exploratory_contrasts", ())]
    contrasts = [name for name in pairs if name not in names]

    parts = []
    for noun, added in (("seeds", map(str, seeds)), ("variants", variants), ("contrasts", contrasts)):
        listed = ", ".join(added)
        if listed:
            parts.append(f"{noun} {listed}")
    if not parts:
        return ""
    return (
        f"UNFINISHED: the plan has {'; '.join(parts)}, which were added after this analysis was written and are not in "
        "it. An analysis with them follows when all of their runs have ended."
    )


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


def _state_verdict(contrast: Mapping[str, Any], ablation: AblationRecord) -> str:
    verdict = str(contrast["verdict"])
    side = find_side(contrast, ablation)
    if "variant" not in contrast:
        text = f"{name_contrast(contrast)} in {ablation.primary}: {verdict}"
        return f"{text}, on the {side} side" if side and verdict.startswith("different") else text
    names = {"variant": contrast["variant"], "against": contrast["against"], "endpoint": ablation.primary}
    if verdict not in VERDICTS:
        return "{variant} against {against} in {endpoint}: ".format(**names) + verdict
    return VERDICTS[verdict].format(**names, differs=f"is {side} than" if side else "differs from")


def find_side(contrast: Mapping[str, Any], ablation: AblationRecord) -> str:
    """Return whether the first side of a contrast is `better` or `worse` by what its test takes; empty if unknown.

    Where signed ranks are tested, in which a run without a value is the worst, the mean of the others may have the
    other sign.
    """
    direction = contrast.get("direction") or ablation.direction
    sign = contrast.get("sign")
    if sign is None and not contrast.get("ranks") and contrast["mean"] is not None:
        sign = np.sign(contrast["mean"])
    if direction is None or not sign:
        return ""
    return "better" if (sign < 0) == (direction == "lower") else "worse"


def _state_basis(contrast: Mapping[str, Any], ablation: AblationRecord) -> str:
    """Return what a verdict rests on, in parentheses: the mean difference, or signed ranks and why they were tested."""
    if not contrast.get("ranks"):
        difference = _state_difference(contrast, ablation)
        return f" ({difference}, {contrast['n']} pairs of runs)" if difference else ""

    # Why ranks: what some of the runs lack.
    parts = []
    failures = format_failures(contrast)
    if failures not in ("-", "0:0"):
        parts.append(f"failed {failures}")
    never = contrast.get("censored", {}).get("runs", {})
    if any(never.values()):
        parts.append("not reached by " + ", ".join(f"{count} of {name}" for name, count in never.items()))
    perfect = contrast.get("without_logarithm", {})
    if perfect:
        parts.append("0 in " + ", ".join(f"{len(seeds)} of {name}" for name, seeds in perfect.items()))

    # What the pairs say, of which there may be a mean of some.
    order = contrast.get("order")
    if order is not None:
        parts.append(f"above in {order['above']}, below in {order['below']} of {sum(order.values())} pairs of runs")
    difference = _state_difference(contrast, ablation)
    if difference:
        parts.append(f"of the {contrast['n']} pairs with values: {difference}")
    return f", by signed ranks ({'; '.join(parts)})"


def _state_difference(contrast: Mapping[str, Any], ablation: AblationRecord) -> str:
    """Return the mean difference and its interval, in percent where logarithms were compared; empty without them."""
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
    return f"mean difference {mean}, 95 % interval {lower} to {upper}"


def plot_results(ablation: AblationRecord) -> list[Figure]:
    """Return the plot of each run's endpoint; none where no run has one."""
    values = ablation.select_plotted()
    if not any(values.values()):
        return []
    axis = ""
    kind = "means"
    if ablation.logarithmic:
        axis = ", on a logarithmic axis"
        kind = "geometric means"
    if any(is_censored(row, ablation.primary) for row in ablation.results):
        kind += " of the runs that reached the quality"
    if values != ablation.final():
        kind += " of the values above 0"

    # The alternative text lists the means.
    described = []
    for name, own in values.items():
        if own:
            described.append(f"{name}: {compute_mean(list(own.values()), ablation.scale):.4g}")
    alt = (
        f"{ablation.primary} of each planned run by variant{axis}; gray lines join runs of one seed. "
        f"{kind.capitalize()}: {'; '.join(described)}."
    )
    caption = (
        f"Each dot is a run, gray lines join runs of one seed; bars are {kind}. Runs without a value are left out."
    )
    draw = plots.plot_pairs(values, ablation.primary, ablation.logarithmic)
    return [make_plot(f"{ablation.primary} of each seed", draw, alt, caption)]


def tabulate_variants(ablation: AblationRecord) -> Table:
    """Return a row for each variant: its runs, how many failed or have no value, mean, spread and floor of the primary.

    These are the runs of the planned seeds; those of added seeds have rows of their own below them. If a run never
    reached the quality that is the endpoint, its row has no mean and no spread: they would be those of the others.
    """
    # The planned runs first: what was added confirms nothing.
    groups = []
    added = []
    for name in ablation.variants:
        kind = "control" if name in ablation.controls else "variant"
        if name in ablation.plan.get("exploratory_variants", ()):
            kind = "added variant"
        own = [row for row in ablation.results if row["variant"] == name]
        groups.append((name, kind, [row for row in own if ablation.is_planned(int(row["seed"]))]))
        rest = [row for row in own if not ablation.is_planned(int(row["seed"]))]
        if rest:
            added.append((name, "added seeds", rest))
    groups += added

    rows: list[list[Any]] = []
    every_censored = []
    floors = []
    for name, kind, results in groups:
        seeds = {row["seed"] for row in results}
        failed = {row["seed"] for row in results if row["failed"] == "1" or lacks_value(row, ablation.primary)}
        censored = {row["seed"] for row in results if is_censored(row, ablation.primary)}
        values = [] if censored else list_numbers(results, ablation.primary)
        mean = compute_mean(values, ablation.scale) if values else None
        rows.append([name, kind, len(seeds), len(failed - censored), mean, _compute_deviation(values, ablation.scale)])
        every_censored.append(len(censored))
        floors.append(list_numbers(results, f"{ablation.primary}_floor"))

    # Columns that only some ablations have.
    columns = [f"{ablation.primary}, mean", "sd"]
    if ablation.logarithmic:
        columns = [f"{ablation.primary}, geometric mean", "sd of its logarithm"]
    if any(every_censored):
        columns.append("never reached")
        rows = [[*row, count] for row, count in zip(rows, every_censored, strict=True)]
    if any(floors):
        columns.append("noise floor")
        means = [float(np.mean(own)) if own else None for own in floors]
        rows = [[*row, mean] for row, mean in zip(rows, means, strict=True)]
    return Table(["variant", "kind", "runs", "failed", *columns], rows, "variants")


def _compute_deviation(values: Sequence[float], scale: str) -> float | None:
    """Return the standard deviation of the numbers that are compared; None of fewer than two, or where one is none."""
    compared = [convert_to_scale(value, scale) for value in values]
    if len(compared) < 2 or not np.isfinite(compared).all():
        return None
    return float(np.std(compared, ddof=1))


def list_numbers(rows: Sequence[Mapping[str, str]], metric: str) -> list[float]:
    """Return the finite values of a metric in rows of the results."""
    values = [parse_number(row["value"]) for row in rows if row["metric"] == metric]
    return [value for value in values if value is not None]


def is_censored(row: Mapping[str, str], metric: str) -> bool:
    """Return whether a row of the results is one of a metric and says that its run never reached the quality."""
    return row["metric"] == metric and bool(row.get("censored"))


def lacks_value(row: Mapping[str, str], metric: str) -> bool:
    """Return whether a row of the results is one of a metric and has no finite value."""
    return row["metric"] == metric and parse_number(row["value"]) is None


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
    head = ["contrast", "role", "n", "mean", "95 % from", "to", "p", "Holm", "TOST", "detectable", "r"]
    head += ["failed", "verdict"]
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
            format_p(contrast),
            contrast.get("holm"),
            contrast.get("equivalence_holm", contrast["equivalence"]),  # as in `table.txt`, corrected where it is
            contrast["smallest_effect"],
            contrast["correlation"],
            format_failures(contrast),
            contrast.get("verdict", ""),
        ]
        rows.append(row)

    bases = [_find_basis(contrast, exploratory) for contrast in contrasts]
    if any(bases):
        head.append("rests on")
        rows = [[*row, basis] for row, basis in zip(rows, bases, strict=True)]
    return Table(head, rows, "contrasts")


def format_p(contrast: Mapping[str, Any]) -> float | str | None:
    """Return the p-value of a contrast; as text that says so where signed ranks were tested."""
    p: float | None = contrast["p"]
    return f"{p:.4g} (ranks)" if contrast.get("ranks") and p is not None else p


def format_failures(contrast: Mapping[str, Any]) -> str:
    """Return the failed runs of a contrast's two sides; a dash where its analysis does not count them."""
    failures = contrast.get("failures")
    return f"{failures['variant']}:{failures['against']}" if failures else "-"


def plot_contrasts(ablation: AblationRecord, contrasts: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return the plot of means and intervals against the margin of equivalence; none where no contrast has any."""
    intervals: dict[str, tuple[float, float, float]] = {}
    described = []
    for contrast in contrasts:
        if not contrast["interval"]:
            continue
        name = f"{name_contrast(contrast)} ({contrast['role']})"
        if contrast.get("ranks"):
            name += f", {contrast['n']} pairs with values alone"
        mean = contrast["mean"]
        low, high = contrast["interval"]
        intervals[name] = (mean, low, high)
        described.append(f"{name}: {mean:+.3g}, from {low:+.3g} to {high:+.3g}")
    if not intervals:
        return []

    # The margin is on the scale of the differences.
    margin = parse_number(str(ablation.plan.get("margin"))) or 0.0
    endpoint = f"log {ablation.primary}" if ablation.logarithmic else ablation.primary
    label = f"paired difference in {endpoint}"
    alt = f"Chart of each {label}. {'; '.join(described)}."
    caption = f"Means with 95 % intervals; the gray area is the margin of equivalence, +-{margin:g}."
    return [make_plot("contrasts", plots.plot_intervals(intervals, margin, label), alt, caption)]
