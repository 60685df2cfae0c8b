"""A grid of the averaged generator's images."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor

from pggan_kit import Run, torch_generator
from pggan_kit.pictures import GAP, image_grid, to_uint8

LIMIT = 2048
"""Maximum width and height of a grid in pixels, unless a single image is larger."""

CELL = 56
"""Minimum width and height of a cell in pixels: smaller images are enlarged."""


def choose_latents(run: Run, count: int, fresh: bool) -> Tensor:
    """Return latents (count, Z): the same at every tick, or `fresh` ones for each position of the clock."""
    if not fresh:
        return run.fixed_latents(count)
    generator = torch_generator(run.experiment.seed, "fresh latents", run.state.images)
    return torch.randn(count, run.experiment.latent_size, generator=generator)


def draw_grid(run: Run, count: int, fresh: bool = False) -> Image.Image:
    """Draw the grid of `count` latents' images at the run's current size and alpha.

    With labels, each row shows one class where that gives rows of two or more. Where large images would make the
    grid larger than `LIMIT`, its right and lower parts are left out: the remaining images keep their places and pixels.
    """
    stage = run.state.stage
    labels = run.fixed_labels(count)
    classes = 0
    if labels is not None:
        classes = int(labels.max()) + 1

    # Generate the images that fit, and no others.
    rows = crop_rows(arrange_latents(count, classes), stage.height, stage.width)
    shown = [i for row in rows for i in row]
    latents = choose_latents(run, count, fresh)[shown]
    if labels is not None:
        labels = labels[shown]
    return image_grid(to_uint8(run.generate(latents, labels)), len(rows[0]), CELL)


def arrange_latents(count: int, classes: int) -> list[list[int]]:
    """Arrange `count` fixed latents in rows: a near square, or, with classes, one row for each class.

    Latent i has the label i % classes. Each class shows equally many; the last latents may be left out.
    """
    if 1 < classes <= count // 2:
        return [list(range(first, count - count % classes, classes)) for first in range(classes)]
    columns = math.ceil(math.sqrt(count))
    return [list(range(first, min(count, first + columns))) for first in range(0, count, columns)]


def crop_rows(rows: list[list[int]], height: int, width: int) -> list[list[int]]:
    """Return the upper left part of a grid whose images of height x width fit into `LIMIT`, at least one image."""
    scale = -(-CELL // min(height, width))
    row_count = max(1, (LIMIT - GAP) // (scale * height + GAP))
    column_count = max(1, (LIMIT - GAP) // (scale * width + GAP))
    return [row[:column_count] for row in rows[:row_count]]
