"""Processes of trials that fail or are killed: which trials they end, and which another process goes on with."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.snapshots import snapshot_at
from helpers.sweep_files import write_sweep

from pggan_kit.errors import ConfigError, DataError, Interrupted, PluginError, RunError, TrainingError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.sweeps import trial as trials
from pggan_kit.sweeps.plan import load_plan
from pggan_kit.sweeps.study import Study

pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")

Act = Callable[[Any], None]


def run_process(folder: Path, act: Act, monkeypatch: pytest.MonkeyPatch) -> int | BaseException | None:
    """Run the process of a trial, which acts in place of training; return what it returns or raises."""
    monkeypatch.setattr(trials, "_run_stages", lambda plan, folder, trial, files, say: act(trial))
    try:
        return trials.run_next_trial(folder, say=[].append)
    except BaseException as error:
        return error


def list_states(folder: Path) -> list[tuple[str, str]]:
    """Return the state of each trial, and why it ended early."""
    return [(row["state"], row["why"]) for row in Study(load_plan(folder), folder).list_trials()]


def kill_the_second(trial: Any) -> None:
    """End a trial, or leave no trace of the process, as a signal does for which there is no handler."""
    if trial.number == 1:
        raise SystemExit(137)
    trial.end(1.0)


def test_a_trial_whose_process_is_killed_each_time_ends_and_the_others_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(tmp_path)
    outcomes = [run_process(tmp_path, kill_the_second, monkeypatch) for _ in range(7)]
    assert outcomes[0] == 0
    assert [type(outcome) for outcome in outcomes[1:4]] == [SystemExit] * 3
    assert outcomes[4:] == [2, 3, None]
    killed = ("ended early", "failed 3 times: its process was killed, for want of memory for example")
    assert list_states(tmp_path) == [("done", ""), killed, ("done", ""), ("done", "")]


@pytest.mark.parametrize("stop", [Interrupted(None, "stopped"), KeyboardInterrupt()])
def test_processes_that_are_stopped_in_order_end_no_trial(
    stop: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_stopped(trial: Any) -> None:
        raise stop

    write_sweep(tmp_path)
    for _ in range(5):
        assert run_process(tmp_path, be_stopped, monkeypatch) is stop
    assert list_states(tmp_path) == [("left", "")]


def test_a_trial_that_gets_further_each_time_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint, or a value at the end of a stage, is progress."""
    write_sweep(tmp_path)
    run = RunDirectory(trials.locate_run(tmp_path, 0, "0"))
    run.path.mkdir(parents=True)
    images: list[int] = []

    def be_killed_after_a_checkpoint(trial: Any) -> None:
        images.append(8 * len(images))
        run.checkpoints().save(snapshot_at(images[-1]))
        raise SystemExit(137)

    for _ in range(6):
        assert isinstance(run_process(tmp_path, be_killed_after_a_checkpoint, monkeypatch), SystemExit)
    assert list_states(tmp_path) == [("left", "")]

    def fail(trial: Any) -> None:
        raise MemoryError("no memory for these values")

    # The value is there when the process fails; each of them is the first one that does so at its place. The process
    # after two that got nowhere may get further too.
    def fail_after_a_stage(trial: Any) -> None:
        trial.report(len(trial.stage_values) + 1, 1.0)
        fail(trial)

    write_sweep(tmp_path / "other", stages=list(range(6)), sizes=[f"{4 << stage}" for stage in range(6)])
    for _ in range(5):
        assert isinstance(run_process(tmp_path / "other", fail_after_a_stage, monkeypatch), MemoryError)
    for act in (fail, fail, fail_after_a_stage):
        assert isinstance(run_process(tmp_path / "other", act, monkeypatch), MemoryError)
    assert list_states(tmp_path / "other") == [("left", "")]


def make_full_disk_error() -> TrainingError:
    """Return the error of a checkpoint for which the disk has no space."""
    error = TrainingError("cannot write the checkpoint")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        make_full_disk_error(),
        RunError("the run's files cannot be read"),
        DataError("the data set is missing"),
        PluginError("the plugin's file was changed"),
    ],
)
def test_faults_of_the_machine_end_no_trial(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that was changed refuses any values, those of the plan too; other errors speak for themselves."""

    def refuse_any(config: Path, bindings: Sequence[str], plugins: Sequence[Any]) -> None:
        assert bindings == ["optimizers.Adam.lr = 0.0001", "train.seed = 0"]
        raise PluginError("the plugin's file was changed")

    def fail(trial: Any) -> None:
        raise error

    write_sweep(tmp_path)
    monkeypatch.setattr(trials, "prepare", refuse_any)
    for _ in range(5):
        assert run_process(tmp_path, fail, monkeypatch) is error
    assert list_states(tmp_path) == [("left", "")]

    # Where the machine is well again, the trial goes on.
    assert run_process(tmp_path, lambda trial: trial.end(1.0), monkeypatch) == 0


def test_a_contract_that_values_break_ends_their_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(trial: Any) -> None:
        raise PluginError("losses.Mine returns no scalar")

    write_sweep(tmp_path)
    monkeypatch.setattr(trials, "prepare", lambda *arguments: None)
    outcomes = [run_process(tmp_path, fail, monkeypatch) for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [PluginError, PluginError, int]
    assert list_states(tmp_path) == [("ended early", "failed 3 times: losses.Mine returns no scalar")]


def test_values_that_the_experiment_refuses_end_their_trial_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(trial: Any) -> None:
        raise ConfigError("these values\ndo not fit together")

    write_sweep(tmp_path)
    monkeypatch.setattr(trials, "prepare", lambda *arguments: None)
    assert run_process(tmp_path, refuse, monkeypatch) == 0
    assert list_states(tmp_path) == [("ended early", "refused: these values")]
