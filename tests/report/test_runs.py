"""`pggan-kit report`: the page of one run and of several, its pictures, and the runs that it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import STUB
from helpers.chromium import open_in_chromium
from helpers.many_runs import copy_with_seed
from helpers.reporting import Page, draw_latents, leave_out_plots, train_pair
from matplotlib.figure import Figure
from PIL import Image

from pggan_kit import hookimpl
from pggan_kit.api.generator import load_generator
from pggan_kit.api.prepare import prepare_run
from pggan_kit.api.sample import draw
from pggan_kit.api.train import train
from pggan_kit.errors import RunError, UserError
from pggan_kit.report import _write_figures, film, write_report
from pggan_kit.report import page as report_page
from pggan_kit.report.curves_section import curves_section, plot_several_groups, plot_single_run
from pggan_kit.report.latex import format_latex
from pggan_kit.report.page import Group, Section, Table, format_cell, make_file_stem, render_page
from pggan_kit.report.run_groups import isolate_runs
from pggan_kit.report.run_pictures import (
    ALPHAS,
    GRID,
    STRIP,
    FadeStrip,
    RunPictures,
    choose_alphas,
    draw_moving_settings,
    draw_reduced,
    draw_run,
)
from pggan_kit.report.run_record import RunRecord, StageRecord, Ticks, name_runs, read_run
from pggan_kit.report.run_sections import (
    describe_growth_policy,
    fades_section,
    grids_section,
    overview_section,
    reals_section,
)
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import restore_generator
from pggan_kit.schedule import ScheduleSettings
from pggan_plugins import curves
from pggan_plugins.switches import Linear


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> SimpleNamespace:
    """Train the runs `soft` and `hard` in `folder`, which are not to be changed.

    `grown` is what `reporting.train_pair` returns.
    """
    folder = tmp_path_factory.mktemp("runs")
    grown = train_pair(folder)
    return SimpleNamespace(folder=folder, grown=grown)


@pytest.fixture
def copied(pair: SimpleNamespace, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a run's folder, perhaps under another name: `copied("soft", "name")`."""

    def copy(run: str, name: str | None = None) -> Path:
        target = tmp_path / (name or run)
        shutil.copytree(pair.folder / run, target)
        return target

    return copy


def test_a_run_on_one_page(pair: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "soft.html"
    write_report([pair.folder / "soft"], file)
    page = Page(file)
    page.require_self_contained()
    assert file.stat().st_size < 1_000_000
    for title in (
        "Overview",
        "Stages",
        "Training images",
        "Through the fades",
        "Across the stages",
        "Curves",
        "Throughput",
        "Transitions",
        "Configuration",
    ):
        assert title in page.texts
    alts = " ".join(page.alts)
    for words in ("at 4x4, after 8 ", "at 8x8, after 24 ", "at 16x16, after 40 ", "fade to 8x8", "fade to 16x16"):
        assert words in alts
    for words in ("Line chart of losses of soft", "Line chart of scores", "Line chart of alpha", "Bar chart"):
        assert words in alts
    for words in ("images of soft, 4x4", "images of soft, 8x8", "images of soft, 16x16"):
        assert words in alts
    assert "train.switch = @switches.Linear()" in page.text
    assert page.text.count("end of fade") == 2
    assert "Images of the average of G's weights (half_life), from" in page.text
    # A row of the operative configuration that nobody wrote.
    assert "train.collapse_below = 0.05" in page.text

    # Its policy lets nothing load.
    text = file.read_text()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r"@import|url\(|https?://", text)


def test_the_growth_policy_is_a_row_of_the_overview(pair: SimpleNamespace) -> None:
    run = read_run(pair.folder / "soft")
    assert describe_growth_policy(run) == "", "the default has no row"
    assert len(overview_section(isolate_runs([run])).tables) == 1

    lines = ["train.growth = @growth.FreezeOld()", "growth.FreezeOld.images = 40"]
    frozen = replace(run, operative=run.operative.replace("train.growth = None", "\n".join(lines)))
    table = overview_section(isolate_runs([run, frozen])).tables[1]
    assert table.rows == [["soft", "growth.FreezeOld(images = 40)"]]


def test_latex_by_hand() -> None:
    table = Table(["a_b", "n"], [["50 % & more", 3.14159], ["{x}\\y", None]])
    assert format_latex(table).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & n \\",
        r"\midrule",
        r"50 \% \& more & 3.142 \\",
        r"\{x\}\textbackslash{}y & - \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert [format_cell(value) for value in (12345, 0.5, None, "x", True)] == ["12,345", "0.5", "-", "x", "True"]


def test_several_runs_beside_each_other(pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)
    write_report([pair.folder / "soft", pair.folder / "hard"], tmp_path / "both.html")
    page = Page(tmp_path / "both.html")
    page.require_self_contained()
    alts = page.alts
    (film,) = [alt for alt in alts if alt.startswith("Animation of ")]
    assert "soft | hard side by side" in film
    (alpha,) = [alt for alt in alts if alt.startswith("Line chart of alpha ")]
    assert "soft goes from 1 at 0 images" in alpha and "hard goes from 1 at 0" in alpha
    for name in ("soft", "hard"):
        assert sum(f"images of {name} at" in alt for alt in alts) == 3
    assert "train.switch @switches.Linear() @switches.Hard()" in page.text
    assert "train.seed 0" not in page.text, "what is the same in both is no difference"


def test_ends_of_stages_are_what_load_generator_draws(pair: SimpleNamespace) -> None:
    pictures = draw_run(read_run(pair.folder / "hard"), pytest.fail)
    assert sorted(pictures.ends) == [0, 1, 2]
    for stage, images in pictures.ends.items():
        assert (images == draw(load_generator(pair.folder / "hard", stage=stage), GRID, 0)).all()
    assert pictures.fades == {}
    assert [pictures.clocks[stage] for stage in range(3)] == [8, 24, 40]


def test_a_strip_goes_from_the_old_path_to_the_new_one(pair: SimpleNamespace) -> None:
    """The architecture preserves the function: its blend is linear in the image before rounding."""
    fades = draw_run(read_run(pair.folder / "soft"), pytest.fail).fades
    assert sorted(fades) == [1, 2]
    for alphas, strip in fades.values():
        assert alphas == list(ALPHAS)
        assert len(strip) == len(ALPHAS) and len(strip[0]) == STRIP
        first = strip[0].astype(float)
        last = strip[-1].astype(float)
        assert np.abs(first - last).max() > 2

        # Pixels that are not clipped at either end.
        inside = (strip[0] > 0) & (strip[0] < 255) & (strip[-1] > 0) & (strip[-1] < 255)
        for alpha, images in zip(ALPHAS, strip, strict=True):
            assert np.abs(images - ((1 - alpha) * first + alpha * last))[inside].max() <= 1.01

        # The old path: each pixel of the smaller image a square.
        assert (strip[0] == strip[0][:, ::2, ::2].repeat(2, 1).repeat(2, 2)).all()


def test_a_strip_shows_the_alphas_that_the_switch_takes(
    pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A staircase of four steps: five alphas. Its trunk faded linearly."""
    monkeypatch.chdir(pair.folder)
    stairs = ["train.switch = @switches.Staircase()"]
    train("tiny.gin", stairs, run_dir=tmp_path / "stairs", plugins=[str(STUB)], start_from="soft@1")

    fades = draw_run(read_run(tmp_path / "stairs"), pytest.fail).fades
    assert fades[1].alphas == list(ALPHAS)
    assert fades[2].alphas == [0, 0.25, 0.5, 0.75, 1]
    assert len(fades[2].images) == 5

    leave_out_plots(monkeypatch)
    write_report([tmp_path / "stairs"], tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert any("5 values of alpha from 0 to 1 from left to right" in image["alt"] for image in page.images)
    assert "stage 2, 16x16: alpha 0, 0.25, 0.5, 0.75, 1" in page.texts


def test_a_strip_takes_the_nearest_alphas() -> None:
    """Of a smooth switch those nearest to eighths, of an unfinished fade those so far; each fade ends with 1."""
    cosine = [(i, (1 - math.cos(math.pi * i / 800)) / 2) for i in range(801)]
    assert choose_alphas(cosine) == pytest.approx(ALPHAS, abs=2e-3)
    assert choose_alphas([(0, 0.0), (1, 0.25), (2, 0.5)]) == [0, 0.25, 0.5, 1]


@pytest.mark.parametrize("run", ["soft", "hard"])
def test_beginnings_are_what_the_run_drew_when_it_grew(pair: SimpleNamespace, run: str) -> None:
    prepared, _ = prepare_run(pair.folder / run, [])
    ends = [saved for saved in RunDirectory(pair.folder / run).checkpoints().load_kept() if saved.stage_over]
    for stage, saved in enumerate(ends[:-1], start=1):
        schedule = prepared.schedule()
        own = prepared.identify_networks(schedule)
        generator = restore_generator(prepared.built.experiment, schedule, prepared.hooks(), saved, own, grown=True)
        images = generator(draw_latents(generator.latent_size))
        assert torch.equal(images, pair.grown[run][stage])
    begins = draw_run(read_run(pair.folder / run), pytest.fail).begins
    assert {stage: alpha for stage, (alpha, _) in begins.items()} == dict.fromkeys((1, 2), float(run == "hard"))


def test_a_branch_is_shown_with_its_trunk(pair: SimpleNamespace, tmp_path: Path, monkeypatch: Any) -> None:
    """Up to the branch the report shows the trunk, and then the branch, with its own switch."""
    monkeypatch.chdir(pair.folder)
    binding = ["train.switch = @switches.Hard()"]
    train("tiny.gin", binding, run_dir=tmp_path / "branch", plugins=[str(STUB)], start_from="soft@0")
    branch = read_run(tmp_path / "branch")
    hard = read_run(pair.folder / "hard")

    # Numbers.
    assert [row["images"] for row in branch.rows] == [row["images"] for row in hard.rows]
    assert branch.curve("Loss/generator/hinge") == hard.curve("Loss/generator/hinge")

    # Reals of the trunk's stage, and of its own.
    (group,) = reals_section([branch]).groups
    assert [figure.caption for figure in group.figures] == ["4x4, real", "8x8, real", "16x16, real"]
    (tmp_path / "branch" / "samples" / "reals-8x8.png").write_bytes(b"damaged")
    (tmp_path / "branch" / "samples" / "reals-16x16.png").unlink()
    (group,) = reals_section([branch, hard]).groups  # those of `hard` are the same
    assert [figure.caption for figure in group.figures] == ["4x4, real", "8x8, real", "16x16, real"], "the trunk's"

    # Images.
    ours = draw_run(branch, pytest.fail)
    theirs = draw_run(hard, pytest.fail)
    assert sorted(ours.begins) == [1, 2]
    for stage in (0, 1, 2):
        assert (ours.ends[stage] == theirs.ends[stage]).all()
    for stage in (1, 2):
        assert ours.begins[stage][0] == 1.0
        assert (ours.begins[stage][1] == theirs.begins[stage][1]).all()


def test_a_trunk_that_is_named_by_a_relative_path_is_refused(
    pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lead to whatever run is in the working directory."""
    monkeypatch.chdir(pair.folder)
    folder = tmp_path / "branch"
    shutil.copytree(pair.folder / "hard", folder)
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**about, "from": {"run": "soft", "images": 8}}))
    with pytest.raises(RunError, match=r"run\.json is damaged: .* by a relative path, soft"):
        read_run(folder)


def draw_alpha(run: Path, said: list[str]) -> list[tuple[list[float], list[float], str]]:
    """Return x, y and style of the lines in the plot of alpha, without the marks of stages."""
    record = read_run(run)
    pictures = draw_run(record, said.append, beginnings=False, strips=False)
    section = curves_section(isolate_runs([record]), [pictures])
    (figure,) = [figure for figure in section.groups[0].figures if figure.name == "alpha"]
    assert figure.draw is not None
    axes = Figure().add_subplot()
    figure.draw(axes)
    own = axes.lines[len(record.stages) :]
    return [(list(line.get_xdata()), list(line.get_ydata()), line.get_linestyle()) for line in own]


def test_alpha_is_what_the_switch_gives_between_ticks_too(
    pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two fades of 8 images, from 8 and from 24 on, each followed by 8 stable ones; a gap where a stage begins."""
    leave_out_plots(monkeypatch)
    monkeypatch.chdir(pair.folder)
    stairs = ["train.switch = @switches.Staircase()"]
    half = tmp_path / "half"
    train("tiny.gin", stairs, run_dir=half, plugins=[str(STUB)], start_from="soft@1")

    eighths = [i / 8 for i in range(8)]
    quarters = [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    ones = [1] * 8
    for run, fades in (
        (pair.folder / "soft", (eighths, eighths)),
        (pair.folder / "hard", (ones, ones)),
        (half, (eighths, quarters)),  # the first fade is the trunk's
    ):
        said: list[str] = []
        assert draw_alpha(run, said) == [
            ([0, 8], [1, 1], "-"),
            ([*range(8, 17), 24], [*fades[0], 1, 1], "-"),
            ([*range(24, 33), 40], [*fades[1], 1, 1], "-"),
        ]
        assert said == []


def test_settings_that_move_are_drawn_over_the_clock(
    pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a branch from images 8 on, where it began; a run whose settings do not move has no line."""
    leave_out_plots(monkeypatch)
    monkeypatch.chdir(pair.folder)
    lines = ["g/optimizers.Adam.lr = @curves.Linear()", "curves.Linear.begin = 0.002", "curves.Linear.end = 0.0"]
    moving = tmp_path / "moving"
    train("tiny.gin", lines, run_dir=moving, plugins=[str(STUB)], start_from="soft@0")

    records = [read_run(folder) for folder in (moving, pair.folder / "soft")]
    section = curves_section(isolate_runs(records), [draw_run(record, pytest.fail, strips=False) for record in records])
    (figure,) = [each for each in section.groups[0].figures if each.caption.startswith("train.generator_optimizer.lr")]
    assert figure.draw is not None
    axes = Figure().add_subplot()
    figure.draw(axes)
    (line,) = [each for each in axes.lines if len(each.get_xdata()) > 2]
    clocks = list(line.get_xdata())
    assert (clocks[0], clocks[-1]) == (8, 40)
    assert list(line.get_ydata()) == pytest.approx([0.002 * (1 - clock / 40) for clock in clocks])


def test_a_switch_that_cannot_be_asked_again_leaves_dots(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives other alphas than in training, or fails without its run: only those of the ticks are known."""
    leave_out_plots(monkeypatch)
    run = copied("soft")
    said: list[str] = []
    rows = re.sub(r', "crc32": "\w+"', "", (run / "stats.jsonl").read_text())
    (run / "stats.jsonl").write_text(rows.replace('"Progress/alpha": 0.5', '"Progress/alpha": 0.25', 1))
    assert draw_alpha(run, said) == [([8, 16, 24, 32, 40], [1, 0.25, 1, 0.5, 1], "None")]
    (sentence,) = said
    assert "alpha is drawn at ticks only: the switch does not give the alpha that it gave before images 16" in sentence

    # A switch that fails.
    (run / "stats.jsonl").write_text(rows)
    monkeypatch.setattr(Linear, "fade_alpha", hookimpl(lambda self, progress: self.there_is_none))
    assert draw_alpha(run, said)[0][1] == [1, 0.5, 1, 0.5, 1]
    assert "alpha is drawn at ticks only: " in said[1] and "no attribute 'there_is_none'" in said[1]


def test_stages_and_curves_are_read_from_the_ticks(pair: SimpleNamespace) -> None:
    soft = read_run(pair.folder / "soft")
    hard = read_run(pair.folder / "hard")
    read = [(stage.height, stage.start, stage.fade_end, stage.end) for stage in soft.stages]
    assert read == [(4, 0, None, 8), (8, 8, 16, 24), (16, 24, 32, 40)]
    assert [s.fade_end for s in hard.stages] == [None] * 3

    rows = [json.loads(line) for line in (pair.folder / "soft/stats.jsonl").read_text().splitlines()]
    assert soft.curve("Scores/real") == [(row["images"], row["Scores/real"]) for row in rows]
    own = [row for row in rows if row["Progress/stage"] == 1]
    assert soft.stages[1].images_per_second == pytest.approx(16 / sum(row["Timing/seconds"] for row in own))
    assert soft.setting("train.latent_size") == 8
    assert soft.setting("train.seed") == 0


def test_numbers_of_plugins_are_drawn(copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)
    runs = []
    for name in ("one", "two"):
        folder = copied("soft", name)
        rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
        rows = [{**row, "Weights/norm": float(row["images"])} for row in rows]
        (folder / "stats.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        runs.append(read_run(folder))
    for figures in (plot_single_run(runs[0]), plot_several_groups(isolate_runs(runs))):
        captions = [figure.caption for figure in figures]
        assert captions.count("Weights/norm") == 1
        assert not [caption for caption in captions if re.match("Timing|Resources|images", caption)]


def test_names_that_would_be_markup_are_text(copied: Callable[..., Path], tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>$x&'\""
    run = copied("soft", evil)
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    # The numbers of a run without a name like these are drawn elsewhere.
    rows = [{name: row[name] for name in row if name.partition("/")[0] in ("images", "Progress")} for row in rows]
    for row in rows:
        row["Loss/<script>alert(2)<script>$^"] = 1.0
        row["Metrics/</td><b>"] = 1.0
    (run / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "operative.gin").write_text("</pre><script>alert(3)</script>\n")
    write_report([run], tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    page.require_self_contained()
    assert "b" not in page.tags
    assert evil in page.text and "<script>alert(3)</script>" in page.text


def test_runs_of_one_name_get_longer_names() -> None:
    assert name_runs([Path("/a/x"), Path("/b/y")]) == ["x", "y"]
    assert name_runs([Path("/a/r/x"), Path("/b/r/x")]) == ["a/r/x", "b/r/x"]


def test_a_damaged_checkpoint_is_left_out_and_named(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_plots(monkeypatch)
    run = copied("soft")
    first = next((run / "checkpoints").glob("000000000008-*.pt"))
    first.write_bytes(first.read_bytes()[:-10])
    said: list[str] = []
    write_report([run], tmp_path / "a.html", say=said.append)
    assert len(said) == 1 and first.name in said[0]
    assert not any("at 4x4" in image["alt"] for image in Page(tmp_path / "a.html").images)


def test_without_its_plugin_a_run_is_shown_without_pictures(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_plots(monkeypatch)
    run = copied("soft")
    said: list[str] = []
    about = json.loads((run / "run.json").read_text())
    for row in about["plugins"]:
        row["sha256"] = row["sha256"] and "0" * 64
    (run / "run.json").write_text(json.dumps(about))
    write_report([run], tmp_path / "a.html", say=said.append)
    assert len(said) == 1 and "not all pictures can be drawn" in said[0]
    page = Page(tmp_path / "a.html")
    assert "Curves" in page.texts and "Stages" not in page.texts
    assert "alpha of the generator; dots, at ticks only: the switch of soft cannot be asked again" in page.texts
    assert draw_run(read_run(run), pytest.fail, [str(STUB)], beginnings=False, strips=False).ends


def empty_stats(run: Path) -> None:
    (run / "stats.jsonl").write_text("")


def drop_stage(run: Path) -> None:
    (run / "stats.jsonl").write_text('{"images": 8, "Loss/x": 1.0}\n')


def break_json(run: Path) -> None:
    (run / "run.json").write_text("{")


def remove_operative(run: Path) -> None:
    (run / "operative.gin").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_stats, "soft has no tick yet, so there is nothing to report"),
        (drop_stage, "stats.jsonl is damaged: the row of images 8 names no stage"),
        (break_json, "run.json is damaged"),
        (remove_operative, r"cannot read .*operative\.gin"),
        (shutil.rmtree, r"soft holds no run \(it has no run\.json\)"),
    ],
)
def test_bad_runs_are_refused(
    damage: Callable[[Path], None],
    message: str,
    copied: Callable[..., Path],
    cli: Callable[..., Result],
    refused: Callable[[Result, str], str],
) -> None:
    run = copied("soft")
    damage(run)
    refused(cli("report", run), message)
    assert not Path("report.html").exists()


def test_runs_without_ticks_are_left_out_beside_others(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_plots(monkeypatch)
    monkeypatch.setattr("pggan_kit.report.draw_run", lambda *_, **__: RunPictures())
    runs = [copied("soft"), copied("soft", "begun"), copied("hard")]
    empty_stats(runs[1])
    said: list[str] = []
    write_report(runs, tmp_path / "a.html", say=said.append)
    assert "<title>soft, hard</title>" in (tmp_path / "a.html").read_text()
    (sentence,) = said
    assert sentence.startswith(f"left out: {runs[1]} has no tick yet")

    empty_stats(runs[0])
    with pytest.raises(RunError, match="none of the 2 runs has a tick yet"):
        write_report(runs[:2], tmp_path / "a.html", say=said.append)


def test_the_command_writes_a_page_and_figures(
    copied: Callable[..., Path], cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures are PDFs at column width, and LaTeX."""
    leave_out_plots(monkeypatch)
    monkeypatch.setattr("pggan_kit.report.curves_section", lambda *_: Section("Curves"))
    done = cli("report", copied("hard"), "--out", "deep/page.html", "--figures", "deep/figures")
    assert done.exit_code == 0, done.stderr
    # On a busy machine a line before says what takes long.
    assert done.stderr.splitlines()[-1] == "wrote deep/page.html and deep/figures"
    Page(tmp_path / "deep/page.html").require_self_contained()
    figures = tmp_path / "deep/figures"
    assert {path.name for path in figures.iterdir()} == {
        "coherence-4x4.pdf",
        "coherence-8x8.pdf",
        "coherence.tex",
        "runs.tex",
        "throughput.pdf",
        "transitions.tex",
    }
    for pdf in figures.glob("*.pdf"):
        content = pdf.read_bytes()
        box = re.search(rb"/MediaBox \[ ?([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+) ?\]", content)
        assert content.startswith(b"%PDF") and box
        assert float(box[3]) - float(box[1]) == pytest.approx(3.25 * 72, abs=1)
    assert r"hard & 40 & 4 -\textgreater{} 8 -\textgreater{} 16 &" in (figures / "runs.tex").read_text()


def test_targets_that_cannot_be_written_are_refused(
    pair: SimpleNamespace,
    cli: Callable[..., Result],
    refused: Callable[[Result, str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_out_plots(monkeypatch)
    monkeypatch.setattr("pggan_kit.report.draw_run", lambda *_, **__: RunPictures())
    refused(cli("report", pair.folder / "soft", pair.folder / "hard" / ".." / "soft"), "soft is named twice")
    (tmp_path / "file").touch()
    refused(cli("report", pair.folder / "soft", "--out", "file/page.html"), "cannot write .*page.html")
    assert cli("report").exit_code == 2


def test_a_missing_library_is_named(pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match=r"needs jinja2: pip install 'pggan_kit\[report\]'"):
        write_report([pair.folder / "soft"], tmp_path / "a.html")


@pytest.fixture(scope="module")
def many(pair: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Write `page`, a report of 7 runs of each of two settings; `drawn` are the folders of the runs that were drawn."""
    folder = tmp_path_factory.mktemp("many")
    runs = []
    for name, shift in (("soft", 0.0), ("hard", 0.3)):
        runs += [copy_with_seed(pair.folder / name, folder / f"{name}-{seed}", seed, shift) for seed in range(7)]
    drawn: list[tuple[str, bool]] = []

    def note_run(run: RunRecord, *args: Any, **kwargs: Any) -> RunPictures:
        drawn.append((run.folder.name, kwargs["beginnings"]))
        return draw_run(run, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        leave_out_plots(patch)
        patch.setattr("pggan_kit.report.draw_run", note_run)
        write_report(runs, folder / "page.html")
    return SimpleNamespace(page=folder / "page.html", drawn=drawn)


def test_many_runs_are_groups_of_which_one_run_is_drawn(many: SimpleNamespace) -> None:
    seed = many.drawn[0][0].partition("-")[2]
    assert many.drawn == [(f"soft-{seed}", False), (f"hard-{seed}", False)], "samples/ have the film"
    text = many.page.read_text()
    assert "<title>14 runs in 2 groups</title>" in text
    assert "switch = Linear (7 runs); switch = Hard (7 runs)." in text
    assert "FID, lower is better: switch = Linear has the best median" in text and text.count(' best">') == 1
    page = Page(many.page)
    page.require_images()
    assert f"switch = Linear: soft-{seed}, one of 7 runs" in page.texts
    assert any(alt.startswith("Animation of ") and "switch = Linear | switch = Hard" in alt for alt in page.alts)
    assert page.text.count("in effect, with all defaults") == 2

    # The other runs are named with their folders.
    for name in ("soft-6", "hard-0"):
        assert str(many.page.parent / name) in page.texts

    # Besides images, the page has one script, which its policy names.
    assert page.tags.count("script") == 1 and page.handlers == []
    assert all(address.startswith("data:image/") for address in page.addresses)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\">" in text


def test_beginnings_are_drawn_for_a_film_of_checkpoints_alone(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def note_beginnings(run: RunRecord, *args: Any, **kwargs: Any) -> RunPictures:
        asked.append(kwargs["beginnings"])
        return RunPictures()

    leave_out_plots(monkeypatch)
    monkeypatch.setattr("pggan_kit.report.draw_run", note_beginnings)
    runs = [copied("soft"), copied("hard")]
    write_report(runs[:1], tmp_path / "a.html")
    shutil.rmtree(runs[1] / "samples")
    write_report(runs, tmp_path / "a.html")
    assert asked == [False, True, True]


def test_pictures_are_drawn_where_they_are_shown_alone(pair: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fades and three ends of stages, from checkpoints of which some are replaced by later ones."""
    counts: list[int] = []

    def count_images(*args: Any, **kwargs: Any) -> np.ndarray:
        images = draw(*args, **kwargs)
        counts.append(len(images))
        return images

    monkeypatch.setattr("pggan_kit.report.run_pictures.draw", count_images)
    pictures = draw_run(read_run(pair.folder / "soft"), pytest.fail, beginnings=False)
    assert pictures.clocks == {0: 8, 1: 24, 2: 40}
    assert sorted(counts) == [STRIP] * (2 * len(ALPHAS)) + [GRID] * 3

    # The images of a strip are those of the first latents of a grid.
    generator = load_generator(pair.folder / "soft")
    first = draw(generator, GRID, 0, first=STRIP).astype(int)
    assert np.abs(first - draw(generator, GRID, 0)[:STRIP]).max() <= 1


def test_large_images_are_reduced_as_they_are_drawn(pair: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 8 px at most, each pixel the mean of what it covers; the size that the page names stays."""
    run = read_run(pair.folder / "soft")
    whole = draw_run(run, pytest.fail)
    monkeypatch.setattr("pggan_kit.report.run_pictures.LARGEST", 8)
    reduced = draw_run(run, pytest.fail)
    assert reduced.sizes == {0: (4, 4), 1: (8, 8), 2: (16, 16)}
    pairs = [(reduced.ends[2], whole.ends[2]), (reduced.begins[2][1], whole.begins[2][1])]
    pairs += zip(reduced.fades[2].images, whole.fades[2].images, strict=True)
    for smaller, images in pairs:
        means = images.reshape(len(images), 8, 2, 8, 2, 1).mean((2, 4))
        assert smaller.dtype == np.uint8 and np.abs(smaller - means).max() <= 1, "one rounding for each axis"
    assert (reduced.ends[1] == whole.ends[1]).all()

    captions = [figure.caption for group in grids_section([run], [reduced]).groups for figure in group.figures]
    assert captions[-1] == "16x16, after 40 images"
    assert fades_section([run], [reduced]).groups[0].figures[-1].caption.startswith("stage 2, 16x16: alpha 0, ")
    assert film.take_checkpoints(run, reduced)[-1].size == (16, 16)


def test_settings_that_move_are_those_of_the_stage_that_was_trained() -> None:
    """The first two stages have no budget, and no row."""
    moving = {4: 7.0, 8: 8.0, 16: curves.Linear(16.0, 0.0, over="stage")}
    loss = SimpleNamespace(weight=moving, other={4: curves.Linear(7.0, 8.0), 16: 3.0})
    prepared: Any = SimpleNamespace(built=SimpleNamespace(components={"train.loss": ("", loss)}))
    settings = ScheduleSettings((4, 8, 16), fade_images=0, stable_images={4: 0, 16: 100}, batch_size=4)
    stages = [StageRecord(2, 16, 0, 100, None, 1.0)]
    run = RunRecord("a", Path("a"), None, {}, "", "", Ticks([]), [], stages)
    drawn = draw_moving_settings(run, prepared, settings.resolve(10, 1, 0))
    (name,) = [name for name in drawn if name.endswith("weight")]
    assert drawn[name] == [(clock, pytest.approx(16 - 0.16 * clock)) for clock in range(101)]
    (name,) = [name for name in drawn if name.endswith("other")]
    assert {value for _, value in drawn[name]} == {3.0}


def test_figures_of_one_name_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = ["looks 硬 - 软", "looks 余弦 - 线性", "looks a - b", "looks a + b", "a_b", "+"]
    stems = [make_file_stem(title) for title in titles]
    assert stems == ["looks-硬-软", "looks-余弦-线性", "looks-a-b", "looks-a-b", "a-b", ""]
    monkeypatch.setattr("pggan_kit.report.render_plot", lambda draw, form, width: draw.encode())
    figures: list[Any] = [
        report_page.Figure("", "", "", 1, 1, stem, title) for stem, title in zip(stems, titles, strict=True)
    ]
    table = Table(["a"], [[1]], "looks-a-b")
    _write_figures(tmp_path, [Section("", tables=[table, table], groups=[Group("", "plots", figures)])])
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.pdf")}
    names = ["looks-硬-软", "looks-余弦-线性", "looks-a-b", "looks-a-b-2", "a-b", "figure"]
    assert written == {f"{name}.pdf": title for name, title in zip(names, titles, strict=True)}
    assert sorted(path.name for path in tmp_path.glob("*.tex")) == ["looks-a-b-2.tex", "looks-a-b.tex"]


@pytest.mark.parametrize(("shape", "kept"), [((144, 108), (128, 96)), ((189, 135), (128, 91)), ((128, 7), (128, 7))])
def test_images_of_any_size_are_reduced_to_the_largest(
    shape: tuple[int, int], kept: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.arange(shape[0], dtype=np.uint8)[None, :, None, None]
    monkeypatch.setattr(
        "pggan_kit.report.run_pictures.draw", lambda *args, **kwargs: np.broadcast_to(ramp, (2, *shape, 1))
    )
    generator: Any = SimpleNamespace(size=shape)
    images, size = draw_reduced(generator, 2, 0)
    assert (images.shape, size) == ((2, *kept, 1), shape)
    middles = (np.arange(kept[0]) + 0.5) * shape[0] / kept[0] - 0.5
    assert np.abs(images[0, :, 0, 0] - middles).max() <= 1


def test_strips_have_a_budget(
    pair: SimpleNamespace, copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs of the film have theirs, others as long as there is room; the page says which have none."""
    runs = [pair.folder / "soft", pair.folder / "hard"]
    for number in range(2):
        runs.append(copied("soft", f"other{number}"))
        operative = runs[-1] / "operative.gin"
        operative.write_text(operative.read_text().replace("updates.Alternating.n_critic = 1", f"x.y = {number}"))
    asked: list[bool] = []

    def note_strips(run: RunRecord, *args: Any, **kwargs: Any) -> RunPictures:
        asked.append(kwargs["strips"])
        strip = FadeStrip([1.0], [np.zeros((1, 8, 8, 1), np.uint8)])
        fades = {stage.index: strip for stage in run.stages if stage.fade_end and kwargs["strips"]}
        return RunPictures(fades=fades, sizes=dict.fromkeys(fades, (8, 8)), lacks_strips=not kwargs["strips"])

    leave_out_plots(monkeypatch)
    monkeypatch.setattr("pggan_kit.report.draw_run", note_strips)
    monkeypatch.setattr("pggan_kit.report.MOST_STRIPS", 4)
    write_report(runs, tmp_path / "a.html")
    assert asked == [True, True, True, False]
    page = Page(tmp_path / "a.html")
    assert sum(alt.startswith("Strip through the fade") for alt in page.alts) == 4
    assert "Left out, since the page would become too large: other1." in page.text

    # The film's runs are soft, with two fades, and one of its copies.
    monkeypatch.setattr("pggan_kit.report.MOST_STRIPS", 1)
    asked.clear()
    write_report([runs[0], *runs[2:]], tmp_path / "a.html")
    assert asked == [True, True, False]


def test_strips_are_not_drawn_where_they_are_left_out(pair: SimpleNamespace) -> None:
    drawn = draw_run(read_run(pair.folder / "soft"), pytest.fail, strips=False)
    assert drawn.lacks_strips and not drawn.fades and sorted(drawn.ends) == [0, 1, 2]


@pytest.mark.browser
def test_tables_sort_and_filter_in_a_real_browser(many: SimpleNamespace) -> None:
    """A visitor clicks on the head of the sixth column of the table of all runs, twice, and then writes words."""
    with open_in_chromium(many.page.as_uri()) as page:
        table = page.locator("table.long").first
        assert "14 of 14 rows" in page.locator("body").inner_text()

        def list_column() -> list[str]:
            cells: list[str] = table.locator("tbody tr:not([hidden]) td:nth-child(6)").all_text_contents()
            return cells

        head = table.locator("thead th").nth(5).locator("button")
        head.click()
        rising = list_column()
        head.click()
        falling = list_column()
        page.locator("input[type=search]").first.fill("linear SOFT-1")
        filtered = list_column()
    values = [float(value) for value in rising]
    assert len(values) == 14 and values == sorted(values)
    assert falling == rising[::-1]
    assert len(filtered) == 1 and filtered[0] in rising


@pytest.mark.browser
def test_in_a_real_browser(pair: SimpleNamespace, tmp_path: Path) -> None:
    """Chromium shows the page: no message on its console, all images loaded, and pixels that are not blank."""
    write_report([pair.folder / "soft", pair.folder / "hard"], tmp_path / "both.html")
    with open_in_chromium((tmp_path / "both.html").as_uri(), height=5000) as page:
        page.screenshot(path=tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (5000, 1200, 3)
    rows_with_ink = (pixels != 255).any(axis=(1, 2)).mean()
    assert rows_with_ink > 0.5
    coloured = (np.ptp(pixels.astype(int), axis=2) > 60).sum()
    assert coloured > 2000, "the curves are not there"


def test_two_runs_are_drawn_for_the_same_latents(pair: SimpleNamespace) -> None:
    """Before the first growth the runs are one."""
    soft = draw_run(read_run(pair.folder / "soft"), pytest.fail)
    hard = draw_run(read_run(pair.folder / "hard"), pytest.fail)
    assert (soft.ends[0] == hard.ends[0]).all()
    assert (soft.ends[2] != hard.ends[2]).any()


def test_a_page_looks_at_the_columns_of_a_table_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at in each cell, the cost of a table would grow with the square of its rows."""
    looks: list[Table] = []
    find = Table.find_numeric_columns
    monkeypatch.setattr(Table, "find_numeric_columns", lambda table: looks.append(table) or find(table))
    table = Table(["run", "FID", "loss"], [[f"r{row}", 1.5 * row, "hinge"] for row in range(60)])
    text = render_page("title", "lead", [Section("tables", "text", [table])])
    assert looks == [table]
    assert text.count('<td class="number">') == 60 and text.count('<td class="">') == 60
