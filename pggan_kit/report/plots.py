"""Plots with matplotlib, as SVG for the page and as PDF for a paper's column."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pggan_kit.report.records import Curve, RunRecord, StageRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""Okabe and Ito's, which most colour-blind people tell apart; they begin anew after the last."""

PAGE, COLUMN = (6.4, 3.0), (3.25, 2.1)
"""Width and height, in inches, on the page and in a paper's column."""

MOST_POINTS = 600
"""Of a curve; beyond them, neighbours are averaged."""

RC: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "pggan_kit",  # else each file has other ids
    "pdf.fonttype": 42,  # text that publishers accept
    "text.parse_math": False,  # names may hold a $
}

Draw = Callable[["Axes"], None]


def rendered(draw: Draw, form: str, size: tuple[float, float] = PAGE) -> bytes:
    """A plot as a file.

    Args:
        draw: draws on empty axes.
        form: `svg` or `pdf`.
        size: in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure: Figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        dated = {"Date": None} if form == "svg" else {"CreationDate": None}
        figure.savefig(buffer, format=form, metadata=dated)
    return buffer.getvalue()


def colour(number: int) -> str:
    """Of the number-th run, variant or tag."""
    return COLOURS[number % len(COLOURS)]


def curves(
    named: Mapping[str, Curve],
    label: str,
    stages: Sequence[StageRecord] = (),
    floors: Mapping[str, Curve] | None = None,
    log: bool = False,
) -> Draw:
    """Lines over the clock.

    Args:
        named: by what the legend says.
        label: of the y-axis.
        stages: whose boundaries are marked and whose fades are shaded.
        floors: noise floors, dashed in the colour of their curve.
        log: a logarithmic y-axis, where all values are above 0.
    """

    def draw(axes: Axes) -> None:
        mark_stages(axes, stages)
        for number, (name, curve) in enumerate(named.items()):
            x, y = thinned(curve)
            axes.plot(x, y, color=colour(number), label=name, marker="." if len(x) < 8 else None)
            floor = (floors or {}).get(name)
            if floor:
                axes.plot(*thinned(floor), color=colour(number), linestyle="--", linewidth=0.8, label=f"{name}, floor")
        every = [y for curve in [*named.values(), *(floors or {}).values()] for _, y in curve]
        if log and every and min(every) > 0:
            logarithmic(axes)
        finish(axes, label, len(named) + len(floors or {}) > 1)

    return draw


def alphas(named: Mapping[str, Sequence[Curve]], dotted: Collection[str], stages: Sequence[StageRecord] = ()) -> Draw:
    """Alpha over the clock, with a gap where a stage begins.

    Args:
        named: a line for each stage, by what the legend says.
        dotted: those of which only the points are known, not what lies between them.
        stages: as for `curves`.
    """

    def draw(axes: Axes) -> None:
        mark_stages(axes, stages)
        for number, (name, lines) in enumerate(named.items()):
            form: Any = {"linestyle": "none", "marker": "."} if name in dotted else {}
            for place, line in enumerate(lines):
                label = "_" if place else name  # once in the legend
                axes.plot(*zip(*line, strict=True), color=colour(number), label=label, **form)
        finish(axes, "alpha", len(named) > 1)

    return draw


def seeds(groups: Mapping[str, Sequence[Curve]], label: str, stages: Sequence[StageRecord] = ()) -> Draw:
    """Every seed of every variant as a thin line, and each variant's median where all its seeds have a value."""

    def draw(axes: Axes) -> None:
        mark_stages(axes, stages)
        for number, (name, members) in enumerate(groups.items()):
            for curve in members:
                axes.plot(*thinned(curve), color=colour(number), linewidth=0.5, alpha=0.45)
            shared = sorted(set.intersection(*(set(dict(curve)) for curve in members))) if members else []
            middle = [float(np.median([dict(curve)[x] for curve in members])) for x in shared]
            axes.plot(*thinned(list(zip(shared, middle, strict=True))), color=colour(number), linewidth=1.8, label=name)
        if all(y > 0 for members in groups.values() for curve in members for _, y in curve):
            logarithmic(axes)
        finish(axes, label, True)

    return draw


def paired(values: Mapping[str, Mapping[int, float]], label: str, log: bool) -> Draw:
    """One number for each variant and seed: a thin line joins those of a seed, a bar shows the mean.

    Args:
        values: by variant and seed.
        label: of the y-axis.
        log: a logarithmic y-axis and geometric means, of values above 0.
    """

    def draw(axes: Axes) -> None:
        names = list(values)
        for seed in sorted({seed for own in values.values() for seed in own}):
            points = [(place, values[name][seed]) for place, name in enumerate(names) if seed in values[name]]
            axes.plot(*zip(*points, strict=True), color="#999999", linewidth=0.6, marker=".", markersize=4)
        for place, name in enumerate(names):
            if values[name]:
                own = list(values[name].values())
                mean = float(np.exp(np.mean(np.log(own))) if log else np.mean(own))
                axes.plot([place - 0.2, place + 0.2], [mean, mean], color=colour(place), linewidth=2.5)
        if log:
            logarithmic(axes)
        axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 3 else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylabel(label)

    return draw


def intervals(named: Mapping[str, tuple[float, float, float]], margin: float, label: str) -> Draw:
    """Means with the ends of their intervals, one below the other, on the ground of +-margin around 0."""

    def draw(axes: Axes) -> None:
        axes.axvspan(-margin, margin, color="#000000", alpha=0.08, linewidth=0)
        axes.axvline(0, color="#999999", linewidth=0.8)
        for place, (mean, low, high) in enumerate(named.values()):
            axes.plot([low, high], [-place, -place], color=colour(0))
            axes.plot([mean], [-place], "o", color=colour(0))
        axes.set_yticks([-place for place in range(len(named))], list(named))
        axes.set_ylim(0.5 - len(named), 0.5)
        axes.set_xlabel(label)

    return draw


def bars(named: Mapping[str, Mapping[str, float]], label: str) -> Draw:
    """Groups of bars: by group, then by what the legend says."""

    def draw(axes: Axes) -> None:
        members = list(dict.fromkeys(name for own in named.values() for name in own))
        width = 0.8 / max(1, len(members))
        for number, name in enumerate(members):
            places = [place - 0.4 + (number + 0.5) * width for place, own in enumerate(named.values()) if name in own]
            heights = [own[name] for own in named.values() if name in own]
            axes.bar(places, heights, width, color=colour(number), label=name)
        axes.set_xticks(range(len(named)), list(named))
        axes.set_ylabel(label)
        if len(members) > 1:
            axes.legend()

    return draw


def logarithmic(axes: Axes) -> None:
    """A logarithmic y-axis with plain numbers; with those between the powers of ten where there are few powers."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """Decides like its base which ticks get a number, and writes it with enough digits."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:.3g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Plain())
    axes.yaxis.set_minor_formatter(Plain(minor_thresholds=(2, 0.5)))


def mark_stages(axes: Axes, stages: Sequence[StageRecord]) -> None:
    """A line where each stage begins, its size above, and a gray ground where it fades in."""
    for stage in stages:
        axes.axvline(stage.start, color="#999999", linewidth=0.8, zorder=0)
        if stage.fade_end is not None:
            axes.axvspan(stage.start, stage.fade_end, color="#000000", alpha=0.06, linewidth=0, zorder=0)
        where = axes.get_xaxis_transform()
        axes.text(stage.start, 1.01, f" {stage.size}", fontsize=7, color="#555555", transform=where)


def finish(axes: Axes, label: str, legend: bool) -> None:
    """Axes' names, and a legend where it says something."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("images")
    axes.set_ylabel(label)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend()


def thinned(curve: Curve) -> tuple[list[float], list[float]]:
    """x and y of at most `MOST_POINTS` points: means of equally many neighbours."""
    per = -(-len(curve) // MOST_POINTS)
    parts = [curve[i : i + per] for i in range(0, len(curve), per)] if per > 1 else [[point] for point in curve]
    return tuple([float(np.mean([point[axis] for point in part])) for part in parts] for axis in (0, 1))  # type: ignore[return-value]


def described(named: Mapping[str, Curve], what: str, run: RunRecord | None = None) -> str:
    """The alternative text of a line chart: what it shows, and where each line begins and ends."""
    lines = [
        f"{name} goes from {curve[0][1]:.4g} at {curve[0][0]:,} images to {curve[-1][1]:.4g} at {curve[-1][0]:,}"
        for name, curve in named.items()
        if curve
    ]
    whose = f" of {run.name}" if run is not None else ""
    more = f"; and {len(lines) - 6} more lines" if len(lines) > 6 else ""
    return f"Line chart of {what}{whose} over images: {'; '.join(lines[:6])}{more}."
