"""Draw pictures of a generator at any place of its growth: what the page of `pggan-kit explore` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pggan_kit.api.generator import load_generator
from pggan_kit.api.sample import draw_pictures
from pggan_kit.api.strip import Column, draw_strip, iterate_generators
from pggan_kit.errors import RunError, check_at_least, check_between, check_choice, check_seed
from pggan_kit.layers.slerp import interpolate_latents
from pggan_kit.pictures.frames import fill_cell, fit_size
from pggan_kit.pictures.grid import image_grid
from pggan_kit.runs.exported import find_exported_generator
from pggan_kit.runs.generators import StyleMixing, TrainedGenerator
from pggan_kit.system.activities import report_activity
from pggan_kit.system.seeding import fork_random_numbers, torch_generator

FADE = "during its fade"
END = "at its end"
MOMENTS = (FADE, END)
"""Moments of a stage whose weights draw: those of its last checkpoint with the old path, and those of its end."""

GRID = "latents"
WAY = "the way between the seeds"
GROWTH = "all stages"
SHOWN = (GRID, WAY, GROWTH)
"""Arrangements of a picture: many latents at one place; or a few, each on its way or through the whole growth."""

PICTURE_SIDE = 672
"""Maximum width and height of a grid in pixels, about: images are enlarged or reduced to fit."""

COLUMN_SIDE = 84
"""Maximum of the sides of an image in the picture of all stages, about, whose columns stand under words."""

MOST_IMAGES = 64
"""Maximum number of latents in a picture."""

MOST_ROWS = 6
"""Maximum number of latents that have a row each: the first ones."""

STEPS_OF_WAY = 9
"""Number of images on the way from one seed's latent to the other's, both included."""

COLUMNS: dict[str, tuple[float | None, ...]] = {FADE: (0.0, 0.5, 1.0), END: (None,)}
"""Alphas in the picture of all stages, by the moment that they belong to."""


@dataclass(frozen=True)
class View:
    """What a picture shows.

    Attributes:
        stage: number of the stage, from 0.
        moment: whether the weights are those during the stage's fade, or at its end. A stage that has only one of them
            is drawn with that.
        alpha: share of the new path during the fade, in [0, 1].
        seed: seed of the latents, which are those of `pggan-kit sample` with the same seed and count, and of the noise.
        second_seed: seed of the latents at the other end of the way, and of mixed styles.
        way: share of the way from the first latents to the second, in [0, 1], on great circles.
        count: number of latents.
        label: class of the images, by its number; None for all in turn.
        truncation: see `TrainedGenerator.forward`; 1 leaves all as it is.
        first_mixed_layer: first layer that reads the styles of the second seed; None for none.
        shown: the arrangement, one of `SHOWN`.

    Raises:
        SettingError: a value is out of range.
    """

    stage: int = 0
    moment: str = END
    alpha: float = 1.0
    seed: int = 0
    second_seed: int = 1
    way: float = 0.0
    count: int = 16
    label: int | None = None
    truncation: float = 1.0
    first_mixed_layer: int | None = None
    shown: str = GRID

    def __post_init__(self) -> None:
        check_at_least("stage", self.stage, 0, whole=True)
        check_choice("moment", self.moment, MOMENTS)
        check_between("alpha", self.alpha, 0, 1)
        check_seed("seed", self.seed)
        check_seed("second_seed", self.second_seed)
        check_between("way", self.way, 0, 1)
        check_at_least("count", self.count, 1, whole=True)
        check_between("count", self.count, 1, MOST_IMAGES)
        check_at_least("label", self.label, 0, whole=True)
        check_between("truncation", self.truncation, 0, 1)
        check_at_least("first_mixed_layer", self.first_mixed_layer, 0, whole=True)
        check_choice("shown", self.shown, SHOWN)


@dataclass
class Place:
    """The generators of one stage.

    Attributes:
        stage: number of the stage in its run, from 0.
        size: size of its images, e.g. `14x14`.
        generators: a generator for each moment that the run has kept.
    """

    stage: int
    size: str
    generators: dict[str, TrainedGenerator] = field(default_factory=dict)

    def choose_moment(self, moment: str) -> str:
        """Return a moment, or the only one that the stage has."""
        if moment in self.generators:
            return moment
        return next(iter(self.generators))

    def get_newest(self) -> TrainedGenerator:
        """Return the generator of its end, or else of its fade."""
        return self.generators[self.choose_moment(END)]


class Explorer:
    """A generator at all places of its growth that were kept.

    Args:
        places: its stages, the smallest first; at least one.

    Attributes:
        places: its stages by their numbers.
        classes: number of classes that the images have; 0 where they have none.
        class_names: names of the classes by their numbers.
        style_layers: number of layers with a style at the last stage; 0 for a network without styles.
        can_truncate: whether truncation changes images.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = {place.stage: place for place in places}
        newest = places[-1].get_newest()
        self.classes = newest.classes
        self.class_names = list(newest.class_names) or [str(number) for number in range(newest.classes)]
        self.style_layers = newest.count_style_layers()
        self.can_truncate = newest.can_truncate()

    def find_place(self, stage: int) -> Place:
        """Return a stage's generators.

        Raises:
            RunError: none was kept of that stage.
        """
        if stage not in self.places:
            listed = ", ".join(f"{place.stage} ({place.size})" for place in self.places.values())
            raise RunError(f"no checkpoint of stage {stage} was kept; the stages that have one: {listed}")
        return self.places[stage]

    def describe(self, view: View) -> str:
        """Return in words which weights a view is drawn with.

        Raises:
            RunError: see `find_place`.
        """
        if view.shown == GROWTH:
            return "the same latents at all stages, each through its fade and then with the weights of its end"
        place = self.find_place(view.stage)
        moment = place.choose_moment(view.moment)
        words = [place.size, f"stage {place.stage} {moment}"]
        if moment == FADE:
            words.append(f"alpha {view.alpha:.2f}")
        words.append(f"weights at {place.generators[moment].images:,} images")
        if moment != view.moment:
            words.append(f"since no checkpoint {view.moment} was kept")
        return ", ".join(words)

    def draw(self, view: View) -> Image.Image:
        """Draw a picture.

        Raises:
            RunError: there is no such stage or class, or images are NaN or infinite.
            ConfigError: the network has no styles, or none whose length counts, and they are asked for.
        """
        if view.shown == GROWTH:
            return draw_strip(self._draw_columns(view), COLUMN_SIDE)
        if view.shown == WAY:
            shares = np.linspace(0, 1, STEPS_OF_WAY).tolist()
            images = np.stack([self.draw_images(replace(view, way=share), MOST_ROWS) for share in shares], 1)
            return self._arrange(images.reshape(-1, *images.shape[2:]), STEPS_OF_WAY)
        return self._arrange(self.draw_images(view), math.ceil(view.count**0.5))

    def draw_images(self, view: View, most: int = MOST_IMAGES) -> np.ndarray:
        """Return the images uint8 (N, h, w, C) of a view at its place, the first `most` of them.

        Raises:
            RunError, ConfigError: see `draw`.
        """
        place = self.find_place(view.stage)
        moment = place.choose_moment(view.moment)
        generator = place.generators[moment]
        alpha = None
        if moment == FADE:
            alpha = view.alpha

        # As many latents as are asked for: the first of them are the same in any arrangement.
        first, second = (
            torch.randn(view.count, generator.latent_size, generator=torch_generator(seed, "sample"))[:most]
            for seed in (view.seed, view.second_seed)
        )
        latents = first
        if view.way == 1:
            latents = second
        elif view.way > 0:
            latents = interpolate_latents(first, second, view.way)

        # Truncation and mixing are left out where they change nothing, since not every network has them.
        truncation = None
        if view.truncation < 1:
            truncation = view.truncation
        mixing = None
        if view.first_mixed_layer is not None:
            mixing = StyleMixing(second, view.first_mixed_layer)
        labels = self._choose_labels(view, len(latents))
        with fork_random_numbers(seed=view.seed):
            return draw_pictures(generator, latents, labels, alpha, truncation, mixing=mixing)

    def _choose_labels(self, view: View, count: int) -> Tensor | None:
        """Return the labels (count,) of a view's images; None where the generator is unconditional."""
        if view.label is None:
            return torch.arange(count) % self.classes if self.classes else None
        if view.label >= self.classes:
            raise RunError(f"there is no class {view.label}: the generator has {self.classes or 'no'} classes")
        return torch.full((count,), view.label)

    def _draw_columns(self, view: View) -> list[Column]:
        """Return the first images of a view at all stages, and at some alphas of each fade."""
        columns = []
        for place in self.places.values():
            for moment, alphas in COLUMNS.items():
                if moment not in place.generators:
                    continue
                for alpha in alphas:
                    own = replace(view, stage=place.stage, moment=moment, alpha=alpha or 0.0)
                    images = self.draw_images(own, MOST_ROWS)
                    columns.append(Column(place.stage, place.size, alpha, place.generators[moment].images, images))
        return columns

    def _arrange(self, images: np.ndarray, columns: int) -> Image.Image:
        """Lay images out in a picture that has the same size at each stage."""
        sizes = []
        for place in self.places.values():
            generator = place.get_newest()
            height, width = generator.size
            panels = generator.pictures.count_panels(generator.generator.stages[-1].image_channels)
            sizes.append((height, panels * width))
        cell = fit_size(sizes, PICTURE_SIDE // columns)
        return image_grid(np.stack([fill_cell(image, cell) for image in images]), columns, cell=1)


def open_explorer(run: Path, average: str | None = None, plugins: Sequence[Any] = ()) -> Explorer:
    """Return the explorer of a run, with all of its stages and fades, or of a file, with the one generator that it has.

    Args:
        run: the run's folder, or what `pggan-kit export` wrote. Stages that were trained by a run that it began from
            are drawn by that run.
        average: name of one of the run's averages; None for the first.
        plugins: see `load_generator`.

    Raises:
        RunError: the run or the file cannot be read, or nothing of it was kept.
    """
    if find_exported_generator(Path(run)) is not None:
        return Explorer([_place_generator(load_generator(run, average=average, plugins=plugins))])

    places: dict[int, Place] = {}
    with report_activity("restoring the generators of stages", unit="checkpoints") as activity:
        for saved, generator in iterate_generators(run, plugins, average):
            place = places.setdefault(saved.stage, Place(saved.stage, saved.size))
            # A later checkpoint of the same fade or stage takes the place of an earlier one.
            if saved.bridged["generator"]:
                place.generators[FADE] = generator
            if saved.stage_over or not saved.bridged["generator"]:
                place.generators[END] = generator
            activity.advance()
    if not places:
        raise RunError(f"{run}: no checkpoint was kept from which anything could be drawn")
    return Explorer([places[stage] for stage in sorted(places)])


def _place_generator(generator: TrainedGenerator) -> Place:
    """Return the place of a generator that is the only one."""
    moment = END if generator.alpha is None else FADE
    stage = generator.generator.stages[-1]
    return Place(stage.index, stage.size, {moment: generator})
