"""Images as files show them: bytes instead of numbers in [-1, 1], and many in one picture."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from torch import Tensor

from pggan_kit.layers.tensors import images_to_uint8
from pggan_kit.pictures.encoding import make_picture

GAP = 2
"""Pixels between two cells, and around them all."""

BACKGROUND = 34
"""Gray level of the gaps: neither the black of digits nor the middle of an untrained network."""

LIMIT = 1024
"""Maximum width and height of a grid in pixels, unless a single image is larger."""

CELL = 56
"""Minimum width and height of a cell in pixels: smaller images are enlarged."""


def to_uint8(images: Tensor) -> np.ndarray:
    """Convert images (N, C, h, w) in [-1, 1], on any device, to uint8 (N, h, w, C). Values outside are clipped."""
    pixels = images_to_uint8(images.detach())
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def tile(images: np.ndarray, columns: int, scale: int = 1, background: int = BACKGROUND) -> np.ndarray:
    """Lay images out row by row, each pixel a square of `scale` x `scale`, with gaps between and around.

    Args:
        images: Images, uint8 (N, h, w, C).
        columns: Number of images in a row; the last row may be shorter.
        scale: Whole factor of enlargement.
        background: Value of the gaps and of missing images.

    Returns:
        uint8 (rows * (scale * h + GAP) + GAP, columns * (scale * w + GAP) + GAP, C).
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    step_y = scale * height + GAP
    step_x = scale * width + GAP

    # Each cell is an image with the gaps above and to the left of it.
    cells = np.full((rows * columns, step_y, step_x, channels), background, np.uint8)
    cells[:count, GAP:, GAP:] = images.repeat(scale, axis=1).repeat(scale, axis=2)

    # Cells side by side, and the gaps at the lower and the right edge.
    sheet = cells.reshape(rows, columns, step_y, step_x, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * step_y, columns * step_x, channels)
    return np.pad(sheet, ((0, GAP), (0, GAP), (0, 0)), constant_values=background)


def split_sheet(sheet: np.ndarray, height: int, width: int, background: int = BACKGROUND) -> np.ndarray | None:
    """Return the images that `tile` laid out, at their own size.

    Args:
        sheet: Sheet of pixels as `tile` returns it, uint8 (height of the sheet, width of the sheet, C).
        height: Height of each image.
        width: Width of each image.
        background: Value of the gaps. Cells at the end that hold no other value count as missing images.

    Returns:
        uint8 (N, height, width, C). None where it is not such a sheet.
    """
    sheet_height, sheet_width, channels = sheet.shape
    largest_scale = max(1, (sheet_height - GAP) // height)
    for scale in range(1, largest_scale + 1):
        step_y = scale * height + GAP
        step_x = scale * width + GAP
        if (sheet_height - GAP) % step_y or (sheet_width - GAP) % step_x:
            continue

        # Each cell is an image with the gaps below and to the right of it, if the scale is the right one.
        columns = sheet_width // step_x
        cells = sheet[GAP:, GAP:].reshape(-1, step_y, columns, step_x, channels)
        cells = cells.swapaxes(1, 2).reshape(-1, step_y, step_x, channels)
        if (cells[:, -GAP:] != background).any() or (cells[:, :, -GAP:] != background).any():
            continue

        # One pixel of each square, without the missing images at the end.
        images = cells[:, :-GAP:scale, :-GAP:scale]
        filled_cells = (images != background).any(axis=(1, 2, 3)).nonzero()[0]
        if not len(filled_cells):
            return None
        filled: np.ndarray = images[: filled_cells[-1] + 1]
        return filled
    return None


def image_grid(images: np.ndarray, columns: int, cell: int = CELL) -> Image.Image:
    """Draw many images in one picture, row by row.

    Args:
        images: Images, uint8 (N, h, w, C), gray (C = 1) or colour (C = 3).
        columns: Number of images in a row; the last row may be shorter.
        cell: Minimum of each image's shorter side in pixels. Smaller images are enlarged by a whole factor, each pixel
            to a square.

    Returns:
        A picture of mode `L` or `RGB`, with gaps of `GAP` pixels.

    Raises:
        ValueError: Images have another number of channels, which would be taken for transparency.
    """
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images have {images.shape[-1]} channels, and a picture shows 1 or 3: make them by run.show() or "
            "pggan_kit.pictures.draw_channels()"
        )

    # Small images are enlarged.
    scale = -(-cell // min(images.shape[1:3]))
    return make_picture(tile(images, columns, scale))


def arrange_grid(count: int, classes: int) -> list[list[int]]:
    """Arrange the numbers below `count` in rows: a near square, or, with classes, one row for each class.

    Image i has the class i % classes. Each class shows equally many; the last images may be left out.
    """
    if 1 < classes <= count // 2:
        return [list(range(first, count - count % classes, classes)) for first in range(classes)]
    columns = math.ceil(math.sqrt(count))
    return [list(range(first, min(count, first + columns))) for first in range(0, count, columns)]


def measure_grid(rows: list[list[int]], height: int, width: int) -> tuple[int, int]:
    """Return the width and height of the picture that `image_grid` draws of rows of images of height x width."""
    scale = -(-CELL // min(height, width))
    return len(rows[0]) * (scale * width + GAP) + GAP, len(rows) * (scale * height + GAP) + GAP


def crop_grid(rows: list[list[int]], height: int, width: int) -> list[list[int]]:
    """Return the upper left part of a grid whose images of height x width fit into `LIMIT`, at least one image."""
    scale = -(-CELL // min(height, width))
    row_count = max(1, (LIMIT - GAP) // (scale * height + GAP))
    column_count = max(1, (LIMIT - GAP) // (scale * width + GAP))
    return [row[:column_count] for row in rows[:row_count]]
