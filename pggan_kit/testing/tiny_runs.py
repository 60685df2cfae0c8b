"""Train tiny experiments for the conformance suites."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pggan_kit.components import Component
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import Interrupted
from pggan_kit.experiment import Experiment
from pggan_kit.growth.averages import list_names
from pggan_kit.layers.resampling import Area
from pggan_kit.plugin_host.contracts import find_marked_hooks
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugin, Plugins, Row
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, ScheduleSettings
from pggan_kit.system.signals import StopSignals
from pggan_kit.testing.support import SyncWatch, copy_weights, require, summarize_error
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


class RequestedStop(StopSignals):
    """A stop that a suite asks for, which leaves the signals that the process receives to pytest."""

    def __enter__(self) -> RequestedStop:
        """Set no handlers of signals."""
        return self


class WatchedHooks(Hooks):
    """Hooks that note which calls wait for the device.

    Attributes:
        waits: Names of such calls for each of `HOT_HOOKS`.
        stop: The stop that is asked for after the run's first step; None: it is not stopped.
    """

    stop: StopSignals | None = None

    def __init__(self, components: Mapping[str, tuple[Row, Any]]) -> None:
        super().__init__(Plugins(), components)
        self.waits: dict[str, list[str]] = {hook: [] for hook in HOT_HOOKS}

    def call(self, hook: str, **arguments: Any) -> None:
        """See `Hooks.call`."""
        with SyncWatch() as watch:
            super().call(hook, **arguments)
        self._note(hook, watch)
        if hook == "after_step" and self.stop is not None and not arguments["state"].is_over:
            self.stop.received = signal.SIGTERM

    def ask(self, hook: str, **arguments: Any) -> Any:
        """See `Hooks.ask`."""
        with SyncWatch() as watch:
            answer = super().ask(hook, **arguments)
        self._note(hook, watch)
        return answer

    def _note(self, hook: str, watch: SyncWatch) -> None:
        if hook in self.waits:
            self.waits[hook] += watch.found


def implements_hook(component: Any, hook: str) -> bool:
    """Return whether a component implements a hook."""
    return hook in find_marked_hooks(component, type(component).__name__)


def make_tiny_experiment(chosen: Mapping[str, Any]) -> Experiment:
    """Return an experiment with toys for everything that is not chosen.

    It has a stage of 4x4, and one of 8x8 with a fade: seven steps of four images.
    """
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


class WatchedRun(Run):
    """A run with watched hooks."""

    hooks: WatchedHooks


def make_run(component: Any, name: str, folder: Path, chosen: Mapping[str, Any]) -> WatchedRun:
    """Return a run that is not yet trained.

    Args:
        component: The component whose hooks the run calls.
        name: Its name.
        folder: The run's directory.
        chosen: Arguments of `Experiment` in place of toys.
    """
    experiment = make_tiny_experiment(chosen)
    dataset = experiment.dataset
    schedule = experiment.schedule.resolve(len(dataset), dataset.image(0).shape[2], dataset.classes)
    state = TrainState(experiment, schedule, torch.device("cpu"))
    # The component is the only one whose hooks are called.
    row = Row(Component("suite", name, type(component)), Plugin("suite", "pggan_kit.testing", None))
    return WatchedRun(RunDirectory(folder), experiment, schedule, state, WatchedHooks({name: (row, component)}))


def train_tiny(
    component: Any,
    name: str,
    folder: Path,
    chosen: Mapping[str, Any],
    saved: Snapshot | None = None,
    single_step: bool = False,
) -> Run:
    """Train a tiny run to its end, from scratch or from a checkpoint's content.

    Args:
        component, name, folder, chosen: See `make_run`.
        saved: Content of the checkpoint.
        single_step: Whether the run is stopped after one step, as by a signal.

    Raises:
        AssertionError: The run fails; the message names the component.
    """
    try:
        run = make_run(component, name, folder, chosen)

        # What `api.train.resume` does with a checkpoint.
        if saved is not None:
            run.state.load_snapshot(saved)
            run.resumed = True
            run.files.cut_stats(run.state.images)
        data: Any = ToyData(run.experiment.dataset.classes)
        stop = RequestedStop()
        if single_step:
            run.hooks.stop = stop
        train(run, data, saved, stop)
    except Exception as error:
        if single_step and isinstance(error, Interrupted):
            return run
        action = "training" if saved is None else "resuming"
        raise AssertionError(f"{action} a tiny run with {name} fails: {summarize_error(error)}") from error
    return run


def load_snapshots(folder: Path) -> list[Snapshot]:
    """Return the contents of all checkpoints of a run, oldest first."""
    checkpoints = RunDirectory(folder).checkpoints()
    snapshots = [checkpoints.load(entry) for entry in checkpoints.read_entries()]
    require(bool(snapshots), "the run left no checkpoint")
    return snapshots


def load_mid_fade(folder: Path) -> Snapshot:
    """Return the content of a run's first checkpoint within a fade, or of the first one where there is none."""
    snapshots = load_snapshots(folder)
    fading = [snapshot for snapshot in snapshots if snapshot.phase == FADE]
    return (fading or snapshots)[0]


def summarize_run(run: Run) -> dict[str, Any]:
    """Return the clock and the weights with which a run ended."""
    names = list_names(run.experiment.averages)
    networks = {name: copy_weights(net) for name, net in run.state.networks.items()}
    return {
        "images": run.state.images,
        "starts": list(run.state.starts),
        **networks,
        **{f"average {name}": copy_weights(run.state.read_average(name)) for name in names},
    }
