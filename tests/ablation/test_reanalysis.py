"""Analyses without training: of what has ended, of results without runs, and of runs that are evaluated again."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit import ablation, evaluate
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.archive import _split_tuned
from pggan_kit.ablation.reanalysis import merge_bindings
from pggan_kit.errors import ConfigError, RunError

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]

OPTIONS = [option for plugin in PLUGINS for option in ("--plugin", plugin)]


@pytest.fixture
def out(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished ablation, to be changed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "out")
    return Path("out")


def list_contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file() and path.name != ".lock"
    }


def test_results_are_analysed_with_their_runs_and_without(out: Path, cli: Callable[..., Result]) -> None:
    """What `ablate` wrote is written again; from results without runs nothing is written."""
    wanted = list_contents(out)
    for name in ("analysis.json", "table.txt", "results.csv"):
        (out / name).unlink()
    shown = cli("ablate", "analyse", "out", "--json")
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout) == json.loads(wanted["analysis.json"])
    assert list_contents(out) == wanted

    for name in ("runs", "trunks"):
        shutil.rmtree(out / name)
    (out / "table.txt").write_text("a note\n")
    assert json.loads(json.dumps(ablation.analyse(out))) == json.loads(wanted["analysis.json"])
    assert list_contents(out) == {**wanted, "table.txt": b"a note\n"}
    assert cli("ablate", "analyse", "out").stdout == wanted["table.txt"].decode()


def test_failed_runs_and_values_that_are_not_finite_are_read_from_the_table(out: Path) -> None:
    def rewrite(change: Callable[[dict[str, str]], dict[str, str] | None]) -> None:
        with open("out/results.csv", newline="") as file:
            rows = [row for row in map(change, csv.DictReader(file)) if row is not None]
        with open("out/results.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    shutil.rmtree(out / "runs")

    def let_fail(row: dict[str, str]) -> dict[str, str] | None:
        if (row["variant"], row["seed"]) == ("hard", "0"):
            return {**row, "stage": "", "value": "", "failed": "1"} if row["metric"] == "gap" else None
        return {**row, "value": ""} if (row["variant"], row["metric"]) == ("linear", "signed") else row

    # Runs are gone, and the table has all that is known.
    rewrite(let_fail)
    analysis = ablation.analyse(out)
    assert analysis["variants"]["hard"]["failed"] == 1 and analysis["contrasts"][0]["failures"]["variant"] == 1
    (secondary,) = analysis["secondary"]
    assert secondary["failures"]["against"] == 2
    # A damaged table, and none.
    rewrite(lambda row: {**row, "seed": "x"})
    with pytest.raises(RunError, match=r"results\.csv is damaged: line 2: .x. in the column seed"):
        ablation.analyse(out)
    (out / "results.csv").unlink()
    with pytest.raises(RunError, match=r"^out has no results yet, or none that may be looked at: continue it with"):
        ablation.analyse(out)
    with pytest.raises(RunError, match=r"^out has no results yet"):
        ablation.evaluate_again(out, "other")


def test_an_unfinished_ablation_has_no_verdict(out: Path, cli: Callable[..., Result]) -> None:
    for name in ("analysis.json", "table.txt", "results.csv", "runs/hard/1/result.json"):
        (out / name).unlink()
    before = list_contents(out)
    analysis = ablation.analyse(out)
    (entry,) = analysis["contrasts"]
    assert (entry["role"], entry["n"]) == ("exploratory", 1) and not {"holm", "verdict"} & set(entry)
    assert analysis["unfinished"] == [["hard", 1]]
    note = (
        "UNFINISHED: 1 of 4 trials have not ended (hard 1), so no contrast has a verdict. What it says now may change."
    )
    assert cli("ablate", "analyse", "out").stdout.startswith(f"{note}\n\n")
    assert list_contents(out) == before, "nothing is written"


def test_runs_are_evaluated_again_beside_the_planned_analysis(
    out: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what has not been evaluated in this way, or has changed since."""
    wanted = list_contents(out)
    arguments = ("ablate", "analyse", "out", "--evaluate-again", "few", "-b", "evaluation.count = 3", *OPTIONS)
    shown = cli(*arguments, "--json")
    assert shown.exit_code == 0, shown.stderr
    analysis = json.loads(shown.stdout)
    assert list_contents(out) == wanted

    folder = out / "analyses" / "few"
    assert json.loads((folder / "analysis.json").read_text()) == analysis
    bindings = ["train.metrics = [@metrics.Gap()]", "evaluation.count = 3"]
    assert analysis["evaluated_again"] == {
        "name": "few", "evaluation": bindings, "average": None, "averages": [], "curves": [], "quality": {},
        "primary": "gap", "margin": 0.5,
    }  # fmt: skip
    (entry,) = analysis["contrasts"]
    assert entry["role"] == "exploratory" and not {"holm", "equivalence_holm", "verdict"} & set(entry)
    assert (folder / "table.txt").read_text().startswith("EXPLORATORY: evaluated again as few; the planned analysis is")
    with open(folder / "results.csv", newline="") as file:
        values = {
            row["metric"]: row["value"]
            for row in csv.DictReader(file)
            if (row["variant"], row["seed"]) == ("hard", "1")
        }
    (gap, _) = evaluate(out / "runs/hard/1", bindings=bindings, plugins=PLUGINS)
    planned = json.loads((out / "runs/hard/1/result.json").read_text())["rows"][0]["value"]
    assert float(values["gap"]) == gap["value"] != planned

    # The same again, with one result less, and one run whose last checkpoint has become another.
    evaluated = []
    measure = trials.evaluate

    def count(run: Path, **options: Any) -> Any:
        evaluated.append(run)
        return measure(run, **options)

    monkeypatch.setattr(trials, "evaluate", count)
    (folder / "hard-0.json").unlink()
    stale = json.loads((folder / "linear-1.json").read_text())
    (folder / "linear-1.json").write_text(json.dumps({**stale, "checkpoint": "another"}))
    assert cli(*arguments, "--json").stdout == shown.stdout
    assert evaluated == [out / "runs/hard/0", out / "runs/linear/1"]
    other = cli(*arguments, "-b", "evaluation.count = 4")
    assert other.exit_code == 2 and "bound twice" in other.stderr
    with pytest.raises(RunError, match=r"^out/analyses/few was made with another evaluation .* give this one another"):
        ablation.evaluate_again(out, "few", ["evaluation.count = 4"], plugins=PLUGINS)

    # The results of a run that is gone are not lost with it.
    written = list_contents(folder)
    shutil.rmtree(out / "runs/hard/0")
    gone = cli(*arguments)
    assert gone.exit_code == 2
    complaint = (
        "out/analyses/few/results.csv has results of 1 trial whose run is gone, among them hard 0: put back what"
    )
    assert complaint in gone.stderr
    assert list_contents(folder) == written


def test_averages_and_curves_of_finished_runs_may_be_compared(
    ablate: Callable[..., Any], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    """Which no plan has named: each average beside the first one, and curves without a checkpoint."""
    averages = "train.averages = [@averages.HalfLife(), @averages.Copy(), @averages.PowerFunction()]"
    measured = ["train.metrics = [@metrics.Gap()]", "evaluation.count = 4"]
    planned = ablate("ablate.seeds = (0,)", "ablate.averages = ['copy']", averages, *measured)

    def again(name: str, *options: str) -> Any:
        shown = cli("ablate", "analyse", "out", "--evaluate-again", name, *options, "--json", *OPTIONS)
        assert shown.exit_code == 0, shown.stderr
        return json.loads(shown.stdout)

    analysis = again("averages", "--average", "copy", "--average", "0.1", "--average", "half_life")
    assert analysis["evaluated_again"]["average"] == "copy"
    assert analysis["evaluated_again"]["averages"] == [0.1, "half_life"]
    (entry,) = analysis["contrasts"]
    assert not {"robustness", "checks", "verdict"} & set(entry) and entry["mean"] == pytest.approx(
        planned["contrasts"][0]["checks"][0]["mean"]
    )
    others = {entry["metric"]: entry["mean"] for entry in analysis["secondary"]}
    assert {"gap half_life", "gap width_0.1", "signed half_life"} <= set(others)
    assert others["gap half_life"] == pytest.approx(planned["contrasts"][0]["mean"])

    # Ticks are rows: the checkpoints may be gone, and the plan's values stay.
    for run in Path("out/runs").glob("*/0"):
        shutil.rmtree(run / "checkpoints")
    curve = ("--curve", "gap", "--quality", "gap=1e-9", "--primary", "gap_area", "--margin", "0.2")
    analysis = again("curves", *curve)
    assert (analysis["metric"], analysis["scale"], analysis["evaluated_again"]["curves"]) == (
        "gap_area",
        "log",
        ["gap"],
    )
    with open("out/analyses/curves/results.csv", newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file) if row["variant"] == "hard"}
    lines = Path("out/trunks/0/stats.jsonl").read_text() + Path("out/runs/hard/0/stats.jsonl").read_text()
    ticks = {tick["images"]: tick["Metrics/gap"] for tick in map(json.loads, lines.splitlines())}
    assert float(rows["gap_area_4x4"]["value"]) == pytest.approx(ticks[8])
    assert (rows["images_to_gap_1e-09"]["value"], rows["images_to_gap_1e-09"]["censored"]) == ("", "40")
    own_rows = json.loads(Path("out/runs/hard/0/result.json").read_text())["rows"]
    assert float(rows["gap copy"]["value"]) == next(row["value"] for row in own_rows if row["metric"] == "gap copy")

    def refuse(message: str, *options: str) -> None:
        refused(cli("ablate", "analyse", "out", "--evaluate-again", "wrong", *options, *OPTIONS), message)

    refuse("measured gap, signed at its ticks, and no FID", "--curve", "FID")
    refuse("--curve must name each value once, not gap, gap", "--curve", "gap", "--curve", "gap")
    refuse("--quality must name each curve once, not gap=3, gap=4", "--quality", "gap=3", "--quality", "gap=4")
    refuse("--quality names 'gap', which is no curve: add --curve gap", "--quality", "gap=3")
    refuse("--quality gap: write METRIC=VALUE, as FID=10", "--curve", "gap", "--quality", "gap")
    refuse("--quality of gap must be above 0, where it has a logarithm", "--curve", "gap", "--quality", "gap=0")
    refuse("--average must name each average once, not copy, copy", "--average", "copy", "--average", "copy")
    refuse("curves was made with another curves", "--evaluate-again", "curves", "--curve", "signed")


def test_another_primary_of_runs_that_have_all_failed_is_refused(out: Path) -> None:
    for path in out.glob("runs/*/*/result.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "failed": "NaN", "rows": []}))
    for options in ({"bindings": ["evaluation.count = 4"]}, {"curves": ["gap"]}):
        with pytest.raises(
            ConfigError, match=r"--primary FID cannot be compared: all runs that have ended have failed"
        ):
            ablation.evaluate_again(out, "other", **options, primary="FID", margin=1.0, plugins=PLUGINS)
    assert ablation.evaluate_again(out, "same", ["evaluation.count = 4"], plugins=PLUGINS)["metric"] == "gap"


def test_where_a_run_comes_from_stays_known(out: Path) -> None:
    path = out / "runs/hard/0/result.json"
    tuned = ["g/optimizers.Adam.lr = 0.5"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "adopted": "/old/run", "tuned": tuned}))
    for _ in range(2):  # measured, and read again
        ablation.evaluate_again(out, "again", ["evaluation.count = 8"], plugins=PLUGINS)
        with open(out / "analyses/again/results.csv", newline="") as file:
            cells = {(row["variant"], row["seed"]): (row["adopted"], row["tuned"]) for row in csv.DictReader(file)}
        assert cells.pop(("hard", "0")) == ("/old/run", tuned[0]) and set(cells.values()) == {("", "")}


def test_another_endpoint_may_be_compared(out: Path) -> None:
    """Of another metric, which has another margin; while one trial has failed and one has not ended."""
    failed = json.loads((out / "runs/hard/0/result.json").read_text())
    (out / "runs/hard/0/result.json").write_text(json.dumps({**failed, "failed": "NaN", "rows": []}))
    (out / "runs/hard/1/result.json").unlink()
    metrics = ["train.metrics = [@metrics.SlicedWasserstein()]"]
    analysis = ablation.evaluate_again(out, "swd", metrics, primary="SWD", margin=0.2, plugins=PLUGINS)
    assert (analysis["metric"], analysis["margin"], analysis["scale"]) == ("SWD", 0.2, "log")
    assert analysis["variants"]["hard"]["failed"] == 1 and analysis["unfinished"] == [["hard", 1]]
    assert "UNFINISHED: 1 of 4 trials have not ended (hard 1)" in analysis["note"]


def test_settings_of_metrics_that_are_not_chosen_any_more_are_left_out() -> None:
    planned = [
        "train.metrics = [@metrics.FrechetDistance()]",
        "metrics.FrechetDistance.features = @features.Digits()",
        "x/features.Digits.size = 3",
        "evaluation.count = 4",
        "evaluation.dataset = @test/datasets.MNIST()",
    ]
    assert merge_bindings(planned, ["evaluation.count = 5"]) == [*planned[:3], planned[4], "evaluation.count = 5"]
    other = "metrics.FrechetDistance.features = @features.Inception()"
    assert merge_bindings(planned, [other]) == [planned[0], *planned[2:], other]
    metrics = "train.metrics = [@metrics.SWD()]"
    assert merge_bindings(planned, [metrics]) == [*planned[3:], metrics]


def test_bindings_are_compared_one_by_one_however_they_are_written() -> None:
    planned = ["train.metrics = [@metrics.SWD()]\nevaluation.count = 4\nevaluation.batch = %SIZE", "SIZE = 3  # images"]
    other = "evaluation.count = 5\nx/features.Digits.size = 3"
    kept = ["train.metrics = [@metrics.SWD()]", "evaluation.batch = %SIZE", planned[1]]
    assert merge_bindings(planned, [other]) == [*kept, other]
    block = "evaluation:\n  count = 6"
    assert merge_bindings(planned, [block]) == [*kept, block]
    assert merge_bindings(planned, ["SIZE = 4"]) == [planned[0], "SIZE = 4"]


def test_a_read_only_folder_is_analysed_and_stays_as_it_is(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = list_contents(out)
    planned = json.loads(wanted["analysis.json"])
    (out / "table.txt").unlink()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = json.loads(json.dumps(ablation.analyse(out)))
    assert found == {**planned, "note": "Nothing was written, since out is read-only."}
    assert not (out / "table.txt").exists()
    monkeypatch.undo()


def test_an_analysis_whose_folder_cannot_be_made_is_an_error(out: Path) -> None:
    (out / "analyses").write_text("a file")
    with pytest.raises(RunError, match=r"^cannot make the folder out/analyses/other: "):
        ablation.evaluate_again(out, "other", plugins=PLUGINS)


def test_a_table_with_more_cells_than_its_head_is_damaged(out: Path) -> None:
    shutil.rmtree(out / "runs")
    text = (out / "results.csv").read_text()
    (out / "results.csv").write_text(text.replace(".", ","))
    with pytest.raises(RunError, match=r"results\.csv is damaged: .*line 2: it has more cells than the head"):
        ablation.analyse(out)


def test_tuned_values_of_a_table_are_split_where_a_parameter_begins() -> None:
    bindings = ["a.b = '1; 2'", "x/c.d = 3; 4"]
    assert _split_tuned("; ".join(bindings), ["a.b", "x/c.d"]) == bindings


def test_wrong_input_is_refused(
    out: Path,
    cli: Callable[..., Result],
    refused: Callable[[Result, str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = {"folder": out, "name": "other", "plugins": PLUGINS}
    with pytest.raises(ConfigError, match=r"^--evaluate-again names a folder: '\.\./x' must begin with a letter"):
        ablation.evaluate_again(**{**again, "name": "../x"})
    with pytest.raises(
        ConfigError, match=r"^--primary signed needs --margin as well, since the plan's margin is that of"
    ):
        ablation.evaluate_again(**again, primary="signed")
    with pytest.raises(ConfigError, match=r"^--margin must be above 0, and is 0"):
        ablation.evaluate_again(**again, margin=0)
    with pytest.raises(ConfigError, match=r"^--quality must be finite, and is nan"):
        ablation.evaluate_again(**again, curves=["gap"], quality={"gap": math.nan})
    for average in (math.nan, 0.0, 5.0):
        with pytest.raises(ConfigError, match=rf"^--average must be .* and is {average}"):
            ablation.evaluate_again(**again, average=average)
    with pytest.raises(ConfigError, match=r"^linear 0: .* is 'gapp', and the evaluation gives gap, signed"):
        ablation.evaluate_again(**again, primary="gapp", margin=0.1)
    with pytest.raises(RunError, match=r"^linear 0: .* has no average copy"):
        ablation.evaluate_again(**again, average="copy")
    with pytest.raises(ConfigError, match=r"^linear 0: .*an evaluation may bind train\.metrics, and settings of"):
        ablation.evaluate_again(**again, bindings=["optimizers.Adam.lr = 1.0"])

    # A run that is gone is found before any other is measured.
    monkeypatch.setattr(trials, "evaluate_run", lambda *arguments: pytest.fail("too late"))
    shutil.rmtree(out / "runs/hard/1/checkpoints")
    with pytest.raises(RunError, match=r"^hard 1: out/runs/hard/1 holds no checkpoint"):
        ablation.evaluate_again(**again)
    refused(cli("ablate", "analyse", "nowhere"), r"nowhere holds no ablation \(it has no plan\.json\)")
    message = "-b, --average, --curve, --quality, --primary, --margin and --plugin need --evaluate-again NAME"
    refused(cli("ablate", "analyse", "out", "--margin", "0.1"), message)
    foreign = ("--evaluate-again", "x", "--plugin", "out/plan.json")
    refused(cli("ablate", "analyse", "out", *foreign), r"plan\.json names no such plugin file")
