"""The study of a sweep: which trials its pruner stops, and a journal whose last line was not written to its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_files import write_sweep

from pggan_kit.sweeps.study import Study

optuna = pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")

STAGES = {"stages": [0, 1, 2], "sizes": ["4x4", "8x8", "16x16"]}


def report_values(study: Study, values: Sequence[float], end: str) -> list[bool]:
    """Take a trial with values at the ends of its stages; return what the median says after each of them.

    Args:
        study: The study.
        values: The values.
        end: How the trial ends: `done`, or why it has no value.
    """
    answers = []
    with study.take_trial() as trial:
        assert trial is not None
        for step, value in enumerate(values, 1):
            trial.report(step, value)
            answers.append(trial.asks_to_prune())
        if end == "done":
            trial.end(values[-1])
        else:
            trial.end(None, end)
    return answers


@pytest.mark.parametrize(
    ("direction", "others", "own"),
    [
        ("lower", [3.0, 8.0, 20.0], [2.9, 500.0]),
        ("higher", [0.9, 0.7, 0.5], [0.91, 0.01]),
    ],
)
def test_the_median_compares_values_of_one_stage(
    direction: str, others: list[float], own: list[float], tmp_path: Path
) -> None:
    """A good value at a small size protects no trial at a larger one, where all values are worse."""
    study = Study(write_sweep(tmp_path, trials=9, pruner="median", startup=3, direction=direction, **STAGES), tmp_path)
    for factor in (0.99, 1.0, 1.01):
        assert report_values(study, [factor * value for value in others], "done") == [False] * 3
    assert report_values(study, own, "pruned") == [False, True]

    # The median itself is not worse than the median.
    assert report_values(study, others, "done") == [False] * 3


def test_the_median_is_that_of_trials_trained_to_their_ends(tmp_path: Path) -> None:
    study = Study(write_sweep(tmp_path, trials=9, pruner="median", startup=2, **STAGES), tmp_path)
    assert report_values(study, [1.0, 1.0, 1.0], "done") == [False] * 3
    for _ in range(3):
        report_values(study, [9.0], "diverged")
    assert report_values(study, [5.0, 5.0, 5.0], "done") == [False] * 3, "startup counts one trial, not four"
    assert report_values(study, [3.0], "pruned") == [False], "the median of 1 and 5"
    assert report_values(study, [3.1], "pruned") == [True], "with those that diverged it were 9"


def test_a_line_that_was_not_written_to_its_end_is_cut(tmp_path: Path) -> None:
    """Left by a full disk or a lack of power: what is appended to it would make the whole study unreadable."""
    plan = write_sweep(tmp_path)
    journal = tmp_path / "study.journal"
    open_study = Study(plan, tmp_path)

    def leave_half_a_line() -> None:
        with open(journal, "ab") as file:
            file.write(b'{"op_code":4,"worker_id":"a')

    def end_a_trial(study: Study) -> None:
        with study.take_trial() as trial:
            assert trial is not None
            trial.end(1.0)

    # Whether the study was open as it happened, or is opened after it.
    end_a_trial(open_study)
    leave_half_a_line()
    end_a_trial(open_study)
    leave_half_a_line()
    end_a_trial(Study(plan, tmp_path))
    states = [row["state"] for row in Study(plan, tmp_path).list_trials()]
    assert states == ["done"] * 3
    for line in journal.read_bytes().splitlines():
        json.loads(line)


def test_a_line_that_another_process_is_writing_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that writes holds the lock that Optuna makes beside the file, until its line is whole."""
    plan = write_sweep(tmp_path)
    journal = tmp_path / "study.journal"
    study = Study(plan, tmp_path)
    journal.write_bytes(journal.read_bytes() + b'{"op_code":2,"worker_id":"a",')
    lock_class = optuna.storages.journal.JournalFileSymlinkLock
    acquire = lock_class.acquire

    def acquire_after_the_other(lock: Any) -> Any:
        if not journal.read_bytes().endswith(b"\n"):
            line = b'"study_id":0,"user_attr":{"other":1}}\n'
            journal.write_bytes(journal.read_bytes() + line)
        return acquire(lock)

    monkeypatch.setattr(lock_class, "acquire", acquire_after_the_other)
    with study.take_trial() as trial:
        assert trial is not None
        trial.end(1.0)
    assert b'"other":1}}\n' in journal.read_bytes()
    assert [row["state"] for row in Study(plan, tmp_path).list_trials()] == ["done"]
