"""The sections about runs: one alone, or several beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit.report import plots
from pggan_kit.report.film import Film
from pggan_kit.report.page import Block, Figure, Group, Section, Table, animation, grid, plot
from pggan_kit.report.pictures import ALPHAS, STRIP, Pictures
from pggan_kit.report.records import Curve, RunRecord, StageRecord

MOST_SETTINGS = 60


def overview(runs: Sequence[RunRecord]) -> Section:
    """What was trained, for how long, and where it ended."""
    metrics = [tag for tag in tags_of(runs) if is_metric(tag)]
    head = ["run", "images", "sizes", "minutes", *(tag.partition("/")[2] for tag in metrics), "started", "torch"]
    rows = []
    for run in runs:
        seconds = sum(value for _, value in run.curve("Timing/seconds"))
        environment = run.about.get("environment") or {}
        sizes = " -> ".join(str(stage.height) for stage in run.stages)
        ends = [run.final(tag) for tag in metrics]
        started = (run.about.get("started"), environment.get("torch"))
        rows.append([run.name, run.rows[-1]["images"], sizes, round(seconds / 60, 2), *ends, *started])
    return Section("Overview", tables=[Table(head, rows, "runs")])


def film_section(film: Film | None, runs: Sequence[RunRecord]) -> Section:
    """The animation of two runs."""
    if film is None:
        return Section("Side by side")
    names = " | ".join(run.name for run in runs)
    how = {
        "samples": "each tick, and the moments right before and after each growth",
        "checkpoints": "the checkpoints that were kept; within a fade with the weights of its end",
    }[film.source]
    alt = (
        f"Animation of {film.frames} frames, {names} side by side: images of the same latents as training goes on, "
        "with size, clock and an alpha bar above each; it slows down where the networks grow."
    )
    caption = f"{names}: the same latents, slow across the switch. Drawn from {how}."
    return Section("Side by side", groups=[Group("", "pixels", [animation(film.content, alt, caption)])])


def grids_section(runs: Sequence[RunRecord], pictures: Sequence[Pictures]) -> Section:
    """The same latents at the end of each stage."""
    section = Section("Stages", ["Images of the average of G's weights, from the same latents in each grid."])
    for run, drawn in zip(runs, pictures, strict=True):
        figures = []
        for stage in run.stages:
            if stage.index not in drawn.ends:
                continue
            images, clock = drawn.ends[stage.index], drawn.clocks[stage.index]
            size = f"{images.shape[1]}x{images.shape[2]}"
            alt = f"Grid of {len(images)} images of {run.name} at {size}, after {clock:,} training images."
            figures.append(grid(images, 4, alt, f"{size}, after {clock:,} images"))
        if figures:
            section.groups.append(Group(run.name, "pixels", figures))
    return section


def fades_section(runs: Sequence[RunRecord], pictures: Sequence[Pictures]) -> Section:
    """A strip through each fade."""
    section = Section(
        "Through the fades",
        [
            "Each row is one latent; alpha grows from 0 (the old path) on the left to 1 (the new one) on the right. "
            "The weights are those of the last tick of the fade."
        ],
    )
    for run, drawn in zip(runs, pictures, strict=True):
        figures = []
        for stage, strips in sorted(drawn.fades.items()):
            images = np.stack(strips, axis=1).reshape(-1, *strips[0].shape[1:])
            size = f"{images.shape[1]}x{images.shape[2]}"
            alt = (
                f"Strip through the fade to {size} of {run.name}: {STRIP} latents from top to bottom, "
                f"{len(ALPHAS)} values of alpha from 0 to 1 from left to right."
            )
            figures.append(grid(images, len(ALPHAS), alt, f"stage {stage}, {size}: alpha 0 to 1", 64))
        if figures:
            section.groups.append(Group(run.name, "pixels", figures))
    return section


def curves_section(runs: Sequence[RunRecord], pictures: Sequence[Pictures]) -> Section:
    """Losses, scores, metrics and alpha over images."""
    figures = single_curves(runs[0]) if len(runs) == 1 else compared_curves(runs)
    figures.append(alpha_figure(runs, [drawn.alpha_lines for drawn in pictures]))
    return Section(
        "Curves",
        ["Vertical lines are the beginnings of stages, gray grounds are fades (of most runs, where they differ)."],
        groups=[Group("", "plots", figures)],
    )


def single_curves(run: RunRecord) -> list[Figure]:
    """One plot for losses, one for scores, one for each metric with its noise floor."""
    figures = []
    for what, prefix in (("losses", "Loss/"), ("scores", "Scores/")):
        named = {tag.removeprefix(prefix): run.curve(tag) for tag in run.tags if tag.startswith(prefix)}
        if named:
            alt, draw = plots.described(named, what, run), plots.curves(named, what, run.stages)
            figures.append(plot(what, draw, alt, what.capitalize()))
    for tag in [*filter(is_metric, run.tags), "Progress/diversity"]:
        figures += curve_figures([run], tag, run.stages)
    return figures


def compared_curves(runs: Sequence[RunRecord]) -> list[Figure]:
    """One plot for each number, with a line for each run."""
    wanted = [t for t in tags_of(runs) if t.startswith(("Loss/", "Scores/")) or is_metric(t)]
    shared = usual_stages(runs)
    figures: list[Figure] = []
    for tag in [*sorted(wanted, key=lambda tag: not is_metric(tag)), "Progress/diversity"]:
        figures += curve_figures(runs, tag, shared)
    return figures


def curve_figures(runs: Sequence[RunRecord], tag: str, stages: Sequence[StageRecord]) -> list[Figure]:
    """The plot of one tag; none where no run has it."""
    named: dict[str, Curve] = {run.name: run.curve(tag) for run in runs if run.curve(tag)}
    if not named:
        return []
    floors = {run.name: run.curve(f"{tag}_floor") for run in runs if run.curve(f"{tag}_floor")}
    kind, _, name = tag.partition("/")
    label = name if kind in ("Metrics", "Progress") else tag
    draw = plots.curves(named, label, stages, floors, log=is_metric(tag))
    caption = f"{label}; dashed: its noise floor, the same between two halves of the data" if floors else label
    alone = runs[0] if len(runs) == 1 else None
    return [plot(label, draw, plots.described({label: named[runs[0].name]} if alone else named, label, alone), caption)]


def alpha_figure(runs: Sequence[RunRecord], exact: Sequence[list[Curve] | None]) -> Figure:
    """The generator's alpha: a line through each stage, or dots at the ticks of runs whose switch cannot be asked."""
    pairs = list(zip(runs, exact, strict=True))
    lines = {run.name: own or [run.curve("Progress/alpha")] for run, own in pairs}
    dotted = [run.name for run, own in pairs if not own]
    caption = "alpha of the generator"
    if dotted:
        caption += f"; dots, at ticks only: the switch of {', '.join(dotted)} cannot be asked again"
    named = {name: [point for line in own for point in line] for name, own in lines.items()}
    alone = runs[0] if len(runs) == 1 else None
    alt = plots.described({"alpha": named[runs[0].name]} if alone else named, "alpha", alone)
    stages = alone.stages if alone else usual_stages(runs)
    return plot("alpha", plots.alphas(lines, dotted, stages), alt, caption)


def cost_section(runs: Sequence[RunRecord]) -> Section:
    """Throughput of each stage."""
    sizes = list(dict.fromkeys(stage.size for run in runs for stage in run.stages))
    paces: dict[str, dict[str, float]] = {size: {} for size in sizes}
    for run in runs:
        for stage in run.stages:
            paces[stage.size][run.name] = stage.images_per_second
    rows = [[run.name, *(paces[size].get(run.name) for size in sizes)] for run in runs]
    words = "; ".join(f"{size}: " + ", ".join(f"{n} {pace:,.0f}" for n, pace in paces[size].items()) for size in sizes)
    figure = plot(
        "throughput",
        plots.bars(paces, "images per second"),
        f"Bar chart of training images per second by stage. {words}.",
        "Training images per second in each stage, with logging and drawing; of runs that ran side by side this says "
        "little.",
    )
    table = Table(["run", *(f"{size}, images/s" for size in sizes)], rows)
    return Section("Throughput", tables=[table], groups=[Group("", "plots", [figure])])


def transitions_section(runs: Sequence[RunRecord]) -> Section:
    """What `observers.TransitionShock` measured."""
    section = Section(
        "Transitions",
        [
            "At each growth and at each fade's end: how far images of fixed latents jump (root mean square, values "
            "in [-1, 1]; features in units of the images' own spread), numbers before -> after, and after how many "
            "images the metric was back within its noise band."
        ],
    )
    events = {"growth": "growth", "fade_end": "end of fade"}
    rows = [(run.name, row) for run in runs for row in run.transitions if row.get("event") in events]
    if not rows:
        return section
    tags = list(dict.fromkeys(tag for _, row in rows for tag in row if tag.startswith("Transition/")))
    jumps = [tag for tag in tags if tag.startswith(("Transition/rms/", "Transition/features/"))]
    pairs = [tag.removesuffix("/before") for tag in tags if tag.endswith("/before")]
    back = {
        (run.name, row.get("at")): row.get("Transition/recovery")
        for run in runs
        for row in run.transitions
        if row.get("event") == "recovery"
    }
    head = ["run", "at", "event", "size", *(short(tag) for tag in jumps), *(short(tag) for tag in pairs), "back after"]
    body: list[list[Any]] = []
    for name, row in rows:
        values = [row.get(tag) for tag in jumps]
        steps = [f"{row[f'{t}/before']:.3g} -> {row[f'{t}/after']:.3g}" if f"{t}/after" in row else None for t in pairs]
        size = f"{row.get('from')} -> {row.get('size')}" if row["event"] == "growth" else row.get("size")
        body.append([name, row.get("at"), events[row["event"]], size, *values, *steps, back.get((name, row.get("at")))])
    section.tables.append(Table(head, body, "transitions"))
    return section


def configuration_section(runs: Sequence[RunRecord]) -> Section:
    """What was given and what was in effect; of several runs first what differs."""
    section = Section("Configuration")
    if len(runs) > 1:
        settings = [operative_settings(run) for run in runs]
        names = list(dict.fromkeys(name for own in settings for name in own))
        different = [name for name in names if len({own.get(name) for own in settings}) > 1]
        rows = [[name, *(own.get(name) for own in settings)] for name in different[:MOST_SETTINGS]]
        section.tables.append(Table(["setting that differs", *(run.name for run in runs)], rows))
    for run in runs:
        section.blocks.append(Block(f"{run.name}: given", run.given))
        section.blocks.append(Block(f"{run.name}: in effect, with all defaults", run.operative))
    return section


def operative_settings(run: RunRecord) -> Mapping[str, str]:
    """Bindings of the operative configuration as text, values that span lines joined."""
    found: dict[str, str] = {}
    name = None
    for line in run.operative.splitlines():
        left, equals, right = line.partition(" = ")
        if equals and line[:1].isalpha():
            name, found[left] = left, right.strip(" \\")
        elif name is not None and line.startswith(" "):
            found[name] = f"{found[name]} {line.strip()}".strip()
        else:
            name = None
    return found


def tags_of(runs: Sequence[RunRecord]) -> list[str]:
    """The tags of all runs, each once."""
    return list(dict.fromkeys(tag for run in runs for tag in run.tags))


def is_metric(tag: str) -> bool:
    """Whether it is a metric's value and not its floor."""
    return tag.startswith("Metrics/") and not tag.endswith("_floor")


def usual_stages(runs: Sequence[RunRecord]) -> list[StageRecord]:
    """The stages of most runs, told apart by where they begin; with fades where one of those runs has them."""
    groups: dict[tuple[tuple[int, int], ...], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(tuple((stage.start, stage.height) for stage in run.stages), []).append(run)
    largest = max(groups.values(), key=len)
    return max((run.stages for run in largest), key=lambda stages: sum(stage.fade_end is not None for stage in stages))


def short(tag: str) -> str:
    """A transition's tag for a table's head."""
    return tag.removeprefix("Transition/").replace("/", " ")
