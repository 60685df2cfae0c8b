"""Runs that were trained before take the places of trials, if they are what the trials would be."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.made_up_ablation import make_plan
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit import hookimpl
from pggan_kit.ablation import adoption, plan_reading
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.adoption import adopt_runs
from pggan_kit.api.train import train
from pggan_kit.errors import RunError
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.trials.processes import list_recorded_files
from pggan_plugins.switches import Linear

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]

Ablate = Callable[..., dict[str, Any]]


def read_rows(folder: Path) -> dict[tuple[str, ...], dict[str, str]]:
    with open(folder / "results.csv", newline="") as file:
        return {(row["variant"], row["seed"], row["metric"]): row for row in csv.DictReader(file)}


@pytest.mark.usefixtures("any_folder")
def test_adopted_runs_are_evaluated_as_trials_and_confirm_nothing(ablate: Ablate, finished: Path) -> None:
    """One is a trial of another ablation, one was trained by itself, with other observers, metrics and intervals."""
    alone = ["train.seed = 1", "train.switch = @switches.Hard()", "train.observers = [@observers.Samples()]"]
    alone += ["train.checkpoint_every = 8", "train.diversity_every = 8", "train.keep_stages = 'average'"]
    train("tiny.gin", [*alone, "train.metrics = [@metrics.Gap()]"], run_dir="alone", plugins=PLUGINS)
    other = finished / "runs/linear/0"
    for done in ("trunks/1", "runs/linear/1", "runs/hard/0"):
        shutil.copytree(finished / done, f"out/{done}")
    said: list[str] = []
    analysis = ablate(said=said, adopt=["alone", other])
    assert said == ["2/2 trunk 0: done", "3/4 linear 0: done", "4/4 hard 1: done"]
    assert not Path("out/runs/hard/1/run.json").exists(), "nothing is copied"

    # The same values as if they had been trained here; each says where it is from.
    wanted = read_rows(finished)
    rows = read_rows(Path("out"))
    assert {key: row["value"] for key, row in rows.items()} == {key: row["value"] for key, row in wanted.items()}
    for (name, seed, _), row in rows.items():
        run = {("linear", "0"): str(other), ("hard", "1"): str(Path("alone").resolve())}.get((name, seed), "")
        assert (row["adopted"], row["exploratory"]) == (run, str(int(run != "")))
    (entry,) = analysis["contrasts"]
    (planned,) = json.loads((finished / "analysis.json").read_text())["contrasts"]
    assert (entry["role"], entry["adopted"], entry["p"]) == ("exploratory", [0, 1], planned["p"])
    assert "verdict" not in entry and "holm" not in entry

    recorded = {(row["variant"], row["seed"]): row for row in json.loads(Path("out/plan.json").read_text())["adopted"]}
    earlier = trials.read_result(other)
    assert earlier is not None
    assert recorded["linear", 0]["revision"] == earlier["revision"], "a trial knows more than its run"
    manifest = json.loads(Path("alone/checkpoints/manifest.json").read_text())
    assert recorded["hard", 1]["checkpoint"] in json.dumps(manifest)
    assert plans.load_plan(Path("out")).hash == plans.load_plan(finished).hash

    # What was measured stays, with or without the option, and when the run is gone.
    ablate(adopt=["alone"])
    shutil.move("alone", "moved")
    assert ablate() == analysis


def test_a_trunk_that_only_adopted_runs_would_need_is_not_trained(ablate: Ablate, finished: Path) -> None:
    said: list[str] = []
    ablate("ablate.seeds = (0,)", adopt=[finished / f"runs/{name}/0" for name in ("linear", "hard")], said=said)
    assert said == ["1/2 linear 0: done", "2/2 hard 0: done"]


REFUSALS = {
    "another setting": (
        "optimizers.Adam.lr = 2e-3",
        r"optimizers\.Adam\.lr: 0\.001 there, 0\.002 here",
    ),
    "another seed": ("ablate.seeds = (5,)", r"from linear 5: train\.seed: 0 there, 5 here"),
    "another network": ("architectures.PGGAN.channels = 8", r"architectures\.PGGAN\.channels: 4 there, 8 here"),
    "another schedule": ("schedule.stable_images = {4: 8, 16: 12}", r"stable_images at 16x16: 8 there, 12 here"),
    "other data": (
        "datasets.Stub.n = 13",
        r"from linear 0: content of the data set: .* there, .* here",
    ),
    "another average": ("train.averages = [@averages.PerUpdate()]", r"train\.averages: .* there, \[@averages\.PerU"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_run_that_is_none_of_the_trials_is_refused_by_what_differs(case: str, ablate: Ablate, finished: Path) -> None:
    binding, message = REFUSALS[case]
    with pytest.raises(RunError, match=rf"^--adopt .*linear/0 is refused: it is none of the trials.*{message}"):
        ablate(binding, adopt=[finished / "runs/linear/0"])
    assert not Path("out/plan.json").exists()


def edit_record(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))


def test_a_run_with_another_history_is_refused(ablate: Ablate, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = plan_reading.read_plan("switch.gin", (), PLUGINS)
    files = list_recorded_files(Path("out/plan.json"), plan.plugins, PLUGINS, "ablate")

    def refuse(run: Path | str, message: str) -> None:
        with pytest.raises(RunError, match=message):
            adopt_runs(plan, Path("out"), [Path(run)], files)

    refuse("nowhere", r"^--adopt nowhere: nowhere holds no run")
    refuse(finished / "trunks/0", r"is refused: it is not finished, and at images 8 of 40; resume it first")
    trial = finished / "runs/linear/0"
    with pytest.raises(RunError, match=rf"^--adopt {trial}: linear 0 has begun in {finished}; only what has not"):
        adopt_runs(plan, finished, [trial], files)

    # A copy is no trial of an ablation any more: nobody has checked its trunk.
    shutil.copytree(trial, "copy")
    refuse("copy", rf"refused: it went on from {finished}/trunks/0, which may have been another experiment")
    shutil.copytree(finished, "moved")
    (moved,) = adopt_runs(plan, Path("out"), [Path("moved/runs/linear/0")], files).adopted
    assert (moved["variant"], moved["seed"], moved["run"]) == ("linear", 0, str(Path("moved/runs/linear/0").resolve()))
    edit_record(Path("moved/trunks/0"), lambda record: record.update(started="later"))
    refuse("moved/runs/linear/0", rf"refused: it went on from {finished}/trunks/0, which may have been another")

    edit_record(Path("copy"), lambda record: record.pop("from"))
    adopted = adopt_runs(plan, Path("out"), [Path("copy")], files)
    with pytest.raises(RunError, match=rf"^--adopt {trial}: linear 0 is .*/copy already"):
        adopt_runs(adopted, Path("out"), [trial], files)
    edit_record(Path("copy"), lambda record: record.update(stem={"run": "/other"}))
    refuse("copy", r"refused: it began with the networks of /other")
    edit_record(Path("copy"), lambda record: record.pop("stem"))

    # What is measured changes nothing, unless a switch asks for it.
    plan, _ = plan_reading.read_plan("switch.gin", ["train.metrics = [@metrics.Gap()]"], PLUGINS)
    assert adopt_runs(plan, Path("out"), [Path("copy")], files).adopted
    monkeypatch.setattr(Linear, "should_advance", hookimpl(lambda self: None), raising=False)
    refuse("copy", r"differs least from linear 0: train\.metrics: \[\] there, \[@metrics\.Gap\(\)\] here")
    monkeypatch.delattr(Linear, "should_advance")

    # A setting that changed while it was trained.
    find_last = Checkpoints.find_last
    changes = [{"images": 24, "bindings": {"train.tf32": ["False", "True"]}}]

    def find_changed(self: Checkpoints) -> Any:
        entry, saved = find_last(self)
        return entry, dataclasses.replace(saved, changes=changes)

    monkeypatch.setattr(Checkpoints, "find_last", find_changed)
    refuse("copy", r"refused: train\.tf32 changed while it was trained, at images 24$")


def test_of_plugin_files_only_what_changes_numbers_is_compared(ablate: Ablate, finished: Path) -> None:
    """A file whose components the run does not use, such as another launcher, changes nothing; hooks always may."""
    plan, _ = plan_reading.read_plan("switch.gin", (), PLUGINS)
    files = list_recorded_files(Path("out/plan.json"), plan.plugins, PLUGINS, "ablate")
    shutil.copytree(finished / "runs/linear/0", "copy")
    edit_record(Path("copy"), lambda record: record.pop("from"))
    rows = json.loads(Path("copy/run.json").read_text())["plugins"]
    numbers = {row["origin"]: number for number, row in enumerate(rows)}
    stub, launchers = (numbers[path] for path in PLUGINS)
    assert rows[launchers]["hooks"] == ["components"]

    def offer(change: Callable[[list[dict[str, Any]]], object]) -> plans.Plan:
        changed = [dict(row) for row in rows]
        change(changed)
        edit_record(Path("copy"), lambda record: record.update(plugins=changed))
        return adopt_runs(plan, Path("out"), [Path("copy")], files)

    other = {"name": "mine.py", "origin": "/mine.py", "sha256": "1" * 64, "hooks": ["components"]}
    assert offer(lambda changed: changed[launchers].update(sha256="0" * 64)).adopted
    assert offer(lambda changed: changed.pop(launchers)).adopted
    assert offer(lambda changed: changed.append(other)).adopted
    assert offer(lambda changed: changed.append({**other, "sha256": None, "origin": "mine 1.0"})).adopted

    trained = "is refused: it was trained with the plugin"
    refusals: list[tuple[Callable[[list[dict[str, Any]]], object], str]] = [
        (lambda changed: changed[stub].update(sha256="0" * 64), rf"without the plan's plugin file {PLUGINS[0]} \("),
        (
            lambda changed: changed.pop(stub),
            rf"without the plan's plugin file {PLUGINS[0]} \([0-9a-f]+\), which brings",
        ),
        (
            lambda changed: changed.append({**other, "hooks": ["after_step", "components"]}),
            rf"{trained} file /mine\.py \(1{{64}}\), whose hook after_step acts on every run, and the plan has it not",
        ),
        (
            lambda changed: changed.append({"name": "mine", "origin": "the caller", "sha256": None}),
            rf"{trained} mine \(the caller\), which is not here",
        ),
    ]
    for change, message in refusals:
        with pytest.raises(RunError, match=message):
            offer(change)

    # A file of the plan with hooks must have been there as well.
    Path("hooked.py").write_text("from pggan_kit import hookimpl\n\n@hookimpl\ndef after_step(run):\n    pass\n")
    hooked = str(Path("hooked.py").resolve())
    plan, _ = plan_reading.read_plan("switch.gin", (), [*PLUGINS, hooked])
    files = list_recorded_files(Path("out/plan.json"), plan.plugins, [*PLUGINS, hooked], "ablate")
    with pytest.raises(RunError, match=r"without the plan's plugin file .*hooked\.py \(.*\), whose hook after_step"):
        offer(lambda changed: None)


MEASURED = ["train.metrics = [@metrics.Gap()]", "evaluation.count = 4"]


@pytest.mark.slow
def test_a_run_without_the_curves_and_averages_of_the_plan_is_refused(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured at ticks changes no training, but is a part of the endpoint."""
    averages = "train.averages = [@averages.HalfLife(), @averages.Copy()]"
    common = [averages, "train.seed = 0"]
    for name, own in {"measured": MEASURED, "other": [MEASURED[0], "evaluation.count = 5"], "none": []}.items():
        train("tiny.gin", [*common, *own], run_dir=name, plugins=PLUGINS)
    files: list[Any] = []

    def adopt(run: str, *bindings: str) -> plans.Plan:
        curves = ("ablate.curves = ['gap']", *MEASURED)
        plan, _ = plan_reading.read_plan("switch.gin", [averages, *(bindings or curves)], PLUGINS)
        files[:] = list_recorded_files(Path("out/plan.json"), plan.plugins, PLUGINS, "ablate")
        return adopt_runs(plan, Path("out"), [Path(run)], files)

    refusal = "^--adopt {} is refused: it is none of the trials. It differs least from linear 0: "
    (row,) = adopt("measured").adopted
    with pytest.raises(RunError, match=rf"{refusal.format('other')}evaluation\.count: 5 there, 4 here"):
        adopt("other")
    with pytest.raises(RunError, match=r"^--adopt none is refused: it measured no gap at its ticks, which is a curve"):
        adopt("none")
    assert adopt("none", *MEASURED).adopted, "without curves it may measure what it likes"

    # The result of an adopted run has the endpoints of its curves.
    plan = dataclasses.replace(adopt("measured"), averages=["copy"])
    rows = {each["metric"]: each for each in trials.evaluate_run(plan, Path(row["run"]), files)}
    ticks = [json.loads(line) for line in Path("measured/stats.jsonl").read_text().splitlines()]
    assert rows["gap_area_4x4"]["value"] == pytest.approx(ticks[0]["Metrics/gap"]) and rows["gap copy"]["value"]

    # Which average it lacks is said before any trial of the plan is built to be compared with it.
    monkeypatch.setattr(adoption, "_identify_trials", lambda plan, plugins: pytest.fail("too late"))
    power = ("train.averages = [@averages.HalfLife(), @averages.PowerFunction()]", "ablate.averages = [0.1]")
    with pytest.raises(RunError, match=r"^--adopt measured is refused: its average 0\.1 cannot be made: an average of"):
        adopt("measured", *power)

    # Its rows may be gone, or those of its trunk.
    Path("measured/stats.jsonl").write_text("")
    with pytest.raises(RunError, match=r"^--adopt measured is refused: it measured no gap at its ticks"):
        adopt("measured")


def test_an_adopted_run_that_has_changed_or_gone_is_not_measured(ablate: Ablate, finished: Path) -> None:
    plan, _ = plan_reading.read_plan("switch.gin", (), PLUGINS)
    row = {"variant": "linear", "seed": 0, "run": str(finished / "runs/linear/0"), "checkpoint": "0" * 64}
    row |= {"started": "then", "revision": "r", "hardware": "h"}
    for run, message in ((row["run"], "has changed since it was adopted"), ("/nowhere", "/nowhere holds no run")):
        plans.write_plan(dataclasses.replace(plan, adopted=[{**row, "run": run}]), Path("out"))
        with pytest.raises(RunError, match=message):
            trials.run_trial(Path("out"), "linear", 0, PLUGINS)
    text = Path("out/plan.json").read_text().replace('"checkpoint"', '"chekpoint"')
    Path("out/plan.json").write_text(text)
    with pytest.raises(RunError, match="a row of `adopted` lacks an entry"):
        plans.load_plan(Path("out"))


def test_a_dry_run_looks_at_no_runs(
    ablate: Ablate, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    refused(cli("ablate", "switch.gin", "--dry-run", "--adopt", "x"), "--adopt and --dry-run exclude each other")


def test_a_run_that_was_adopted_may_be_named_again_when_it_is_gone(tmp_path: Path) -> None:
    plan = make_plan(adopted=[{"variant": "a", "seed": 0, "run": str(tmp_path / "gone")}])
    assert adopt_runs(plan, tmp_path, [tmp_path / "gone"], []) == plan
    with pytest.raises(RunError, match=r"^--adopt .*other"):
        adopt_runs(plan, tmp_path, [tmp_path / "gone", tmp_path / "other"], [])
