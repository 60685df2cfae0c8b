"""Bring pictures of unusual sizes to one aspect ratio: by a crop of the centre, or by bars around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pggan_kit import DataError, SettingError, check_choice

from .conversion import parse_colour

if TYPE_CHECKING:
    from pggan_kit import Stage


class Framing:
    """What becomes of pictures of unusual sizes; see `datasets.ImageFolder`.

    Args:
        size: A side or (height, width), in pixels; None for none.
        fit: `crop` or `pad`.
        background: Colour of bars, in CSS notation.
        channels: Number of channels of the pictures.
        max_pixels: Maximum number of pixels of a picture with its bars.

    Attributes:
        settings: What changes a picture.

    Raises:
        SettingError: An argument out of range.
    """

    def __init__(
        self, size: int | Sequence[int] | None, fit: str, background: str, channels: int, max_pixels: int
    ) -> None:
        check_choice("fit", fit, ("crop", "pad"))
        self._background = parse_colour(background, channels)
        self._size = _parse_size(size)
        self._fit = fit
        self._max_pixels = max_pixels
        self.settings: list[Any] = [self._size, fit]

    def apply(self, image: np.ndarray, name: str) -> np.ndarray:
        """Crop or pad an image (H, W, C) to the size asked for.

        Raises:
            DataError: An image that is too small to be cropped, or would have too many pixels with its bars.
        """
        height, width = image.shape[:2]

        if self._fit == "pad":
            size = _find_padded_size(height, width, self._size or (1, 1))
            if size[0] * size[1] > self._max_pixels:
                raise DataError(
                    f"{name}: is {height}x{width} pixels, and with bars {size[0]}x{size[1]}, above the limit of "
                    f"{self._max_pixels} pixels"
                )
            padded = np.empty((*size, image.shape[2]), np.uint8)
            padded[:] = self._background
            _view_centre(padded, (height, width))[:] = image
            return padded

        # Without a size the core crops, to the aspect ratio of the stages.
        if self._size is None:
            return image
        size = self._size
        if height < size[0] or width < size[1]:
            raise DataError(f"{name}: is {height}x{width} pixels, too small to be cropped to {size[0]}x{size[1]}")
        return _view_centre(image, size)

    def check_stages(self, stages: Sequence[Stage], setting: str) -> None:
        """Check that padded images have the aspect ratio of the stages: else the core would cut the bars off again.

        Args:
            stages: The stages.
            setting: Name of the setting of the size, as a config binds it.

        Raises:
            DataError: They have another one.
        """
        if self._fit != "pad":
            return

        # Without a size images are padded to squares.
        height, width = self._size or (1, 1)
        for stage in stages:
            if height * stage.width != width * stage.height:
                raise DataError(
                    f"fit = 'pad' makes images of the aspect ratio {height}:{width}, and the stage {stage.size} would "
                    f"crop them: set {setting} = ({stage.height}, {stage.width})"
                )


def _find_padded_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size that holds an image, is at least `size`, and has just its aspect ratio."""
    # A ratio that is rounded would cost a row or column in the crop to the stages' own.
    divisor = math.gcd(*size)
    rows = size[0] // divisor
    columns = size[1] // divisor
    factor = max(divisor, math.ceil(height / rows), math.ceil(width / columns))
    return factor * rows, factor * columns


def _view_centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a view of the central (height, width) pixels."""
    top = (image.shape[0] - size[0]) // 2
    left = (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def _parse_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return a size as (height, width), or None.

    Raises:
        SettingError: A value that is neither a side nor such a pair.
    """
    if size is None:
        return None

    # gin hands over lists as well as tuples.
    pair: tuple[int, ...] = ()
    if isinstance(size, int):
        pair = (size, size)
    elif isinstance(size, (list, tuple)):
        pair = tuple(size)
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in pair):
        raise SettingError("size", f"must be a side or (height, width) of at least 1, or None, not {size!r}")
    return pair[0], pair[1]
