"""The sections about an ablation beside its result: further estimates, what a verdict depends on, looks and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pggan_kit.report import plots
from pggan_kit.report.ablation_record import AblationRecord, name_contrast
from pggan_kit.report.page import Figure, Group, Section, Table, make_plot
from pggan_kit.report.run_groups import is_metric, list_tags
from pggan_kit.report.run_record import Curve, RunRecord
from pggan_kit.report.run_sections import find_usual_stages

MOST_PLOTS = 6
"""Maximum of plots of curves with bands, and of looks."""

QUARTERS = (0.25, 0.5, 0.75)
"""Shares of the runs at which a profile is described in words."""


def estimates_section(ablation: AblationRecord, analysis: Mapping[str, Any]) -> Section:
    """Return further estimates of each contrast and the performance profiles; nothing where the analysis has none."""
    section = Section("Other estimates")

    # A table of the contrasts.
    contrasts = [contrast for contrast in analysis.get("contrasts", ()) if contrast.get("estimates")]
    if contrasts:
        section.texts.append(
            "Beside the mean: the interquartile mean of the differences; how often the first variant is better, in "
            "pairs of one seed and in all pairs of runs; and how probable it is that the mean difference is better, "
            "within the margin, or worse, by a posterior without prior knowledge. The last columns say what pairing by "
            "seed saved, and how many pairs a next plan would need."
        )
        naive = [name_contrast(contrast) for contrast in contrasts if contrast["estimates"].get("naive")]
        if naive:
            section.texts.append(
                f"Looks could have stopped {', '.join(naive)} earlier: the intervals of these estimates are naive, "
                "those of a single look."
            )
        section.tables.append(tabulate_estimates(contrasts))

    # The profiles of the variants.
    profiles = plot_profiles(ablation, analysis.get("profiles") or {})
    if profiles:
        section.groups.append(Group("", "plots", profiles))
    return section


def tabulate_estimates(contrasts: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row of estimates for each contrast."""
    head = [
        "contrast",
        "role",
        "IQM",
        "95 % from",
        "to",
        "better, paired",
        "better, unpaired",
        "P(better)",
        "P(within)",
        "P(worse)",
        "saved by pairing",
        "pairs for equivalence",
        "for this difference",
    ]
    rows = []
    for contrast in contrasts:
        # Analyses of few seeds lack estimates: their cells stay empty.
        estimates = contrast["estimates"]
        iqm = estimates["iqm"] or {}
        low, high = iqm.get("interval") or (None, None)
        posterior = estimates["posterior"] or {}
        improvement = estimates["improvement"]
        saved = estimates["pairing_saved"]
        row = [
            name_contrast(contrast),
            contrast["role"],
            iqm.get("value"),
            low,
            high,
            (improvement["paired"] or {}).get("value"),
            (improvement["unpaired"] or {}).get("value"),
            posterior.get("better"),
            posterior.get("within"),
            posterior.get("worse"),
            "-" if saved is None else f"{saved:.0%}",
            estimates["pairs_for_equivalence"],
            estimates["pairs_for_difference"],
        ]
        rows.append(row)
    return Table(head, rows, "estimates")


def plot_profiles(ablation: AblationRecord, profiles: Mapping[str, Any]) -> list[Figure]:
    """Return the plot of the performance profiles; none where no run has a value."""
    if not profiles.get("thresholds"):
        return []

    # The profiles in words: what a quarter, half and three quarters of the runs reach.
    described = []
    for name, profile in profiles["variants"].items():
        reached = [_find_threshold(profiles["thresholds"], profile["share"], share) for share in QUARTERS]
        shown = ", ".join("never" if value is None else f"{value:.4g}" for value in reached)
        described.append(f"{name}: {shown}")
    alt = (
        f"Performance profiles: share of the runs that reach each {ablation.primary}, by variant, with 95 % bands. "
        f"What a quarter, half and three quarters of the runs reach: {'; '.join(described)}."
    )

    # The plot.
    caption = "Share of the runs that are at least as good as a value; the bands are bootstraps over seeds."
    draw = plots.plot_profiles(profiles, ablation.primary, ablation.logarithmic)
    return [make_plot("performance profiles", draw, alt, caption)]


def _find_threshold(thresholds: Sequence[float], shares: Sequence[float], wanted: float) -> float | None:
    """Return the best value that a share of the runs reaches; None where fewer reach any."""
    reached = [value for value, share in zip(thresholds, shares, strict=True) if share >= wanted]
    return reached[-1] if reached else None


def robustness_section(analysis: Mapping[str, Any]) -> Section:
    """Return the confirmatory contrasts with other averages and metrics; nothing where the plan has none."""
    section = Section("Does the verdict depend on the average or the metric?")
    rows = []
    for contrast in analysis.get("contrasts", ()):
        if "checks" not in contrast:
            continue
        section.texts.append(f"{name_contrast(contrast)}: {contrast['robustness']}.")

        # The planned comparison is the first row, for the others to be held against.
        own = {"metric": contrast["metric"], "average": None, "agrees": None, **contrast}
        for check in (own, *contrast["checks"]):
            low, high = check["interval"] or (None, None)
            row = [
                name_contrast(contrast),
                check["metric"],
                check["average"] or "the endpoint's",
                check["n"],
                check["mean"],
                low,
                high,
                check["holm"],
                check["equivalence_holm"],
                check["verdict"],
                {None: "", True: "yes", False: "no"}[check["agrees"]],
            ]
            rows.append(row)
    if rows:
        head = ["contrast", "metric", "average", "n", "mean", "95 % from", "to", "Holm", "TOST", "verdict", "agrees"]
        section.tables.append(Table(head, rows, "checks"))
    return section


def looks_section(analysis: Mapping[str, Any]) -> Section:
    """Return what each look decided; nothing where the plan looks once."""
    section = Section("Looks")
    looked = [contrast for contrast in analysis.get("contrasts", ()) if contrast.get("looks")]
    if not looked:
        return section
    plan = analysis["looks"]
    pairs = ", ".join(str(count) for count in plan["pairs"])
    spent = ", ".join(f"{error:.2g}" for error in plan["spent"])
    section.texts.append(
        f"The results were looked at after {pairs} pairs; of the error, {spent} could be spent by each look "
        f"({plan['spending']}). A contrast that was decided stopped there."
    )
    not_run = [f"{count} of {name}" for name, count in plan["not_run"].items() if count]
    if not_run:
        section.texts.append(f"Planned runs that no look needed: {', '.join(not_run)}.")

    # A table row for each look, and a plot for each contrast.
    rows = []
    figures = []
    for contrast in looked:
        for look in contrast["looks"]:
            row = [
                name_contrast(contrast),
                look["look"],
                look["pairs"],
                look["statistic"],
                look["boundary"],
                look["p"],
                look["spent"],
                look["equivalence"],
                look["equivalence_boundary"],
                look["predicted"],
                look["decision"],
            ]
            rows.append(row)
        figures.append(_plot_looks(contrast))
    head = ["contrast", "look", "pairs", "|mean|", "boundary", "p", "spent", "TOST", "below", "predicted", "decision"]
    section.tables.append(Table(head, rows, "looks"))
    section.groups.append(Group("", "plots", figures[:MOST_PLOTS]))
    return section


def _plot_looks(contrast: Mapping[str, Any]) -> Figure:
    """Return the plot of a contrast's statistic against its boundary, look by look."""
    name = name_contrast(contrast)
    described = []
    for look in contrast["looks"]:
        boundary = "none" if look["boundary"] is None else f"{look['boundary']:.3g}"
        described.append(
            f"after {look['pairs']} pairs {look['statistic']:.3g}, boundary {boundary}: {look['decision']}"
        )
    alt = f"Chart of |mean difference| of {name} at each look. {'; '.join(described)}."
    caption = f"{name}: |mean| at each look, and from where on it is a difference."
    return make_plot(f"looks {name}", plots.plot_looks(contrast["looks"], f"|mean| of {name}"), alt, caption)


def bands_section(ablation: AblationRecord) -> Section:
    """Return the curves of each metric at ticks as a median and a band for each variant of several runs."""
    section = Section(
        "Curves", ["The median over the runs of a variant, with the band from its 10 % to its 90 % quantile."]
    )

    # A single run of each variant has no band.
    groups: dict[str, list[RunRecord]] = {}
    for (variant, _), run in ablation.runs.items():
        groups.setdefault(variant, []).append(run)
    if not any(len(members) > 1 for members in groups.values()):
        return section

    stages = find_usual_stages(list(ablation.runs.values()))
    # A plot for each metric, with a median and a band for each variant.
    figures = []
    for tag in [tag for tag in list_tags(list(ablation.runs.values())) if is_metric(tag)][:MOST_PLOTS]:
        label = tag.removeprefix("Metrics/")
        summaries = {}
        for name, members in groups.items():
            curves: list[Curve] = [curve for curve in (run.curve(tag) for run in members) if curve]
            if curves:
                summaries[name] = plots.summarize_curves(curves)
        medians = {name: summary.median for name, summary in summaries.items()}
        alt = plots.describe_lines(medians, f"the median {label} with bands, by variant")
        figures.append(make_plot(f"{label} bands", plots.plot_bands(summaries, label, stages), alt, label))
    if figures:
        section.groups.append(Group("", "plots", figures))
    return section
