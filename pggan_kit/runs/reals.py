"""Draw sheets of real images, to look at what a run is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pggan_kit.data.sampler import Data
from pggan_kit.errors import RunError
from pggan_kit.layers.value_maps import hold_in_tensor
from pggan_kit.pictures.channels import PictureSettings, draw_channels
from pggan_kit.pictures.encoding import encode_png
from pggan_kit.pictures.grid import BACKGROUND, CELL, arrange_grid, crop_grid, image_grid
from pggan_kit.schedule import Size
from pggan_kit.system.activities import track_items
from pggan_kit.system.files import write_atomically

COUNT = 64
"""Number of images in a sheet, where nothing else is asked for."""


def draw_reals(data: Data, size: Size, pictures: PictureSettings, count: int = COUNT) -> Image.Image:
    """Draw a sheet of real images of one size, always the same; with labels, each row shows one class.

    Args:
        data: Data, opened at this size.
        size: (height, width) of the images.
        pictures: How they are shown.
        count: Number of images; fewer where there are fewer, or where the sheet would become too large.
    """
    images, labels = data.level(size)
    order = data.draw_order()
    classes = 0
    if labels is not None:
        classes = data.classes

    # With classes, cell i shows an image of class i % classes.
    height, width = size
    rows = crop_grid(arrange_grid(count, classes), height, width * pictures.count_panels(data.image_channels))
    queues = [order]
    if labels is not None and 1 < classes <= count // 2:
        queues = [order[labels[order] == label] for label in range(classes)]
    cells = [_take_number(queues[i % len(queues)], i // len(queues)) for row in rows for i in row]

    # Without classes, all that there is may be less than asked for.
    if len(queues) == 1:
        cells = cells[: len(order)]
    taken = images[[0 if number is None else number for number in cells]]
    sheet = draw_channels(data.values.to_images(hold_in_tensor(taken)), pictures)
    sheet[[number is None for number in cells]] = BACKGROUND
    return image_grid(sheet, min(len(rows[0]), len(sheet)), CELL)


def _take_number(numbers: np.ndarray, place: int) -> int | None:
    """Return the number at a place of a queue; None for an empty cell where the queue is shorter."""
    return int(numbers[place]) if place < len(numbers) else None


def write_sheets(data: Data, sizes: Sequence[Size], pictures: PictureSettings, folder: Path) -> list[Path]:
    """Write a sheet of real images for each size, `reals-14x14.png`, and return their paths.

    Raises:
        RunError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write the sheets of real images to {folder}: {error.strerror}") from error
    paths = []
    for height, width in track_items(sizes, "drawing sheets of real images", len(sizes), "sheets"):
        path = folder / f"reals-{height}x{width}.png"
        write_atomically(path, encode_png(draw_reals(data, (height, width), pictures)))
        paths.append(path)
    return paths
