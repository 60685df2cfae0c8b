"""Frames of animations: images of one size whatever the stage, under a caption with the clock and alpha."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pggan_kit.pictures.encoding import make_picture
from pggan_kit.pictures.grid import BACKGROUND, GAP, tile
from pggan_kit.schedule import FADE, STABLE, Schedule

GRID_WIDTH = 512
"""Approximate width of the grid in pixels, whatever the sizes of the images."""

LEAST_WIDTH = 240
"""Minimum width of a frame in pixels, which its caption needs."""

PALETTE_PIXELS = 4096
"""Approximate number of pixels from which a colour frame's palette is chosen."""

GRAYS = 16
"""Number of gray levels in the palette of a colour frame, which its caption uses."""

BRIGHT = 255
"""Gray level of the caption's main words, and of its bar during a fade."""

DIM = 170
"""Gray level of the caption's clock, and of its bar after a fade."""

TROUGH = 85
"""Gray level of the part of the caption's bar that is not yet filled."""


class Caption(NamedTuple):
    """What a frame says above its images.

    Attributes:
        size: Size of the images, e.g. `14x14`.
        phase: Phase of the stage: `fade` or `stable`.
        alpha: Weight of the new path, in [0, 1].
        images: Clock of the frame.
        total: Clock at the end of the run.
    """

    size: str
    phase: str
    alpha: float
    images: int
    total: int


def choose_cell_size(schedule: Schedule, columns: int) -> tuple[int, int]:
    """Return the (height, width) of each image's cell in a grid of about `GRID_WIDTH` pixels."""
    sizes = [(stage.height, stage.width) for stage in schedule.stages]
    return fit_size(sizes, GRID_WIDTH // columns)


def fit_size(sizes: Sequence[tuple[int, int]], limit: int) -> tuple[int, int]:
    """Return the largest whole multiple of an image size that has no side above a limit.

    Args:
        sizes: Growing sizes (height, width). The last one that fits is enlarged.
        limit: Maximum of either side in pixels. If even the first size is larger, it is returned as it is.
    """
    base = sizes[0]
    for size in sizes:
        if max(size) <= limit:
            base = size
    height, width = base
    scale = max(1, limit // max(height, width))
    return scale * height, scale * width


def draw_frame(images: np.ndarray, columns: int, cell: tuple[int, int], caption: Caption) -> Image.Image:
    """Draw images under a caption.

    Args:
        images: Images, uint8 (N, h, w, C); h and w divide those of `cell`, or are larger.
        columns: Number of images in a row.
        cell: (height, width) to which each image is enlarged or reduced; each channel, where they are side by side.
        caption: Text above the images.

    Returns:
        A picture of mode `L` where C is 1, else of mode `P`. Its size depends on N, `columns` and `cell` alone.
    """
    if images.shape[1] > cell[0]:
        # Channels side by side are as wide as several cells.
        cells = max(1, round(images.shape[2] * cell[0] / (images.shape[1] * cell[1])))
        images = np.stack([reduce_image(image, (cell[0], cells * cell[1])) for image in images])

    # Gray levels stand for themselves in a gray frame, and are found in the palette of a colour frame.
    palette = None
    indices = images
    background = BACKGROUND
    if images.shape[-1] != 1:
        palette, indices = index_colours(images)
        background = int(index_grays(np.uint8(BACKGROUND)))

    # The grid, centred where the caption needs more width.
    sheet = tile(indices, columns, cell[0] // images.shape[1], background)[..., 0]
    spare = max(0, LEAST_WIDTH - sheet.shape[1])
    sheet = np.pad(sheet, ((0, 0), (spare // 2, spare - spare // 2)), constant_values=background)

    # The caption above it.
    strip = np.asarray(draw_caption(caption, sheet.shape[1]))
    if palette is not None:
        strip = index_grays(strip)
    picture = Image.fromarray(np.concatenate([strip, sheet]))
    if palette is not None:
        picture.putpalette(palette)
    return picture


def reduce_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduce an image uint8 (h, w, C) to (height, width, C) by averaging."""
    height, width = size
    smaller = make_picture(image).resize((width, height), Image.Resampling.BOX)
    return np.asarray(smaller).reshape(height, width, image.shape[-1])


def fill_cell(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Enlarge an image uint8 (h, w, C) to a cell (height, width), each pixel to a square, or reduce it by averaging."""
    height, width = image.shape[:2]
    if height > cell[0]:
        return reduce_image(image, cell)
    # Where sizes are no multiples of each other, squares differ by a pixel.
    rows = np.arange(cell[0]) * height // cell[0]
    columns = np.arange(cell[1]) * width // cell[1]
    enlarged: np.ndarray = image[rows][:, columns]
    return enlarged


def index_colours(images: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Reduce images to the colours of one palette.

    Args:
        images: Images, uint8 (N, h, w, 3).

    Returns:
        The palette of 256 RGB triples, the last `GRAYS` of them from black to white, and the images as indices into
        it, uint8 (N, h, w, 1).
    """
    count, height, width, channels = images.shape
    pixels = images.reshape(-1, channels)

    # A palette of some pixels is as good as one of all, and much faster; a step that shares no factor with the width
    # visits all columns.
    step = max(1, len(pixels) // PALETTE_PIXELS)
    while math.gcd(step, width) > 1:
        step += 1
    sample = pixels[::step]
    colours = 256 - GRAYS
    chosen = bytes(Image.fromarray(sample[None]).quantize(colours).getpalette() or ())
    grays = np.linspace(0, 255, GRAYS).round().astype(np.uint8).repeat(3).tobytes()
    palette = chosen[: 3 * colours].ljust(3 * colours, b"\x00") + grays

    # Pillow takes the palette from a picture, and one tall picture holds all images.
    guide = Image.new("P", (1, 1))
    guide.putpalette(palette)
    column = Image.fromarray(images.reshape(count * height, width, channels))
    indices = np.asarray(column.quantize(palette=guide, dither=Image.Dither.NONE))
    return palette, indices.reshape(count, height, width, 1)


def index_grays(levels: np.ndarray | np.uint8) -> np.ndarray:
    """Return the indices of the grays nearest to levels from 0 to 255, in a palette of `index_colours`."""
    step = 255 // (GRAYS - 1)
    nearest: np.ndarray = (np.asarray(levels, np.uint16) + step // 2) // step + 256 - GRAYS
    return nearest.astype(np.uint8)


def draw_caption(caption: Caption, width: int) -> Image.Image:
    """Draw the strip above the images: size and clock in the first line; phase, a bar and alpha in the second.

    Args:
        caption: What the strip says.
        width: Width of the strip in pixels.

    Returns:
        A picture of mode `L`.
    """
    text_size = max(13, width // 24)
    font = ImageFont.load_default(text_size)
    line = round(1.4 * text_size)
    margin = text_size // 2
    strip = Image.new("L", (width, 2 * line + 2 * margin), BACKGROUND)
    draw = ImageDraw.Draw(strip)

    # The words, at the left and the right end of both lines.
    first = margin + line // 2
    second = margin + line + line // 2
    left = GAP + margin
    right = width - GAP - margin
    draw.text((left, first), caption.size, BRIGHT, font, anchor="lm")
    draw.text((right, first), f"{caption.images:,} of {caption.total:,} images", DIM, font, anchor="rm")
    draw.text((left, second), caption.phase, BRIGHT, font, anchor="lm")
    draw.text((right, second), f"alpha {caption.alpha:.2f}", BRIGHT, font, anchor="rm")

    # The bar between the words of the second line, whose place must not move with the words.
    bar_left = left + math.ceil(font.getlength(STABLE)) + margin
    bar_right = right - math.ceil(font.getlength("alpha 0.00")) - margin
    bar_top = second - text_size // 3
    bar_bottom = second + text_size // 3
    draw.rectangle((bar_left, bar_top, bar_right, bar_bottom), fill=TROUGH)
    if caption.alpha > 0:
        filled_to = bar_left + round(caption.alpha * (bar_right - bar_left))
        level = DIM
        if caption.phase == FADE:
            level = BRIGHT
        draw.rectangle((bar_left, bar_top, filled_to, bar_bottom), fill=level)
    return strip
