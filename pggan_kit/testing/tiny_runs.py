"""Train tiny experiments for the conformance suites."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pggan_kit.components import Component
from pggan_kit.data.settings import DataSettings
from pggan_kit.experiment import Experiment
from pggan_kit.layers.resampling import Area
from pggan_kit.plugin_host.contracts import marked_hooks
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugin, Plugins, Row
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, ScheduleSettings
from pggan_kit.testing.support import SyncWatch, first_lines, require, weights
from pggan_kit.testing.toys import (
    ToyArchitecture,
    ToyData,
    ToyDataset,
    ToyLoss,
    ToyOptimizer,
    ToyUpdate,
)
from pggan_kit.training.loop import train

HOT_HOOKS = ("after_step", "fade_alpha", "should_advance")
"""Hooks that are called in every step."""


class WatchedHooks(Hooks):
    """Hooks that note what waits for the device in those that are called in every step."""

    def __init__(self, parts: Mapping[str, tuple[Row, Any]]) -> None:
        super().__init__(Plugins(), parts)
        self.waits: dict[str, list[str]] = {hook: [] for hook in HOT_HOOKS}

    def call(self, hook: str, **arguments: Any) -> None:
        """See `Hooks.call`."""
        with SyncWatch() as watch:
            super().call(hook, **arguments)
        self._note(hook, watch)

    def ask(self, hook: str, **arguments: Any) -> Any:
        """See `Hooks.ask`."""
        with SyncWatch() as watch:
            answer = super().ask(hook, **arguments)
        self._note(hook, watch)
        return answer

    def _note(self, hook: str, watch: SyncWatch) -> None:
        if hook in self.waits:
            self.waits[hook] += watch.found


def hears(part: Any, hook: str) -> bool:
    """Whether the part implements a hook."""
    return hook in marked_hooks(part, type(part).__name__)


def tiny_experiment(chosen: Mapping[str, Any]) -> Experiment:
    """Toys for everything that is not chosen: 4x4, then 8x8 with a fade; seven steps of four images."""
    defaults: dict[str, Any] = {
        "schedule": ScheduleSettings((4, 8), fade_images=12, stable_images=8, batch_size=4),
        "data": DataSettings(),
        "architecture": ToyArchitecture(),
        "resampling": Area(),
        "loss": ToyLoss(),
        "update": ToyUpdate(),
        "dataset": ToyDataset(),
        "generator_optimizer": ToyOptimizer(),
        "discriminator_optimizer": ToyOptimizer(),
        "latent_size": 8,
        "tick": 16,
        "keep": 100,
        "device": "cpu",
    }
    return Experiment(**{**defaults, **chosen})


def new_run(part: Any, name: str, folder: Path, chosen: Mapping[str, Any]) -> Run:
    """A run in a folder, not yet trained, whose hooks the part hears."""
    experiment = tiny_experiment(chosen)
    dataset = experiment.dataset
    schedule = experiment.schedule.resolve(len(dataset), dataset.image(0).shape[2], dataset.classes)
    state = TrainState(experiment, schedule, torch.device("cpu"))
    row = Row(Component("suite", name, type(part)), Plugin("suite", "pggan_kit.testing", None))
    return Run(RunDirectory(folder), experiment, schedule, state, WatchedHooks({name: (row, part)}))


def train_tiny(part: Any, name: str, folder: Path, chosen: Mapping[str, Any], saved: Snapshot | None = None) -> Run:
    """Train a tiny run to its end, from its beginning or from a checkpoint's content.

    Raises:
        AssertionError: it fails; the message names the part.
    """
    try:
        run = new_run(part, name, folder, chosen)
        if saved is not None:
            run.state.load_snapshot(saved)
            run.resumed = True
            run.files.cut_stats(run.state.images)
        data: Any = ToyData(run.experiment.dataset.classes)
        train(run, data, saved)
    except Exception as error:
        doing = "resuming" if saved is not None else "training"
        raise AssertionError(f"{doing} a tiny run with {name} fails: {first_lines(error)}") from error
    return run


def mid_fade(folder: Path) -> Snapshot:
    """The content of a run's first checkpoint within a fade; of the first at all where there is none."""
    checkpoints = RunDirectory(folder).checkpoints()
    snapshots = [checkpoints.load(entry) for entry in checkpoints.entries()]
    require(bool(snapshots), "the run left no checkpoint")
    fading = [saved for saved in snapshots if saved.phase == FADE]
    return (fading or snapshots)[0]


def summary(run: Run) -> dict[str, Any]:
    """Where a run ended: clock and weights."""
    nets: dict[str, nn.Module] = {name: getattr(run.state, name) for name in ("generator", "ema", "discriminator")}
    return {
        "images": run.state.images,
        "starts": list(run.state.starts),
        **{name: weights(net) for name, net in nets.items()},
    }
