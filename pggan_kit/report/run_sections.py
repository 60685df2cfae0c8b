"""The sections about runs: one alone, or several beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit.errors import DataError
from pggan_kit.pictures.decoding import open_picture
from pggan_kit.report import plots
from pggan_kit.report.film import Film
from pggan_kit.report.page import (
    Block,
    Figure,
    Group,
    Section,
    Table,
    make_animation,
    make_grid,
    make_plot,
    make_sheet,
)
from pggan_kit.report.plots import BAND
from pggan_kit.report.ranking import Ranking, describe_ranking, find_direction, list_rankings
from pggan_kit.report.run_groups import (
    MOST_DRAWN,
    SEED,
    RunGroup,
    begin_head,
    begin_row,
    describe_seeds,
    describe_values,
    find_median,
    find_quantile,
    has_several,
    is_metric,
    list_runs,
    list_tags,
)
from pggan_kit.report.run_pictures import FadeStrip, RunPictures
from pggan_kit.report.run_record import RunRecord, StageRecord, is_finite

MOST_SETTINGS = 60
"""Maximum of settings in the table of those that differ."""

MOST_NAMES = 6
"""Maximum of groups that are named for one value of a setting."""

GROUPS_TEXT = (
    "Runs that differ by their seed alone are one group. Metrics are the last values: their median over the runs, and "
    "the 10th and 90th percentile."
)
"""Sentence above the table of groups."""

GRID_COLUMNS = 4
"""Columns of a grid of images."""

STRIP_CELL = 64
"""Pixels of an image's longer side in a strip, at most."""

FILM_SOURCES = {
    "samples": "each tick, and the moments right before and after each growth",
    "checkpoints": "the checkpoints that were kept; within a fade with the weights of its end",
}
"""Words for what a film was made from."""

EVENTS = {"growth": "growth", "fade_end": "end of fade"}
"""Words for the events of a transition."""


def overview_section(groups: Sequence[RunGroup]) -> Section:
    """Return which group is better, what was trained, for how long, and how it ended."""
    # The order of the groups, and a row for each.
    rankings = list_rankings(groups)
    section = Section("Overview", [describe_ranking(ranking) for ranking in rankings])
    if has_several(groups):
        section.texts.append(GROUPS_TEXT)
        section.tables.append(tabulate_groups(groups, rankings))
    else:
        section.tables.append(tabulate_runs(groups, rankings))

    # Groups that do not learn at the rate of their optimizers all the time.
    policies = []
    for group in groups:
        policy = describe_growth_policy(group.runs[0])
        if policy:
            policies.append([*begin_row(group, groups), policy])
    if policies:
        section.tables.append(Table([*begin_head(groups), "growth policy"], policies))
    return section


def tabulate_groups(groups: Sequence[RunGroup], rankings: Sequence[Ranking]) -> Table:
    """Return a row for each group, with the median and the range of each metric's last value."""
    # The head has three columns for each metric.
    metrics = [tag for tag in list_tags(list_runs(groups)) if is_metric(tag)]
    head = [*begin_head(groups), "seeds", "images", "sizes", "minutes"]
    for tag in metrics:
        head += [f"{name_metric(groups, tag)}, median", "10 %", "90 %"]

    # A row for each group.
    rows = []
    for group in groups:
        sizes = dict.fromkeys(describe_sizes(run) for run in group.runs)
        row = [
            *begin_row(group, groups),
            describe_seeds(group.runs),
            describe_values(run.rows[-1]["images"] for run in group.runs),
            " or ".join(sizes),
            find_median(sum_minutes(run) for run in group.runs),
        ]
        for tag in metrics:
            values = group.final(tag)
            row += [find_median(values), *(find_quantile(values, share) for share in BAND)]
        rows.append(row)

    # The best of each metric is marked.
    first = len(head) - 3 * len(metrics)
    columns = {tag: first + 3 * place for place, tag in enumerate(metrics)}
    return Table(head, rows, "groups", find_best_cells(groups, rankings, columns))


def name_metric(groups: Sequence[RunGroup], tag: str) -> str:
    """Return a metric's name, with the direction of better values where it is known."""
    name = tag.partition("/")[2]
    direction = find_direction(groups, tag)
    return name if direction is None else f"{name} ({direction} is better)"


def find_best_cells(
    groups: Sequence[RunGroup], rankings: Sequence[Ranking], columns: Mapping[str, int]
) -> list[tuple[int, int]]:
    """Return the places (row, column) of the best groups' cells.

    Args:
        groups: The groups, one for each row.
        rankings: The order of them by metrics.
        columns: Column of each metric, by its tag.
    """
    places = []
    for ranking in rankings:
        best = {group.name for group in ranking.list_best()}
        places += [(row, columns[ranking.tag]) for row, group in enumerate(groups) if group.name in best]
    return places


def tabulate_runs(groups: Sequence[RunGroup], rankings: Sequence[Ranking]) -> Table:
    """Return a row for each run, each of which is a group of its own."""
    runs = list_runs(groups)
    metrics = [tag for tag in list_tags(runs) if is_metric(tag)]
    metric_names = [name_metric(groups, tag) for tag in metrics]
    head = ["run", "images", "sizes", "minutes", *metric_names, "started", "torch"]

    # A metric that a run does not have is a dash.
    rows = []
    for run in runs:
        environment = run.about.get("environment") or {}
        row = [
            run.name,
            run.rows[-1]["images"],
            describe_sizes(run),
            sum_minutes(run),
            *(run.final(tag) for tag in metrics),
            run.about.get("started"),
            environment.get("torch"),
        ]
        rows.append(row)
    columns = {tag: 4 + place for place, tag in enumerate(metrics)}
    return Table(head, rows, "runs", find_best_cells(groups, rankings, columns))


def describe_sizes(run: RunRecord) -> str:
    """Return the heights of a run's stages."""
    return " -> ".join(str(stage.height) for stage in run.stages)


def sum_minutes(run: RunRecord) -> float:
    """Return the minutes that a run trained."""
    return round(sum(value for _, value in run.curve("Timing/seconds")) / 60, 2)


def every_run_section(groups: Sequence[RunGroup], drawn: Sequence[RunGroup]) -> Section:
    """Return a table of all runs with their folders, where not all of them are drawn; no content otherwise."""
    section = Section("Every run")
    folders = {group.shown.folder for group in drawn}
    runs = list_runs(groups)
    if len(folders) == len(runs):
        return section

    # One row a run, so that a reader finds the folders of those that are not drawn.
    metrics = [tag for tag in list_tags(runs) if is_metric(tag)]
    metric_names = [tag.partition("/")[2] for tag in metrics]
    head = ["run", "group", "seed", "images", "minutes", *metric_names, "images are shown", "folder"]
    rows = []
    for group in groups:
        for run in group.runs:
            row = [
                run.name,
                group.name,
                run.settings.get(SEED),
                run.rows[-1]["images"],
                sum_minutes(run),
                *(run.final(tag) for tag in metrics),
                "yes" if run.folder in folders else "no",
                str(run.folder),
            ]
            rows.append(row)
    section.texts.append(
        f"Images are shown of {len(folders)} of {len(runs)} runs; pggan-kit report FOLDER shows those of another one."
    )
    section.tables.append(Table(head, rows, "every-run"))
    return section


def describe_growth_policy(run: RunRecord) -> str:
    """Return a run's growth policy with its settings, as `growth.FreezeOld(images = 4000)`; empty where it has none."""
    chosen = run.settings.get("train.growth", "None")
    if chosen == "None":
        return ""
    name = chosen.removeprefix("@").removesuffix("()")
    arguments = []
    for key, value in run.settings.items():
        owner, _, argument = key.rpartition(".")
        if owner == name:
            arguments.append(f"{argument} = {value}")
    return f"{name}({', '.join(arguments)})"


def film_section(film: Film | None, runs: Sequence[RunRecord]) -> Section:
    """Return the animation of two runs."""
    section = Section("Side by side")
    if film is None:
        return section
    names = " | ".join(run.name for run in runs)
    alt = (
        f"Animation of {film.frames} frames, {names} side by side: images of the same latents as training goes on, "
        "with size, clock and an alpha bar above each; it slows down where the networks grow."
    )
    caption = f"{names}: the same latents, slow across the switch. Drawn from {FILM_SOURCES[film.source]}."
    section.groups.append(Group("", "pixels", [make_animation(film.content, alt, caption)]))
    return section


def grids_section(runs: Sequence[RunRecord], pictures: Sequence[RunPictures]) -> Section:
    """Return images of the same latents at the end of each stage."""
    names = list(dict.fromkeys(drawn.average for drawn in pictures if drawn.average))
    which = f" ({', '.join(names)})" if names else ""
    section = Section("Stages", [f"Images of the average of G's weights{which}, from the same latents in each grid."])
    for run, drawn in zip(runs, pictures, strict=True):
        figures = []
        for stage in run.stages:
            if stage.index not in drawn.ends:
                continue

            # The last stage of an unfinished run is shown as it is now.
            images = drawn.ends[stage.index]
            clock = drawn.clocks[stage.index]
            size = format_size(drawn.sizes[stage.index])
            alt = f"Grid of {len(images)} images of {run.name} at {size}, after {clock:,} training images."
            figures.append(make_grid(images, GRID_COLUMNS, alt, f"{size}, after {clock:,} images"))
        if figures:
            section.groups.append(Group(run.name, "pixels", figures))
    return section


def reals_section(runs: Sequence[RunRecord]) -> Section:
    """Return the sheets of real images that `observers.Samples` drew, each once where runs have the same."""
    section = Section("Training images", ["Real images at each stage's size, as the networks see them."])
    seen: set[str] = set()
    for run in runs:
        figures = []
        for stage in run.stages:
            figure = _read_sheet(run, stage)
            if figure is not None and figure.src not in seen:
                seen.add(figure.src)
                figures.append(figure)
        if figures:
            section.groups.append(Group(run.name, "pixels", figures))
    return section


def _read_sheet(run: RunRecord, stage: StageRecord) -> Figure | None:
    """Return a stage's sheet of real images, of the run or its trunk; None where there is none that can be read."""
    for ancestor in reversed(list(run.lineage())):
        for path in sorted((ancestor.folder / "samples").glob(f"reals-{stage.height}x*.png")):
            size = path.stem.removeprefix("reals-")
            try:
                with open_picture(path, formats=("PNG",)) as picture:
                    picture.load()
                    alt = f"Sheet of training images of {run.name}, {size}."
                    return make_sheet(picture, alt, f"{size}, real")
            except DataError:  # damaged, or something else
                continue
    return None


def fades_section(runs: Sequence[RunRecord], pictures: Sequence[RunPictures]) -> Section:
    """Return a strip through each fade."""
    text = (
        "Each row is one latent. From left to right, alpha takes values of the run's switch, from the old path to the "
        "new one, whose alpha is 1. The weights are those of the last checkpoint before the fade's end."
    )
    section = Section("Through the fades", [text])

    # The page has a limit, and says what it left out.
    lacking = [run.name for run, drawn in zip(runs, pictures, strict=True) if drawn.lacks_strips]
    if lacking:
        section.texts.append(f"Left out, since the page would become too large: {', '.join(lacking)}.")

    # A strip for each fade.
    for run, drawn in zip(runs, pictures, strict=True):
        figures = [
            draw_strip_figure(run, stage, strip, drawn.sizes[stage]) for stage, strip in sorted(drawn.fades.items())
        ]
        if figures:
            section.groups.append(Group(run.name, "pixels", figures))
    return section


def format_size(size: tuple[int, int]) -> str:
    """Return a height and a width for people."""
    height, width = size
    return f"{height}x{width}"


def draw_strip_figure(run: RunRecord, stage: int, strip: FadeStrip, drawn_size: tuple[int, int]) -> Figure:
    """Return a fade's strip: a row for each latent, a column for each alpha."""
    latents = len(strip.images[0])
    images = np.stack(strip.images, axis=1).reshape(-1, *strip.images[0].shape[1:])
    size = format_size(drawn_size)
    alphas = [f"{alpha:.3g}" for alpha in strip.alphas]

    alt = (
        f"Strip through the fade to {size} of {run.name}: {latents} latents from top to bottom, "
        f"{len(alphas)} values of alpha from {alphas[0]} to {alphas[-1]} from left to right."
    )
    caption = f"stage {stage}, {size}: alpha {', '.join(alphas)}"
    return make_grid(images, len(alphas), alt, caption, STRIP_CELL)


def cost_section(groups: Sequence[RunGroup]) -> Section:
    """Return the throughput of each stage."""
    sizes = list(dict.fromkeys(stage.size for run in list_runs(groups) for stage in run.stages))
    paces: dict[str, dict[str, float]] = {size: {} for size in sizes}
    for group in groups:
        for size, pace in _find_paces(group).items():
            paces[size][group.name] = pace
    rows = [[*begin_row(group, groups), *(paces[size].get(group.name) for size in sizes)] for group in groups]
    table = Table([*begin_head(groups), *(f"{size}, images/s" for size in sizes)], rows)

    # The figure has room for as many groups as have a colour; its alternative text lists all of its numbers.
    names = {group.name for group in groups[:MOST_DRAWN]}
    shown = {size: {name: pace for name, pace in own.items() if name in names} for size, own in paces.items()}
    described = []
    for size, by_group in shown.items():
        numbers = ", ".join(f"{name} {pace:,.0f}" for name, pace in by_group.items())
        described.append(f"{size}: {numbers}")
    alt = f"Bar chart of training images per second by stage. {'; '.join(described)}."
    caption = (
        "Training images per second in each stage, logging and drawing included; for runs that ran at the same time "
        "this says little."
    )
    if has_several(groups):
        caption += " Medians of groups."
    if len(groups) > MOST_DRAWN:
        caption += f" The first {MOST_DRAWN} of {len(groups)}."
    figure = make_plot("throughput", plots.plot_bars(shown, "images per second"), alt, caption)
    return Section("Throughput", tables=[table], groups=[Group("", "plots", [figure])])


def _find_paces(group: RunGroup) -> dict[str, float]:
    """Return a group's images per second by the size of the stage."""
    paces: dict[str, list[float]] = {}
    for run in group.runs:
        for stage in run.stages:
            paces.setdefault(stage.size, []).append(stage.images_per_second)
    return {size: find_median(own) for size, own in paces.items()}


def transitions_section(groups: Sequence[RunGroup]) -> Section:
    """Return the measurements of `observers.TransitionShock`, of a group their medians."""
    text = (
        "At each growth and at each fade's end: how far images of fixed latents jump (root mean square, values "
        "in [-1, 1]; features in units of the images' own spread), numbers before -> after, and after how many "
        "images the metric was back within its noise band."
    )
    section = Section("Transitions", [text])
    if has_several(groups):
        section.texts.append("Numbers of a group are medians of its runs.")
    by_group = [(group, _collect_events(group)) for group in groups]
    tags = list(dict.fromkeys(tag for _, events in by_group for rows in events.values() for row in rows for tag in row))
    if not any(events for _, events in by_group):
        return section

    # Columns: jumps are one number, what is measured before and after is two.
    jumps = [tag for tag in tags if tag.startswith(("Transition/rms/", "Transition/features/"))]
    pairs = [tag.removesuffix("/before") for tag in tags if tag.startswith("Transition/") and tag.endswith("/before")]
    measured = [shorten_tag(tag) for tag in [*jumps, *pairs]]
    head = [*begin_head(groups), "at", "event", "size", *measured, "back after"]

    body: list[list[Any]] = []
    for group, events in by_group:
        recoveries = _find_recoveries(group)
        for (clock, event, size), rows in events.items():
            numbers = [find_median(row.get(tag) for row in rows) for tag in jumps]
            steps = [_format_step(rows, tag) for tag in pairs]
            # A fade that ends at the clock of a growth has no part in the recovery from it.
            recovery = None
            if event == EVENTS["growth"]:
                recovery = find_median(recoveries.get(clock, ()))
            body.append([*begin_row(group, groups), clock, event, size, *numbers, *steps, recovery])
    section.tables.append(Table(head, body, "transitions"))
    return section


def _collect_events(group: RunGroup) -> dict[tuple[Any, str, Any], list[Mapping[str, Any]]]:
    """Return the rows of a group's runs by clock, event and size."""
    events: dict[tuple[Any, str, Any], list[Mapping[str, Any]]] = {}
    for run in group.runs:
        for row in run.transitions:
            if row.get("event") in EVENTS:
                key = (row.get("at"), EVENTS[row["event"]], _format_size(row))
                events.setdefault(key, []).append(row)
    return events


def _find_recoveries(group: RunGroup) -> dict[Any, list[Any]]:
    """Return after how many images the metric was back in each run, by the clock of the growth."""
    recoveries: dict[Any, list[Any]] = {}
    for run in group.runs:
        for row in run.transitions:
            if row.get("event") == "recovery":
                recoveries.setdefault(row.get("at"), []).append(row.get("Transition/recovery"))
    return recoveries


def _format_step(rows: Sequence[Mapping[str, Any]], tag: str) -> str | None:
    """Return a number before and after an event; None where it was not measured after it."""
    measured = [row for row in rows if is_finite(row.get(f"{tag}/before")) and is_finite(row.get(f"{tag}/after"))]
    if not measured:
        return None
    before = find_median(row[f"{tag}/before"] for row in measured)
    after = find_median(row[f"{tag}/after"] for row in measured)
    return f"{before:.3g} -> {after:.3g}"


def _format_size(row: Mapping[str, Any]) -> Any:
    """Return an event's size, for a growth from which to which."""
    if row["event"] == "growth":
        return f"{row.get('from')} -> {row.get('size')}"
    return row.get("size")


def configuration_section(groups: Sequence[RunGroup]) -> Section:
    """Return the configuration as given and as in effect; for several groups, first what differs."""
    section = Section("Configuration")
    if len(groups) > 1:
        section.tables.append(tabulate_differences(groups))

    # A group's runs have one configuration, but for the seed.
    changes = list_changes([group.shown for group in groups])
    if changes:
        section.tables.append(Table(["run", "changed at images", "setting", "before", "from then on"], changes))

    for group in groups[:MOST_DRAWN]:
        run = group.shown
        section.blocks.append(Block(f"{run.name}: given", run.given))
        section.blocks.append(Block(f"{run.name}: in effect, with all defaults", run.operative))
    if len(groups) > MOST_DRAWN:
        section.texts.append(
            f"Below are the configurations of the first {MOST_DRAWN} of {len(groups)}; the others are in the folders "
            "of their runs, as config.gin and operative.gin."
        )
    return section


def tabulate_differences(groups: Sequence[RunGroup]) -> Table:
    """Return a row for each setting that differs between groups, with a column for each of them.

    Beyond `MOST_DRAWN` groups there are no columns: then there is a row for each value, with the groups that have it.
    """
    settings = []
    for group in groups:
        own = dict(group.runs[0].settings)
        if len(group.runs) > 1:
            own[SEED] = describe_seeds(group.runs)
        settings.append(own)
    names = list(dict.fromkeys(name for own in settings for name in own))
    different = [name for name in names if len({own.get(name) for own in settings}) > 1]

    if len(groups) <= MOST_DRAWN:
        rows = [[name, *(own.get(name) for own in settings)] for name in different[:MOST_SETTINGS]]
        return Table(["setting that differs", *(group.name for group in groups)], rows)

    # Seeds are in the table of all runs.
    body: list[list[Any]] = []
    for name in [name for name in different if name != SEED][:MOST_SETTINGS]:
        having: dict[str | None, list[RunGroup]] = {}
        for group, own in zip(groups, settings, strict=True):
            having.setdefault(own.get(name), []).append(group)
        for value, those in having.items():
            listed = ", ".join(group.name for group in those[:MOST_NAMES])
            if len(those) > MOST_NAMES:
                listed += f" and {len(those) - MOST_NAMES} more"
            body.append([name, value, len(list_runs(those)), listed])
    return Table(["setting that differs", "value", "runs", "of"], body)


def list_changes(runs: Sequence[RunRecord]) -> list[list[Any]]:
    """Return a row for each setting that changed as a run was resumed."""
    rows: list[list[Any]] = []
    for run in runs:
        for entry in run.about["changes"]:
            for name, (before, now) in entry["bindings"].items():
                rows.append([run.name, entry["images"], name, before, now])
    return rows


def find_usual_stages(runs: Sequence[RunRecord]) -> list[StageRecord]:
    """Return the stages of most runs, grouped by where they begin; with fades where one of those runs has them."""
    groups: dict[tuple[tuple[int, int], ...], list[RunRecord]] = {}
    for run in runs:
        beginnings = tuple((stage.start, stage.height) for stage in run.stages)
        groups.setdefault(beginnings, []).append(run)
    largest = max(groups.values(), key=len)
    return max((run.stages for run in largest), key=_count_fades)


def _count_fades(stages: Sequence[StageRecord]) -> int:
    return sum(stage.fade_end is not None for stage in stages)


def shorten_tag(tag: str) -> str:
    """Return a transition's tag for a table's head."""
    return tag.removeprefix("Transition/").replace("/", " ")
