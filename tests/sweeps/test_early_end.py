"""A trial of a sweep whose run ends before the stage at whose end it is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.sweep_files import PLUGINS

from pggan_kit.errors import RunError
from pggan_kit.sweeps import trial as trials
from pggan_kit.sweeps.plan import CONFIG


class MadeUpTrial:
    """A trial of no study, which keeps what it is told."""

    number = 0

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.stage_values: dict[str, float] = {}
        self.reported: list[int] = []
        self.ended: list[tuple[float | None, str]] = []

    def report(self, step: int, value: float) -> None:
        self.reported.append(step)

    def asks_to_prune(self) -> bool:
        return False

    def end(self, value: float | None, why: str = "") -> None:
        self.ended.append((value, why))


def test_a_trial_that_its_switch_keeps_small_has_no_value(tiny: Callable[..., str]) -> None:
    """Small images are easier: their value would be the best of the sweep."""
    Path(tiny("train.switch = @switches.Keeping()")).rename(CONFIG)
    plan: Any = SimpleNamespace(
        stages=[0, 1, 2], sizes=["4x4", "8x8", "16x16"], metric="gap", seeds={"0": ["train.seed = 0"]}, space={},
        evaluation=["train.metrics = [@metrics.Gap()]", "evaluation.count = 4"], average=None, scale="log",
    )  # fmt: skip
    trial: Any = MadeUpTrial()
    plugins: Any = PLUGINS
    trials._run_stages(plan, Path(), trial, plugins, [].append)
    assert trial.reported == [1] and trial.ended == [(None, "ended at 4x4, not at 8x8")]


def test_data_that_changed_while_a_sweep_was_stopped_are_refused(
    tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(tiny("train.dataset = @datasets.Arrays()", "datasets.Arrays.file = 'images.npy'")).rename(CONFIG)
    monkeypatch.setattr(trials, "train_or_resume", lambda *arguments: None)
    monkeypatch.setattr(trials, "describe_early_end", lambda *arguments: None)
    monkeypatch.setattr(trials, "evaluate", lambda *arguments, **options: [{"metric": "gap", "value": 1.0}])
    plan: Any = SimpleNamespace(
        stages=[2], metric="gap", seeds={"0": ["train.seed = 0"]}, space={}, evaluation=[], average=None, scale="log"
    )
    trial: Any = MadeUpTrial()
    plugins: Any = PLUGINS
    images = np.zeros((12, 16, 16), np.uint8)
    np.save("images.npy", images)
    assert trials._train_and_measure(plan, Path(), trial, 2, "16x16", plugins) == 1.0
    np.save("images.npy", images + 1)
    with pytest.raises(RunError, match=r"train\.dataset has other images or labels than in the first trials"):
        trials._train_and_measure(plan, Path(), trial, 2, "16x16", plugins)
