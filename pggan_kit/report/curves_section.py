"""The section of curves: losses, scores, metrics, alpha and settings that move, over the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pggan_kit.report import plots
from pggan_kit.report.page import Figure, Group, Section, make_plot
from pggan_kit.report.run_groups import (
    MOST_DRAWN,
    RunGroup,
    has_several,
    is_metric,
    is_of_plugin,
    isolate_runs,
    list_runs,
    list_tags,
)
from pggan_kit.report.run_pictures import RunPictures
from pggan_kit.report.run_record import Curve, RunRecord, StageRecord
from pggan_kit.report.run_sections import find_usual_stages, name_metric

BAND_TEXT = (
    "A line is the median of a group's runs, drawn where more than half of them have a value; the band is from the "
    "10th to the 90th percentile."
)
"""Sentence for curves of several runs."""


def curves_section(groups: Sequence[RunGroup], pictures: Sequence[RunPictures]) -> Section:
    """Return losses, scores, metrics and alpha over the clock.

    Args:
        groups: The groups, each of which is one line.
        pictures: What was drawn of the first groups' runs.
    """
    texts = ["Vertical lines are the beginnings of stages, gray areas are fades (of most runs, where they differ)."]
    if has_several(groups):
        texts.append(BAND_TEXT)
    if len(groups) > MOST_DRAWN:
        texts.append(f"In colour are the first {MOST_DRAWN} of {len(groups)}, of which images are drawn too.")
    runs = list_runs(groups)
    figures = plot_single_run(runs[0]) if len(runs) == 1 else plot_several_groups(groups)

    # Alpha and settings are those of the run that is drawn, since a group's runs have the same.
    drawn = groups[: len(pictures)]
    figures.append(plot_alpha(drawn, [own.alpha_lines for own in pictures]))
    figures += plot_moving_settings(drawn, [own.moving_settings for own in pictures])
    return Section("Curves", texts, groups=[Group("", "plots", figures)])


def plot_single_run(run: RunRecord) -> list[Figure]:
    """Return one plot for losses, one for scores, and one for each metric with its floor and number of a plugin."""
    figures = []
    for subject, prefix in (("losses", "Loss/"), ("scores", "Scores/")):
        named = {tag.removeprefix(prefix): run.curve(tag) for tag in run.tags if tag.startswith(prefix)}
        if named:
            draw = plots.plot_curves(named, subject, run.stages)
            alt = plots.describe_lines(named, subject, run)
            figures.append(make_plot(subject, draw, alt, subject.capitalize()))

    metrics = [tag for tag in run.tags if is_metric(tag)]
    own = [tag for tag in run.tags if is_of_plugin(tag)]
    for tag in [*metrics, "Progress/diversity", *own]:
        figures += plot_tag(isolate_runs([run]), tag, run.stages)
    return figures


def plot_several_groups(groups: Sequence[RunGroup]) -> list[Figure]:
    """Return one plot for each metric, loss, score and number of a plugin, with a line for each group."""
    runs = list_runs(groups)
    tags = list_tags(runs)
    metrics = [tag for tag in tags if is_metric(tag)]
    others = [tag for tag in tags if tag.startswith(("Loss/", "Scores/"))]
    shared = find_usual_stages(runs)
    figures: list[Figure] = []
    own = [tag for tag in tags if is_of_plugin(tag)]
    for tag in [*metrics, *others, "Progress/diversity", *own]:
        figures += plot_tag(groups, tag, shared)
    return figures


def plot_tag(groups: Sequence[RunGroup], tag: str, stages: Sequence[StageRecord]) -> list[Figure]:
    """Return the plot of one tag; none where no run has it."""
    summaries = {group.label: group.summarize(tag) for group in groups}
    named = {label: summary.median for label, summary in summaries.items()}
    if not any(named.values()):
        return []

    # Losses and scores have names that say little without their group.
    kind, _, name = tag.partition("/")
    label = name if kind in ("Metrics", "Progress") else tag
    floors = {group.label: group.summarize(f"{tag}_floor").median for group in groups}
    caption = label
    if any(floors.values()):
        caption = f"{label}; dashed: its noise floor, the same between two halves of the data"

    bands = {name: (summary.low, summary.high) for name, summary in summaries.items() if summary.low}
    axis = name_metric(groups, tag) if is_metric(tag) else label
    draw = plots.plot_curves(named, axis, stages, floors, log=is_metric(tag), bands=bands)
    return [make_plot(label, draw, describe_groups(groups, named, label), caption)]


def plot_alpha(groups: Sequence[RunGroup], exact: Sequence[list[Curve] | None]) -> Figure:
    """Return the generator's alpha: a line through each stage, or dots at ticks for switches that cannot be asked.

    Args:
        groups: The groups, of which the run that is drawn is shown.
        exact: Alpha by clock for each group's stages, None where only ticks record it.
    """
    # Lines where the switch can be asked, dots elsewhere.
    lines = {}
    dotted = []
    for group, own in zip(groups, exact, strict=True):
        if own:
            lines[group.name] = own
        else:
            lines[group.name] = [group.shown.curve("Progress/alpha")]
            dotted.append(group.name)

    caption = "alpha of the generator"
    if has_several(groups):
        caption += ", in the run of each group that is drawn"
    if dotted:
        caption += f"; dots, at ticks only: the switch of {', '.join(dotted)} cannot be asked again"
    named = {name: [point for line in own for point in line] for name, own in lines.items()}
    draw = plots.plot_alphas(lines, dotted, find_usual_stages([group.shown for group in groups]))
    return make_plot("alpha", draw, describe_groups(groups, named, "alpha"), caption)


def plot_moving_settings(groups: Sequence[RunGroup], settings: Sequence[Mapping[str, Curve]]) -> list[Figure]:
    """Return a plot for each setting that moves in one of the groups, with a line for each group in which it does.

    Args:
        groups: The groups.
        settings: Values over the clock by the setting's name, for each group.
    """
    figures = []
    for name in dict.fromkeys(name for own in settings for name in own):
        named = {group.name: own.get(name, []) for group, own in zip(groups, settings, strict=True)}
        label = name.removeprefix("train.")
        draw = plots.plot_curves(named, label, find_usual_stages([group.shown for group in groups]))
        alt = describe_groups(groups, named, label)
        figures.append(make_plot(label, draw, alt, f"{name}, as the config gives it"))
    return figures


def describe_groups(groups: Sequence[RunGroup], named: Mapping[str, Curve], label: str) -> str:
    """Return the alternative text of a plot with a line for each group; a run alone is named once."""
    if len(list_runs(groups)) > 1:
        return plots.describe_lines(named, label)
    (curve,) = named.values()
    return plots.describe_lines({label: curve}, label, groups[0].shown)
