"""Plots with Matplotlib, as SVG for the page and as PDF for a paper's column."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pggan_kit.report.run_record import Curve, RunRecord, StageRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""Colours of Okabe and Ito, which most colour-blind people tell apart; after the last comes the first again."""

PAGE = (6.4, 3.0)
"""Width and height of a plot on the page, in inches."""

COLUMN = (3.25, 2.1)
"""Width and height of a plot in a paper's column, in inches."""

MOST_POINTS = 600
"""Maximum of points in a curve; beyond it, neighbours are averaged."""

MOST_POINTS_IN_PLOT = 4800
"""Maximum of points in all curves of a plot, which share them equally: a page is to be mailed."""

LEAST_POINTS = 16
"""Points that a curve keeps in any case."""

BAND = (0.1, 0.9)
"""Quantiles between which the band around the median of several runs lies."""

OTHERS = "#bbbbbb"
"""Colour of the lines beyond the last of `COLOURS`."""

MOST_DESCRIBED = 6
"""Maximum of lines that an alternative text describes."""

RC: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "pggan_kit",  # without it, each file has other ids
    "pdf.fonttype": 42,  # text that publishers accept
    "text.parse_math": False,  # names may hold a $
}


class Summary(NamedTuple):
    """The curves of several runs as one.

    Attributes:
        median: Median at each clock at which more than half of the runs have a value.
        low, high: Quantiles `BAND` at the same clocks; empty for one run.
    """

    median: Curve
    low: Curve
    high: Curve


Draw = Callable[["Axes"], None]
"""Function that draws a plot on empty axes."""


def render_plot(draw: Draw, form: str, size: tuple[float, float] = PAGE) -> bytes:
    """Return a plot as a file's content, the same bytes each time.

    Args:
        draw: Function that draws on empty axes.
        form: `svg` or `pdf`.
        size: Width and height in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # A date would make each file another one.
    undated = {"Date": None} if form == "svg" else {"CreationDate": None}
    with matplotlib.rc_context(RC):
        figure: Figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, metadata=undated)
    return buffer.getvalue()


def pick_colour(number: int) -> str:
    """Return the colour of the number-th run, variant or tag."""
    return COLOURS[number % len(COLOURS)]


def summarize_curves(curves: Sequence[Curve]) -> Summary:
    """Return the median and the band of several curves; of one curve itself, without a band."""
    if not curves:
        return Summary([], [], [])
    if len(curves) == 1:
        return Summary(curves[0], [], [])

    # A row for each curve, a column for each clock; what is missing is NaN.
    clocks = sorted({clock for curve in curves for clock, _ in curve})
    places = {clock: place for place, clock in enumerate(clocks)}
    values = np.full((len(curves), len(clocks)), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[[places[clock] for clock, _ in curve]] = [value for _, value in curve]

    # NaN is sorted to the end, so that the values of a column stand at its beginning.
    counts = np.isfinite(values).sum(axis=0)
    values.sort(axis=0)
    shown = 2 * counts > len(curves)
    shown_clocks = [clock for clock, is_shown in zip(clocks, shown, strict=True) if is_shown]
    quantiles = []
    for share in (0.5, *BAND):
        quantile = _find_quantile(values[:, shown], counts[shown], share)
        quantiles.append(list(zip(shown_clocks, quantile.tolist(), strict=True)))
    return Summary(*quantiles)


def _find_quantile(values: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of each column, between neighbours by linear interpolation.

    Args:
        values: Columns in rising order.
        counts: Number of values in each column, of which it has no others.
        share: Share of the values below the quantile.
    """
    position = share * (counts - 1)
    below = np.floor(position).astype(int)
    above = np.ceil(position).astype(int)
    columns = np.arange(values.shape[1])
    lower = values[below, columns]
    quantile: np.ndarray = lower + (position - below) * (values[above, columns] - lower)
    return quantile


def share_points(lines: int) -> int:
    """Return the maximum of points of each line in a plot of that many lines."""
    return min(MOST_POINTS, max(LEAST_POINTS, MOST_POINTS_IN_PLOT // max(1, lines)))


def plot_curves(
    named: Mapping[str, Curve],
    label: str,
    stages: Sequence[StageRecord] = (),
    floors: Mapping[str, Curve] | None = None,
    log: bool = False,
    bands: Mapping[str, tuple[Curve, Curve]] | None = None,
) -> Draw:
    """Return a function that plots lines over the clock.

    Beyond the number of `COLOURS`, lines are thin and gray, and the legend counts them.

    Args:
        named: Curves by their names in the legend, which leaves out empty ones.
        label: Label of the y-axis.
        stages: Stages whose boundaries are marked and whose fades are shaded.
        floors: Noise floors by the names of their curves, dashed in the same colour.
        log: Whether the y-axis is logarithmic where all values are above 0.
        bands: Lower and upper end of the band around a curve, by the curve's name.
    """
    noise_floors = floors or {}
    areas = bands or {}
    ends = [end for area in areas.values() for end in area]
    most = share_points(len(named) + len(noise_floors) + len(ends))
    coloured = dict(list(named.items())[: len(COLOURS)])
    others = [curve for name, curve in named.items() if name not in coloured and curve]

    def draw(axes: Axes) -> None:
        mark_stages(axes, stages)

        # A curve's colour goes by its place among all, empty ones included, so that a run has one colour in all plots.
        for number, (name, curve) in enumerate(coloured.items()):
            if curve:
                x, y = thin_curve(curve, most)
                marker = "." if len(x) < 8 else None
                axes.plot(x, y, color=pick_colour(number), label=name_line(name), marker=marker)
            if name in areas:
                _fill_band(axes, areas[name], pick_colour(number), most)
            floor = noise_floors.get(name)
            if floor:
                x, y = thin_curve(floor, most)
                style: Any = {"linestyle": "--", "linewidth": 0.8, "label": name_line(f"{name}, floor")}
                axes.plot(x, y, color=pick_colour(number), **style)

        # The legend names all others at once.
        for number, curve in enumerate(others):
            x, y = thin_curve(curve, most)
            name = "_" if number else f"{len(others)} others"
            axes.plot(x, y, color=OTHERS, linewidth=0.5, zorder=1, label=name)

        if log and _all_positive([*named.values(), *noise_floors.values(), *ends]):
            set_log_scale(axes)
        label_axes(axes, label)
        add_legend(axes, least=1 if areas else 2)

    return draw


def _fill_band(axes: Axes, band: tuple[Curve, Curve], colour: str, most: int) -> None:
    """Shade the area between two curves of the same clocks."""
    x, low = thin_curve(band[0], most)
    _, high = thin_curve(band[1], most)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def plot_alphas(
    named: Mapping[str, Sequence[Curve]], dotted: Collection[str], stages: Sequence[StageRecord] = ()
) -> Draw:
    """Return a function that plots alpha over the clock, with a gap where a stage begins.

    Args:
        named: A curve for each stage, by the names in the legend.
        dotted: Names of those of which only the points are known, not the values between them.
        stages: See `plot_curves`.
    """

    def draw(axes: Axes) -> None:
        mark_stages(axes, stages)
        for number, (name, curves) in enumerate(named.items()):
            form: Any = {"linestyle": "none", "marker": "."} if name in dotted else {}
            label = name_line(name)
            for curve in curves:
                if not curve:
                    continue
                x, y = zip(*curve, strict=True)
                axes.plot(x, y, color=pick_colour(number), label=label, **form)
                label = "_"  # the legend names a run once
        label_axes(axes, "alpha")
        add_legend(axes, least=2)

    return draw


def plot_seeds(groups: Mapping[str, Sequence[Curve]], label: str, stages: Sequence[StageRecord] = ()) -> Draw:
    """Return a function that plots every seed of every variant as a thin line.

    Each variant's median is a thick line, which is drawn where more than half of the variant's seeds have a value. The
    legend lists the variants that have a line.
    """
    most = share_points(sum(len(members) + 1 for members in groups.values()))

    def draw(axes: Axes) -> None:
        mark_stages(axes, stages)
        for number, (name, members) in enumerate(groups.items()):
            curves = [curve for curve in members if curve]
            median = summarize_curves(curves).median

            # Without a median, the legend shows the thin lines.
            thin: Any = {"color": pick_colour(number), "linewidth": 0.5, "alpha": 0.45}
            for place, curve in enumerate(curves):
                x, y = thin_curve(curve, most)
                axes.plot(x, y, label="_" if median or place else name_line(name), **thin)
            if median:
                x, y = thin_curve(median, most)
                axes.plot(x, y, color=pick_colour(number), linewidth=1.8, label=name_line(name))

        if _all_positive(curve for members in groups.values() for curve in members):
            set_log_scale(axes)
        label_axes(axes, label)
        add_legend(axes, least=1)

    return draw


def plot_bands(summaries: Mapping[str, Summary], label: str, stages: Sequence[StageRecord] = ()) -> Draw:
    """Return a function that plots the median and the band of each variant's runs.

    Args:
        summaries: Medians and bands, by variant.
        label: Label of the y-axis.
        stages: Stages to mark.
    """
    # The median and both edges of each band share the points of a plot.
    most = share_points(3 * len(summaries))

    def draw(axes: Axes) -> None:
        mark_stages(axes, stages)
        for number, (name, summary) in enumerate(summaries.items()):
            # A variant with one run has a median alone.
            if summary.low:
                x, low = thin_curve(summary.low, most)
                _, high = thin_curve(summary.high, most)
                axes.fill_between(x, low, high, color=pick_colour(number), alpha=0.18, linewidth=0)
            x, y = thin_curve(summary.median, most)
            axes.plot(x, y, color=pick_colour(number), linewidth=1.8, label=name_line(name))

        if _all_positive(curve for summary in summaries.values() for curve in (summary.median, summary.low)):
            set_log_scale(axes)
        label_axes(axes, label)
        add_legend(axes, least=1)

    return draw


def plot_profiles(profiles: Mapping[str, Any], label: str, log: bool) -> Draw:
    """Return a function that plots performance profiles.

    Args:
        profiles: `thresholds`, and by variant `share`, `low` and `high` at each, as in `analysis.json`.
        label: Label of the x-axis.
        log: Whether the x-axis is logarithmic; thresholds of 0 and below are then left out.
    """
    kept = [place for place, value in enumerate(profiles["thresholds"]) if value > 0 or not log]
    x = [profiles["thresholds"][place] for place in kept]

    def draw(axes: Axes) -> None:
        for number, (name, profile) in enumerate(profiles["variants"].items()):
            low, share, high = ([profile[key][place] for place in kept] for key in ("low", "share", "high"))
            # Between two thresholds, the runs that are good enough are those that reach the better one.
            axes.fill_between(x, low, high, step="pre", color=pick_colour(number), alpha=0.12, linewidth=0)
            axes.step(x, share, where="pre", color=pick_colour(number), label=name_line(name))

        # A profile rises to the left where low values are better; values grow to the right in either case.
        if log:
            axes.set_xscale("log")
            format_log_axis(axes.xaxis)
        axes.set_xlabel(label)
        axes.set_ylabel("share of the runs")
        axes.set_ylim(-0.02, 1.02)
        add_legend(axes, least=1)

    return draw


def plot_looks(looks: Sequence[Mapping[str, Any]], label: str) -> Draw:
    """Return a function that plots a contrast's statistic at each look, and the boundary that it has to reach.

    Args:
        looks: `pairs`, `statistic` and `boundary` (None: none) of each look, as in `analysis.json`.
        label: Label of the y-axis.
    """

    def draw(axes: Axes) -> None:
        # A look at which nothing could be decided has no boundary.
        bounded = [look for look in looks if look["boundary"] is not None]
        axes.plot(
            [look["pairs"] for look in bounded],
            [look["boundary"] for look in bounded],
            "v--",
            color=OTHERS,
            label="boundary",
        )
        axes.plot(
            [look["pairs"] for look in looks],
            [look["statistic"] for look in looks],
            "o-",
            color=pick_colour(0),
            label="observed",
        )

        # A tick on the axis for each look.
        axes.set_xticks([look["pairs"] for look in looks])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("pairs")
        axes.set_ylabel(label)
        add_legend(axes, least=1)

    return draw


def plot_interaction(
    cells: Mapping[str, Mapping[str, tuple[float, float, float]]], across: str, label: str, log: bool
) -> Draw:
    """Return a function that plots means by two factors: lines that are not parallel show an interaction.

    Args:
        cells: Mean, lower and upper end of its bar, by the level of one factor (a line each), then by that of the
            other factor.
        across: Name of the factor on the x-axis.
        label: Label of the y-axis.
        log: Whether the y-axis is logarithmic; all values are then above 0.
    """

    def draw(axes: Axes) -> None:
        levels = list(dict.fromkeys(level for own in cells.values() for level in own))
        for number, (line, own) in enumerate(cells.items()):
            # Lines stand beside each other, so that their bars can be told apart.
            shift = 0.06 * (number - (len(cells) - 1) / 2)
            x = [levels.index(level) + shift for level in own]
            means, lows, highs = zip(*own.values(), strict=True)
            axes.vlines(x, lows, highs, color=pick_colour(number), linewidth=0.9)
            axes.plot(x, means, "o-", color=pick_colour(number), label=name_line(line))

        if log:
            set_log_scale(axes)
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.5, len(levels) - 0.5)
        axes.set_xlabel(across)
        axes.set_ylabel(label)
        add_legend(axes, least=1)

    return draw


def plot_pairs(values: Mapping[str, Mapping[int, float]], label: str, log: bool) -> Draw:
    """Return a function that plots one number for each variant and seed.

    A thin line joins the runs of a seed, a bar shows the mean of a variant.

    Args:
        values: Numbers by variant and seed.
        label: Label of the y-axis.
        log: Whether the y-axis is logarithmic and means are geometric; all values are then above 0.
    """

    def draw(axes: Axes) -> None:
        # The runs.
        names = list(values)
        seeds = sorted({seed for own in values.values() for seed in own})
        for seed in seeds:
            points = [(place, values[name][seed]) for place, name in enumerate(names) if seed in values[name]]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color="#999999", linewidth=0.6, marker=".", markersize=4)

        # The means.
        for place, name in enumerate(names):
            own = list(values[name].values())
            if not own:
                continue
            mean = float(np.mean(own))
            if log:
                mean = float(np.exp(np.mean(np.log(own))))
            axes.plot([place - 0.2, place + 0.2], [mean, mean], color=pick_colour(place), linewidth=2.5)

        if log:
            set_log_scale(axes)
        rotation = 20 if len(names) > 3 else 0
        axes.set_xticks(range(len(names)), names, rotation=rotation)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylabel(label)

    return draw


def plot_intervals(named: Mapping[str, tuple[float, float, float]], margin: float, label: str) -> Draw:
    """Return a function that plots means with their intervals, one below the other.

    Args:
        named: Mean, lower end and upper end, by the names beside them.
        margin: Margin of equivalence: the area within it of 0 is shaded.
        label: Label of the x-axis.
    """

    def draw(axes: Axes) -> None:
        axes.axvspan(-margin, margin, color="#000000", alpha=0.08, linewidth=0)
        axes.axvline(0, color="#999999", linewidth=0.8)

        # The first stands at the top.
        for place, (mean, low, high) in enumerate(named.values()):
            axes.plot([low, high], [-place, -place], color=pick_colour(0))
            axes.plot([mean], [-place], "o", color=pick_colour(0))

        axes.set_yticks([-place for place in range(len(named))], list(named))
        axes.set_ylim(0.5 - len(named), 0.5)
        axes.set_xlabel(label)

    return draw


def plot_bars(groups: Mapping[str, Mapping[str, float]], label: str) -> Draw:
    """Return a function that plots groups of bars.

    Args:
        groups: Numbers by group, then by the names in the legend.
        label: Label of the y-axis.
    """

    def draw(axes: Axes) -> None:
        names = list(dict.fromkeys(name for own in groups.values() for name in own))
        width = 0.8 / max(1, len(names))

        # Each name has its place in every group, also in those that lack it.
        for number, name in enumerate(names):
            places = []
            heights = []
            for place, own in enumerate(groups.values()):
                if name in own:
                    places.append(place - 0.4 + (number + 0.5) * width)
                    heights.append(own[name])
            axes.bar(places, heights, width, color=pick_colour(number), label=name_line(name))

        axes.set_xticks(range(len(groups)), list(groups))
        axes.set_ylabel(label)
        add_legend(axes, least=2)

    return draw


def set_log_scale(axes: Axes) -> None:
    """Make the y-axis logarithmic, with plain numbers."""
    axes.set_yscale("log")
    format_log_axis(axes.yaxis)


def format_log_axis(axis: Axis) -> None:
    """Write plain numbers at a logarithmic axis, also between the powers of ten where there are few powers."""
    from matplotlib.ticker import LogFormatter

    class PlainFormatter(LogFormatter):
        """Formatter that decides like its base which ticks get a number, and writes it with enough digits."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:.3g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(PlainFormatter())
    axis.set_minor_formatter(PlainFormatter(minor_thresholds=(2, 0.5)))


def mark_stages(axes: Axes, stages: Sequence[StageRecord]) -> None:
    """Draw a line where each stage begins, its size above, and a gray area where it fades in."""
    above = axes.get_xaxis_transform()
    for stage in stages:
        axes.axvline(stage.start, color="#999999", linewidth=0.8, zorder=0)
        if stage.fade_end is not None:
            axes.axvspan(stage.start, stage.fade_end, color="#000000", alpha=0.06, linewidth=0, zorder=0)
        axes.text(stage.start, 1.01, f" {stage.size}", fontsize=7, color="#555555", transform=above)


def label_axes(axes: Axes, label: str) -> None:
    """Label the clock on the x-axis, and the y-axis."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("images")
    axes.set_ylabel(label)


def name_line(name: str) -> str:
    """Return a name as a line's label: with an underscore in front, a legend would leave it out."""
    return f"\u200b{name}" if name.startswith("_") else name


def add_legend(axes: Axes, least: int) -> None:
    """Add a legend where at least that many lines have a name."""
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) >= least:
        axes.legend()


def _all_positive(curves: Iterable[Curve]) -> bool:
    """Return whether there are values, and all are above 0."""
    values = [value for curve in curves for _, value in curve]
    return bool(values) and min(values) > 0


def thin_curve(curve: Curve, most: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """Return x and y of at most `most` points: means of equal numbers of neighbours."""
    count = -(-len(curve) // most)
    if count <= 1:
        return [float(clock) for clock, _ in curve], [float(value) for _, value in curve]

    x = []
    y = []
    for start in range(0, len(curve), count):
        clocks, values = zip(*curve[start : start + count], strict=True)
        x.append(float(np.mean(clocks)))
        y.append(float(np.mean(values)))
    return x, y


def describe_lines(named: Mapping[str, Curve], subject: str, run: RunRecord | None = None) -> str:
    """Return the alternative text of a line chart: what it shows, and where each line begins and ends."""
    lines = []
    for name, curve in named.items():
        if curve:
            start, first = curve[0]
            end, last = curve[-1]
            lines.append(f"{name} goes from {first:.4g} at {start:,} images to {last:.4g} at {end:,}")

    owner = f" of {run.name}" if run is not None else ""
    text = f"Line chart of {subject}{owner} over images: {'; '.join(lines[:MOST_DESCRIBED])}"
    if len(lines) > MOST_DESCRIBED:
        text += f"; and {len(lines) - MOST_DESCRIBED} more lines"
    return f"{text}."
