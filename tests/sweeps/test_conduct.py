"""Rounds of processes: a sweep goes on as long as something comes of it, and stops with what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.sweep_files import write_sweep

from pggan_kit.components import Trial
from pggan_kit.config import gin_files
from pggan_kit.errors import TrainingError
from pggan_kit.sweeps import conduct
from pggan_kit.sweeps import trial as trials

pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")


class Rounds:
    """A launcher that runs each process in this one, once, and counts those of each round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: list[int] = []

    def launch(self, launched: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        self.counts.append(len(launched))
        assert len(self.counts) < 9, "the sweep does not stop"
        codes = []
        for process in launched:
            code = 0
            try:
                trials.run_next_trial(self.folder, say=[].append)
            except (OSError, MemoryError, SystemExit):
                code = 1
            codes.append(code)
            assert ended is not None
            ended(process, code)
        return codes


@pytest.mark.parametrize("error", [MemoryError("no memory for these values"), SystemExit(137)])
def test_a_trial_that_uses_up_processes_stops_no_sweep(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stages(plan: Any, folder: Path, trial: Any, *rest: Any) -> None:
        if trial.number == 0:
            raise error
        trial.end(1.0)

    monkeypatch.setattr(trials, "_run_stages", run_stages)
    monkeypatch.setattr(conduct, "describe_best", lambda *arguments: "")
    plan = write_sweep(tmp_path, trials=2)
    launcher = Rounds(tmp_path)
    with conduct.hold_own_lock(tmp_path) as owner:
        conduct.run_sweeps({tmp_path: plan}, launcher, owner, [].append)

    # No trial ends in the first round. The third failure ends one; if it is a kill, the next process finds it.
    ended = conduct.read_best(tmp_path, plan)
    assert (ended["trials"], ended["ended_early"]) == (2, 1)
    assert launcher.counts == [2, 2]


@pytest.mark.parametrize(("well", "rounds"), [(2, [4, 2]), (0, [4])])
def test_a_sweep_stops_after_a_round_that_changes_nothing(
    well: int, rounds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full once some trials are well."""

    def run_stages(plan: Any, folder: Path, trial: Any, *rest: Any) -> None:
        if trial.number >= well:
            raise OSError(28, "No space left on device")
        trial.end(1.0)

    monkeypatch.setattr(trials, "_run_stages", run_stages)
    plan = write_sweep(tmp_path)
    launcher = Rounds(tmp_path)
    with (
        conduct.hold_own_lock(tmp_path) as owner,
        pytest.raises(TrainingError, match=f"{4 - well} trials have not ended"),
    ):
        conduct.run_sweeps({tmp_path: plan}, launcher, owner, [].append)
    assert launcher.counts == rounds


def test_best_is_read_where_a_choice_has_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    config = gin_files.parse_text("train.keep = 2", "best")
    monkeypatch.setattr(
        conduct, "prepare", lambda *arguments, **settings: SimpleNamespace(built=SimpleNamespace(config=config))
    )
    record = {
        "bindings": ["schedule.batch_size = {4: 2,\n 8: 4}"],
        "trials": 3,
        "trial": 1,
        "value": 0.5,
        "seeds": ["0"],
    }
    plan = SimpleNamespace(name="s", metric="gap", plugins=["/a b/plugin.py"])
    text = conduct.describe_best(Path("out"), plan, record, [])
    assert gin_files.parse_text(text, "best").text() == config.text()
    assert "#   schedule.batch_size = {4: 2,\n#    8: 4}\n# It needs --plugin '/a b/plugin.py'\n" in text
