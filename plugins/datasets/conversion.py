"""Checks of the settings of data sets, and names of types of numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import ImageColor

from pggan_kit import SettingError
from pggan_kit.pictures import PILLOW_LIMIT


def parse_colour(background: str, channels: int) -> tuple[int, ...]:
    """Return a colour in CSS notation (`white`, `#ffcc00`) as 1 (luma) or 3 channels, in [0, 255].

    Raises:
        SettingError: A `background` that is no such colour, or that has an opacity.
    """
    try:
        colour = ImageColor.getrgb(background)
    except (ValueError, AttributeError, TypeError):
        raise SettingError("background", f"must be a colour like 'white' or '#ffcc00', not {background!r}") from None
    if len(colour) != 3:
        raise SettingError("background", f"must be a colour without opacity, such as '#ffcc00', not {background!r}")
    red, green, blue = colour
    if channels == 3:
        return red, green, blue
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16,)


def check_channels(channels: object) -> None:
    """Check that a number of channels is 1 or 3.

    Raises:
        SettingError: Another value.
    """
    if channels not in (1, 3) or isinstance(channels, bool):
        raise SettingError("channels", f"must be 1 (gray) or 3 (colour), not {channels!r}")


def check_max_pixels(max_pixels: object) -> None:
    """Check that a limit of pixels is an integer in [1, Pillow's own limit].

    Raises:
        SettingError: Another value.
    """
    if not isinstance(max_pixels, int) or isinstance(max_pixels, bool) or not 1 <= max_pixels <= PILLOW_LIMIT:
        raise SettingError("max_pixels", f"must be a whole number in [1, {PILLOW_LIMIT}], not {max_pixels!r}")


def parse_value_range(value_range: object) -> tuple[float, float]:
    """Return a value range as two floats, low first.

    Raises:
        SettingError: A `value_range` that is no pair of rising numbers.
    """
    message = f"must be (low, high), e.g. (0, 1) or (-1, 1), not {value_range!r}"
    try:
        low, high = (float(value) for value in value_range)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        raise SettingError("value_range", message) from None
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise SettingError("value_range", message)
    return low, high


def parse_window(value_range: object) -> tuple[float, float] | None:
    """Return a value range of deep pictures as two floats, low first, or None for that of the type.

    Raises:
        SettingError: A `value_range` that is neither None nor a pair of rising numbers.
    """
    if value_range is None:
        return None
    return parse_value_range(value_range)


def describe_type(kind: np.dtype[Any]) -> str:
    """Return what a fingerprint says of the type of numbers."""
    # Bytes were named by a range once, and their resized copies still are.
    return "(0.0, 1.0)" if kind == np.uint8 else kind.name
