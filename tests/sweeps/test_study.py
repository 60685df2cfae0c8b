"""The study of a sweep: which trials its pruner stops, and a journal whose last line was not written to its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.sweep_files import write_sweep

from pggan_kit.sweeps.study import Study

pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")

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
