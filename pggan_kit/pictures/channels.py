"""Make pictures of images with any number of channels: gray, colour, or channels side by side, never transparency."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from pggan_kit.errors import SettingError, did_you_mean, suggest
from pggan_kit.pictures.grid import to_uint8

ALL = "all"
"""Value of `pictures.channels` for all channels side by side."""


@dataclass(frozen=True)
class PictureSettings:
    """How images are shown in grids, films, logs and reports (`pictures.*`); networks see all channels in any case.

    Args:
        channels: Channels that are shown, by their numbers from 0: three as red, green and blue, one in gray, or
            `'all'` side by side, each in gray. None for gray or colour where the images have 1 or 3 channels, and
            `'all'` elsewhere.
        colour_map: Colour map of matplotlib, such as `'viridis'`, which takes the place of gray. Needs the extra
            `report`.

    Raises:
        SettingError: There is no such choice or colour map, or matplotlib is not installed.
    """

    channels: Any = None
    colour_map: str | None = None

    def __post_init__(self) -> None:
        # One channel in gray, three in colour, or all side by side.
        numbers = self.channels
        if not isinstance(numbers, (list, tuple)):
            numbers = [] if numbers in (None, ALL) else [numbers]
        elif len(numbers) != 3:
            numbers = [None]
        if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
            raise SettingError(
                "channels",
                f"must be three numbers of channels from 0, such as (3, 2, 1), one number, or {ALL!r}, not "
                f"{self.channels!r}",
            )

        # A colour map that cannot be read fails here, and not at the first picture.
        if self.colour_map is not None:
            _read_colours(self.colour_map)

    def check_channels(self, count: int) -> None:
        """Check that images with a number of channels have those that are shown, and some for the colour map.

        Raises:
            SettingError: They have not.
        """
        chosen = self._choose(count)
        if max(chosen) >= count:
            raise SettingError(
                "channels", f"names channel {max(chosen)}, and the images have {count}, numbered from 0: name others"
            )
        if self.colour_map is not None and self._is_colour(count):
            raise SettingError(
                "colour_map",
                f"has no use where channels are shown as red, green and blue: bind pictures.channels to a number or to "
                f"{ALL!r}, or leave it out",
            )

    def count_panels(self, count: int) -> int:
        """Return the number of pictures side by side that an image with a number of channels becomes."""
        return 1 if self._is_colour(count) else len(self._choose(count))

    def _choose(self, count: int) -> list[int]:
        """Return the channels that are shown."""
        if isinstance(self.channels, (list, tuple)):
            return list(self.channels)
        if isinstance(self.channels, int):
            return [self.channels]
        return list(range(count))

    def _is_colour(self, count: int) -> bool:
        """Return whether the channels are shown as red, green and blue."""
        return isinstance(self.channels, (list, tuple)) or (self.channels is None and count == 3)


def draw_channels(images: Tensor, settings: PictureSettings) -> np.ndarray:
    """Draw images with any number of channels; see `PictureSettings`.

    Args:
        images: Images (N, C, h, w) in [-1, 1], on any device. Values outside are clipped.
        settings: What is shown.

    Returns:
        uint8 (N, h, panels * w, 1) in gray, or (N, h, panels * w, 3) in colour.
    """
    count = images.shape[1]
    chosen = settings._choose(count)
    pixels = to_uint8(images[:, chosen] if chosen != list(range(count)) else images)
    if settings._is_colour(count):
        return pixels

    # Channels side by side.
    n, height, width, panels = pixels.shape
    gray: np.ndarray = pixels.transpose(0, 1, 3, 2).reshape(n, height, panels * width)
    if settings.colour_map is None:
        return gray[..., np.newaxis]
    coloured: np.ndarray = _read_colours(settings.colour_map)[gray]
    return coloured


def _read_colours(name: str) -> np.ndarray:
    """Return the 256 colours of a colour map, uint8 (256, 3).

    Raises:
        SettingError: There is no such map, or matplotlib is not installed.
    """
    try:
        maps = importlib.import_module("matplotlib").colormaps
    except ImportError as error:
        raise SettingError(
            "colour_map", f"needs matplotlib ({error}): pip install 'pggan_kit[report]', or leave it out"
        ) from error
    if not isinstance(name, str) or name not in maps:
        near = suggest(did_you_mean(str(name), list(maps)))
        raise SettingError("colour_map", f"must be the name of a colour map of matplotlib, not {name!r}{near}")
    colours: np.ndarray = maps[name].resampled(256)(np.arange(256), bytes=True)[:, :3]
    return np.ascontiguousarray(colours)
