"""Give hooks and users a run: its experiment, clock, statistics and generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.errors import RunError, SettingError, check_between, check_count, did_you_mean, suggest
from pggan_kit.layers.value_maps import BYTES, ValueMap
from pggan_kit.pictures.channels import draw_channels
from pggan_kit.runs.checkpoint_identity import Identity
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import (
    TrainedGenerator,
    check_inputs,
    copy_generator,
    count_classes,
    draw_images,
    load_stage_end,
    restore_generator,
)
from pggan_kit.runs.reals import draw_reals
from pggan_kit.system.seeding import torch_generator

if TYPE_CHECKING:
    from PIL import Image

    from pggan_kit.data.sampler import Data
    from pggan_kit.evaluation.evaluator import Evaluator
    from pggan_kit.experiment import Experiment
    from pggan_kit.growth.networks import Generator
    from pggan_kit.plugin_host.hooks import Hooks
    from pggan_kit.runs.state import TrainState
    from pggan_kit.schedule import Schedule


class Run:
    """A run, as hooks and users see it.

    Attributes:
        experiment, schedule: what is trained, and when it grows.
        state: networks and clock.
        hooks: the hooks of this run.
        device: the device of the networks.
        resumed: whether an earlier process began it.
        is_new_branch: whether it is about to continue from another run's checkpoint, as a branch does once; what
            `load_state` is given is then of that run.
        alpha: alpha of the last step, by path (`generator`, `discriminator`, `reals`); 1 where nothing fades. Before a
            stage's first step it is that of the stage's beginning.
        identity: the experiment that its checkpoints note.
        changes: the settings that changed so far as it was resumed, as `run.json` has them.
        evaluator: the evaluator that measures `train.metrics` at ticks; None where there are no metrics.
        data: the training data; None where they are not open.
    """

    def __init__(
        self, files: RunDirectory, experiment: Experiment, schedule: Schedule, state: TrainState, hooks: Hooks
    ) -> None:
        self.files = files
        self.experiment = experiment
        self.schedule = schedule
        self.state = state
        self.hooks = hooks
        self.device = state.device

        # What is known once the run begins or goes on.
        self.resumed = False
        self.is_new_branch = False
        self.alpha: dict[str, float] = {}
        self.identity: Identity = {}
        self.changes: list[dict[str, Any]] = []
        self.evaluator: Evaluator | None = None
        self.data: Data | None = None
        self.checkpoints = files.checkpoints(experiment.keep, files.warn)

    @property
    def directory(self) -> Path:
        """Return the run's folder, as an absolute path."""
        folder = self.files.absolute
        if ".." in folder.parts:
            return folder.resolve()
        return folder

    @property
    def values(self) -> ValueMap:
        """Return the map of the data's own numbers to [-1, 1]; that of bytes where the data are not open."""
        return BYTES if self.data is None else self.data.values

    def show(self, images: Tensor) -> np.ndarray:
        """Return images (N, C, h, w) in [-1, 1] as pictures show them: uint8 (N, h, w, 1) in gray, or 3 in colour.

        `pictures.*` says which channels are shown. Channels side by side make pictures wider.
        """
        return draw_channels(images, self.experiment.pictures)

    @property
    def name(self) -> str:
        """Return the directory's own name."""
        return self.directory.resolve().name

    def fixed_latents(self, count: int) -> Tensor:
        """Return (count, Z) latents that are the same at every call and in every run with this seed.

        Raises:
            SettingError: `count` is no whole number of at least 0.
        """
        check_count("count", count, 0)
        generator = torch_generator(self.experiment.seed, "fixed latents")
        return torch.randn(count, self.experiment.latent_size, generator=generator)

    def fixed_labels(self, count: int) -> Tensor | None:
        """Return (count,) labels 0, 1, ..., K - 1, 0, ...; None where the generator is unconditional."""
        classes = count_classes(self.experiment, self.state.stage)
        if not classes:
            return None
        return torch.arange(count) % classes

    def generate(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        average: bool | str | None = True,
        alpha: float | None = None,
    ) -> Tensor:
        """Return images (N, C, h, w), float32 on the CPU, nominally in [-1, 1], at the current size.

        Args:
            latents: (N, Z).
            labels: (N,), where the generator is conditional.
            average: the average of G's weights that they come from, by its name; True or None for the first, False for
                G itself.
            alpha: the new path's share where there is an old path, in [0, 1]; None: that of the last step.

        Raises:
            RunError: there is no such average.
            SettingError: `alpha` is out of range, `average` is something else, or `latents` or `labels` do not fit, as
                in `TrainedGenerator.forward`.
        """
        state = self.state
        classes = count_classes(self.experiment, state.stage)
        check_inputs(state.generator, latents, labels, self.experiment.latent_size, classes)
        if average is not None and not isinstance(average, (bool, str)):
            raise SettingError("average", f"must be the name of an average, True, False or None, not {average!r}")
        net = state.generator
        if average is not False:
            net = state.read_average(average if isinstance(average, str) else None)
        # Networks that draw noise must neither disturb training nor differ between calls.
        return draw_images(net, latents, labels, self.make_alpha(net, alpha), self.experiment.seed, self.device)

    def make_alpha(self, net: Generator, alpha: float | None = None) -> Tensor | None:
        """Return alpha as a generator takes it: 0-dim on the run's device, or None where only the new path counts.

        Args:
            net: the generator, or its average.
            alpha: the new path's share, in [0, 1]; None: that of the last step.

        Raises:
            ValueError: `alpha` is out of range.
        """
        check_between("alpha", alpha, 0, 1)
        if alpha is None:
            alpha = self.alpha.get("generator", 1.0)
        if net.bridge is None or alpha == 1.0:
            return None
        return torch.tensor(alpha, device=self.device)

    def generator(self, average: str | None = None) -> TrainedGenerator:
        """Return a copy of the averaged generator as it is now, on the CPU, in inference mode.

        Args:
            average: the average's name; None for the first of `train.averages`.

        Raises:
            RunError: there is no such average.
        """
        generator = copy_generator(self.state, self.alpha.get("generator", 1.0), average)
        generator.values = self.values
        return generator

    def samples(self, stage: str | int | None = None, count: int = 64) -> Tensor:
        """Return images (count, C, h, w), float32 on the CPU, nominally in [-1, 1], from the averaged generator.

        They are drawn from `fixed_latents` (and `fixed_labels`), so the images of two stages, and of two runs with one
        seed, may be laid side by side.

        Args:
            stage: a stage's number from 0, or its size (`14x14`), for the generator as it was when that stage ended;
                None: as it is now.
            count: number of images, at least 1.

        Raises:
            RunError: no such stage has ended yet, or its checkpoint cannot be read.
            ValueError: `count` is no whole number of at least 1.
        """
        check_count("count", count)
        if stage is None:
            generator = self.generator()
        else:
            try:
                checkpoints = RunDirectory(self.directory).checkpoints(say=self.files.warn)
                _, saved = load_stage_end(checkpoints, stage)
            except RunError as error:
                raise RunError(f"{self.directory}, stage {stage!r}: {error}") from None
            generator = restore_generator(self.experiment, self.schedule, self.hooks, saved, self.identity)

        # On the CPU, where the generator is.
        latents = self.fixed_latents(count)
        labels = self.fixed_labels(count)
        return draw_images(generator, latents, labels, None, self.experiment.seed, torch.device("cpu"))

    def draw_reals(self, count: int) -> Image.Image | None:
        """Return a sheet of real images at the current size, always the same; None where the data are not open.

        Args:
            count: number of images, at least 1. With labels, each row shows one class.

        Raises:
            ValueError: `count` is no whole number of at least 1.
        """
        check_count("count", count)
        if self.data is None:
            return None
        stage = self.state.stage
        return draw_reals(self.data, (stage.height, stage.width), self.experiment.pictures, count)

    @property
    def stats(self) -> Stats:
        """Return the ticks' numbers so far, as a table with a row for each tick.

        `run.stats.column("Loss/generator")` is a column.

        Raises:
            RunError: `stats.jsonl` cannot be read.
        """
        return Stats(RunDirectory(self.directory).stats())


class Stats(list[dict[str, Any]]):
    """A list of rows (dicts of plain numbers and texts by tag) that also gives columns by their names.

    `pandas.DataFrame(stats)` makes a data frame of it.
    """

    @property
    def columns(self) -> list[str]:
        """Return the names that any row has, in the order in which they first appear."""
        return list(dict.fromkeys(name for row in self for name in row))

    def column(self, name: str) -> list[Any]:
        """Return one value for each row; None where a row has none.

        Raises:
            KeyError: no row has this name; the message has the nearest one.
        """
        if name not in self.columns:
            hint = suggest(did_you_mean(name, self.columns))
            raise KeyError(f"no column {name!r}{hint}; there are {', '.join(self.columns)}")
        return [row.get(name) for row in self]
