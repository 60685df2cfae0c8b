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
from pggan_kit.data.device_feed import fed
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler
from pggan_kit.growth.fade import NETS, PATHS, Fade
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.run import Run
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage
from pggan_kit.system.seeding import derive, seed_step
from pggan_kit.training.compiler import Compiler
from pggan_kit.training.step import TrainingStep

MIDDLE = 0.5
"""How far through its fade a fading stage is measured."""


def noise(stage: Stage, count: int | None = None) -> Sampler:
    """The real sampler over `count` images of noise (default: four batches), for a stage."""
    shape = (count or 4 * stage.batch_size, stage.image_channels, stage.height, stage.width)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Sampler(Level(images, np.arange(len(images)) % stage.classes if stage.classes else None), seed=0)


class Rig:
    """An experiment at one stage, steady or in the middle of its fade.

    Args:
        prepared: the experiment.
        schedule: its stages.
        index: which of them.
        fading: whether it is measured mid-fade; see `fades`.
        compiles: whether `train.compile` is heeded.

    Attributes:
        state: networks grown to the stage, and their optimizers.
        alphas: by path, 0-dim, in the middle of the fade; without those that are 1.
        losses: what the last iteration returned.
        log: what the compiler had to say.
        batch: reals that an iteration draws; known after the first.
        critics: updates of D in an iteration; known after the first.
    """

    def __init__(self, prepared: Prepared, schedule: Schedule, index: int, fading: bool, compiles: bool = True) -> None:
        self.experiment = prepared.built.experiment
        self.schedule = schedule
        self.hooks = quiet_hooks(prepared)
        self.stage = schedule.stages[index]
        self.state = prepared.state(schedule)
        starts = schedule.planned_starts()[: index + 1]
        self._fade = Fade(self.hooks, self.experiment.fade_reals)
        self._old_paths = self._fade.old_paths(self.stage, starts[-1]) if fading else set()
        for stage in schedule.stages[1 : index + 1]:
            self.state.grow({net: stage is self.stage and net in self._old_paths for net in NETS})
        self.state.starts = starts
        self.state.phase = FADE if fading else STABLE
        self.state.renew_optimizers(reset=True)
        self.log: list[str] = []
        self.compiler: Compiler | None = None
        if compiles:
            device, say = self.state.device, self.log.append
            self.compiler = Compiler(self.experiment, device, say, say, lambda net: None)
            self.compiler.enter(self.state, schedule)
        self.sampler = fed(noise(self.stage), self.state.device, self.experiment.data.device_memory)
        self.alphas: dict[str, Tensor] = {}
        if fading:
            for path, alpha in self.ask_alphas().items():
                if alpha != 1.0:
                    self.alphas[path] = torch.tensor(alpha, device=self.state.device)
        self.batch = 0
        self.critics = 1
        self.losses: dict[str, Tensor] = {}

    def ask_alphas(self) -> dict[str, float]:
        """Return alpha of each path in the middle of the fade, asked as the loop asks before each step."""
        start = self.state.starts[-1]
        middle = start + round(MIDDLE * self.stage.fade_images)
        return self._fade.alphas_at(self.stage, start, middle, self._old_paths)

    def place(self, update: int) -> None:
        """Stand on the clock where the stage has had so many updates of D, and seed as the loop does."""
        state = self.state
        state.images = state.starts[-1] + update * self.stage.batch_size
        state.discriminator_updates = update
        seed_step(state.device, derive(self.experiment.seed, "step", *state.stream()))

    def step(self, update: int = 0) -> None:
        """One iteration, as the loop takes it: seeds, update, average. `update`: the stage's updates of D before it."""
        self.place(update)
        ctx = TrainingStep(self.experiment, self.state, self.stage, self.sampler, self.alphas, compiler=self.compiler)
        self.losses = self.experiment.update.step(ctx)
        self.state.images += ctx.drawn
        self.state.follow(ctx.drawn)
        self.batch = ctx.drawn
        self.critics = max(1, self.state.discriminator_updates - update)

    @contextlib.contextmanager
    def run(self) -> Iterator[Run]:
        """A run of it in a folder that is deleted afterwards, whose parts have been told of run and stage."""
        with tempfile.TemporaryDirectory() as folder:
            run = Run(RunDirectory(Path(folder)), self.experiment, self.schedule, self.state, self.hooks)
            run.alpha = dict.fromkeys(PATHS, 1.0) | {path: alpha.item() for path, alpha in self.alphas.items()}
            self.hooks.call("before_run", run=run)
            self.hooks.call("before_stage", run=run, stage=self.stage, state=self.state)
            yield run

    def kinds(self) -> list[tuple[float, int]]:
        """The kinds of iteration that lazy penalties make: (share of all, `update` to begin at). Shares sum to 1."""
        every = [penalty.every for penalty in self.experiment.loss.penalties]
        period = lcm(*every) // gcd(lcm(*every), self.critics)
        dues: dict[tuple[bool, ...], int] = {}
        counts: Counter[tuple[bool, ...]] = Counter()
        for iteration in range(period):
            updates = range(iteration * self.critics, (iteration + 1) * self.critics)
            due = tuple(update % each == 0 for update in updates for each in every)
            dues.setdefault(due, updates[0])
            counts[due] += 1
        return [(count / period, dues[due]) for due, count in counts.items()]


def quiet_hooks(prepared: Prepared) -> Hooks:
    """Without observers, which would show or write something."""
    return Hooks(prepared.plugins, prepared.built.parts, silent=("observers",))


def fades(prepared: Prepared, schedule: Schedule, stage: Stage) -> bool:
    """Whether the stage has a fade whose iterations differ from those after it."""
    fade = Fade(quiet_hooks(prepared), prepared.built.experiment.fade_reals)
    return bool(fade.old_paths(stage, schedule.planned_starts()[stage.index]))
