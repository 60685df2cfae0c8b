"""What the command line and notebooks call: train, resume, load a generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pggan_kit.config import gin_files as configs
from pggan_kit.config.builder import Built, build
from pggan_kit.config.gin_files import Config
from pggan_kit.config.objects import given, require_same_places
from pggan_kit.data.sampler import Data, open_data
from pggan_kit.errors import ConfigError, DataError, SettingError
from pggan_kit.evaluation.description_cache import Keeper
from pggan_kit.evaluation.evaluator import Evaluator, Reals
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugins, load, load_recorded
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import TrainedGenerator, restored
from pggan_kit.runs.run import Run
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system import distributed
from pggan_kit.system.cache import cache_folder
from pggan_kit.system.devices import prepared_device
from pggan_kit.training.batch_statistics import list_batch_statistics, list_trained_stages, list_warnings

DataProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Prepared:
    """A config that was checked and built: all that can go wrong before training has been tried.

    Attributes:
        config: as read.
        plugins: those loaded.
        built: the experiment and its parts.
        objects: selectors of the parts that were given as objects, by their places in the experiment.
    """

    config: Config
    plugins: Plugins
    built: Built
    objects: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def schedule(self) -> Schedule:
        """The stages for this experiment's data set.

        Raises:
            ConfigError: a schedule that does not fit the data, the networks or the number of processes.
        """
        experiment = self.built.experiment
        channels = experiment.dataset.image(0).shape[2]
        try:
            dataset = experiment.dataset
            schedule: Schedule = experiment.schedule.resolve(len(dataset), channels, dataset.classes)
        except SettingError as error:
            raise ConfigError(f"schedule.{error}") from None
        world = distributed.world_size()
        for stage in schedule.stages:
            if stage.batch_size % world:
                raise ConfigError(f"schedule.batch_size {stage.batch_size} does not divide over {world} processes")
            try:
                experiment.micro_batches(stage, stage.batch_size // world)
            except SettingError as error:
                raise ConfigError(f"train.{error}") from None
        for stage in list_trained_stages(schedule):
            try:
                list_batch_statistics(experiment, stage, stage.batch_size // world)
            except ValueError as error:
                raise ConfigError(
                    f"at {stage.size} {error}; change schedule.batch_size, train.micro_batch or the number of processes"
                ) from None
        return schedule

    def batch_warnings(self, schedule: Schedule, first: int = 0) -> list[str]:
        """Return the warnings about statistics of a batch that are computed over one sample, from a stage on."""
        stages = [stage for stage in list_trained_stages(schedule) if stage.index >= first]
        return list_warnings(self.built.experiment, stages, distributed.world_size())

    def hooks(self) -> Hooks:
        """The hooks of all plugins and parts; observers only on rank 0."""
        silent = () if distributed.rank() == 0 else ("observers",)
        return Hooks(self.plugins, self.built.parts, silent)

    def state(self, schedule: Schedule) -> TrainState:
        """New networks and optimizers.

        Raises:
            ConfigError: parts that do not fit each other, or a device that is not there.
        """
        experiment = self.built.experiment
        try:
            return TrainState(experiment, schedule, prepared_device(experiment.device, experiment.tf32))
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def data(self, schedule: Schedule, progress: DataProgress | None = None) -> Data:
        """The data set at all stages' sizes, made or found in the cache."""
        experiment = self.built.experiment
        shown = progress if distributed.rank() == 0 else None
        return open_data(experiment.dataset, experiment.data, schedule.stages, experiment.seed, shown)

    def evaluator(self, stages: Sequence[Stage], device: torch.device, data: Data | None = None) -> Evaluator | None:
        """What measures `train.metrics` at these stages' sizes; None where there are none.

        Args:
            stages: at least one.
            device: where images are described.
            data: the training data at these sizes, where they are open.

        Raises:
            DataError: the evaluation's data set cannot be used.
        """
        experiment = self.built.experiment
        if not experiment.metrics:
            return None
        dataset, settings = experiment.evaluation.dataset, experiment.data
        if dataset is not None or data is None:
            chosen = experiment.dataset if dataset is None else dataset
            data = open_data(chosen, settings, stages, experiment.seed)
        if data.image_channels != stages[0].image_channels:
            raise DataError(
                f"evaluation.dataset has images of {data.image_channels} channels, and the training data of "
                f"{stages[0].image_channels}"
            )
        name = f"{data.fingerprint} {settings.filter}"
        reals = {(s.height, s.width): Reals(*data.level((s.height, s.width)), name) for s in stages}
        keeper = Keeper(cache_folder(settings.cache) / "descriptions")
        return Evaluator(experiment.metrics, experiment.evaluation, reals.__getitem__, keeper, device)


def prepare(
    config: str | Path,
    bindings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
) -> Prepared:
    """Read, check and build a config; train nothing.

    Args:
        config: a gin file.
        bindings: overrides, e.g. `["train.seed = 1"]`.
        plugins: beside the installed ones: files, modules or objects with hooks, or `Component` rows.
        parts: objects that take the places of the config's parts, e.g. `{"train.loss": Mine(margin=2.0)}`, or
            `{"train.observers": [Watcher()]}`. They hear hooks; what they hold (a loss's penalties) does not. A gin
            file cannot say how they were made, so `resume` and `load_generator` have to be given them again.

    Raises:
        UserError: something is wrong with the input; the message says what and where.
    """
    objects = given(parts or {})
    loaded = load([*plugins, *objects.rows])
    found = configs.read(config, [*bindings, *objects.bindings])
    return Prepared(found, loaded, build(found, loaded), objects.names)


def restorer(run: str | Path | Run, *, plugins: Sequence[Any] = ()) -> Callable[..., TrainedGenerator]:
    """Makes generators of a run's checkpoints, or of those of a run that it branched from.

    Args:
        run: a run or its directory.
        plugins: instead of the plugin files that the run used.

    Returns:
        `restore(saved, grown=False)`; see `generators.restored`.

    Raises:
        RunError: there is no run.
    """
    prepared, _ = recorded(run, plugins)
    return partial(restored, prepared.built.experiment, prepared.schedule(), prepared.hooks())


def recorded(
    run: str | Path | Run,
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None = None,
    bindings: Sequence[str] = (),
) -> tuple[Prepared, RunDirectory]:
    """What a run was made of, built anew, under further bindings."""
    files = RunDirectory.open(run.directory if isinstance(run, Run) else Path(run))
    about, objects = files.about(), given(parts or {})
    require_same_places(about["objects"], objects)
    blocked = about["blocked"]
    loaded = load(plugins, blocked) if plugins else load_recorded(files.path / "run.json", about["plugins"], blocked)
    loaded.take(objects.rows)
    config = configs.parse_text(files.config_text(), str(files.path / "config.gin"), bindings)
    return Prepared(config, loaded, build(config, loaded), objects.names), files
