"""A grid of the averaged generator's images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pggan_kit import ConfigError, Interval, Run, SettingError, Tick, check_interval, torch_generator
from pggan_kit.pictures import arrange_grid, crop_grid, image_grid


def require_interval(run: Run, name: str, interval: Interval) -> None:
    """Check that an observer's interval has a value for each stage of a run.

    Raises:
        ConfigError: A dict has none for the first.
    """
    try:
        check_interval(name, interval, [(stage.height, stage.width) for stage in run.schedule.stages])
    except SettingError as error:
        raise ConfigError(str(error)) from error


def estimate_grids(ticks: Sequence[Tick], every: Interval, count: int) -> int:
    """Return the bytes of the grids of ticks, about: one for each value of an image at its own size.

    Args:
        ticks: The ticks.
        every: Interval between two grids.
        count: Number of images in a grid that is not cropped.
    """
    total = 0
    for tick in ticks:
        if tick.is_early or tick.is_due(every):
            stage = tick.stage
            shown = sum(len(row) for row in crop_grid(arrange_grid(count, 0), stage.height, stage.width))
            total += shown * stage.height * stage.width * stage.image_channels
    return total


def choose_latents(run: Run, count: int, fresh: bool) -> Tensor:
    """Return latents (count, Z): the same at every tick, or `fresh` ones for each position of the clock."""
    if not fresh:
        return run.fixed_latents(count)
    generator = torch_generator(run.experiment.seed, "fresh latents", run.state.images)
    return torch.randn(count, run.experiment.latent_size, generator=generator)


def draw_grid(run: Run, count: int, fresh: bool = False) -> Image.Image:
    """Draw the grid of `count` latents' images at the run's current size and alpha.

    With labels, each row shows one class where that gives rows of two or more. Where large images would make the
    grid too large, its right and lower parts are left out: the remaining images keep their places and pixels.
    """
    stage = run.state.stage
    labels = run.fixed_labels(count)
    classes = 0
    if labels is not None:
        classes = int(labels.max()) + 1

    # Generate the images that fit, and no others.
    panels = run.experiment.pictures.count_panels(stage.image_channels)
    rows = crop_grid(arrange_grid(count, classes), stage.height, panels * stage.width)
    shown = [i for row in rows for i in row]
    latents = choose_latents(run, count, fresh)[shown]
    if labels is not None:
        labels = labels[shown]
    return image_grid(run.show(run.generate(latents, labels)), len(rows[0]))
