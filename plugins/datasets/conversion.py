"""Conversions to uint8 (H, W, C) from what files and libraries hold, and checks of the settings of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor, ImageOps

from pggan_kit import DataError, SettingError
from pggan_kit.pictures import PILLOW_LIMIT, open_picture

ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")

TOLERANCE = 1e-3
"""Share of the value range by which floats may lie outside it."""


def read_image(source: Path | BinaryIO, name: str, max_pixels: int, channels: int, background: str) -> np.ndarray:
    """Decode the first frame of an image file, rotated as its EXIF says.

    Args:
        source: The file.
        name: The file's name in errors.
        max_pixels: The most pixels; a larger image is refused by its header, before anything is decoded.
        channels: 1 or 3; the image is converted.
        background: The colour put behind transparent pixels.

    Returns:
        uint8 (H, W, channels).

    Raises:
        DataError: A file that is no image, is corrupt or too large, or has pixels without a defined range.
    """
    try:
        with open_picture(source, max_pixels=max_pixels) as picture:
            return convert_to_uint8(picture, channels, background)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error.__cause__


def convert_to_uint8(picture: Image.Image, channels: int, background: str) -> np.ndarray:
    """Convert a Pillow image of any mode to uint8 (H, W, channels).

    Args:
        picture: The image. 16-bit values are scaled; transparent pixels are composited on `background`.
        channels: 1 or 3; colour becomes gray by ITU-R 601 luma.
        background: The colour behind transparent pixels, in CSS notation.

    Raises:
        DataError: 32-bit pixels, which have no defined range.
    """
    # Older versions of Pillow open 16-bit gray PNGs in the 32-bit mode I.
    has_16_bits = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
    if not has_16_bits and picture.mode in ("I", "F"):
        raise DataError(
            f"has 32-bit pixels (mode {picture.mode}), which have no defined range: save it with 8 or 16 bits"
        )
    picture = ImageOps.exif_transpose(picture)

    # Bring 16-bit and transparent images to a plain mode.
    if has_16_bits:
        values = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif picture.mode in ALPHA_MODES or "transparency" in picture.info:
        picture = _composite_on_background(picture, background)

    if channels == 1:
        return np.asarray(picture.convert("L"))[..., None]
    return np.asarray(picture.convert("RGB"))


def _composite_on_background(picture: Image.Image, background: str) -> Image.Image:
    # Pillow converts premultiplied modes to their plain form only.
    if picture.mode == "La":
        picture = picture.convert("LA")
    elif picture.mode == "RGBa":
        picture = picture.convert("RGBA")
    behind = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(behind, picture.convert("RGBA"))


def parse_colour(background: str, channels: int) -> tuple[int, ...]:
    """Return a colour in CSS notation (`white`, `#ffcc00`) as 1 (luma) or 3 channels, in [0, 255].

    Raises:
        SettingError: A `background` that is no such colour.
    """
    try:
        red, green, blue = ImageColor.getrgb(background)[:3]
    except (ValueError, AttributeError, TypeError):
        raise SettingError("background", f"must be a colour like 'white' or '#ffcc00', not {background!r}") from None
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
    except (TypeError, ValueError):
        raise SettingError("value_range", message) from None
    if not low < high:
        raise SettingError("value_range", message)
    return low, high


def scale_floats(values: np.ndarray, value_range: Sequence[float], name: str) -> np.ndarray:
    """Scale floats in `value_range` to uint8 of the same shape: low to 0, high to 255, rounded.

    Raises:
        DataError: A value that is not finite, or outside the range by more than a thousandth of it.
    """
    low, high = value_range
    scaled = (values.astype(np.float64) - low) / (high - low)
    if not (np.all(scaled >= -TOLERANCE) and np.all(scaled <= 1 + TOLERANCE)):  # NaN fails both
        raise DataError(
            f"{name} holds values from {values.min()} to {values.max()}, and value_range is ({low:g}, {high:g}): set "
            "value_range to the range of the data"
        )
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
