"""What the command line and notebooks call: train, resume, load a generator."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pggan_kit import branching, distributed, training
from pggan_kit import config as configs
from pggan_kit.averaging import ages_of_average
from pggan_kit.checkpoint import Checkpoints, Say
from pggan_kit.config import Built, Config
from pggan_kit.data import Data, open_data
from pggan_kit.errors import ConfigError, DataError, TrainingError, UserError
from pggan_kit.evaluating import Evaluator, Reals
from pggan_kit.generators import TrainedGenerator, restored, stage_end
from pggan_kit.identity import identity, require_same
from pggan_kit.keeping import Keeper
from pggan_kit.objects import given, require_same_places
from pggan_kit.plugins import Hooks, Plugins, load, load_recorded
from pggan_kit.runs import Run, RunDirectory, environment_command
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.state import TrainState

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
            ConfigError: a schedule that does not fit the data or the number of processes.
        """
        experiment = self.built.experiment
        channels = experiment.dataset.image(0).shape[2]
        try:
            dataset = experiment.dataset
            schedule: Schedule = experiment.schedule.resolve(len(dataset), channels, dataset.classes)
        except ValueError as error:
            raise ConfigError(f"schedule.{error}") from None
        world = distributed.world_size()
        for stage in schedule.stages:
            if stage.batch_size % world:
                raise ConfigError(f"schedule.batch_size {stage.batch_size} does not divide over {world} processes")
            try:
                experiment.micro_batches(stage, stage.batch_size // world)
            except ValueError as error:
                raise ConfigError(f"train.{error}") from None
        return schedule

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
        keeper = Keeper(settings.cache_folder() / "descriptions")
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
    return Prepared(found, loaded, configs.build(found, loaded), objects.names)


def train(
    config: str | Path,
    bindings: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    data_progress: DataProgress | None = None,
    start_from: str | Path | None = None,
    say: Say | None = None,
) -> Run:
    """Train an experiment to its end.

    Args:
        config, bindings, plugins, parts: see `prepare`.
        run_dir: the run's folder; None: the next number under `runs/`.
        data_progress: told `(done, total, what)` while resized copies of the data are made.
        start_from: another run's folder, from whose last checkpoint this run goes on, under its own config; or
            `RUN@STAGE` for the end of a stage, by its number from 0 or its size (`runs/00007-mnist@14x14`).
        say: told in one line where a run with `start_from` begins.

    Returns:
        The finished run.

    Raises:
        UserError: the input was wrong; nothing was started and no run directory is left.
        TrainingError: the run failed.
        Interrupted: a signal or `train.time_limit` stopped it; it can be resumed.
    """
    distributed.start()
    run, data, saved = _begun(prepare(config, bindings, plugins, parts), run_dir, start_from, data_progress)
    if start_from is not None:
        run.files.tell(branching.beginning(start_from, run), say)
    _tell_age_of_average(run)
    begun = run.state.steps
    try:
        training.train(run, data, saved)
    except UserError:
        # A part may learn only in `before_run` that it does not fit: then nothing was trained, and nothing is left.
        if run.state.steps == begun and distributed.rank() == 0:
            shutil.rmtree(run.directory)
        raise
    finally:
        run.files.unlock()
    return run


def _begun(
    prepared: Prepared, run_dir: str | Path | None, start_from: str | Path | None, progress: DataProgress | None
) -> tuple[Run, Data, dict[str, Any] | None]:
    """A new run in its directory, its data, and the checkpoint that a branch goes on from."""
    schedule, hooks = prepared.schedule(), prepared.hooks()
    trunk = branching.find(start_from) if start_from is not None else None
    data = prepared.data(schedule, progress)
    state, own = prepared.state(schedule), identity(prepared.built.experiment, schedule, data)
    evaluator = prepared.evaluator(schedule.stages, state.device, data)
    left = branching.take(trunk, own, state, hooks) if trunk else []
    path = Path(run_dir) if run_dir is not None else None
    files = _new_directory(prepared, path, trunk.origin if trunk else None)
    run = Run(files, prepared.built.experiment, schedule, state, hooks)
    run.identity, run.evaluator = own, evaluator
    for line in left:
        files.warn(line)
    return run, data, trunk.content if trunk else None


def _tell_age_of_average(run: Run) -> None:
    """Log how old the average of G will be at each stage's end, and warn where that is too old."""
    ages = ages_of_average(run.experiment, run.schedule, run.state.starts)
    run.files.tell(f"the generator's average at each stage's end: {'; '.join(age.text for age in ages)}", None)
    for age in ages:
        if age.warning is not None:
            run.files.warn(age.warning)


def resume(
    run_dir: str | Path,
    *,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    data_progress: DataProgress | None = None,
    say: Say | None = None,
) -> Run:
    """Go on with a run from its last whole checkpoint, as if it had never stopped.

    Args:
        run_dir: the run's folder.
        plugins: instead of the plugin files that the run used, which must not have changed since.
        parts: where the run was begun with objects: such objects again, made with the same arguments.
        data_progress: see `train`.
        say: told in one line where the run was complete already.

    Returns:
        The finished run.

    Raises:
        RunError: there is no run, no checkpoint, or one that does not fit; or another process trains there.
    """
    distributed.start()
    prepared, files = recorded(run_dir, plugins, parts)
    distributed.on_rank_0(files.lock)
    try:
        return _resumed(prepared, files, data_progress, say)
    finally:
        files.unlock()


def _resumed(prepared: Prepared, files: RunDirectory, data_progress: DataProgress | None, say: Say | None) -> Run:
    schedule, hooks = prepared.schedule(), prepared.hooks()
    saved = _last(files)
    data = prepared.data(schedule, data_progress)
    own = identity(prepared.built.experiment, schedule, data)
    state = prepared.state(schedule)
    if saved is not None:
        require_same(saved, own)
        state.load_state_dict(saved)
    run = Run(files, prepared.built.experiment, schedule, state, hooks)
    run.identity, run.resumed = own, True
    run.evaluator = prepared.evaluator(schedule.stages, state.device, data)
    if distributed.rank() == 0:
        files.cut_stats(state.images)
        files.log(f"resumed at images {state.images}")
    if state.images >= schedule.total:
        files.tell(f"{files.path} was complete already, at images {state.images:,}", say)
    training.train(run, data, saved)
    return run


def _last(files: RunDirectory) -> dict[str, Any] | None:
    """The last whole checkpoint; None where a run was killed before its first, so that it goes on from its start."""
    folder = files.path / "checkpoints"
    untouched = not any(folder.glob("[!.]*")) and not files.stats()
    if untouched and "from" not in files.about():
        return None
    return Checkpoints(folder).load_last(files.warn)


def load_generator(
    run: str | Path | Run,
    *,
    stage: str | int | None = None,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
) -> TrainedGenerator:
    """The averaged generator of a run, on the CPU.

    Args:
        run: a run or its directory.
        stage: as it was when this stage ended: its number from 0, or its size (`14x14`); None: of the last checkpoint.
        plugins: instead of the plugin files that the run used.
        parts: where the run was begun with objects: such objects again.

    Raises:
        RunError: there is no run, no such stage, no checkpoint, or one that does not fit.
    """
    prepared, files = recorded(run, plugins, parts)
    checkpoints = Checkpoints(files.path / "checkpoints")
    content = checkpoints.load_last() if stage is None else stage_end(checkpoints, stage)[1]
    return restored(prepared.built.experiment, prepared.schedule(), prepared.hooks(), content)


def restorer(run: str | Path | Run, *, plugins: Sequence[Any] = ()) -> Callable[..., TrainedGenerator]:
    """Makes generators of the contents of a run's checkpoints, or of those of a run that it branched from.

    Args:
        run: a run or its directory.
        plugins: instead of the plugin files that the run used.

    Returns:
        `restore(content, grown=False)`; see `generators.restored`.

    Raises:
        RunError: there is no run.
    """
    prepared, _ = recorded(run, plugins)
    return partial(restored, prepared.built.experiment, prepared.schedule(), prepared.hooks())


def device_of(name: str) -> torch.device:
    """The device of `train.device`; `auto` is a GPU where there is one.

    Raises:
        ConfigError: no such device.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", distributed.local_device())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"train.device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def prepared_device(name: str, tf32: bool) -> torch.device:
    """The device of `train.device`, with float32 as exact as `train.tf32` wants it; that holds for the process.

    Raises:
        ConfigError: no such device.
    """
    device = device_of(name)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    return device


def _new_directory(prepared: Prepared, path: Path | None, origin: dict[str, Any] | None) -> RunDirectory:
    """Made on rank 0, known to all."""
    made: list[RunDirectory] = []

    def make() -> str:
        files = RunDirectory.create(path, prepared.config.name)
        made.append(files)
        described = [{"name": p.name, "origin": p.origin, "sha256": p.sha256} for p in prepared.plugins.loaded]
        config = prepared.built.config.text()
        files.record(
            described,
            config,
            prepared.built.operative,
            environment_command(),
            origin,
            blocked=[plugin.key for plugin in prepared.plugins.blocked],
            objects=prepared.objects,
        )
        return str(files.path)

    folder = distributed.on_rank_0(make)
    return made[0] if made else RunDirectory(Path(folder))


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
    loaded = load(plugins, blocked) if plugins else load_recorded(about["plugins"], blocked)
    loaded.take(objects.rows)
    config = configs.parse_text(files.config_text(), str(files.path / "config.gin"), bindings)
    return Prepared(config, loaded, configs.build(config, loaded), objects.names), files


__all__ = [
    "Prepared",
    "TrainedGenerator",
    "TrainingError",
    "load_generator",
    "prepare",
    "resume",
    "train",
]
