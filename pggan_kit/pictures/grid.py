"""Images as files show them: bytes instead of [-1, 1], and many in one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from pggan_kit.layers.tensors import images_to_uint8

GAP = 2
"""Pixels between two cells, and around them all."""

BACKGROUND = 34
"""Gray level of the gaps: neither the black of digits nor the middle of an untrained network."""


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, C, h, w) in [-1, 1], on any device -> uint8 (N, h, w, C). What lies outside is clipped."""
    return images_to_uint8(images.detach()).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def tile(images: np.ndarray, columns: int, scale: int = 1, background: int = BACKGROUND) -> np.ndarray:
    """Lay images out row by row, each pixel a square of `scale` x `scale`, with gaps between and around.

    Args:
        images: uint8 (N, h, w, C).
        columns: images in a row; the last row may be shorter.
        scale: a whole factor of enlargement.
        background: value of the gaps and of missing images.

    Returns:
        uint8 (rows * (scale * h + GAP) + GAP, columns * (scale * w + GAP) + GAP, C).
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    step_y, step_x = scale * height + GAP, scale * width + GAP
    cells = np.full((rows * columns, step_y, step_x, channels), background, np.uint8)
    cells[:count, GAP:, GAP:] = images.repeat(scale, axis=1).repeat(scale, axis=2)
    sheet = cells.reshape(rows, columns, step_y, step_x, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * step_y, columns * step_x, channels)
    return np.pad(sheet, ((0, GAP), (0, GAP), (0, 0)), constant_values=background)


def untiled(sheet: np.ndarray, height: int, width: int, background: int = BACKGROUND) -> np.ndarray | None:
    """The images that `tile` laid out, small again.

    Args:
        sheet: uint8 (rows, columns, C) of pixels, as `tile` returns.
        height, width: of each image.
        background: value of the gaps; cells at the end that have no other are taken for missing ones.

    Returns:
        uint8 (N, height, width, C); None where it is no such sheet.
    """
    for scale in range(1, max(1, (sheet.shape[0] - GAP) // height) + 1):
        steps = scale * height + GAP, scale * width + GAP
        if any((side - GAP) % step for side, step in zip(sheet.shape, steps, strict=False)):
            continue
        cells = sheet[GAP:, GAP:].reshape(-1, steps[0], sheet.shape[1] // steps[1], steps[1], sheet.shape[2])
        cells = cells.swapaxes(1, 2).reshape(-1, *steps, sheet.shape[2])
        if (cells[:, -GAP:] != background).any() or (cells[:, :, -GAP:] != background).any():
            continue
        images = cells[:, :-GAP:scale, :-GAP:scale]
        there = (images != background).any(axis=(1, 2, 3)).nonzero()[0]
        return images[: there[-1] + 1] if len(there) else None
    return None


def image_grid(images: np.ndarray, columns: int, cell: int = 56) -> Image.Image:
    """One picture of many images, row by row.

    Args:
        images: uint8 (N, h, w, C), gray (C = 1) or colour (C = 3).
        columns: images in a row; the last row may be shorter.
        cell: each image's shorter side has at least this many pixels: smaller images are enlarged by a whole factor,
            each pixel to a square.

    Returns:
        A picture of mode `L` or `RGB`, with gaps of `GAP` pixels.
    """
    scale = -(-cell // min(images.shape[1:3]))
    sheet = tile(images, columns, scale)
    return Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)
