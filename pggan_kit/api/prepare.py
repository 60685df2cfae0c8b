"""Prepare an experiment, or one of a run, for everything else: read its config, check it and build it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch

from pggan_kit.components import Dataset, ImageMetric
from pggan_kit.config import gin_files as configs
from pggan_kit.config.bindings import UnknownComponentError
from pggan_kit.config.builder import Built, build_from_config
from pggan_kit.config.gin_files import Config
from pggan_kit.config.object_components import components_from_objects, require_same_places
from pggan_kit.config.path_settings import make_paths_absolute
from pggan_kit.data.contents import (
    check_classes,
    check_stages,
    get_class_names,
    list_content_warnings,
    list_empty_classes,
    number_classes,
)
from pggan_kit.data.image_kinds import find_image_kind
from pggan_kit.data.recorded import count_channels
from pggan_kit.data.sampler import Data, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import (
    ConfigError,
    DataError,
    PluginError,
    SettingError,
    TrainingError,
    require_list,
    require_path,
)
from pggan_kit.evaluation.description_cache import DescriptionCache
from pggan_kit.evaluation.evaluator import Evaluator, RealSet
from pggan_kit.growth.learning import list_planned_parts
from pggan_kit.layers.value_maps import ValueMap
from pggan_kit.plugin_host.failures import explain_unforeseen, find_failed_component
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import (
    Plugins,
    list_missing_given,
    list_missing_plugins,
    load_plugins,
    load_recorded_plugins,
)
from pggan_kit.runs.checkpoint_identity import Identity, identify_networks
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.run import Run
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Schedule, Stage, describe_late_stages
from pggan_kit.system import distributed
from pggan_kit.system.cache import cache_folder
from pggan_kit.system.devices import prepare_device
from pggan_kit.training.batch_statistics import list_batch_statistics, list_trained_stages, list_warnings

KEEP_NONE = "train.keep_best = None"
"""Binding for what trains nothing and may measure something else."""

PLACES_OF_WATCHERS = ("train.observers", "train.metrics")
"""Places of what nobody needs who draws of a trained generator."""

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate["Prepared", P], T]


def names_component(activity: str) -> Callable[[Method[P, T]], Method[P, T]]:
    """Return a decorator of methods of `Prepared`: where one fails in a way that nobody foresaw, the error says where.

    Args:
        activity: What the method does, for the message.
    """

    def decorate(method: Method[P, T]) -> Method[P, T]:
        @functools.wraps(method)
        def call(prepared: Prepared, /, *args: P.args, **options: P.kwargs) -> T:
            with explain_unforeseen(activity, prepared.built.components):
                return method(prepared, *args, **options)

        return call

    return decorate


@dataclass(frozen=True)
class Prepared:
    """A config that was checked and built: everything that can fail before training has been tried.

    Attributes:
        config: the config, as read.
        plugins: the loaded plugins.
        built: the experiment and its components.
        objects: selectors of the components that were given as objects, by their places in the experiment.
        values: map of the data's numbers to [-1, 1] that a run has recorded, or the one from which a new run begins;
            None where there is none.
    """

    config: Config
    plugins: Plugins
    built: Built
    objects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    values: ValueMap | None = None

    @names_component("reading the data set")
    def schedule(self) -> Schedule:
        """Return the stages for this experiment's data set, which can be trained here.

        Raises:
            ConfigError: a schedule that does not fit the data, the networks or the number of processes.
            DataError: data sets that do not fit the schedule or each other, or have too many classes.
        """
        experiment = self.built.experiment
        dataset = experiment.dataset
        check_classes(dataset)
        schedule = self.resolve_schedule()
        get_class_names(dataset)
        self.number_evaluated_classes()
        for each in (dataset, experiment.evaluation.dataset):
            check_stages(each, schedule.stages)
        self.check_pictures(schedule)
        if dataset.classes == 1:
            raise ConfigError("train.dataset has one class alone, from which labels teach nothing: leave them out")

        # Each batch must divide over the processes, and each process's share into micro-batches.
        world = distributed.world_size()
        for stage in schedule.stages:
            if stage.batch_size % world:
                raise ConfigError(f"schedule.batch_size {stage.batch_size} does not divide over {world} processes")
            try:
                experiment.count_micro_batches(stage, stage.batch_size // world)
            except SettingError as error:
                raise ConfigError(f"train.{error}") from None

        # Something of each network must learn everywhere.
        for stage in list_trained_stages(schedule):
            try:
                list_planned_parts(experiment.growth, experiment.update, schedule, stage, experiment.nets)
            except TrainingError as error:
                raise ConfigError(str(error)) from None

        # Statistics of a batch may need more samples than a process has.
        for stage in list_trained_stages(schedule):
            try:
                list_batch_statistics(experiment, stage, stage.batch_size // world)
            except ValueError as error:
                raise ConfigError(
                    f"at {stage.size} {error}; change schedule.batch_size, train.micro_batch or the number of processes"
                ) from None
        return schedule

    def resolve_schedule(self) -> Schedule:
        """Return the stages for this experiment's data set, as far as sampling needs them.

        Raises:
            ConfigError: a schedule that does not fit the data.
        """
        experiment = self.built.experiment
        dataset = experiment.dataset
        try:
            return experiment.schedule.resolve(len(dataset), count_channels(dataset), dataset.classes)
        except SettingError as error:
            raise ConfigError(f"schedule.{error}") from None

    def check_pictures(self, schedule: Schedule) -> None:
        """Check that the data have the channels that pictures show.

        Raises:
            ConfigError: they have not.
        """
        try:
            self.built.experiment.pictures.check_channels(schedule.stages[0].image_channels)
        except SettingError as error:
            raise ConfigError(f"pictures.{error}") from None

    def number_evaluated_classes(self) -> np.ndarray | None:
        """Return the training data's number of each class of the evaluation's data.

        Returns:
            int64 (number of classes); None where the generator is given no labels, or there are no such data.

        Raises:
            DataError: their labels are not those of the training data; see `number_classes`.
        """
        experiment = self.built.experiment
        dataset = experiment.evaluation.dataset
        if dataset is None or not experiment.dataset.classes:
            return None
        if not experiment.find_architecture("generator").conditional:
            return None
        check_classes(dataset)
        return np.array(number_classes(dataset, experiment.dataset), np.int64)

    def identify_networks(self, schedule: Schedule) -> Identity:
        """Return what decides which function the weights of this experiment's networks are."""
        return identify_networks(self.built.settings, schedule)

    def list_warnings(self, schedule: Schedule, first: int = 0, data: Data | None = None) -> list[str]:
        """Return the warnings about bindings that an include takes back, stages that never begin, data that are left
        out, and statistics of a batch over one sample.

        Args:
            schedule: the stages.
            first: the number of the first stage to check.
            data: the data, where they are open: then also about images that could not be read, and empty classes.
        """
        experiment = self.built.experiment
        skipped = 0
        empty_classes: list[str] = []
        if data is not None:
            skipped = data.skipped
            empty_classes = list_empty_classes(data.class_names, data.classes, data.labels)
        stages = [stage for stage in list_trained_stages(schedule) if stage.index >= first]
        return [
            *self.config.warnings,
            *describe_late_stages(schedule, first),
            *list_content_warnings(experiment.dataset, skipped),
            *empty_classes,
            *list_warnings(experiment, stages, distributed.world_size()),
        ]

    @names_component("registering hooks")
    def hooks(self) -> Hooks:
        """Return the hooks of all plugins and components; observers only on rank 0."""
        silent: tuple[str, ...] = ()
        if distributed.rank() != 0:
            silent = ("observers",)
        return Hooks(self.plugins, self.built.components, silent)

    @names_component("making networks and optimizers")
    def state(self, schedule: Schedule) -> TrainState:
        """Return new networks and optimizers.

        Raises:
            ConfigError: components that do not fit each other, or a device that is not there.
        """
        experiment = self.built.experiment
        try:
            device = prepare_device(experiment.device, experiment.tf32, experiment.deterministic)
            return TrainState(experiment, schedule, device)
        except (TrainingError, ValueError) as error:
            # A component's complaint may be that of a library, which names nobody.
            owner = find_failed_component(error, self.built.components)
            if owner is None or any(row.selector in str(error) for row, _ in self.built.components.values()):
                raise ConfigError(str(error)) from None
            raise ConfigError(f"{owner}: {error}") from None

    @names_component("preparing the data")
    def data(self, schedule: Schedule) -> Data:
        """Return the data set at all stages' sizes, made or read from the cache.

        A range that is measured (`data.value_range = 'min_max'`) is that of `values`, where these are of the data's
        type: networks that were trained with a range keep it.

        Args:
            schedule: the stages.
        """
        experiment = self.built.experiment
        values = None
        if self.values is not None and experiment.data.measures_range:
            has_same_type = find_image_kind(experiment.dataset).type == self.values.kind
            values = self.values if has_same_type else None
        return _open_data(experiment.dataset, experiment.data, schedule.stages, experiment.seed, values)

    @names_component("preparing the evaluation")
    def evaluator(self, stages: Sequence[Stage], device: torch.device, data: Data | None = None) -> Evaluator | None:
        """Return the evaluator that measures `train.metrics` at these stages' sizes; None where none compares images.

        Args:
            stages: at least one.
            device: the device on which images are described.
            data: the training data at these sizes, where they are open.

        Raises:
            DataError: the evaluation's data set cannot be used.
        """
        experiment = self.built.experiment
        metrics = [metric for metric in experiment.metrics if isinstance(metric, ImageMetric)]
        if not metrics:
            return None

        # The reals: of the evaluation's own data set, or of the training data.
        settings = experiment.data
        dataset = experiment.evaluation.dataset
        values = self.values if data is None else data.values
        if dataset is not None:
            # Numbers mean what those of the training data mean.
            if values is None:
                values = _open_data(experiment.dataset, settings, stages, experiment.seed).values
            data = _open_data(dataset, settings, stages, experiment.seed, values)
        elif data is None:
            data = _open_data(experiment.dataset, settings, stages, experiment.seed, values)
        if data.image_channels != stages[0].image_channels:
            raise DataError(
                f"evaluation.dataset has images of {data.image_channels} channels, and the training data of "
                f"{stages[0].image_channels}"
            )

        # Descriptions of the reals are cached under the names of their data and resizing.
        name = f"{data.fingerprint} {settings.filter}"
        if not data.values.is_plain:
            name += f" {data.values}"
        numbers = self.number_evaluated_classes()
        reals = {}
        for stage in stages:
            size = (stage.height, stage.width)
            images, labels = data.level(size)
            if numbers is not None and labels is not None:
                labels = numbers[labels]
            reals[size] = RealSet(images, labels, name)
        keeper = DescriptionCache(cache_folder(settings.cache) / "descriptions")
        return Evaluator(metrics, experiment.evaluation, reals.__getitem__, keeper, device, data.values)


def _open_data(
    dataset: Dataset, settings: DataSettings, stages: Sequence[Stage], seed: int, values: ValueMap | None = None
) -> Data:
    """Open a data set. Rank 0 alone looks at all of its files: the others read the same resized copies.

    Raises:
        DataError: see `open_data`.
        ConfigError: there is not one range for each channel.
    """
    fingerprint = None
    if distributed.world_size() > 1:
        fingerprint = distributed.run_on_rank_0(dataset.fingerprint)
    try:
        return open_data(dataset, settings, stages, seed, fingerprint, values)
    except SettingError as error:
        raise ConfigError(str(error)) from None


def prepare(
    config: str | Path,
    bindings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    absolute_paths: bool = False,
) -> Prepared:
    """Read, check and build a config; train nothing.

    Args:
        config: a gin file.
        bindings: overrides, e.g. `["train.seed = 1"]`.
        plugins: plugins beside the installed ones: files, modules or objects with hooks, or `Component` rows.
        parts: objects that take the places of the config's components, e.g. `{"train.loss": Mine(margin=2.0)}`, or
            `{"train.observers": [Watcher()]}`. Their hooks are called; those of objects that they hold (a loss's
            penalties) are not. A gin file cannot say how they were made, so `resume` and `load_generator` have to be
            given them again.
        absolute_paths: whether relative paths become absolute, as a run needs them, which may be resumed from another
            folder.

    Raises:
        UserError: something is wrong with the input; the message says what and where.
    """
    require_list("bindings", bindings)
    require_list("plugins", plugins)
    # Objects are loaded as components, and bindings put them in their places.
    objects = components_from_objects(parts or {})
    loaded = load_plugins([*plugins, *objects.rows])
    parsed = configs.read_config(config, [*bindings, *objects.bindings])
    if absolute_paths:
        parsed = make_paths_absolute(parsed, loaded)
    return Prepared(parsed, loaded, build_from_config(parsed, loaded), objects.names)


def prepare_text(text: str, name: str, bindings: Sequence[str], plugins: Sequence[Any]) -> Prepared:
    """Read, check and build a config that is a text; relative paths become absolute.

    Args:
        text: the config.
        name: its name in errors.
        bindings, plugins: see `prepare`.
    """
    loaded = load_plugins(plugins)
    config = make_paths_absolute(configs.parse_text(text, name, bindings), loaded)
    return Prepared(config, loaded, build_from_config(config, loaded))


def prepare_run(
    run: str | Path | Run,
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None = None,
    bindings: Sequence[str] = (),
    *,
    needs_data: bool = True,
) -> tuple[Prepared, RunDirectory]:
    """Build again what a run was made of, under further bindings.

    Args:
        run: a run or its directory.
        plugins: plugins instead of the plugin files that the run used.
        parts: new objects for those that the run was begun with; None where there were none.
        bindings: overrides of the run's config.
        needs_data: whether its data are opened; else what `run.json` records of them takes their place, and observers
            and metrics are left out.

    Returns:
        The experiment, and the run's directory.

    Raises:
        UserError: there is no run, or something is wrong with its files or the input.
    """
    folder = run.directory if isinstance(run, Run) else require_path("run", run)
    files = RunDirectory.open(folder)
    about = files.about()
    objects = components_from_objects(parts or {})
    needless = () if needs_data else PLACES_OF_WATCHERS
    require_same_places(about["objects"], objects.names, needless)

    # Plugin files are trusted where the caller names them; those that the run recorded are checked.
    blocked = about["blocked"]
    if plugins:
        loaded = load_plugins(plugins, blocked)
    else:
        loaded = load_recorded_plugins(files.path / "run.json", about["plugins"], blocked)
    loaded.add_components(objects.rows)

    overrides = [*bindings]
    recorded_data = files.read_data_record()
    # A run whose networks were imported may have no data of its own.
    if not needs_data or recorded_data.images == 0:
        recorded = components_from_objects({"train.dataset": recorded_data})
        loaded.add_components(recorded.rows)
        # A caller's own binding of the data set wins.
        overrides = [*recorded.bindings, *bindings]
    if not needs_data:
        overrides += ["evaluation.dataset = None", *[f"{place} = []" for place in needless], KEEP_NONE]
    own_file = str(files.path / "config.gin")
    config = configs.parse_text(files.read_config(), own_file, overrides)
    try:
        config = make_paths_absolute(config, loaded)
        built = build_from_config(config, loaded)
    except UnknownComponentError as error:
        missing = list_missing_plugins(about["plugins"], loaded)
        given = list_missing_given(about["plugins"], loaded)
        if missing:
            reason = "; ".join(missing)
            raise PluginError(f"{error.missing}: {reason}: bring it back") from error
        # What an override names may be misspelt; the run has had all that its own config names.
        if given and error.place.file == own_file:
            raise PluginError(
                f"{error.missing}: this run was given {', '.join(given)} in Python. Give again what brings it, "
                "plugins=[...], or name a file that does, --plugin FILE"
            ) from error
        raise
    return Prepared(config, loaded, built, objects.names, files.read_values()), files
