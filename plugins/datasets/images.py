"""From what files and libraries hold to uint8 (H, W, C): shared by the data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor, ImageOps

from pggan_kit import DataError, SettingError

# Named, so that a file called .png cannot reach another of Pillow's decoders (EPS would start Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

# Pillow's own limits; it warns above the first and refuses above the second, whatever `max_pixels` says.
MAX_PIXELS = 89_478_485
PILLOW_LIMIT = 178_956_970

MAX_SIDE = 32_768
"""Longer sides are refused: no centre crop of so thin or so large a picture is wanted."""

ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")


def read_picture(source: Path | BinaryIO, name: str, max_pixels: int, channels: int, background: str) -> np.ndarray:
    """Decode an image file: its first frame, turned as its EXIF says.

    Args:
        source: the file.
        name: what errors call it.
        max_pixels: a larger one is refused by what its header says, before anything is decoded.
        channels: 1 or 3; converted to where the file has others.
        background: the colour put behind transparent pixels.

    Returns:
        uint8 (H, W, channels).

    Raises:
        DataError: the file is no image, is damaged, too large, or of a kind without a stated range.
    """
    try:
        with Image.open(source, formats=FORMATS) as picture:
            _check_size(picture, max_pixels)
            return to_uint8(picture, channels, background)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name}: has more than {max_pixels} pixels (max_pixels)") from None
    except Exception as error:  # a damaged file can raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise DataError(f"{name}: cannot be read as an image ({error})") from error


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    if max(picture.size) > MAX_SIDE or picture.width * picture.height > max_pixels:
        raise DataError(
            f"is {picture.height}x{picture.width} pixels, above the limit of {max_pixels} in all (max_pixels) or "
            f"{MAX_SIDE} a side"
        )


def to_uint8(picture: Image.Image, channels: int, background: str) -> np.ndarray:
    """A Pillow image of any mode as uint8 (H, W, channels).

    Args:
        picture: 16-bit values are scaled; transparent pixels are composited on `background`.
        channels: 1 or 3; colour becomes gray by ITU-R 601 luma.
        background: a colour as CSS writes it.

    Raises:
        DataError: 32-bit pixels, which have no stated range.
    """
    # Older versions of Pillow open 16-bit gray PNGs in the 32-bit mode I.
    sixteen = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
    if not sixteen and picture.mode in ("I", "F"):
        raise DataError(f"has 32-bit pixels (mode {picture.mode}), whose range is not stated: save it with 8 or 16 bit")
    picture = ImageOps.exif_transpose(picture)
    if sixteen:
        values = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif picture.mode in ALPHA_MODES or "transparency" in picture.info:
        picture = _flattened(picture, background)
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def _flattened(picture: Image.Image, background: str) -> Image.Image:
    if picture.mode in ("La", "RGBa"):  # premultiplied; Pillow converts these to their plain form only
        picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    behind = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(behind, picture.convert("RGBA"))


def colour(background: str, channels: int) -> tuple[int, ...]:
    """A colour as CSS writes it (`white`, `#ffcc00`) in 1 (luma) or 3 channels, in [0, 255].

    Raises:
        ValueError: no such colour; the message begins with `background`.
    """
    try:
        red, green, blue = ImageColor.getrgb(background)[:3]
    except (ValueError, AttributeError, TypeError):
        raise SettingError("background", f"must be a colour like 'white' or '#ffcc00', not {background!r}") from None
    if channels == 3:
        return red, green, blue
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16,)


def check_channels(channels: object) -> None:
    """Raises ValueError unless it is 1 or 3."""
    if channels not in (1, 3) or isinstance(channels, bool):
        raise SettingError("channels", f"must be 1 (gray) or 3 (colour), not {channels!r}")


def check_max_pixels(max_pixels: object) -> None:
    """Raises ValueError unless it is in [1, Pillow's own limit]."""
    if not isinstance(max_pixels, int) or isinstance(max_pixels, bool) or not 1 <= max_pixels <= PILLOW_LIMIT:
        raise SettingError("max_pixels", f"must be a whole number in [1, {PILLOW_LIMIT}], not {max_pixels!r}")


def check_value_range(value_range: object) -> tuple[float, float]:
    """The range as two floats, low first.

    Raises:
        ValueError: it is no such pair; the message begins with `value_range`.
    """
    try:
        low, high = (float(value) for value in value_range)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high:
        raise SettingError("value_range", f"must be (low, high), e.g. (0, 1) or (-1, 1), not {value_range!r}")
    return low, high


def scale_floats(values: np.ndarray, value_range: Sequence[float], name: str) -> np.ndarray:
    """Floats in `value_range` to uint8: low to 0, high to 255, rounded. Same shape.

    Raises:
        DataError: a value that is not finite, or outside the range by more than a thousandth of it.
    """
    low, high = value_range
    scaled = (values.astype(np.float64) - low) / (high - low)
    if not (np.all(scaled >= -1e-3) and np.all(scaled <= 1.001)):  # NaN fails both
        raise DataError(
            f"{name} holds values from {values.min()} to {values.max()}, and value_range is ({low:g}, {high:g}): set "
            "value_range to what the data has"
        )
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
