"""A grid of the averaged generator's images."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor

from pggan_kit import Run, torch_generator
from pggan_kit.pictures import GAP, image_grid, to_uint8

LIMIT = 2048
"""No grid is wider or higher, in pixels, unless a single image is."""

CELL = 56
"""Smaller images are enlarged to at least this many pixels."""


def latents_of(run: Run, count: int, fresh: bool) -> Tensor:
    """(count, Z) latents: the same at every tick, or `fresh` ones for each place on the clock."""
    if not fresh:
        return run.fixed_latents(count)
    generator = torch_generator(run.experiment.seed, "fresh latents", run.state.images)
    return torch.randn(count, run.experiment.latent_size, generator=generator)


def draw_grid(run: Run, count: int, fresh: bool = False) -> Image.Image:
    """The grid of `count` latents' images at the run's current size and alpha.

    With labels, each row shows one class where that gives rows of two or more. Where large images would make the
    picture larger than `LIMIT`, the right and the lower part of the grid are left out: what is shown keeps its place
    and its pixels.
    """
    labels = run.fixed_labels(count)
    stage = run.state.stage
    rows = arrange(count, 0 if labels is None else int(labels.max()) + 1)
    rows = crop(rows, stage.height, stage.width)
    shown = [i for row in rows for i in row]
    latents = latents_of(run, count, fresh)[shown]
    images = run.generate(latents, None if labels is None else labels[shown])
    return image_grid(to_uint8(images), len(rows[0]), CELL)


def arrange(count: int, classes: int) -> list[list[int]]:
    """Which of `count` fixed latents stands where: row by row in a near square, or, as latent i has the label
    i % classes, one class a row and equally many of each."""
    if 1 < classes <= count // 2:
        return [list(range(first, count - count % classes, classes)) for first in range(classes)]
    columns = math.ceil(math.sqrt(count))
    return [list(range(first, min(count, first + columns))) for first in range(0, count, columns)]


def crop(rows: list[list[int]], height: int, width: int) -> list[list[int]]:
    """The upper left part whose images of height x width fit into `LIMIT`, at least one."""
    scale = -(-CELL // min(height, width))
    down, across = (max(1, (LIMIT - GAP) // (scale * side + GAP)) for side in (height, width))
    return [row[:across] for row in rows[:down]]
