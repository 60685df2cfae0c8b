"""Frames of animations: images of one size whatever the stage, under a caption with the clock and alpha."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pggan_kit.pictures.grid import BACKGROUND, GAP, tile
from pggan_kit.schedule import FADE, STABLE, Schedule

GRID_WIDTH = 512
"""The grid is about this wide, in pixels, whatever the sizes."""

LEAST_WIDTH = 240
"""What the caption needs, in pixels."""

PALETTE_PIXELS = 4096
"""About so many pixels choose a colour frame's palette."""

GRAYS = 16
"""Gray levels of the caption in a colour frame, which takes them from the images' palette."""


class Caption(NamedTuple):
    """What a frame says above its images.

    Attributes:
        size: `14x14`.
        phase: `fade` or `stable`.
        alpha: in [0, 1].
        images, total: the clock, and where it ends.
    """

    size: str
    phase: str
    alpha: float
    images: int
    total: int


def cell_size(schedule: Schedule, columns: int) -> tuple[int, int]:
    """(height, width) of each image's place in a grid of about `GRID_WIDTH` pixels."""
    return fitted([(stage.height, stage.width) for stage in schedule.stages], GRID_WIDTH // columns)


def fitted(sizes: Sequence[tuple[int, int]], limit: int) -> tuple[int, int]:
    """A whole multiple of the last of some growing sizes, or of the largest that fits where the last does not, with no
    side above `limit` (unless even the first is larger)."""
    fitting = [size for size in sizes if max(size) <= limit]
    height, width = fitting[-1] if fitting else sizes[0]
    scale = max(1, limit // max(height, width))
    return scale * height, scale * width


def draw_frame(images: np.ndarray, columns: int, cell: tuple[int, int], caption: Caption) -> Image.Image:
    """A captioned frame.

    Args:
        images: uint8 (N, h, w, C); h and w divide `cell`, or are larger.
        columns: images in a row.
        cell: (height, width) that each image is brought to.
        caption: written above them.

    Returns:
        A picture of mode `L` where C is 1, else of mode `P`. Its size depends on N, `columns` and `cell` alone.
    """
    if images.shape[1] > cell[0]:
        images = np.stack([reduced(image, cell) for image in images])
    palette, indices = (None, images) if images.shape[-1] == 1 else indexed(images)
    dark = BACKGROUND if palette is None else gray_index(np.uint8(BACKGROUND))
    sheet = tile(indices, columns, cell[0] // images.shape[1], int(dark))[..., 0]
    spare = max(0, LEAST_WIDTH - sheet.shape[1])
    sheet = np.pad(sheet, ((0, 0), (spare // 2, spare - spare // 2)), constant_values=int(dark))
    strip = np.asarray(draw_caption(caption, sheet.shape[1]))
    picture = Image.fromarray(np.concatenate([strip if palette is None else gray_index(strip), sheet]))
    if palette is not None:
        picture.putpalette(palette)
    return picture


def reduced(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (h, w, C) -> (height, width, C), by averaging."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    smaller = np.asarray(picture.resize(size[::-1], Image.Resampling.BOX))
    return smaller.reshape(*size, image.shape[-1])


def indexed(images: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Images of few colours: a palette of 256 RGB triples, the last `GRAYS` of them from black to white, and the
    images as uint8 (N, h, w, 1) of indices into it."""
    count, height, width, channels = images.shape
    pixels = images.reshape(-1, channels)
    # A palette of some pixels is as good as one of all, and much faster; an odd step visits all columns.
    some = pixels[:: len(pixels) // PALETTE_PIXELS | 1]
    chosen = bytes(Image.fromarray(some[None]).quantize(256 - GRAYS).getpalette() or ())
    grays = np.linspace(0, 255, GRAYS).round().astype(np.uint8).repeat(3).tobytes()
    palette = chosen[: 3 * (256 - GRAYS)].ljust(3 * (256 - GRAYS), b"\x00") + grays
    guide = Image.new("P", (1, 1))
    guide.putpalette(palette)
    tall = Image.fromarray(images.reshape(count * height, width, channels))
    few = tall.quantize(palette=guide, dither=Image.Dither.NONE)
    return palette, np.asarray(few).reshape(count, height, width, 1)


def gray_index(levels: np.ndarray | np.uint8) -> np.ndarray:
    """Gray levels 0 to 255 -> indices of the nearest grays in a palette of `indexed`."""
    step = 255 // (GRAYS - 1)
    nearest: np.ndarray = (np.asarray(levels, np.uint16) + step // 2) // step + 256 - GRAYS
    return nearest.astype(np.uint8)


def draw_caption(caption: Caption, width: int) -> Image.Image:
    """The strip above the images, mode `L`: size and clock in the first line; phase, a bar and alpha in the second."""
    text_size = max(13, width // 24)
    font, margin = ImageFont.load_default(text_size), text_size // 2
    line = round(1.4 * text_size)
    strip = Image.new("L", (width, 2 * line + 2 * margin), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    first, second = margin + line // 2, margin + line + line // 2
    left, right = GAP + margin, width - GAP - margin
    draw.text((left, first), caption.size, 255, font, anchor="lm")
    draw.text((right, first), f"{caption.images:,} of {caption.total:,} images", 170, font, anchor="rm")
    draw.text((left, second), caption.phase, 255, font, anchor="lm")
    alpha = f"alpha {caption.alpha:.2f}"
    draw.text((right, second), alpha, 255, font, anchor="rm")
    # The bar's place must not move with the words.
    bar_left = left + math.ceil(font.getlength(STABLE)) + margin
    bar_right = right - math.ceil(font.getlength("alpha 0.00")) - margin
    box = (bar_left, second - text_size // 3, bar_right, second + text_size // 3)
    draw.rectangle(box, fill=85)
    if caption.alpha > 0:
        filled = bar_left + round(caption.alpha * (bar_right - bar_left))
        draw.rectangle((*box[:2], filled, box[3]), fill=255 if caption.phase == FADE else 170)
    return strip
