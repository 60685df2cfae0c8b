"""`pggan-kit ablate` from plan to table: trunks, restarts, changed plans, runs that diverge."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import STUB, TINY
from helpers.ablation_plugin import SWITCH
from helpers.forks import fork_command, launch_in_forks, wait_until
from helpers.killing import assert_same_run, last
from helpers.made_up_ablation import make_plan, make_results
from helpers.paths import ABLATION_PLUGIN
from helpers.patience import PATIENCE_SECONDS

from pggan_kit import ablation, evaluate, hookimpl
from pggan_kit.ablation import archive, conduct, plan_reading
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.cost import describe_cost
from pggan_kit.ablation.first_difference import find_first_difference
from pggan_kit.api import prepare as api
from pggan_kit.api.train import train
from pggan_kit.benchmarking import plan as planning
from pggan_kit.config import gin_files
from pggan_kit.errors import ConfigError, Interrupted, PluginError, RunError, TrainingError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.system import provenance
from pggan_kit.system.activities import receive_activities
from pggan_kit.system.files import UNFINISHED
from pggan_kit.system.locks import hold_when_free, is_locked
from pggan_kit.trials import training
from pggan_kit.trials.overrides import split_bindings
from pggan_plugins.launchers import local

PLUGIN = ABLATION_PLUGIN
PLUGINS = [str(STUB), str(PLUGIN)]

Ablate = Callable[..., dict[str, Any]]


FEW = "pggan_kit.ablation.settings.count_pairs_needed"
"""Two seeds are enough to conduct an ablation; a test of its own checks that plans with too few are refused."""


@pytest.fixture(autouse=True)
def _few_seeds_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FEW, lambda contrasts: 1)


def take_over(finished: Path, *trials_done: str, out: str = "out") -> None:
    """Copy trials of a finished ablation, `runs/linear` or `trunks/0`, which another one then does not run again."""
    for done in trials_done:
        shutil.copytree(finished / done, Path(out) / done)


def read_rows(out: str = "out") -> list[dict[str, str]]:
    with open(f"{out}/results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_it_ends_in_a_table(begun: Ablate, finished: Path) -> None:
    said, analysis = json.loads((finished.parent / "outcome.json").read_text())
    assert said == ["1/2 trunk 0: done", "2/2 trunk 1: done", *said[2:]] and said[-1] == "4/4 hard 1: done"
    rows = read_rows()
    header = "variant seed stage images metric value failed revision hardware exploratory adopted average censored"
    assert list(rows[0]) == [*header.split(), "tuned", "reason"]
    gaps = {(row["variant"], row["seed"]): float(row["value"]) for row in rows if row["metric"] == "gap"}
    assert len(gaps) == 4 and len(rows) == 4 * 4, "two values and their floors for each run"
    assert {(row["stage"], row["images"], row["failed"], row["exploratory"]) for row in rows} == {("2", "40", "0", "0")}
    written = evaluate_run("runs/hard/1")
    assert gaps["hard", "1"] == written["gap"]
    assert json.loads(Path("out/analysis.json").read_text()) == analysis
    (entry,) = analysis["contrasts"]
    assert (entry["variant"], entry["against"], entry["n"], entry["role"]) == ("hard", "linear", 2, "confirmatory")
    table = Path("out/table.txt").read_text()
    assert "hard - linear" in table and f"{entry['mean']:+.3f}" in table and "gap: geometric means" in table


def test_the_endpoint_may_name_its_average(ablate: Ablate) -> None:
    several = "ablate.bindings = ['train.averages = [@averages.HalfLife(), @averages.Copy()]']"
    ablate(several, "ablate.average = 'copy'", "ablate.seeds = (0,)")
    for variant in ("linear", "hard"):
        rows = json.loads(Path(f"out/runs/{variant}/0/result.json").read_text())["rows"]
        assert {row["average"] for row in rows} == {"copy"}
    bindings = ["train.metrics = [@metrics.Gap()]", "evaluation.count = 4"]
    run = "out/runs/hard/0"
    others = {name: evaluate(run, bindings=bindings, plugins=PLUGINS, average=name) for name in ("copy", None)}
    assert rows == others["copy"] != others[None]
    assert plans.load_plan(Path("out")).average == "copy"


SEVERAL = (
    "ablate.bindings = ['train.averages = [@averages.HalfLife(), @averages.Copy(), @averages.PowerFunction()]', "
    "'train.metrics = [@metrics.Gap()]', 'evaluation.count = 4']"
)


@pytest.mark.slow
def test_further_averages_and_curves_are_part_of_the_results(ablate: Ablate) -> None:
    """Curves have the ticks of the trunk too."""
    bindings = [SEVERAL, "ablate.seeds = (0,)", "ablate.averages = ['copy', 0.1]"]
    bindings += ["ablate.curves = ['gap', 'signed']", "ablate.quality = {'gap': 1e-9}", "ablate.confirm = ['gap_area']"]
    with pytest.raises(ConfigError, match=r"averages has no use for ablate\.confirm, 'gap_area': it is no value"):
        ablate(*bindings)
    analysis = ablate(*bindings[:-1])
    (entry,) = analysis["contrasts"]
    checks = [("gap", "copy"), ("gap", "width_0.1")]
    assert [(check["metric"], check["average"]) for check in entry["checks"]] == checks
    for variant in ("linear", "hard"):
        run = f"out/runs/{variant}/0"
        rows = {row["metric"]: row for row in json.loads(Path(run, "result.json").read_text())["rows"]}
        bindings = ["train.metrics = [@metrics.Gap()]", "evaluation.count = 4"]
        for average in ("copy", 0.1):
            name = "copy" if average == "copy" else "width_0.1"
            (gap, signed) = evaluate(run, bindings=bindings, plugins=PLUGINS, average=average)
            assert rows[f"gap {name}"] == {**gap, "metric": f"gap {name}"} and gap["average"] == name
            assert rows[f"signed {name}"]["value"] == signed["value"] != rows["signed"]["value"]

        # The values of all ticks: of the trunk's stage, and of the run's.
        lines = Path("out/trunks/0/stats.jsonl").read_text() + Path(run, "stats.jsonl").read_text()
        ticks = {tick["images"]: tick for tick in map(json.loads, lines.splitlines())}
        assert sorted(ticks) == [8, 16, 24, 32, 40]
        assert rows["signed_area_4x4"]["value"] == pytest.approx(ticks[8]["Metrics/signed"])
        assert rows["signed_area_4x4"]["images"] == 8 and rows["signed_area"]["images"] == 40
        second = [ticks[images]["Metrics/gap"] for images in (16, 24)]
        assert rows["gap_area_8x8"]["value"] == pytest.approx((second[0] ** 3 * second[1]) ** (1 / 4))
        assert rows["images_to_gap_1e-09"]["value"] is None and rows["images_to_gap_1e-09"]["censored"] == 40

    written = {(row["variant"], row["metric"]): row["value"] for row in read_rows()}
    assert written["hard", "gap copy"] != written["hard", "gap"] and written["hard", "images_to_gap_1e-09"] == ""
    quantities = plans.load_plan(Path("out")).quantities
    assert quantities["gap_area_16x16"] == {"direction": "lower", "scale": "log"}
    assert {entry["metric"] for entry in analysis["secondary"]} == {
        *(f"{name}_area{size}" for name in ("gap", "signed") for size in ("", "_4x4", "_8x8", "_16x16")),
        "images_to_gap_1e-09",
        "signed",
    }

    # The table alone says all of it, also which average a value is of, and that a run is censored and has not failed.
    averages = {(row["metric"], row["average"]) for row in read_rows() if row["variant"] == "hard"}
    assert {("gap", "half_life"), ("gap copy", "copy"), ("gap_area", "")} <= averages
    for name in ("runs", "trunks"):
        shutil.rmtree(f"out/{name}")
    assert json.loads(json.dumps(ablation.analyse("out"))) == json.loads(Path("out/analysis.json").read_text())


def evaluate_run(run: str) -> dict[str, float]:
    bindings = ["train.metrics = [@metrics.Gap()]", "evaluation.count = 4"]
    return {row["metric"]: row["value"] for row in evaluate(f"out/{run}", bindings=bindings, plugins=PLUGINS)}


def test_the_trunk_is_trained_once_and_changes_nothing(begun: Ablate, finished: Path) -> None:
    """A variant that begins from it ends as one trained by itself, bit for bit."""
    plan = plans.load_plan(Path("out"))
    assert plan.branch == 0 and plan.shared == ["linear", "hard"]
    for name in ("linear", "hard"):
        origin = json.loads(Path(f"out/runs/{name}/1/run.json").read_text())["from"]
        assert origin["run"] == str((finished / "trunks/1").resolve()) and origin["images"] == 8
        train(f"out/configs/{name}.gin", ["train.seed = 1"], run_dir=f"alone-{name}", plugins=PLUGINS)
        branch, alone = (last(Path(run)) for run in (f"out/runs/{name}/1", f"alone-{name}"))
        for name in ("generator", "averages", "discriminator", "optimizers", "images", "starts"):
            assert are_same(branch[name], alone[name]), name


def test_variants_begin_from_a_trunk_whatever_they_keep(ablate: Ablate) -> None:
    analysis = ablate("ablate.seeds = (0,)", "ablate.bindings = [\"train.keep_stages = 'nothing'\", 'train.keep = 1']")
    assert {entry["trials"] for entry in analysis["variants"].values()} == {1}
    kept = RunDirectory(Path("out/runs/hard/0")).checkpoints().read_entries()
    assert [entry.images for entry in kept if entry.forever] == [40], "only the trunk keeps the end of its stage"


def are_same(one: Any, other: Any) -> bool:
    from pggan_kit.testing.support import are_equal

    return are_equal(one, other)


def test_stopped_and_started_again_it_ends_the_same(ablate: Ablate, finished: Path) -> None:
    for _ in range(2):
        with pytest.raises(Interrupted, match="finished trials are kept") as stopped:
            ablate("launchers.Here.stop_after = 1")
        assert stopped.value.exit_code == 130
    kept = {path: path.stat().st_mtime_ns for path in Path("out").rglob("result.json")}
    assert len(kept) == 3 and not Path("out/results.csv").exists()
    assert ablate() == json.loads((finished / "analysis.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what had ended was not run again"
    assert Path("out/results.csv").read_text() == (finished / "results.csv").read_text()


def test_data_that_changed_while_it_was_stopped_are_refused(ablate: Ablate) -> None:
    own = ["train.dataset = @datasets.Arrays()", "datasets.Arrays.file = 'images.npy'", "schedule.sizes = (4, 8)"]
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 8, 8), dtype=np.uint8)
    np.save("images.npy", images[0])
    with pytest.raises(Interrupted):
        ablate(*own, "ablate.seeds = (0,)", "launchers.Here.stop_after = 1")
    np.save("images.npy", images[1])
    with pytest.raises(TrainingError, match="1 of 2 trials have not ended, among them hard 0"):
        ablate(*own, "ablate.seeds = (0,)")
    assert (
        "train.dataset has other images or labels than in the first trials" in Path("out/logs/hard-0.log").read_text()
    )
    np.save("images.npy", images[0])
    assert ablate(*own, "ablate.seeds = (0,)")["contrasts"][0]["n"] == 1


class Stop:
    @hookimpl
    def after_step(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_half_done_trial_is_resumed(ablate: Ablate, finished: Path) -> None:
    with pytest.raises(Interrupted):
        ablate("launchers.Here.stop_after = 0")
    folder = Path("out/trunks/0")
    bindings = [*plans.load_plan(Path("out")).bind_seed(0), trials.KEEP_STATE]
    with pytest.raises(Interrupted):
        train("out/configs/linear.gin", bindings, run_dir=folder, plugins=[*PLUGINS, Stop()])
    with pytest.raises(Interrupted):
        ablate("launchers.Here.stop_after = 1")
    assert "resumed at images 4" in (folder / "log.txt").read_text()
    assert_same_run(folder, finished / "trunks/0")


@pytest.mark.usefixtures("any_folder")
def test_a_trial_without_a_checkpoint_starts_from_scratch(ablate: Ablate, finished: Path) -> None:
    for seed, left in enumerate(("run.json", "log.txt")):
        Path(f"out/trunks/{seed}").mkdir(parents=True)
        Path(f"out/trunks/{seed}/{left}").write_text("{}")
    with pytest.raises(Interrupted):
        ablate("launchers.Here.stop_after = 2")
    for seed in (0, 1):
        assert_same_run(Path(f"out/trunks/{seed}"), finished / f"trunks/{seed}")


@pytest.mark.usefixtures("any_folder")
def test_a_trial_that_cannot_end_is_reported_and_tried_again(ablate: Ablate, finished: Path) -> None:
    said: list[str] = []
    take_over(finished, "trunks", "runs/linear", "runs/hard/0")
    Path("out/runs/hard/1").write_text("in the way")
    with pytest.raises(
        TrainingError, match=r"1 of 4 trials have not ended, among them hard 1: see the logs in out/logs"
    ):
        ablate(said=said)
    assert any("hard 1: not done (exit code" in line for line in said)
    assert len(read_rows()) == 3 * 4 and not Path("out/analysis.json").exists()
    Path("out/runs/hard/1").unlink()
    assert ablate()["contrasts"][0]["n"] == 2


@pytest.mark.parametrize("kept", [{("a", 9)}, {("b", 9)}], ids=["all missing trials", "others than the missing one"])
def test_results_whose_runs_are_gone_stay_until_all_trials_have_ended(
    kept: set[tuple[str, int]], tmp_path: Path
) -> None:
    """The table alone has those of the first trials, or, with one look taken, of others than the look misses."""
    plan = make_plan(looks=[8, 10], futility=0.0)
    results = make_results({"a": 0.0, "b": 0.3, "c": np.resize((0.2, -0.2), 10)})
    in_table = {key: results[key] for key in results if key[1] < 8} | {key: results[key] for key in kept}
    (tmp_path / "results.csv").write_text(conduct.format_csv(plan, in_table))
    before = (tmp_path / "results.csv").read_bytes()

    def end(keys: Iterable[tuple[str, int]]) -> None:
        for key in keys:
            folder = trials.locate_trial(tmp_path, *key)
            folder.mkdir(parents=True)
            (folder / trials.RESULT).write_text(json.dumps(results[key]))

    # The second look needs more runs of a and c, but none of b.
    end(key for key in results if key[1] < 8)
    remains = r"/results\.csv has results of 1 trial whose run is gone, among them . 9: it stays as it is until then"
    with pytest.raises(TrainingError, match=rf"^4 of 28 trials have not ended, among them a 8: .*{remains}$"):
        conduct.conclude_ablation(plan, tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == before

    # With runs for all results of the table, it has what the first look needed; in the end all.
    end(kept)
    with pytest.raises(TrainingError, match=r"when all have ended$"):
        conduct.conclude_ablation(plan, tmp_path)
    assert len(read_rows(str(tmp_path))) == 24 * 3
    end(key for key in results if key[1] >= 8 and key[0] != "b" and key not in kept)
    assert len(conduct.conclude_ablation(plan, tmp_path)["contrasts"]) == 2
    assert len(read_rows(str(tmp_path))) == 28 * 3


def test_a_value_that_is_not_finite_is_an_empty_cell(tmp_path: Path) -> None:
    """Of values as they were measured too, and not only after they were kept as JSON."""
    plan = make_plan(variants={"a": []}, contrasts=[])
    results = make_results({"a": 0.0})
    results["a", 0]["rows"][0] |= {"value": float("nan"), "floor": float("inf")}
    text = conduct.format_csv(plan, results)
    assert text.splitlines()[1].startswith("a,0,2,1,FID,,0,") and "nan" not in text and "inf" not in text
    (tmp_path / "results.csv").write_text(text)
    assert archive.read_table(plan, tmp_path)["a", 0]["rows"][0]["value"] is None

    # A second row of a value is refused, of which some readers would take the first, and others the last.
    (tmp_path / "results.csv").write_text(text + text.splitlines()[-1].replace("-1.0", "5.0") + "\n")
    with pytest.raises(RunError, match=r"line 31: variant a has signed of seed 9 already, in line 30"):
        archive.read_table(plan, tmp_path)


CHANGES = {
    "ablate.margin = 0.2": r"margin was 0\.5 and is 0\.2",
    "ablate.primary = 'signed'": r"primary was gap and is signed",
    "ablate.seeds = (0,)": r"seeds was \[0, 1\] and is \[0\]",
    "ablate.contrasts = [('linear', 'hard')]": r"contrasts was \[\['hard', 'linear'\]\]",
    "ablate.variants = {'linear': [], 'hard': ['train.switch = @switches.Cosine()']}": r"variants: hard was \['train",
    "ablate.average = 'half_life'": r"average was not there and is half_life",
    "train.tf32 = True": r"variants: linear was \[\] and is \['train\.tf32 = True'\]",
}


@pytest.mark.parametrize("binding", CHANGES)
def test_a_changed_plan_is_refused_by_name(binding: str, begun: Ablate) -> None:
    with pytest.raises(RunError, match=f"^out was begun with another plan .{CHANGES[binding]}"):
        begun(binding)


def test_a_base_that_changed_is_refused_by_its_line(begun: Ablate, tiny: Callable[..., str]) -> None:
    tiny("train.tf32 = True")
    with pytest.raises(RunError, match=r"configs: linear was .* and is train\.tf32 = True"):
        begun()
    lines = TINY.splitlines()
    Path("tiny.gin").write_text("\n".join([*lines[:13], lines[14], lines[13], *lines[15:], ""]))
    order = r"linear has its lines in another order: where it had `train\.latent_size = 8`, it has `train\.tick = 8`"
    with pytest.raises(RunError, match=rf"^out was begun with another plan \(configs: {order}\)\. Change it back"):
        begun()


def test_a_new_name_of_the_gin_files_is_no_new_plan(begun: Ablate) -> None:
    rows = read_rows()
    Path("other.gin").write_text(Path("switch.gin").read_text().replace("tiny.gin", "./base.gin"))
    Path("tiny.gin").rename("base.gin")
    said: list[str] = []
    ablation.ablate("other.gin", out="out", plugins=PLUGINS, say=said.append)
    assert said == [], "no trial is run again"
    assert json.loads(Path("out/plan.json").read_text())["name"] == "other"
    assert read_rows() == rows


def test_a_plan_changed_by_hand_is_refused(begun: Ablate) -> None:
    path = Path("out/plan.json")
    path.write_text(path.read_text().replace('"margin": 0.5', '"margin": 5.0'))
    with pytest.raises(RunError, match="was changed by hand"):
        begun("ablate.margin = 5.0")
    path.write_text("[]")
    with pytest.raises(RunError, match=r"plan\.json is damaged"):
        begun()


def test_seeds_added_later_are_exploratory(begun: Ablate, finished: Path) -> None:
    first = json.loads((finished / "analysis.json").read_text())
    analysis = begun("ablate.seeds = (0, 1, 2)")
    assert {row["seed"]: row["exploratory"] for row in read_rows()} == {"0": "0", "1": "0", "2": "1"}
    planned, later = analysis["contrasts"]
    assert planned == first["contrasts"][0], "what was planned is as it was"
    assert later["role"] == "exploratory" and later["seeds"] == [0, 1, 2] and "verdict" not in later
    with pytest.raises(RunError, match=r"seeds \[2\] were run there and are missing"):
        begun()


DIVERGES = (
    "{'linear': [], 'diverged': "
    "['train.loss = @losses.Diverging()', 'losses.Diverging.height = 16', 'losses.Diverging.seed = 1']}"
)


@pytest.mark.usefixtures("any_folder")
def test_a_run_that_diverges_is_a_result(ablate: Ablate, finished: Path) -> None:
    take_over(finished, "runs/linear")
    analysis = ablate(f"ablate.variants = {DIVERGES}", "ablate.contrasts = [('diverged', 'linear')]")
    (failed,) = [row for row in read_rows() if row["failed"] == "1"]
    cells = [failed[column] for column in ("variant", "seed", "metric", "value", "images")]
    assert cells == ["diverged", "1", "gap", "", "24"]
    (entry,) = analysis["contrasts"]
    assert entry["n"] == 1 and entry["failures"]["variant"] == 1 and entry["p"] == entry["ranks"]["p"]
    assert analysis["variants"]["diverged"]["failed"] == 1
    assert "became non-finite" in json.loads(Path("out/runs/diverged/1/result.json").read_text())["failed"]


KEPT = "ablate.variants = {'linear': [], 'kept': ['train.switch = @switches.Keeping()', 'switches.Keeping.stage = 1']}"


@pytest.mark.usefixtures("any_folder")
def test_a_run_that_its_switch_keeps_small_has_no_value(ablate: Ablate, finished: Path) -> None:
    """Images of 8x8 are easier than those of 16x16: their value would be compared with another one."""
    for out in ("out", "again"):
        take_over(finished, "runs/linear/0", out=out)
    bindings = [KEPT, "ablate.contrasts = [('kept', 'linear')]", "ablate.seeds = (0,)"]
    analysis = ablate(*bindings)
    (failed,) = [row for row in read_rows() if row["failed"] == "1"]
    cells = [failed[column] for column in ("variant", "metric", "value", "reason")]
    assert cells == ["kept", "gap", "", "ended at 8x8, not at 16x16"]
    assert analysis["failed"] == [["kept", 0, "ended at 8x8, not at 16x16"]]
    assert analysis["variants"]["kept"]["failed"] == 1 and analysis["contrasts"][0]["n"] == 0
    assert "failed: kept 0: ended at 8x8, not at 16x16\n" in Path("out/table.txt").read_text()
    assert archive.read_table(plans.load_plan(Path("out")), Path("out"))["kept", 0]["failed"] == failed["reason"]

    # As in a run that somebody trained before.
    adopting = ablate(*bindings, out="again", adopt=["out/runs/kept/0"])
    assert adopting["failed"] == analysis["failed"] and adopting["exploratory"]["adopted"]


def test_variants_that_end_at_different_sizes_are_not_compared(ablate: Ablate) -> None:
    smaller = "ablate.variants = {'linear': [], 'hard': ['schedule.sizes = (4, 8)']}"
    with pytest.raises(ConfigError, match=r"linear ends at 16x16, and hard, .* with, at 8x8: values"):
        ablate(smaller)
    assert not Path("out").exists()


@pytest.mark.usefixtures("any_folder")
def test_variants_fail_with_their_trunk(ablate: Ablate, finished: Path) -> None:
    take_over(finished, "trunks/0", "runs/linear/0", "runs/hard/0")
    analysis = ablate("train.loss = @losses.Diverging()", "losses.Diverging.height = 4", "losses.Diverging.seed = 1")
    assert [row["seed"] for row in read_rows() if row["failed"] == "1"] == ["1", "1"]
    assert {name: entry["failed"] for name, entry in analysis["variants"].items()} == {"linear": 1, "hard": 1}


@pytest.mark.usefixtures("any_folder")
def test_controls_have_fewer_seeds(ablate: Ablate, finished: Path) -> None:
    take_over(finished, "trunks", "runs")
    variants = (
        "{'linear': [], 'hard': ['train.switch = @switches.Hard()'], 'a_a': ['train.switch = @switches.Nudged()']}"
    )
    pairs = "ablate.contrasts = [('hard', 'linear'), ('a_a', 'linear')]"
    analysis = ablate(f"ablate.variants = {variants}", "ablate.controls = {'a_a': 1}", pairs)
    assert {row["seed"] for row in read_rows() if row["variant"] == "a_a"} == {"0"}
    hard, control = analysis["contrasts"]
    assert hard["holm"] == hard["p"], "the control is none of the tests that are corrected for"
    assert control["role"] == "control" and control["n"] == 1 and "holm" not in control


OBSERVED = """
from pggan_kit import hookimpl

@hookimpl
def before_run(run): ...
"""


@pytest.mark.usefixtures("any_folder")
def test_trials_are_processes_that_import_what_this_one_imports(
    ablate: Ablate, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: Path
) -> None:
    """With the shipped launcher: nothing from the working directory, and everything from this process's path.

    On Linux a launch imports once, and its trials are equal bit for bit to those of another process. The other trials
    are those of `finished`: launching trunks too would import everything a second time.
    """
    take_over(finished, "trunks", "runs/linear", "runs/hard/0")
    Path("random.py").write_text("raise SystemExit('random.py of the working directory')")
    Path("elsewhere").mkdir()
    Path("elsewhere/neighbour.py").write_text("")
    Path("mine.py").write_text("import neighbour\n" + OBSERVED)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    options = [option for plugin in [*PLUGINS, "mine.py"] for option in ("--plugin", plugin)]
    options += ["--launcher", "Local", "-b", "launchers.Local.jobs = 1", "--out", "out", "--json"]
    result = cli("ablate", "switch.gin", *options)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["contrasts"][0]["seeds"] == [0, 1]
    assert "4/4" in result.stderr and "done" in Path("out/logs/hard-1.log").read_text()
    command = json.loads(Path("out/runs/hard/1/run.json").read_text())["command"]
    assert command.startswith(f"pggan-kit trial {tmp_path}/out hard 1 ")
    assert_same_run(Path("out/runs/hard/1"), finished / "runs/hard/1")


@pytest.mark.slow
def test_trials_that_share_an_import_equal_those_of_new_processes(ablate: Ablate) -> None:
    """Two trials in forks of one process, and two in two that have imported everything, each with two threads."""
    options = ["ablate.launcher = @launchers.Local()", "launchers.Local.jobs = 1", "launchers.Local.cores = 2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "start_process", lambda *arguments: pytest.fail("this is no fork"))
        shared = ablate(*options, out="shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "find_preparation", lambda trials: None)
        alone = ablate(*options, out="alone")
    assert shared["contrasts"] == alone["contrasts"]
    for run in ("trunks/0", "trunks/1", "runs/hard/0", "runs/hard/1"):
        assert_same_run(Path("shared") / run, Path("alone") / run)


SLOW_STEPS = """\
import time
import warnings
from pathlib import Path
from pggan_kit import hookimpl

@hookimpl
def after_step():
    if Path("slow").exists():
        time.sleep(1.0)
"""


def test_a_killed_ablate_takes_its_trials_along(ablate: Ablate, finished: Path) -> None:
    """They save and exit by themselves, and the same command continues with them."""
    Path("slow.py").write_text(SLOW_STEPS)
    Path("slow").touch()
    plugins = [*PLUGINS, "slow.py"]
    options = [option for plugin in plugins for option in ("--plugin", plugin)]
    options += ["--launcher", "Local", "-b", "launchers.Local.jobs = 2", "--out", "out"]
    conductor = fork_command("ablate", "switch.gin", *options, log=Path("said"), before=launch_in_forks)
    folders = [Path(f"out/trunks/{seed}") for seed in (0, 1)]
    wait_until(lambda: all((folder / "checkpoints/manifest.json").exists() for folder in folders), conductor)
    conductor.send_signal(signal.SIGKILL)
    assert conductor.wait() == -signal.SIGKILL, Path("said").read_text()

    for seed, folder in enumerate(folders):
        lock = trials.locate_lock(Path("out"), "trunk", seed)
        wait_until(lambda lock=lock: not is_locked(lock))
        # A trial says its last words when its lock is free.
        log = Path(f"out/logs/trunk-{seed}.log")
        words = f"and saved; go on with: pggan-kit resume {folder.resolve()}"
        wait_until(lambda log=log, words=words: words in " ".join(log.read_text().split()))
        assert "the `ablate` that this trial belongs to has ended: stopping" in log.read_text()
        assert trials.read_result(folder) is None

    Path("slow").unlink()
    options = {"out": "out", "plugins": plugins, "say": [].append}
    analysis = ablation.ablate("switch.gin", **options)
    assert analysis["contrasts"] == json.loads((finished / "analysis.json").read_text())["contrasts"]
    for seed, folder in enumerate(folders):
        assert "resumed at images" in (folder / "log.txt").read_text()
        assert_same_run(folder, finished / f"trunks/{seed}")


@pytest.mark.usefixtures("any_folder")
def test_a_trial_that_still_runs_is_waited_for(ablate: Ablate, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes of the new `ablate` say so, and nothing is trained twice: the old trial ends here."""
    said: list[str] = []
    is_held = threading.Event()
    is_waited_for = threading.Event()

    def run_old_trial() -> None:
        with hold_when_free(trials.locate_lock(Path("out"), "trunk", 0), [].append):
            is_held.set()
            assert is_waited_for.wait(PATIENCE_SECONDS)
            shutil.copytree(finished / "trunks/0", "out/trunks/0")

    def say_in_trial(line: str) -> None:
        said.append(line)
        is_waited_for.set()

    # The old trial ends once the new process waits for it. All later ones have ended.
    take_over(finished, "runs")
    monkeypatch.setattr("pggan_kit.cli.ablate.print_message", say_in_trial)
    old = threading.Thread(target=run_old_trial)
    old.start()
    assert is_held.wait(PATIENCE_SECONDS)
    ablate(said=said)
    has_waited = is_waited_for.is_set()
    is_waited_for.set()
    old.join()
    # What both processes said, and that the run is the old one.
    assert has_waited
    process = f"process {os.getpid()} on {platform.node()}"
    assert said[:4] == [
        f"trunk 0: {process} of an earlier `ablate` still runs it; waiting until it has ended",
        f"waiting for {process}, which runs this trial",
        "trunk 0: done",
        "1/2 trunk 0: done",
    ]
    assert Path("out/trunks/0/log.txt").read_text() == (finished / "trunks/0/log.txt").read_text()


def test_a_plugin_edited_while_trials_run_never_mixes_two_codes(ablate: Ablate, finished: Path) -> None:
    """Trials that begin after the edit fail, and so does the ablation; their logs name the file."""
    mine = Path("mine.py").resolve()
    mine.write_text(OBSERVED)
    said: list[str] = []

    def edit_after_the_first(line: str) -> None:
        said.append(line)
        mine.write_text(OBSERVED + "# edited\n")

    again = {"out": "out", "plugins": [*PLUGINS, mine], "say": said.append}
    with pytest.raises(TrainingError, match=r"4 of 4 trials have not ended.*see the logs in out/logs"):
        ablation.ablate("switch.gin", **{**again, "say": edit_after_the_first})
    assert [line.partition(",")[0] for line in said[:2]] == ["1/2 trunk 0: done", "2/2 trunk 1: not done (exit code 2)"]
    log = Path("out/logs/trunk-1.log").read_text()
    assert f"the plugin file {mine} has changed since" in log and "plan.json recorded it" in log
    assert not Path("out/trunks/1").exists() and not Path("out/analysis.json").exists()

    with pytest.raises(RunError, match=rf"was begun with another plan \(plugins: {mine} was"):
        ablation.ablate("switch.gin", **again)
    mine.write_text(OBSERVED)
    take_over(finished, "runs")
    assert ablation.ablate("switch.gin", **again)["contrasts"][0]["n"] == 2 and said[-1] == "2/2 trunk 1: done"


def test_a_plugin_edited_between_training_and_evaluation_is_refused(
    ablate: Ablate, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path("mine.py").resolve()
    mine.write_text(OBSERVED)
    plan, _ = plan_reading.read_plan("switch.gin", plugins=[*PLUGINS, mine])
    plans.write_plan(plan, Path("out"))
    trained = training.train

    def train_and_edit(*args: Any, **kwargs: Any) -> Any:
        run = trained(*args, **kwargs)
        mine.write_text(OBSERVED + "# edited\n")
        return run

    trials.run_trial(Path("out"), "trunk", 0)
    monkeypatch.setattr(training, "train", train_and_edit)
    with pytest.raises(PluginError, match=rf"{mine} has changed since out/plan\.json recorded it.*ablate --out FOLDER"):
        trials.run_trial(Path("out"), "hard", 0)
    assert not Path("out/runs/hard/0/result.json").exists()


def test_a_plugin_edited_while_a_plan_is_read_is_refused(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    # Each import edits the file: what the first variant is built with is not what was noted.
    mine.write_text(
        OBSERVED + "from pathlib import Path\nwith Path(__file__).open('a') as file:\n    file.write('#')\n"
    )
    with pytest.raises(PluginError, match=rf"all variants .*{mine} has changed since switch\.gin recorded it"):
        plan_reading.read_plan("switch.gin", plugins=[*PLUGINS, mine])


def test_a_trial_runs_on_a_machine_that_does_not_know_the_plugins(
    ablate: Ablate, cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command names them, as the user did who runs the ablation; else the plan's files are only recorded."""
    plan, _ = plan_reading.read_plan("switch.gin", plugins=PLUGINS)
    plans.write_plan(plan, Path("out"))
    line = [word for word in conduct.make_trial(plan, Path("out"), "trunk", 0).command[3:] if word != "--with-ablate"]
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "other-cache"))
    unnamed = cli(*line[: line.index("--plugin")])
    assert unnamed.exit_code == 2 and "was never named on this machine" in unnamed.stderr
    assert not Path("out/trunks/0").exists()
    foreign = cli(*line, "--plugin", "tiny.gin")
    assert foreign.exit_code == 2 and "plan.json names no such plugin file" in foreign.stderr
    assert cli(*line).exit_code == 0


TALKATIVE = """
import warnings
from pggan_kit import Component, Quantity, hookimpl

class Talkative:
    quantities = {"few": Quantity("lower", (0.0, 1.0))}
    def describe(self, images): return images.flatten(1)
    def fingerprint(self): return "talkative"
    def compare(self, real, fake):
        warnings.warn(f"only {len(real)} images")
        return {"few": 0.5}

@hookimpl
def components(): return [Component("metrics", "Talkative", Talkative)]
"""


def test_a_plan_does_not_repeat_what_a_metric_says_of_the_noise_it_is_tried_on(ablate: Ablate) -> None:
    Path("mine.py").write_text(TALKATIVE)
    bindings = ["ablate.primary = 'few'", "ablate.evaluation = ['train.metrics = [@metrics.Talkative()]']"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plan, _ = plan_reading.read_plan("switch.gin", bindings, [*PLUGINS, Path("mine.py").resolve()])
    assert set(plan.quantities) == {"few"}
    assert [str(each.message) for each in said if "images" in str(each.message)] == []


def test_a_config_edited_beside_the_plan_is_refused(ablate: Ablate) -> None:
    """A variant's file in `configs/` is what its trials train."""
    plan, _ = plan_reading.read_plan("switch.gin", plugins=PLUGINS)
    plans.write_plan(plan, Path("out"))
    path = Path("out/configs/linear.gin")
    path.write_text(path.read_text() + "train.tf32 = True\n")
    with pytest.raises(RunError, match=r"out/configs/linear\.gin is not what plan\.json holds"):
        trials.run_trial(Path("out"), "trunk", 0)


@pytest.mark.usefixtures("few_measures")
def test_a_dry_run_shows_trials_cost_and_the_detectable_difference(
    ablate: Ablate, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a table, and the same for programs; what it measures for the one serves the other too."""
    monkeypatch.setattr(ablation, "estimate_cost", measure_once(ablation.estimate_cost))
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    options += ["--dry-run", "-b", f"ablate.seeds = {tuple(range(8))}"]
    options += ["-b", SEVERAL, "-b", "ablate.averages = ['copy', 0.1]"]
    shown = cli("ablate", "switch.gin", *options, "--json")
    cost = json.loads(shown.stdout)
    rows = cost.pop("trials")
    (contrast,) = cost.pop("contrasts")
    assert [(row["trial"], row["role"], row["seeds"], row["from"], row["images"]) for row in rows] == [
        ("trunk", "trunk", 8, None, 8),
        ("linear", "variant", 8, 0, 32),
        ("hard", "variant", 8, 0, 32),
    ]
    assert all(row["hours"] > 0 and row["teraflops"] > 0 for row in rows)
    deviations = st.find_detectable_mean(8)
    assert deviations is not None
    assert cost == {"pairs": 8, "confirmatory": 1, "detectable": deviations, "design": {}}
    assert contrast == {
        "name": "hard - linear",
        "role": "confirmatory",
        "weights": {"hard": 1.0, "linear": -1.0},
        "pairs": 8,
        "detectable": deviations,
        "detectable_in_runs": pytest.approx(deviations * 2**0.5),
    }

    # The metrics at ticks, and in the end with three averages.
    assert [row["tick_evaluations"] for row in rows] == [1, 4, 4]
    assert [row["evaluation_images"] for row in rows] == [4, (4 + 3) * 4, (4 + 3) * 4]

    table = " ".join(cli("ablate", "switch.gin", *options).stdout.split())
    assert "trunk@0" in table and "24 trials" in table and "of which metrics of images take" in table
    assert re.search(r"hard [^0-9]*variant [^0-9]*8 .*trunk@0 [^0-9]*32 .* 28 ", table)
    assert f"8 pairs, 1 confirmatory contrast: sign flips detect a mean of {deviations:.2g} standard" in table
    assert f"hard - linear confirmatory 8 2 {deviations:.2g}" in " ".join(table.replace("│", " ").split())
    assert not Path("out").exists() and not Path("runs").exists()


@pytest.fixture
def few_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure one stage of a plan; the others are extrapolated."""
    monkeypatch.setattr(planning, "MEASURING_SECONDS", 0.0)


def measure_once(estimate_cost: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that returns what its first call returned, and expects no other arguments."""
    first: list[Any] = []

    def estimate(*arguments: Any) -> Any:
        if not first:
            first.extend((arguments, estimate_cost(*arguments)))
        assert arguments == first[0]
        return first[1]

    return estimate


THREE = "{'linear': [], 'hard': ['train.switch = @switches.Hard()'], 'nudged': ['train.switch = @switches.Nudged()']}"
TWO_PAIRS = "[('hard', 'linear'), ('nudged', 'linear')]"


@pytest.mark.parametrize(
    ("bindings", "complaint"),
    [
        (
            ["ablate.seeds = (0, 1, 2, 3, 4)"],
            r"ablate\.seeds must be at least 6 for 1 confirmatory contrast, and are 5: with these, the corrected p "
            r"is at least 0\.0625, and never below 0\.05\. Name variants in `controls`",
        ),
        (
            ["ablate.seeds = (0, 1, 2, 3, 4, 5)", f"ablate.variants = {THREE}", f"ablate.contrasts = {TWO_PAIRS}"],
            r"ablate\.seeds must be at least 7 for 2 confirmatory contrasts, and are 6: .* at least 0\.0625",
        ),
    ],
)
def test_a_plan_that_cannot_reach_its_level_is_refused(
    bindings: list[str],
    complaint: str,
    ablate: Ablate,
    cli: Callable[..., Result],
    refused: Callable[[Result, str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FEW, st.count_pairs_needed)
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    options += [option for binding in bindings for option in ("-b", binding)]
    refused(cli("ablate", "switch.gin", "--dry-run", *options), complaint)
    assert not Path("out").exists() and not Path("runs").exists()
    plan, _ = plan_reading.read_plan("switch.gin", [*bindings, "ablate.controls = {'linear': 2}"], PLUGINS)
    assert "detectable" not in describe_cost(plan, []), "it asks nothing"


def test_what_metrics_state_is_part_of_the_plan(begun: Ablate, cli: Callable[..., Result]) -> None:
    wanted = {
        "gap": {"direction": "lower", "scale": "log"},
        "signed": {"direction": "higher", "scale": "plain"},
    }
    assert json.loads(Path("out/plan.json").read_text())["quantities"] == wanted
    analysis = json.loads(Path("out/analysis.json").read_text())
    assert (analysis["scale"], analysis["direction"]) == ("log", "lower")
    assert {entry["scale"] for entry in analysis["secondary"]} == {"plain"}


def test_a_value_that_is_not_finite_is_a_result(ablate: Ablate) -> None:
    """A run whose metric gives NaN ranks worst; every file stays valid JSON."""
    # A metric that is never finite.
    path = Path("unlucky.py")
    path.write_text(
        "import math\n"
        "from pggan_kit import Component, Quantity, hookimpl\n"
        "class Unlucky:\n"
        "    quantities = {'luck': Quantity('higher')}\n"
        "    def describe(self, images): return images.mean((1, 2, 3))\n"
        "    def fingerprint(self): return 'luck'\n"
        "    def compare(self, real, fake): return {'luck': math.nan}\n"
        "@hookimpl\n"
        "def components(): return [Component('metrics', 'Unlucky', Unlucky)]\n"
    )
    analysis = ablation.ablate(
        "switch.gin",
        [
            "ablate.primary = 'luck'",
            "ablate.evaluation = ['train.metrics = [@metrics.Unlucky()]']",
            "ablate.seeds = (0,)",
        ],
        out="out",
        plugins=[*PLUGINS, path],
        say=[].append,
    )

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is no JSON")

    # NaN is no JSON, and no value in the table.
    for file in Path("out").rglob("*.json*"):
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(text, parse_constant=refuse)
    (entry,) = analysis["contrasts"]
    assert (entry["p"], entry["n"], entry["failures"]["variant"], entry["mean"]) == (1.0, 0, 1, None)
    assert {row["value"] for row in read_rows() if row["metric"] == "luck"} == {""}


WRONG = {
    "ablate.base = 'nope.gin'": r"-b 'ablate\.base = .*': ablate\.base, .*: config nope\.gin: no such file$",
    "ablate.base = 1": r"ablate\.base must be a (text|string)",
    "ablate.variants = {'linear': []}": r"ablate\.variants must name at least two",
    "ablate.variants = {'linear': [], 'a/b': []}": r"ablate\.variants names folders: 'a/b' must begin with",
    "ablate.variants = {'linear': [], 'trunk': []}": r"ablate\.variants names folders: 'trunk' must",
    "ablate.variants = {'linear': [], 'Linear': []}": r"folders: 'linear' and 'Linear' differ in case alone",
    "ablate.variants = {'linear': [], 'hard': 'x'}": r"ablate\.variants must be a dict",
    "ablate.variants = {'linear': [], 'hard': ['train.seed = 3']}": r"variant hard .* binds train\.seed; bind",
    "ablate.variants = {'linear': [], 'hard': ['train.swich = 3']}": r"variant hard of .*did you mean switch",
    "ablate.variants = {'linear': [], 'hard': ['train.switch = @switches.Linear()']}": r"linear and hard are the same",
    "ablate.variants = {'linear': [], 'hard': ['train.tick = 4', 'train.tick = 6']}": r"variant hard.*bound twice",
    "ablate.seeds = ()": r"ablate\.seeds must be at least one",
    "ablate.seeds = (1, 1)": r"ablate\.seeds must be at least one, each once",
    "ablate.seeds = (-1, 3)": r"ablate\.seeds must be a whole number from 0 to 9223372036854775807, and is -1",
    "ablate.seeds = (0, 18446744073709551616)": r"a whole number is too large: none may be above 9223372036854775807",
    "ablate.seeds = (0.5,)": r"ablate\.seeds must be a list of \(a whole number\)",
    "ablate.contrasts = [('hard', 'linear', 'x')]": (
        r"ablate\.contrasts must be a list of \(a list of \(a string, a string\)\), not"
    ),
    "ablate.contrasts = [('hard', 'linear'), ('linear', 'hard')]": (
        r"ablate\.contrasts holds \('hard', 'linear'\) and \('linear', 'hard'\), which are one question"
    ),
    "ablate.variants = {'linear': [], 'hard': ['train.keep = 3', 'train.observers = []', 'data.workers = 1']}": (
        r"ablate\.variants: linear and hard are the same experiment"
    ),
    "ablate.variants = {'linear': [], 'hard': ['train.metrics = [@metrics.Gap()]']}": (
        r"ablate\.variants: linear and hard are the same experiment"
    ),
    "ablate.variants = {'linear': [], 'hard': ['train.switch = @switches.Hard()', 'evaluation.batch_size = 2']}": (
        r"ablate\.variants: hard and linear differ in evaluation\.batch_size when they are evaluated"
    ),
    "ablate.contrasts = []": r"ablate\.contrasts must hold at least one pair",
    "ablate.contrasts = [('hard', 'soft')]": r"ablate\.contrasts names 'soft', .* the variants are linear, hard",
    "ablate.contrasts = [('hard', 'hard')]": r"ablate\.contrasts must compare two different variants",
    "ablate.contrasts = [('hard', 'linear'), ('hard', 'linear')]": r"ablate\.contrasts must compare two",
    "ablate.controls = {'soft': 1}": r"ablate\.controls names 'soft', which is not a variant",
    "ablate.controls = {'hard': 3}": r"ablate\.controls must give hard from 1 to 2 of the seeds, and gives it 3",
    "ablate.primary = 'gapp'": r"ablate\.primary is 'gapp', and the metrics at 16x16 give gap, signed",
    "ablate.evaluation = ['train.metrics = [@metrics.Gap(), @b/metrics.Gap()]']": r"two metrics give a value gap; give",
    "ablate.primary = 1": r"ablate\.primary must be a (text|string)",
    "ablate.margin = 0": r"ablate\.margin must be above 0, and is 0",
    "ablate.margin = 1e999": r"a number is too large",
    "ablate.margin = 'small'": r"ablate\.margin must be a number",
    "ablate.evaluation = []": r"the metrics at 16x16 give nothing: bind train\.metrics in ablate\.evaluation",
    "ablate.evaluation = ['train.metrics = [@metrics.Gpa()]']": r"ablate\.evaluation: .*did you mean metrics\.Gap",
    "ablate.average = 'half_live'": r"ablate\.average is 'half_live', and variant linear has half_life$",
    "ablate.average = 0.05": r"ablate\.average is the width 0\.05, and variant linear has no power functions, of which",
    "ablate.average = 0.4": r"ablate\.average must be in \(0, 0\.288\], or a name, and is 0\.4",
    "ablate.averages = ['copy']": r"ablate\.averages is 'copy', and variant linear has half_life$",
    "ablate.averages = ['half_life']": r"ablate\.averages holds half_life, which is the first of variant linear",
    "ablate.averages = [0.05]": r"ablate\.averages is the width 0\.05, and variant linear has no power functions",
    "ablate.averages = [0.4]": r"ablate\.averages must be in \(0, 0\.288\], or a name, and is 0\.4",
    "ablate.averages = [0.05, 0.050]": r"ablate\.averages must name each once, not width_0\.05, width_0\.05",
    "ablate.averages = 'copy'": r"ablate\.averages must be a list",
    "ablate.confirm = ['gapp']": r"ablate\.confirm is 'gapp', and the metrics at 16x16 give gap, signed: bind",
    "ablate.confirm = ['gap']": r"ablate\.confirm holds the primary, gap, which cannot confirm itself",
    "ablate.confirm = ['signed']": r"ablate\.confirm is 'signed', which is compared on the scale 'plain', and the",
    "ablate.confirm = ['signed', 'signed']": r"ablate\.confirm must name each once, not signed, signed",
    "ablate.confirm = 3": r"ablate\.confirm must be a list",
    "ablate.curves = ['gap']": r"ablate\.curves names 'gap', and variant linear measures nothing at its ticks",
    "ablate.curves = ['gap', 'gap']": r"ablate\.curves must name each once, not gap, gap",
    "ablate.curves = 3": r"ablate\.curves must be a list",
    "ablate.quality = {'gap': 1}": r"ablate\.quality names 'gap', which is no curve: add it to ablate\.curves",
    "ablate.quality = {'gap': 'low'}": r"ablate\.quality must be a dict",
    "ablate.average = [1]": r"ablate\.average must be a string or a number",
    "ablate.looks = 8": r"ablate\.looks must be a list",
    "ablate.looks = (1, 3)": r"ablate\.looks must end with 2, the number of seeds, not with 3",
    "ablate.spending = 'pokock'": r"ablate\.spending must be 'pocock' or .*did you mean 'pocock'",
    "ablate.futility = 'never'": r"ablate\.futility must be a number",
    "ablate.bindings = ['train.loss = @losses.Hing()']": r"all variants of .*did you mean losses\.Hinge",
    "ablate.bindings = ['train.seed = 3']": r"^error: the bindings of all variants hold train\.seed; bind",
    "train.seed = 3": r"^error: the bindings of all variants hold train\.seed; bind ablate\.seeds",
    "train.loss = @losses.Hing()": r"all variants of .*: -b 'train\.loss = .*did you mean losses\.Hinge",
    "ablate.bindings = 3": r"ablate\.bindings must be a list",
    "ablate.launcher = @switches.Hard()": r"ablate\.launcher must be a component, as @launchers\.NAME\(\)",
    "ablate.lancher = 3": r"ablate has no parameter lancher \(did you mean launcher\?\)",
    "launchers.Local.jobs = 2": r"nothing in this experiment uses launchers\.Local\.jobs",
}


@pytest.mark.parametrize("binding", WRONG)
def test_wrong_input_is_refused(
    binding: str, ablate: Ablate, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    refused(cli("ablate", "switch.gin", "-b", binding, *options), WRONG[binding])


def test_a_curve_may_be_the_primary_where_it_means_something(ablate: Ablate) -> None:
    of_curve = ["ablate.curves = ['gap']", "ablate.primary = 'gap_area_16x16'", "ablate.confirm = ['gap_area']"]
    plan, _ = plan_reading.read_plan("switch.gin", [SEVERAL, *of_curve], PLUGINS)
    assert plan.get_quantity(plan.primary) == {"direction": "lower", "scale": "log"} and plan.confirm == ["gap_area"]
    curve = "ablate.curves = ['gap']"
    copy = "ablate.averages = ['copy']"
    for bindings, complaint in {
        (curve, "ablate.quality = {'gap': 0}"): r"quality of gap must be above 0, where it has a logarithm, and is 0",
        (copy, "ablate.average = 'copy'"): r"averages holds copy, with which ablate\.average evaluates",
        (curve, copy, "ablate.primary = 'gap_area'"): r"averages has no use for ablate\.primary, 'gap_area'",
    }.items():
        with pytest.raises(ConfigError, match=complaint):
            plan_reading.read_plan("switch.gin", [SEVERAL, *bindings], PLUGINS)


LAUNCHER = {
    "jobs = 0": "must be at least 1, or None, and is 0",
    "jobs = 'all'": "must be a whole number or None",
    "cores = 0": "must be at least 1, and is 0",
    "trials_per_gpu = 0": "must be at least 1, and is 0",
    "retries = -1": "must be at least 0, and is -1",
    "retries = None": "must be a whole number",
}


@pytest.mark.parametrize("setting", LAUNCHER)
def test_wrong_settings_of_the_launcher_are_refused(
    setting: str, ablate: Ablate, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    options += ["--launcher", "Local", "-b", f"launchers.Local.{setting}"]
    name = setting.partition(" ")[0]
    refused(cli("ablate", "switch.gin", *options), rf"launchers\.Local\.{name} {LAUNCHER[setting]}")


def test_wrong_options_are_refused(
    ablate: Ablate, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    refused(cli("ablate", "nope.gin"), r"config nope\.gin: no such file")
    refused(cli("ablate", "switch.gin", "--launcher", "Lokal", *options), r"did you mean launchers\.Local")
    Path("taken").write_text("")
    refused(cli("ablate", "switch.gin", "--out", "taken", *options), r"--out taken: ")
    refused(cli("trial", ".", "hard", "0"), r"holds no ablation \(it has no plan\.json\)")


def test_a_trial_that_is_not_planned_is_refused(begun: Ablate) -> None:
    for name, seed in (("soft", 0), ("hard", 7)):
        with pytest.raises(ConfigError, match=f"trial {name} {seed}: the plan has no such trial"):
            trials.run_trial(Path("out"), name, seed)


def test_a_damaged_result_is_reported(begun: Ablate) -> None:
    Path("out/runs/hard/1/result.json").write_text('{"failed": null}')
    with pytest.raises(RunError, match=r"hard/1/result\.json is damaged .*remove it"):
        begun()


def test_two_processes_do_not_work_in_one_folder(ablate: Ablate) -> None:
    from pggan_kit.system.locks import RunLock

    Path("out").mkdir()
    with RunLock(Path("out")), pytest.raises(RunError, match="out is in use"):
        ablate()


@pytest.mark.parametrize("name", ["results.csv", "analysis.json", "runs", "trunks", "configs", "sweep.json"])
def test_a_first_start_replaces_no_files(name: str, ablate: Ablate) -> None:
    Path("out").mkdir()
    path = Path("out", name)
    if path.suffix:
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "linear.gin").write_text("mine")
    with pytest.raises(RunError, match=rf"--out out has no plan\.json, and holds {name}, which a new ablation would"):
        ablate()
    assert [each.name for each in Path("out").iterdir()] == [name]
    assert all(each.read_text() == "mine" for each in Path("out").rglob("*") if each.is_file())


def test_a_first_start_that_was_killed_may_begin_again(ablate: Ablate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that no ablation writes may lie there too, such as its output."""

    class KilledError(Exception): ...

    def be_killed(*arguments: Any) -> None:
        raise KilledError

    Path("out").mkdir()
    Path("out/nohup.out").touch()
    with monkeypatch.context() as patch:
        patch.setattr(plans, "write_plan_file", be_killed)
        with pytest.raises(KilledError):
            ablate()
    assert {path.name for path in Path("out").iterdir()} == {".lock", "configs", "locks", "logs", "nohup.out"}
    with pytest.raises(Interrupted):
        ablate("launchers.Here.stop_after = 0")


DIFFERENCES = {
    ("train.switch = @switches.Hard()",): 1,
    ("train.switch = @switches.Staircase()", "switches.Staircase.steps = 3"): 1,
    ("train.switch = @switches.Nudged()",): 1,
    ("train.fade_reals = False",): 1,
    ("train.growth = @growth.Everything()", "growth.Everything.moments = 'forget_at_stages'"): 1,
    ("train.growth = @growth.FreezeOld()", "growth.FreezeOld.images = 4"): 1,
    ("train.growth = @growth.FreezeD()",): 0,
    ("train.resampling = @resampling.Blur()",): 1,
    ("schedule.fade_images = {4: 8, 16: 4}", "schedule.stable_images = {4: 8, 16: 12}"): 2,
    ("schedule.fade_images = 4", "schedule.stable_images = {4: 8, 8: 12}"): 1,
    ("schedule.stable_images = {4: 8, 16: 12}",): 0,
    ("schedule.batch_size = {4: 4, 16: 2}",): 2,
    ("schedule.batch_size = 2",): 0,
    ("train.loss = @losses.WGANGP()",): 0,
    ("d/optimizers.Adam.lr = 1e-4",): 0,
    ("architectures.PGGAN.pool = 'before_activation'",): 0,
    ("train.averages = [@averages.PerUpdate()]",): 0,
    (
        "train.switch = @switches.Plateau()",
        "switches.Plateau.watch = 'Loss/D'",
        "switches.Plateau.window = 2",
        "switches.Plateau.tolerance = 0.1",
    ): 0,
    ("train.switch = @switches.Linear()", "train.fade_reals = True", "optimizers.Adam.lr = 1e-3"): None,
}


@pytest.mark.parametrize("bindings", DIFFERENCES, ids=lambda bindings: bindings[0])
def test_the_first_difference(bindings: tuple[str, ...], tiny: Callable[..., str], stub: str) -> None:
    """0: from the start; 1: from the first growth; a switch that decides when to grow may do so in the first stage."""
    file = tiny()
    one = api.prepare(file, plugins=[stub])
    other = api.prepare(file, bindings, plugins=[stub])
    assert find_first_difference(one, other) == DIFFERENCES[bindings]


def test_macros_are_looked_through(tiny: Callable[..., str], stub: str) -> None:
    file = tiny("RATE = 1e-3", "optimizers.Adam.lr = %RATE")
    same = api.prepare(file, ["optimizers.Adam.lr = 1e-3"], [stub])
    other = api.prepare(file, ["RATE = 2e-3"], [stub])
    assert find_first_difference(api.prepare(file, plugins=[stub]), same) is None
    assert find_first_difference(same, other) == 0


def test_overrides_go_to_the_plan_or_to_all_experiments() -> None:
    of_plan = ["ablate.seeds = (1,)", " launchers.Local.jobs = 2", "x/launchers.Local.jobs = 2", " SEEDS= (0, 1)"]
    of_all = ["train.tick = 3", "SIZES = (4, 8)", "a/datasets.MNIST.folder = 'ablate.seeds'"]
    config = gin_files.parse_text("SEEDS = (0,)", "ablation")
    assert split_bindings([of_all[0], *of_plan, *of_all[1:]], config, "ablate") == (of_plan, of_all)
    mixed = "ablate.seeds = %SEEDS\ntrain.switch = @switches.Hard()"
    assert split_bindings([mixed], config, "ablate") == (["ablate.seeds = %SEEDS"], ["train.switch = @switches.Hard()"])


def test_a_macro_of_the_ablation_is_overridden_there(
    ablate: Ablate, tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    plan = SWITCH.replace("ablate.seeds = (0, 1)", "ablate.seeds = %SEEDS")
    Path("switch.gin").write_text(f"SEEDS = (0, 1)\n{plan}")
    plan, _ = plan_reading.read_plan("switch.gin", ["SEEDS = (3, 4, 5)"], PLUGINS)
    assert plan.seeds == [3, 4, 5]
    tiny("SEEDS = 1", "train.seed = %SEEDS")
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    refused(
        cli("ablate", "switch.gin", "-b", "SEEDS = (3, 4, 5)", *options),
        r"-b 'SEEDS = \(3, 4, 5\)': switch\.gin and tiny\.gin both define SEEDS; give the macro another name in one",
    )


def test_a_base_that_is_missing_or_broken_is_refused_at_its_place(
    ablate: Ablate, tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    tiny("train.seed = [")
    pattern = r"^error: switch\.gin:1: ablate\.base, which is relative to the ablation's file: tiny\.gin:1\d: broken"
    refused(cli("ablate", "switch.gin", *options), pattern)
    tiny("train.loss = @losses.Hing()")
    refused(cli("ablate", "switch.gin", *options), r"^error: all variants of ablate\.variants: tiny\.gin:17: unknown")
    Path("tiny.gin").unlink()
    pattern = r"^error: switch\.gin:1: ablate\.base, which is relative .*: config tiny\.gin: no such file$"
    refused(cli("ablate", "switch.gin", *options), pattern)


def test_revision_and_hardware_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.describe_hardware().endswith(", 1 thread")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.find_revision() == "0.1.0", "outside a checkout, the version"


@pytest.mark.usefixtures("any_folder")
def test_it_says_how_far_it_is_and_removes_what_killed_processes_left(ablate: Ablate) -> None:
    class Launcher:
        """A launcher whose trials all fail."""

        def launch(self, launched: list[Any], report_end: Callable[[Any, int], None]) -> None:
            for each in launched:
                report_end(each, 1)

    # Files that processes began to write.
    plan, _ = plan_reading.read_plan("switch.gin", (), PLUGINS)
    leftovers = [Path("out", f".plan.json.x{UNFINISHED}"), Path("out", "configs", f".hard.gin.x{UNFINISHED}")]
    of_trial = Path("out", "runs", "hard", "0", f".run.json.x{UNFINISHED}")
    for path in (*leftovers, of_trial):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    reports: list[str] = []
    with (
        receive_activities(lambda activity: reports.append(activity.describe())),
        pytest.raises(TrainingError, match="trials have not ended"),
    ):
        conduct.run_ablation(plan, Launcher(), Path("out"), reports.append)

    # What was reported, and what is left.
    count = len(list(plan.list_trunks()))
    assert reports[:2] == [f"running trunks: 0 of {count} trunks"] * 2
    assert f"running trunks: {count} of {count} trunks" in reports
    assert not any(path.exists() for path in leftovers)
    assert of_trial.exists(), "its process may still run"


@pytest.mark.usefixtures("few_measures")
def test_reading_and_planning_say_how_far_they_are_and_which_variants_they_warn_of(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = planning.plan

    def warn_and_plan(config: Any, bindings: Any, plugins: Any, **options: Any) -> list[dict[str, Any]]:
        warnings.warn("the tick is short", stacklevel=2)
        if bindings:
            warnings.warn("the switch is hard", stacklevel=2)
        return original(config, bindings, plugins, **options)

    monkeypatch.setattr(planning, "plan", warn_and_plan)
    reports: list[str] = []
    with (
        receive_activities(lambda activity: reports.append(activity.describe())),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        ablation.estimate_cost("switch.gin", (), PLUGINS)
    texts = [str(warning.message) for warning in caught]
    assert "linear, hard: the tick is short" in texts and "hard: the switch is hard" in texts
    assert "the tick is short" not in texts
    assert "checking: 1 of 2 variants" in reports
    assert "planning: 1 of 2 variants" in reports
