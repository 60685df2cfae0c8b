"""One stage of an experiment with whole training iterations to run there, on noise: for `bench` and `plan`."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from math import gcd, lcm
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pggan_kit.api.prepare import Prepared
from pggan_kit.data.device_feed import choose_feed
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler
from pggan_kit.growth.fade import NETS, PATHS, Fade
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.run import Run
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage
from pggan_kit.system.seeding import derive, seed_step
from pggan_kit.training.capture import CHECKED_STEPS, EAGER_STEPS, CapturedSteps, make_recorder
from pggan_kit.training.compiler import Compiler
from pggan_kit.training.host_work import HostWork, StepStart
from pggan_kit.training.step import UpdateContext

MIDDLE = 0.5
"""Share of its fade after which a fading stage is measured."""

LONGEST_PERIOD = 10_000
"""Maximum number of iterations from which the shares of their kinds are taken: rarer kinds have next to no share."""


def make_noise(stage: Stage, count: int | None = None) -> Sampler:
    """Return the real sampler over images of noise of a stage's size.

    Args:
        stage: The stage.
        count: Number of images; None for four batches.
    """
    shape = (count or 4 * stage.batch_size, stage.image_channels, stage.height, stage.width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = None
    if stage.classes:
        labels = np.arange(len(pixels)) % stage.classes
    return Sampler(Level(pixels, labels), seed=0)


class Rig:
    """An experiment at one stage, steady or in the middle of its fade.

    Args:
        prepared: The experiment.
        schedule: Its stages.
        index: Number of the stage among them.
        fading: Whether it is measured in the middle of its fade; see `has_fade`.
        compiles: Whether `train.compile` has an effect.

    Attributes:
        state: Networks grown to the stage, and their optimizers.
        alphas: 0-dim tensors by path, in the middle of the fade; without those that are 1.
        losses: The losses of the last iteration.
        log: Lines of the compiler.
        batch: Reals that an iteration draws; known after the first.
        critics: Updates of D in an iteration; known after the first.
    """

    def __init__(self, prepared: Prepared, schedule: Schedule, index: int, fading: bool, compiles: bool = True) -> None:
        self.experiment = prepared.built.experiment
        self._components = [component for _, component in prepared.built.components.values()]
        self.schedule = schedule
        self.hooks = make_quiet_hooks(prepared)
        self.stage = schedule.stages[index]
        self.state = prepared.state(schedule)
        self.batch = 0
        self.critics = 1
        self.losses: dict[str, Tensor] = {}

        # Grow to the stage, as the loop does, at the clock that the schedule plans.
        starts = schedule.planned_starts()[: index + 1]
        self._fade = Fade(self.hooks, self.experiment.fade_reals)
        self._old_paths: set[str] = set()
        if fading:
            self._old_paths = self._fade.find_old_paths(self.stage, starts[-1])
        for stage in schedule.stages[1 : index + 1]:
            self.state.grow({net: stage is self.stage and net in self._old_paths for net in NETS})
        self.state.starts = starts
        self.state.phase = FADE if fading else STABLE
        self._begin = starts[-1]
        if not fading:
            self._begin += self.stage.fade_images
        self.state.images = self._begin
        self.state.renew_optimizers()

        # What the loop makes for a stage: its compiled and its recorded steps.
        device = self.state.device
        self.log: list[str] = []
        self.compiler: Compiler | None = None
        if compiles:
            log = self.log.append
            self.compiler = Compiler(self.experiment, device, log=log, warn=log, announce=lambda net: None)
            self.compiler.enter_region(self.state, schedule)

        self.steps = CapturedSteps(self.experiment, make_recorder(self.experiment, device), self.log.append)
        self.steps.enter_region(self.state)
        self._eager_steps = CapturedSteps(self.experiment, None, self.log.append)
        self._eager_steps.enter_region(self.state)

        # Noise in place of a data set: steps on it take as long.
        self.sampler = choose_feed(make_noise(self.stage), device, self.experiment.data.device_memory)
        self.alphas: dict[str, Tensor] = {}
        if fading:
            for path, alpha in self.ask_alphas().items():
                if alpha != 1.0:
                    self.alphas[path] = torch.tensor(alpha, device=device)

    def ask_alphas(self) -> dict[str, float]:
        """Return alpha of each path in the middle of the fade, asked as the loop asks before each step."""
        start = self.state.starts[-1]
        middle = start + round(MIDDLE * self.stage.fade_images)
        return self._fade.compute_alphas(self.stage, start, middle, self._old_paths)

    def set_clock(self, update: int) -> None:
        """Set the clock to where the phase has had `update` updates of D, and seed as the loop does."""
        state = self.state
        state.images = self._begin + update * self.stage.batch_size
        state.discriminator_updates = update
        state.generator_updates = update // self.critics
        self._seed()

    def _seed(self) -> None:
        seed_step(self.state.device, derive(self.experiment.seed, "step", *self.state.make_seed_names()))

    def step(self, update: int = 0, eager: bool = False) -> None:
        """Run one iteration as the loop does: seeds, update, average.

        Args:
            update: Number of the stage's updates of D before it.
            eager: Whether it is run operation by operation, whatever `train.compile` says.
        """
        # As `training.loop` does, without hooks and guard.
        self.set_clock(update)
        compiler = None if eager else self.compiler
        steps = self._eager_steps if eager else self.steps

        def make_context(host: HostWork, start: StepStart) -> UpdateContext:
            experiment = self.experiment
            return UpdateContext(
                experiment, self.state, self.stage, self.sampler, self.alphas, None, compiler, host, start
            )

        self.losses, self.batch = steps.take(make_context, self._seed, self.alphas, None)
        self.state.images += self.batch
        self.state.update_averages(self.batch)
        self.critics = max(1, self.state.discriminator_updates - update)

    def settle(self, update: int = 0) -> None:
        """Run iterations of a kind until all others take the same time and memory: a captured step is captured by then.

        Args:
            update: See `step`.
        """
        if self.steps.is_active:
            for _ in range(EAGER_STEPS + CHECKED_STEPS):
                self.step(update)

    @contextlib.contextmanager
    def restore_components(self) -> Iterator[None]:
        """Let a block run steps on fake tensors, and give components back what they held before.

        A fake tensor that a penalty remembers would make all that it meets later fake.
        """
        holders = [component for component in self._components if hasattr(component, "__dict__")]
        before = [dict(vars(component)) for component in holders]
        try:
            yield
        finally:
            for component, attributes in zip(holders, before, strict=True):
                vars(component).clear()
                vars(component).update(attributes)

    @contextlib.contextmanager
    def open_run(self) -> Iterator[Run]:
        """Yield a run of the experiment, whose components know run and stage, in a temporary folder."""
        with tempfile.TemporaryDirectory() as folder:
            run = Run(RunDirectory(Path(folder)), self.experiment, self.schedule, self.state, self.hooks)
            run.alpha = dict.fromkeys(PATHS, 1.0)
            run.alpha |= {path: alpha.item() for path, alpha in self.alphas.items()}
            self.hooks.call("before_run", run=run)
            self.hooks.call("before_stage", run=run, stage=self.stage, state=self.state, continues=False)
            yield run

    def list_kinds(self) -> list[tuple[float, int]]:
        """Return the kinds of iteration that lazy penalties make: (share of all, `update` to begin at).

        The shares sum to 1. To be called after the first iteration. An iteration is taken to have one update of G. Of
        intervals with a longer common period the first `LONGEST_PERIOD` iterations are looked at.
        """
        intervals = [penalty.every for penalty in self.experiment.loss.penalties]
        generator_intervals = [penalty.every for penalty in self.experiment.generator_penalties]
        period_in_updates = lcm(*intervals)
        period = lcm(period_in_updates // gcd(period_in_updates, self.critics), *generator_intervals)
        period = min(period, LONGEST_PERIOD)

        # Iterations are of one kind where the same penalties are due in each of their updates.
        first_updates: dict[tuple[bool, ...], int] = {}
        counts: Counter[tuple[bool, ...]] = Counter()
        for iteration in range(period):
            updates = range(iteration * self.critics, (iteration + 1) * self.critics)
            due = tuple(update % interval == 0 for update in updates for interval in intervals)
            due += tuple(iteration % interval == 0 for interval in generator_intervals)
            first_updates.setdefault(due, updates[0])
            counts[due] += 1
        return [(count / period, first_updates[due]) for due, count in counts.items()]


def make_quiet_hooks(prepared: Prepared) -> Hooks:
    """Return the hooks of an experiment without observers, which would show or write something."""
    return Hooks(prepared.plugins, prepared.built.components, silent=("observers",))


def has_fade(prepared: Prepared, schedule: Schedule, stage: Stage) -> bool:
    """Return whether a stage has a fade whose iterations differ from those after it."""
    fade = Fade(make_quiet_hooks(prepared), prepared.built.experiment.fade_reals)
    start = schedule.planned_starts()[stage.index]
    return bool(fade.find_old_paths(stage, start))
