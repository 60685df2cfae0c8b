"""What the command line and notebooks call: train, resume, load a generator."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit import branching, distributed, training
from pggan_kit import config as configs
from pggan_kit.checkpoint import Checkpoints
from pggan_kit.config import Built, Config
from pggan_kit.data import Data, open_data
from pggan_kit.errors import ConfigError, TrainingError, UserError
from pggan_kit.identity import identity, require_same
from pggan_kit.networks import Generator
from pggan_kit.plugins import Hooks, Plugins, load, load_recorded
from pggan_kit.runs import Run, RunDirectory, environment_command
from pggan_kit.schedule import Schedule
from pggan_kit.state import TrainState

DataProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Prepared:
    """A config that was checked and built: all that can go wrong before training has been tried.

    Attributes:
        config: as read.
        plugins: those loaded.
        built: the experiment and its parts.
    """

    config: Config
    plugins: Plugins
    built: Built

    def schedule(self) -> Schedule:
        """The stages for this experiment's data set.

        Raises:
            ConfigError: a schedule that does not fit the data or the number of processes.
        """
        experiment = self.built.experiment
        channels = experiment.dataset.image(0).shape[2]
        try:
            schedule = experiment.schedule.resolve(len(experiment.dataset), channels, experiment.dataset.classes)
        except ValueError as error:
            raise ConfigError(f"schedule.{error}") from None
        world = distributed.world_size()
        for stage in schedule.stages:
            if stage.batch_size % world:
                raise ConfigError(f"schedule.batch_size {stage.batch_size} does not divide over {world} processes")
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
        try:
            return TrainState(self.built.experiment, schedule, device_of(self.built.experiment.device))
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def data(self, schedule: Schedule, progress: DataProgress | None = None) -> Data:
        """The data set at all stages' sizes, made or found in the cache."""
        experiment = self.built.experiment
        return open_data(experiment.dataset, experiment.data, schedule.stages, experiment.seed, progress)


def prepare(config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[Any] = ()) -> Prepared:
    """Read, check and build a config; train nothing.

    Args:
        config: a gin file.
        bindings: overrides, e.g. `["train.seed = 1"]`.
        plugins: beside the installed ones: files, modules or objects with hooks, or `Component` rows.

    Raises:
        UserError: something is wrong with the input; the message says what and where.
    """
    loaded = load(plugins)
    found = configs.read(config, bindings)
    return Prepared(found, loaded, configs.build(found, loaded))


def train(
    config: str | Path,
    bindings: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugins: Sequence[Any] = (),
    data_progress: DataProgress | None = None,
    start_from: str | Path | None = None,
) -> Run:
    """Train an experiment to its end.

    Args:
        config, bindings, plugins: see `prepare`.
        run_dir: the run's folder; None: the next number under `runs/`.
        data_progress: told `(done, total, what)` while resized copies of the data are made.
        start_from: another run's folder, from whose last checkpoint this run goes on, under its own config; or
            `RUN@STAGE` for the end of a stage, by its number from 0 or its size (`runs/00007-mnist@14x14`).

    Returns:
        The finished run.

    Raises:
        UserError: the input was wrong; nothing was started and no run directory is left.
        TrainingError: the run failed.
        Interrupted: a signal or `train.time_limit` stopped it; it can be resumed.
    """
    distributed.start()
    run, data, saved = _begun(prepare(config, bindings, plugins), run_dir, start_from, data_progress)
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
    left = branching.take(trunk, own, state, hooks) if trunk else []
    path = Path(run_dir) if run_dir is not None else None
    files = _new_directory(prepared, path, trunk.origin if trunk else None)
    run = Run(files, prepared.built.experiment, schedule, state, hooks)
    run.identity = own
    for line in left:
        files.warn(line)
    return run, data, trunk.content if trunk else None


def resume(run_dir: str | Path, *, plugins: Sequence[Any] = (), data_progress: DataProgress | None = None) -> Run:
    """Go on with a run from its last whole checkpoint, as if it had never stopped.

    Args:
        run_dir: the run's folder.
        plugins: instead of the plugin files that the run used, which must not have changed since.
        data_progress: see `train`.

    Raises:
        RunError: there is no run, no checkpoint, or one that does not fit; or another process trains there.
    """
    distributed.start()
    prepared, files = _recorded(run_dir, plugins)
    if distributed.rank() == 0:
        files.lock()
    try:
        return _resumed(prepared, files, data_progress)
    finally:
        files.unlock()


def _resumed(prepared: Prepared, files: RunDirectory, data_progress: DataProgress | None) -> Run:
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
    if distributed.rank() == 0:
        files.cut_stats(state.images)
        files.log(f"resumed at images {state.images}")
    training.train(run, data, saved)
    return run


def _last(files: RunDirectory) -> dict[str, Any] | None:
    """The last whole checkpoint; None where a run was killed before its first, so that it goes on from its start."""
    folder = files.path / "checkpoints"
    untouched = not any(folder.glob("[!.]*")) and not files.stats()
    if untouched and "from" not in files.about():
        return None
    return Checkpoints(folder).load_last(files.warn)


class TrainedGenerator(nn.Module):
    """A run's averaged generator at its last checkpoint, in inference mode.

    Attributes:
        latent_size: Z.
        classes: number of classes it is conditioned on; 0 for none.
        images: the clock of the checkpoint.
    """

    def __init__(self, generator: Generator, alpha: float, classes: int, images: int) -> None:
        super().__init__()
        self.generator = generator
        self.latent_size = generator.latent_size
        self.classes = classes
        self.images = images
        self.register_buffer("alpha", None if generator.bridge is None else torch.tensor(alpha))
        self.eval().requires_grad_(False)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (N, Z) ~ N(0, 1), labels (N,) int64 -> images (N, C, h, w), nominally in [-1, 1]."""
        images: Tensor = self.generator(latents, labels, self.alpha)
        return images


def load_generator(run: str | Path | Run, *, plugins: Sequence[Any] = ()) -> TrainedGenerator:
    """The averaged generator of a run's last checkpoint, on the CPU.

    Args:
        run: a run or its directory.
        plugins: instead of the plugin files that the run used.

    Raises:
        RunError: there is no run, no checkpoint, or one that does not fit.
    """
    prepared, files = _recorded(run, plugins)
    schedule = prepared.schedule()
    prepared.built.experiment.device = "cpu"
    state = prepared.state(schedule)
    state.load_state_dict(Checkpoints(files.path / "checkpoints").load_last())
    position = schedule.at(state.images, state.starts)
    alpha = 1.0
    if state.generator.bridge is not None:
        answer = prepared.hooks().ask(
            "fade_alpha", stage=state.stage, progress=position.progress, images=state.images, path="generator"
        )
        alpha = position.progress if answer is None else float(answer)
    classes = state.stage.classes if prepared.built.experiment.architecture.conditional else 0
    return TrainedGenerator(state.ema, alpha, classes, state.images)


def device_of(name: str) -> torch.device:
    """The device of `train.device`; `auto` is a GPU where there is one.

    Raises:
        ConfigError: no such device.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", distributed.rank() % torch.cuda.device_count())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"train.device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def _new_directory(prepared: Prepared, path: Path | None, origin: dict[str, Any] | None) -> RunDirectory:
    """Made on rank 0, known to all."""
    made: list[Any] = [None]
    if distributed.rank() == 0:
        files = RunDirectory.create(path, prepared.config.name)
        described = [
            {"name": p.name, "origin": p.origin, "sha256": p.sha256} for p in prepared.plugins.loaded
        ]
        config = prepared.built.config.text()
        files.record(described, config, prepared.built.operative, environment_command(), origin)
        made = [str(files.path)]
    distributed.share(made)
    return files if distributed.rank() == 0 else RunDirectory(Path(made[0]))


def _recorded(run: str | Path | Run, plugins: Sequence[Any]) -> tuple[Prepared, RunDirectory]:
    files = RunDirectory.open(run.directory if isinstance(run, Run) else Path(run))
    loaded = load([*plugins]) if plugins else load_recorded(files.about()["plugins"])
    config = configs.parse_text(files.config_text(), str(files.path / "config.gin"))
    return Prepared(config, loaded, configs.build(config, loaded)), files


__all__ = [
    "Prepared",
    "TrainedGenerator",
    "TrainingError",
    "load_generator",
    "prepare",
    "resume",
    "train",
]
