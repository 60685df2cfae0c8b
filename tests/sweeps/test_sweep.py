"""Sweeps that run: what is suggested, pruned, continued, shared and written."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.sweep_files import PLUGINS

from pggan_kit.errors import Interrupted, RunError, TrainingError
from pggan_kit.sweeps import conduct
from pggan_kit.sweeps import trial as trials
from pggan_kit.sweeps.plan import load_plan
from pggan_kit.sweeps.study import Study
from pggan_kit.system.locks import acquire, hold_when_free, is_locked

pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")

Sweep = Callable[..., dict[str, Any]]


def read_trials(folder: str = "out") -> list[dict[str, str]]:
    with open(f"{folder}/trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def measure_by(monkeypatch: pytest.MonkeyPatch, values: dict[tuple[int, str], float]) -> list[tuple[int, str]]:
    """Let trials have made-up values, by trial and size; return a list of what was measured."""
    measured: list[tuple[int, str]] = []
    evaluate = trials.evaluate

    def evaluate_made_up(run: Path, **options: Any) -> list[dict[str, Any]]:
        (row, *_) = [row for row in evaluate(run, **options) if row["metric"] == "gap"]
        key = (int(run.parent.name), row["size"])
        measured.append(key)
        return [{**row, "value": values.get(key, 1.0)}]

    monkeypatch.setattr(trials, "evaluate", evaluate_made_up)
    return measured


def test_a_killed_sweep_goes_on_to_the_same_trials_and_its_best_is_trained(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]
) -> None:
    whole = sweep(out="whole")
    assert [row["state"] for row in read_trials("whole")] == ["done"] * 3

    # The launcher is interrupted after a trial; the next process is killed after its training, before its value.
    with pytest.raises(Interrupted, match="the same command continues"):
        sweep("sweep.launcher = @launchers.Here()", "launchers.Here.stop_after = 1")
    with monkeypatch.context() as patch:
        patch.setattr(trials, "evaluate", lambda run, **options: (_ for _ in ()).throw(SystemExit(137)))
        with pytest.raises(Interrupted):
            sweep("sweep.launcher = @launchers.Here()", "launchers.Here.stop_after = 1")
    trained = Path("out/runs/1/0/stats.jsonl").read_bytes()
    said: list[str] = []
    best = sweep(said=said)
    assert Path("out/runs/1/0/stats.jsonl").read_bytes() == trained, "what was trained is not trained again"
    assert read_trials("out") == read_trials("whole"), "suggestions depend on no process"
    assert best == whole
    assert len(said) == 2 and said[-1].startswith("3/3 trial 2: gap ")

    # The best of all, as a whole experiment.
    rows = read_trials()
    values = [float(row["gap 8x8"]) for row in rows]
    assert best["trial"] == values.index(min(values)) and best["value"] == min(values)
    row = rows[best["trial"]]
    lr = float(row["g/optimizers.Adam.lr"])
    assert best["bindings"] == [f"g/optimizers.Adam.lr = {lr!r}", f"train.latent_size = {row['train.latent_size']}"]
    assert 1e-4 <= lr <= 1e-2
    assert len({row["g/optimizers.Adam.lr"] for row in rows}) == 3
    result = cli("train", "out/best.gin", "--run-dir", "best", *(f"--plugin={file}" for file in PLUGINS))
    assert result.exit_code == 0, result.output
    chosen = Path(f"out/runs/{best['trial']}/0/stats.jsonl").read_text().splitlines()
    own = Path("best/stats.jsonl").read_text().splitlines()
    losses = [{key: value for key, value in json.loads(lines[-1]).items() if "oss" in key} for lines in (own, chosen)]
    assert losses[0] == losses[1] and losses[0]

    # More trials may be added, and nothing else changed.
    assert sweep("sweep.trials = 4")["trials"] == 4
    with pytest.raises(RunError, match=r"begun with another sweep \(search was tpe and is random\)"):
        sweep("sweep.search = 'random'")
    with pytest.raises(RunError, match=r"begun with another sweep \(parameters was .* and is "):
        sweep("sweep.parameters = {'g/optimizers.Adam.lr': ('log', 1e-4, 1e-3)}")


def test_a_pruner_stops_trials_at_the_end_of_a_stage(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second trial is worse than the first one after 4x4, and is trained no further."""
    values = {(0, "4x4"): 1.0, (1, "4x4"): 5.0, (2, "4x4"): 0.5, (0, "8x8"): 2.0, (2, "8x8"): 3.0}
    measured = measure_by(monkeypatch, values)
    pruned = ("sweep.pruner = 'median'", "sweep.startup = 1")

    # Killed between a stage's report and the decision, the decision is taken by what was reported.
    original = trials.OpenTrial.asks_to_prune
    asked: list[int] = []

    def be_killed_once(trial: Any) -> bool:
        asked.append(trial.number)
        if asked == [0, 1]:
            raise SystemExit(137)
        return original(trial)

    monkeypatch.setattr(trials.OpenTrial, "asks_to_prune", be_killed_once)
    best = sweep(*pruned)
    assert measured == [(0, "4x4"), (0, "8x8"), (1, "4x4"), (2, "4x4"), (2, "8x8")]
    assert asked == [0, 1, 1, 2]
    assert (best["trial"], best["value"], best["ended_early"]) == (0, 2.0, 1)
    rows = read_trials()
    assert [row["why"] for row in rows] == ["", "pruned after 4x4", ""]
    assert (rows[1]["gap 4x4"], rows[1]["gap 8x8"]) == ("5.0", "")
    images = [count_images(number) for number in range(3)]
    assert images == [24, 8, 24]


def count_images(number: int) -> int:
    """Return the clock of a trial's run."""
    return int(json.loads(Path(f"out/runs/{number}/0/stats.jsonl").read_text().splitlines()[-1])["images"])


@pytest.mark.parametrize("pruner", ["halving", "hyperband"])
def test_other_pruners_decide_by_stages_too(pruner: str, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_by(monkeypatch, {(1, "4x4"): 5.0, (2, "4x4"): 6.0})
    best = sweep(f"sweep.pruner = '{pruner}'", "sweep.search = 'random'", "sweep.trials = 4")
    states = [row["state"] for row in read_trials()]
    assert best["ended_early"] == states.count("ended early")
    if pruner == "halving":
        assert states[1:3] == ["ended early"] * 2


def test_a_higher_value_may_be_better_and_several_seeds_are_averaged(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    def evaluate(run: Path, **options: Any) -> list[dict[str, Any]]:
        runs.append(f"{run.parent.name}/{run.name}")
        return [{"metric": "signed", "size": "8x8", "value": {"0/3": 1.0, "0/5": 2.0, "1/3": 0.5}.get(runs[-1], 4.0)}]

    monkeypatch.setattr(trials, "evaluate", evaluate)
    best = sweep("sweep.metric = 'signed'", "sweep.seeds = (3, 5)", "sweep.trials = 2")
    assert runs == ["0/3", "0/5", "1/3", "1/5"]
    assert (best["trial"], best["value"], best["seeds"]) == (1, 2.25, ["3", "5"])
    assert "train.seed = 5" in Path("out/runs/1/5/config.gin").read_text()


def test_values_that_diverge_or_are_not_finite_are_never_the_best(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_by(monkeypatch, {(1, "8x8"): float("nan")})
    best = sweep(
        "sweep.parameters = {'losses.Diverging.seed': ('integer', 0, 1)}",
        "sweep.bindings = ['train.loss = @losses.Diverging()', 'losses.Diverging.height = 8']",
        "sweep.search = 'random'",
        "sweep.trials = 5",
    )
    rows = read_trials()
    for row in rows:
        diverges = row["losses.Diverging.seed"] == "0"
        assert row["why"].startswith("diverged: ") == diverges
    assert any(row["why"].startswith("diverged: ") for row in rows)
    assert any(row["why"] == "gap at 8x8 is not finite" for row in rows) or rows[1]["losses.Diverging.seed"] == "0"
    assert rows[best["trial"]]["state"] == "done"


def test_two_machines_share_a_sweep(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process trains a trial, another one takes the next; who has nothing to run waits for the rest."""
    taken: list[int] = []
    numbers: list[int | None] = []
    train = trials.train_or_resume

    def train_beside_another(run: Path, *arguments: Any) -> None:
        taken.append(int(run.parent.name))
        if len(taken) == 1:
            numbers.append(trials.run_next_trial(Path("out").resolve(), PLUGINS, [].append))
        train(run, *arguments)

    monkeypatch.setattr(trials, "train_or_resume", train_beside_another)
    said: list[str] = []
    assert sweep("sweep.trials = 2", said=said)["trials"] == 2
    assert (taken, numbers) == ([0, 1], [1])

    # A trial that another machine runs is not taken, but waited for.
    study = Study(load_plan(Path("out")), Path("out"))
    study._study.ask()
    waited: list[str] = []

    def wait(path: Path, waiting: Callable[[str], None]) -> Any:
        if path.name == "2.lock":
            waited.append(path.name)
            other.release()
        return hold_when_free(path, waiting)

    other = acquire(Path("out/locks/2.lock"))
    assert other is not None
    monkeypatch.setattr(conduct, "hold_when_free", wait)
    assert sweep("sweep.trials = 3", said=said)["trials"] == 3
    assert waited == ["2.lock"]
    assert "trials 2 of out run elsewhere: waiting until they have ended" in said


def test_a_study_of_another_space_is_refused(sweep: Sweep) -> None:
    sweep("sweep.trials = 1")
    other = ("sweep.trials = 1", "sweep.parameters = {'train.latent_size': ('choice', [4, 8])}")
    with pytest.raises(RunError, match=r"begun with another sweep \(parameters was "):
        sweep(*other)

    # Also where its file alone was copied.
    plan = load_plan(Path("out"))
    Path("copy").mkdir()
    Path("copy/study.journal").write_bytes(Path("out/study.journal").read_bytes())
    with pytest.raises(RunError, match=r"study\.journal is the study of another sweep, with other parameters"):
        Study(dataclasses.replace(plan, parameters={}), Path("copy"))
    Path("damaged").mkdir()
    Path("damaged/study.journal").write_text("no journal\nat all\n")
    with pytest.raises(RunError, match=r"study\.journal is damaged, or no journal of Optuna.*Put back a copy"):
        Study(plan, Path("damaged"))

    text = Path("out/sweep.json").read_text()
    Path("out/sweep.json").write_text(text.replace('"startup": 10', '"startup": 9'))
    with pytest.raises(RunError, match=r"sweep\.json was changed by hand"):
        sweep("sweep.trials = 1")


def test_a_sweep_whose_trials_all_fail_has_no_best(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_by(monkeypatch, {(0, "8x8"): float("inf")})
    with pytest.raises(TrainingError, match=r"none of 1 trials has a value; trials\.csv says why"):
        sweep("sweep.trials = 1")
    assert not Path("out/best.gin").exists()


def test_a_trial_that_fails_each_time_does_not_keep_others_from_being_tried(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = trials.train_or_resume

    def fail_in_one(run: Path, *arguments: Any) -> None:
        if run.parent.name == "1":
            raise MemoryError("no memory for these\nvalues")
        train(run, *arguments)

    monkeypatch.setattr(trials, "train_or_resume", fail_in_one)
    best = sweep()
    assert [row["why"] for row in read_trials()] == ["", "failed 3 times: no memory for these", ""]
    assert best["trial"] in (0, 2) and best["ended_early"] == 1


def test_the_command_shows_the_plan_and_the_best(
    sweep: Sweep, cli: Callable[..., Result], no_memory_count: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep("sweep.trials = 1", "sweep.pruner = 'median'")
    plugins = [f"--plugin={file}" for file in PLUGINS]
    result = cli("sweep", "sweep.gin", "--dry-run", "--json", *plugins, "-b", "sweep.trials = 7")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert (plan["trials"], plan["runs"], plan["images"]) == (7, 7, 24)
    assert plan["evaluation_images"] == 2 * 4, "4 fakes at the end of each of two stages"
    assert plan["parameters"]["g/optimizers.Adam.lr"] == ["log", 1e-4, 1e-2]
    shown = cli("sweep", "sweep.gin", "--dry-run", *plugins).stdout
    assert "log from 0.0001 to 0.01" in shown and "one of 4, 8" in shown
    assert "median may stop trials after 4x4" in " ".join(shown.split())

    result = cli("sweep", "sweep.gin", "--out", "out", *plugins)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("trial 0 is the best of 1: gap ")
    assert result.stdout.endswith("train it: pggan-kit train out/best.gin\n")


def test_the_trials_of_a_sweep_end_with_it(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process watches the file that its own `sweep` locks."""
    owners: list[Path] = []
    make_process = conduct.processes.make_process

    def look(name: str, arguments: list[str], *rest: Any) -> Any:
        owners.append(Path(arguments[arguments.index("--owner") + 1]))
        assert is_locked(owners[-1])
        return make_process(name, arguments, *rest)

    monkeypatch.setattr(conduct.processes, "make_process", look)
    sweep("sweep.trials = 1")
    assert [owner.parent for owner in owners] == [Path("out/locks").resolve()]
    assert not owners[0].exists()
