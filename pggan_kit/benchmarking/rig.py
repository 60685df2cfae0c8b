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
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.run import Run
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage
from pggan_kit.system.seeding import derive, seed_step
from pggan_kit.training.compiler import Compiler
from pggan_kit.training.step import PATHS, StepContext

NETS = ("generator", "discriminator")
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
        alphas = mid_fade(self.hooks, self.experiment.fade_reals, self.stage) if fading else {}
        for stage in schedule.stages[1 : index + 1]:
            old_paths = bridges(self.hooks, stage) if fading and stage is self.stage else ()
            self.state.grow({net: net in old_paths for net in NETS})
        self.state.starts = schedule.planned_starts()[: index + 1]
        self.state.phase = FADE if fading else STABLE
        self.state.renew_optimizers(reset=True)
        self.log: list[str] = []
        self.compiler: Compiler | None = None
        if compiles:
            device, say = self.state.device, self.log.append
            self.compiler = Compiler(self.experiment, device, say, say, lambda net: None)
            self.compiler.enter(self.state, schedule)
        self.sampler = fed(noise(self.stage), self.state.device, self.experiment.data.device_memory)
        self.alphas = {path: torch.tensor(alpha, device=self.state.device) for path, alpha in alphas.items()}
        self.batch = 0
        self.critics = 1
        self.losses: dict[str, Tensor] = {}

    def place(self, update: int) -> None:
        """Stand on the clock where the stage has had so many updates of D, and seed as the loop does."""
        state = self.state
        state.images = state.starts[-1] + update * self.stage.batch_size
        state.discriminator_updates = update
        seed_step(state.device, derive(self.experiment.seed, "step", *state.stream()))

    def step(self, update: int = 0) -> None:
        """One iteration, as the loop takes it: seeds, update, average. `update`: the stage's updates of D before it."""
        self.place(update)
        ctx = StepContext(self.experiment, self.state, self.stage, self.sampler, self.alphas, compiler=self.compiler)
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


def bridges(hooks: Hooks, stage: Stage) -> set[str]:
    """The networks that begin the stage with an old path beside the new one."""
    if stage.fade_images == 0:
        return set()
    return {net for net in NETS if alpha_at(hooks, stage, 0.0, net) != 1.0}


def fades(prepared: Prepared, stage: Stage) -> bool:
    """Whether the stage has a fade whose iterations differ from those after it."""
    return bool(bridges(quiet_hooks(prepared), stage))


def mid_fade(hooks: Hooks, fade_reals: bool, stage: Stage) -> dict[str, float]:
    """alpha of each path that is not at 1 in the middle of the fade."""
    alphas = {path: alpha_at(hooks, stage, MIDDLE, path) for path in PATHS if path != "reals" or fade_reals}
    return {path: alpha for path, alpha in alphas.items() if alpha != 1.0}


def alpha_at(hooks: Hooks, stage: Stage, progress: float, path: str) -> float:
    """The switch's alpha, or without one the progress itself."""
    images = round(progress * stage.fade_images)
    answer = hooks.ask("fade_alpha", stage=stage, progress=progress, images=images, path=path)
    return progress if answer is None else float(answer)
