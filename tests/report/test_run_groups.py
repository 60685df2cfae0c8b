"""Runs that differ by their seed alone: what is one group, its name, its median, and its rows in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pggan_kit.report import plots
from pggan_kit.report.coherence_section import coherence_section
from pggan_kit.report.curves_section import plot_several_groups
from pggan_kit.report.latex import format_latex
from pggan_kit.report.page import LONG_TABLE, Section, Table, render_page
from pggan_kit.report.plots import BAND, summarize_curves
from pggan_kit.report.ranking import count_better_pairs, list_rankings
from pggan_kit.report.run_groups import (
    MOST_DRAWN,
    RunGroup,
    describe_seeds,
    find_median,
    group_runs,
    isolate_runs,
    list_differences,
)
from pggan_kit.report.run_record import ABSENT, Curve, RunRecord, Ticks, list_stages
from pggan_kit.report.run_sections import (
    configuration_section,
    cost_section,
    every_run_section,
    overview_section,
    tabulate_differences,
    transitions_section,
)


def make_run(
    name: str, seed: int, settings: Mapping[str, str] | None = None, fid: Sequence[float] = (), **more: Any
) -> RunRecord:
    """Return a run of one stage, with a tick each 10 images that has FID where it is given."""
    rows: list[dict[str, Any]] = []
    for place in range(max(1, len(fid))):
        row = {
            "images": 10 * (place + 1),
            "Progress/stage": 0,
            "Progress/size": 4,
            "Progress/alpha": 1.0,
            "Timing/seconds": 2.0,
        }
        if len(fid):
            row["Metrics/FID"] = float(fid[place])
        rows.append(row)
    bindings = {"train.switch": "@switches.Linear()", "train.seed": str(seed), **(settings or {})}
    fields: dict[str, Any] = {
        "about": {"changes": []},
        "given": f"given {name}",
        "transitions": [],
        **more,
    }
    return RunRecord(
        name=name,
        folder=Path("runs") / name,
        trunk=None,
        operative="".join(f"{key} = {value}\n" for key, value in bindings.items()),
        rows=Ticks(rows),
        stages=list_stages(rows, Path()),
        **fields,
    )


HARD = {"train.switch": "@switches.Hard()"}


def list_members(groups: Sequence[RunGroup]) -> list[list[str]]:
    """Return the names of the runs of each group."""
    return [[run.name for run in group.runs] for group in groups]


def test_runs_that_differ_by_their_seed_alone_are_one_group() -> None:
    runs = [make_run("a0", 0), make_run("b0", 0, HARD), make_run("a1", 1), make_run("b1", 1, HARD), make_run("a2", 2)]
    groups = group_runs(runs)
    assert list_members(groups) == [["a0", "a1", "a2"], ["b0", "b1"]]
    assert [group.label for group in groups] == ["switch = Linear (3 runs)", "switch = Hard (2 runs)"]
    assert [group.shown.name for group in groups] == [
        "switch = Linear: a0, one of 3 runs",
        "switch = Hard: b0, one of 2 runs",
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"about": {"changes": [{"images": 8, "bindings": {"train.tick": ["8", "16"]}}]}},
        {"about": {"changes": [], "plugins": [{"name": "mine.py", "sha256": "0"}]}},
        {"about": {"changes": [], "objects": {"train.loss": "Mine(2)"}}},
        {"about": {"changes": [], "data": {"images": 7}}},
        {"about": {"changes": [], "from": {"run": "/runs/trunk", "images": 8}}},
    ],
    ids=["changes", "plugins", "objects", "data", "trunk"],
)
def test_what_is_not_in_the_settings_tells_runs_apart_too(more: dict[str, Any]) -> None:
    groups = group_runs([make_run("a0", 0), make_run("a1", 1, **more), make_run("a2", 2)])
    assert list_members(groups) == [["a0", "a2"], ["a1"]]


def test_branches_of_trunks_that_differ_by_their_seed_alone_are_one_group() -> None:
    branches = []
    for seed, switch in ((0, {}), (1, {}), (2, HARD)):
        trunk = make_run(f"trunk{seed}", seed, switch)
        about = {"changes": [], "from": {"run": f"/runs/trunk{seed}", "images": 10}}
        branches.append(replace(make_run(f"branch{seed}", seed, about=about), trunk=trunk))
    assert list_members(group_runs(branches)) == [["branch0", "branch1"], ["branch2"]]


def test_a_seed_that_occurs_twice_is_no_second_sample() -> None:
    """As where two versions of the code are compared: each has a group."""
    runs = [make_run("old0", 0), make_run("old1", 1), make_run("new0", 0), make_run("new1", 1)]
    groups = group_runs(runs)
    assert list_members(groups) == [["old0", "old1"], ["new0", "new1"]]
    assert [group.name for group in groups] == ["group 1", "group 2"]


def test_names_of_groups() -> None:
    # One group, runs alone, and settings that only a chosen part has.
    assert [group.name for group in group_runs([make_run("a", 0), make_run("b", 1)])] == ["all runs"]
    assert [group.name for group in group_runs([make_run("a", 0), make_run("b", 1, HARD)])] == ["a", "b"]
    stairs = {"train.switch": "@switches.Staircase()", "switches.Staircase.steps": "4"}
    runs = [make_run("a", 0, stairs), make_run("b", 1, stairs), make_run("c", 0)]
    assert [group.name for group in group_runs(runs)] == ["switch = Staircase", "c"]

    # Settings that are too long.
    both = [make_run(f"{part}{seed}", seed, {"train.x": part * 60}) for part in "ab" for seed in (0, 1)]
    assert [group.name for group in group_runs(both)] == ["group 1", "group 2"]
    assert list_differences(both) == ["train.seed", "train.x"]


def test_long_names_of_groups_leave_out_what_says_nothing() -> None:
    runs = []
    for rate in ("0.001", "0.0013"):
        rates = {f"{net}/optimizers.Adam.lr": rate for net in ("d", "g")}
        runs += [make_run(f"{rate}-{seed}", seed, rates) for seed in range(2)]
    assert [group.name for group in group_runs(runs)] == ["Adam.lr = 0.001", "Adam.lr = 0.0013"]

    # Two networks with two rates have two.
    other = {"d/optimizers.Adam.lr": "0.002", "g/optimizers.Adam.lr": "0.001"}
    runs += [make_run(f"other-{seed}", seed, other) for seed in range(2)]
    assert group_runs(runs)[2].name == "d/Adam.lr = 0.002, g/Adam.lr = 0.001"


def test_the_run_in_the_middle_is_drawn_of_one_seed_in_all_groups() -> None:
    soft = {0: 9.0, 1: 1.0, 2: 5.0, 3: 4.0, 4: 6.0}
    hard = {0: 19.0, 1: 11.0, 2: 17.0, 3: 15.0, 5: 12.0}
    runs = [make_run(f"soft{seed}", seed, fid=[value]) for seed, value in soft.items()]
    alone = group_runs(runs)
    assert alone[0].shown.folder.name == "soft2", "the median"

    # Seed 2 is the median of soft and one from that of hard; seed 3 one from that of soft and the median of hard.
    runs += [make_run(f"hard{seed}", seed, HARD, fid=[value]) for seed, value in hard.items()]
    assert [group.shown.folder.name for group in group_runs(runs)] == ["soft2", "hard2"]

    # Without a common seed each shows its own; a run without a value does not stand in for the others.
    other = [make_run(f"hard{seed}", seed + 10, HARD, fid=[value]) for seed, value in hard.items()]
    nothing = make_run("hard9", 19, HARD)
    assert [group.shown.folder.name for group in group_runs([*runs[:5], nothing, *other])] == ["soft2", "hard3"]


# Numbers


def test_the_summary_of_curves_against_numpy() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(7, 5))
    curves = [[(10 * place, float(value)) for place, value in enumerate(row)] for row in values]
    summary = summarize_curves(curves)
    for curve, share in zip(summary, (0.5, *BAND), strict=True):
        assert [clock for clock, _ in curve] == [0, 10, 20, 30, 40]
        assert [value for _, value in curve] == pytest.approx(np.quantile(values, share, axis=0))


def test_the_median_ends_where_only_half_of_the_runs_go_on() -> None:
    curves: list[Curve] = [[(1, 1.0), (2, 5.0), (3, 1.0)], [(1, 2.0), (2, 7.0), (3, 2.0)], [(1, 3.0)], [(2, 6.0)]]
    summary = summarize_curves(curves)
    assert summary.median == [(1, 2.0), (2, 6.0)]
    assert summary.low == [(1, pytest.approx(1.2)), (2, pytest.approx(5.2))]

    # A curve alone is itself, and has no band.
    assert summarize_curves(curves[:1]) == (curves[0], [], [])
    assert summarize_curves([]) == ([], [], [])


def test_a_group_is_one_line_with_a_band() -> None:
    runs = [make_run(f"a{seed}", seed, fid=[4.0 + seed, 2.0 + seed]) for seed in range(5)]
    runs.append(make_run("b", 0, HARD, fid=[8.0, 7.0]))
    figures = plot_several_groups(group_runs(runs))
    assert [figure.name for figure in figures] == ["fid"]
    assert "switch = Linear (5 runs) goes from 6 at 10 images to 4 at 20" in figures[0].alt
    assert figures[0].draw is not None
    axes = Figure().add_subplot()
    figures[0].draw(axes)
    own = axes.lines[1:]  # after the mark of the stage
    assert [list(line.get_ydata()) for line in own] == [[6, 4], [8, 7]]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert (min(corners[:, 1]), max(corners[:, 1])) == pytest.approx((2.4, 7.6))
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["switch = Linear (5 runs)", "b"]


def test_lines_share_the_points_of_a_plot_and_the_legend_counts_those_without_a_colour() -> None:
    curve = [(clock, float(clock % 7)) for clock in range(1000)]
    axes = Figure().add_subplot()
    plots.plot_curves({f"run {number}": curve for number in range(200)}, "FID")(axes)
    assert len(axes.lines) == 200
    assert sum(len(line.get_xdata()) for line in axes.lines) <= plots.MOST_POINTS_IN_PLOT
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-2:] == ["run 7", "192 others"]
    assert len(legend.get_texts()) == len(plots.COLOURS) + 1


def test_rows_in_columns_are_the_rows() -> None:
    rows: list[dict[str, Any]] = [
        {"images": 8, "phase": "fade", "x": 1.5},
        {"images": 16, "phase": None, "x": 2},
        {"images": 2**70, "y": True},
    ]
    ticks = Ticks(rows)
    assert list(ticks) == rows and ticks[-1] == rows[2] and ticks[:2] == rows[:2] and len(ticks) == 3
    assert list(ticks.column("x")) == [1.5, 2, ABSENT] and list(ticks.column("z")) == [ABSENT] * 3
    assert type(Ticks(rows[:2]).column("images")).__name__ == "array"
    assert not Ticks([])


def test_medians_and_seeds() -> None:
    assert find_median([3, None, float("nan")]) == 3 and find_median([1, 4]) == 2.5
    assert find_median(["x", None]) is None
    runs = [make_run(str(seed), seed) for seed in (3, 1, 2)]
    assert describe_seeds(runs) == "1 to 3"
    assert describe_seeds(runs[:2]) == "3, 1"
    assert describe_seeds([make_run(str(seed), seed) for seed in (9, 1, 2, 3, 4, 5)]) == "9, 1, 2, 3, 4, ..."


# Tables


def make_two_groups() -> list[RunGroup]:
    """Return three runs of one setting and two of another."""
    event = {"images": 20, "at": 10, "event": "growth", "from": "4x4", "size": "8x8"}
    recovery = {"images": 40, "at": 10, "event": "recovery", "Transition/recovery": 5}
    runs = []
    for seed in range(3):
        jump = {"Transition/rms/ema": 0.1 + seed, "Transition/loss/before": 1.0 + seed, "Transition/loss/after": 2.0}
        runs.append(make_run(f"a{seed}", seed, fid=[9.0, 4.0 + seed], transitions=[{**event, **jump}, recovery]))
    runs += [make_run(f"b{seed}", seed, HARD, fid=[9.0, 7.0][: 2 - seed]) for seed in range(2)]
    return group_runs(runs)


def test_a_group_is_one_row() -> None:
    groups = make_two_groups()
    (table,) = overview_section(groups).tables
    assert table.head == [
        *("group", "runs", "seeds", "images", "sizes", "minutes"),
        *("FID, median", "10 %", "90 %"),
    ]
    assert table.rows == [
        ["switch = Linear", 3, "0 to 2", 20, "4", 0.07, 5.0, pytest.approx(4.2), pytest.approx(5.8)],
        ["switch = Hard", 2, "0, 1", "10 to 20", "4", 0.05, 8.0, pytest.approx(7.2), pytest.approx(8.8)],
    ]
    (transitions,) = transitions_section(groups).tables
    assert transitions.head == ["group", "runs", "at", "event", "size", "rms ema", "loss", "back after"]
    assert transitions.rows == [["switch = Linear", 3, 10, "growth", "4x4 -> 8x8", 1.1, "2 -> 2", 5.0]]
    (cost,) = cost_section(groups).tables
    assert cost.rows == [["switch = Linear", 3, 5.0], ["switch = Hard", 2, 5.0]]


def test_a_recovery_stands_beside_its_growth_alone() -> None:
    """A fade may end at the clock of the next growth."""
    rows: list[dict[str, Any]] = [
        {"images": 20, "at": 10, "event": "fade_end", "from": "4x4", "size": "4x4", "Transition/rms/ema": 0.5},
        {"images": 20, "at": 10, "event": "growth", "from": "4x4", "size": "8x8", "Transition/rms/ema": 0.5},
        {"images": 40, "at": 10, "event": "recovery", "Transition/recovery": 30},
    ]
    (table,) = transitions_section(isolate_runs([make_run("a", 0, transitions=rows)])).tables
    assert [(row[2], row[-1]) for row in table.rows] == [("end of fade", None), ("growth", 30)]


def state_direction(group: RunGroup, direction: str) -> RunGroup:
    """Return a group whose runs record which values of FID are better."""
    runs = [replace(run, about={**run.about, "directions": {"FID": direction}}) for run in group.runs]
    return replace(group, runs=runs, shown=runs[0])


@pytest.mark.parametrize(("direction", "best", "other"), [("lower", 0, 1), ("higher", 1, 0)])
def test_the_better_group_is_named_first_and_marked(direction: str, best: int, other: int) -> None:
    groups = [state_direction(group, direction) for group in make_two_groups()]
    section = overview_section(groups)
    (table,) = section.tables
    medians = {"switch = Linear": "5", "switch = Hard": "8"}
    names = [groups[best].name, groups[other].name]
    assert section.texts[0].startswith(
        f"FID, {direction} is better: {names[0]} has the best median of last values, {medians[names[0]]}, before "
        f"{names[1]}, {medians[names[1]]}. In 100 % of all pairs"
    )
    assert table.head[6] == f"FID ({direction} is better), median"
    assert list(table.best) == [(best, 6)]

    # The page and a paper's table show the same.
    html = render_page("", "", [section])
    assert html.count('class="number best"') == 1
    assert f'<td class="number best">{medians[names[0]]}</td>' in html
    assert format_latex(table).count(rf"\textbf{{{medians[names[0]]}}}") == 1

    # The axis of the metric's curve says it too.
    (figure,) = [each for each in plot_several_groups(groups) if each.caption == "FID"]
    assert figure.draw is not None
    axes = Figure().add_subplot()
    figure.draw(axes)
    assert axes.get_ylabel() == f"FID ({direction} is better)"


def test_runs_of_one_seed_each_are_no_proof() -> None:
    runs = [make_run("a", 0, fid=[4.0]), make_run("b", 0, HARD, fid=[3.0]), make_run("c", 1, HARD)]
    groups = [state_direction(group, "lower") for group in isolate_runs(runs)]
    section = overview_section(groups)
    assert section.texts == [
        "FID, lower is better: b has the best last value, 3, before a, 4. One run of a setting is one draw: with "
        "another seed the order may be another one."
    ]
    assert list(section.tables[0].best) == [(1, 4)] and section.tables[0].head[4] == "FID (lower is better)"

    # A tie has two best ones.
    tied = [state_direction(group, "lower") for group in isolate_runs([runs[0], replace(runs[0], name="d")])]
    assert list(overview_section(tied).tables[0].best) == [(0, 4), (1, 4)]


def test_what_cannot_be_compared_is_not_ranked() -> None:
    """Metrics without a known direction, one group alone, sizes that differ."""
    unknown = make_two_groups()
    assert list_rankings(unknown) == []
    known = [state_direction(group, "lower") for group in unknown]
    assert len(list_rankings(known)) == 1
    assert list_rankings(known[:1]) == []
    assert list_rankings([known[0], state_direction(unknown[1], "higher")]) == []
    large = [replace(run, stages=[replace(run.stages[0], height=8)]) for run in known[1].runs]
    assert list_rankings([known[0], replace(known[1], runs=large)]) == []


def test_the_share_of_better_pairs_against_a_loop() -> None:
    values, others = [1.0, 2.0, 5.0], [2.0, 3.0]
    for direction in ("lower", "higher"):
        wins = 0.0
        for value in values:
            for other in others:
                better = value < other if direction == "lower" else value > other
                wins += 0.5 if value == other else better
        assert count_better_pairs(values, others, direction) == pytest.approx(wins / 6)


def test_the_direction_of_a_value_that_is_given_several_times_is_that_of_its_quantity() -> None:
    trunk = make_run("trunk", 0, about={"changes": [], "directions": {"Coherence": "lower"}})
    run = make_run("run", 0, about={"changes": [], "directions": {"Modes": "higher"}})
    branch = replace(run, trunk=trunk)
    assert branch.find_direction("Metrics/Modes") == "higher"
    assert branch.find_direction("Metrics/Coherence 7x7-28x28") == "lower"
    assert branch.find_direction("Metrics/FID") is None


def test_the_distances_of_a_group_are_medians() -> None:
    runs = []
    for seed in range(3):
        run = make_run(f"a{seed}", seed, fid=[1.0])
        row = {"images": 10, "at": 10, "stage": 0, "size": "8x8", "Coherence/4x4": 0.1 * seed}
        runs.append(replace(run, coherence=[row]))
    section = coherence_section(group_runs(runs), [])
    assert section.tables[0].rows == [["all runs", 3, "4x4", "8x8", 10, 0.1, None]]
    assert "all runs (3 runs) goes from 0.1 at 10" in section.groups[0].figures[0].alt


def test_runs_that_are_not_drawn_are_named_with_their_folders() -> None:
    groups = make_two_groups()
    section = every_run_section(groups, groups)
    (table,) = section.tables
    assert [(row[0], row[1], row[2], row[-2], row[-1]) for row in table.rows] == [
        ("a0", "switch = Linear", "0", "no", "runs/a0"),
        ("a1", "switch = Linear", "1", "yes", "runs/a1"),
        ("a2", "switch = Linear", "2", "no", "runs/a2"),
        ("b0", "switch = Hard", "0", "no", "runs/b0"),
        ("b1", "switch = Hard", "1", "yes", "runs/b1"),
    ]
    assert "of 2 of 5 runs" in section.texts[0]

    # Where all are drawn, the overview has them.
    alone = isolate_runs([make_run("a", 0), make_run("b", 0, HARD)])
    assert every_run_section(alone, alone).empty


def test_settings_that_differ_are_rows() -> None:
    groups = make_two_groups()
    table = tabulate_differences(groups)
    assert table.head == ["setting that differs", "switch = Linear", "switch = Hard"]
    assert table.rows == [
        ["train.switch", "@switches.Linear()", "@switches.Hard()"],
        ["train.seed", "0 to 2", "0, 1"],
    ]

    # More groups than columns: a row for each value.
    many = group_runs([make_run(f"r{number}", number, {"train.lr": str(number % 2)}) for number in range(3)])
    many += isolate_runs([make_run(f"s{number}", 0, {"train.lr": str(number % 2)}) for number in range(MOST_DRAWN)])
    table = tabulate_differences(many)
    assert table.head == ["setting that differs", "value", "runs", "of"]
    assert table.rows == [
        ["train.lr", "0", 6, "lr = 0, s0, s2, s4, s6"],
        ["train.lr", "1", 5, "r1, s1, s3, s5, s7"],
    ]


def test_configurations_fold_once_a_group() -> None:
    groups = make_two_groups()
    titles = [block.title for block in configuration_section(groups).blocks]
    assert titles == [
        f"{group.shown.name}: {kind}" for group in groups for kind in ("given", "in effect, with all defaults")
    ]
    many = isolate_runs([make_run(f"s{number}", 0, {"train.lr": str(number)}) for number in range(20)])
    section = configuration_section(many)
    assert len(section.blocks) == 2 * MOST_DRAWN and "the first 8 of 20" in section.texts[0]


def test_only_long_tables_bring_a_script() -> None:
    """And the page's policy names that script by its hash."""
    short = Table(["a", "b"], [["x", 1]] * (LONG_TABLE - 1))
    page = render_page("t", "l", [Section("s", tables=[short])])
    assert "<script" not in page and "script-src" not in page
    page = render_page("t", "l", [Section("s", tables=[short, Table(["a", "b"], [["x", 1]] * LONG_TABLE)])])
    assert page.count("<script>") == 1 and page.count('<table class="long">') == 1 and page.count("<table>") == 1
    assert "; script-src 'sha256-" in page
