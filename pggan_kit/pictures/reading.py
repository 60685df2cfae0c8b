"""Read picture files as bytes of 1 or 3 channels, in the one way that training, evaluation and all others share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from pggan_kit.errors import DataError
from pggan_kit.pictures.decoding import MAX_PIXELS, open_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes, in lower case, of the files that count as pictures."""

ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")

GRAY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes without colour."""

LARGEST_16_BIT = 65535

FEWEST_LEVELS = 64
"""Gray levels, of 256, below which 16-bit pictures count as squeezed."""

EXTRA_SAMPLES = 338
SAMPLES_PER_PIXEL = 277
PHOTOMETRIC = 262
"""Tags of TIFF: what samples beyond the colours mean, the number of samples, and how colours are stored."""

ORIENTATION = 274
"""Tag of Exif: how a picture is to be turned."""

UPRIGHT = 1
"""Orientation of a picture that is not to be turned."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of an orientation upright; one of another is upright."""

GRAY_STEPS = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow scales gray of 2 and 4 bits to 8."""

TRANSPARENT = "+A"
"""End of the mode of a picture that has no opacity of its own, and a palette or a colour that is transparent."""

COLOUR_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Samples that are colours, by the photometric interpretation of a TIFF."""


class Listing(NamedTuple):
    """The pictures of a folder, and what else is there.

    Attributes:
        files: Paths of the pictures below the folder, sorted, with slashes.
        left_out: Number of the entries that are not read, by kind: a suffix such as `.HEIC`, `hidden`, ...
    """

    files: list[str]
    left_out: dict[str, int]


def list_pictures(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> Listing:
    """List the pictures in a folder and its sub-folders, and count whatever else is there.

    A picture is a regular file with one of the suffixes. Hidden files and folders, and links to folders, are not read.

    Args:
        folder: The folder.
        suffixes: Suffixes in lower case.

    Raises:
        DataError: A folder that cannot be listed.
    """

    files: list[str] = []
    left_out: Counter[str] = Counter()
    below = [""]
    while below:
        prefix = below.pop()
        # Entries know their kind: nothing is asked of the disk for each file. Plain text is joined, since millions of
        # path objects take longer than the disk.
        for entry in _scan(os.path.join(folder, prefix)):
            name = entry.name
            suffix = os.path.splitext(name)[1]
            if name.startswith("."):
                left_out["hidden"] += 1
            elif entry.is_dir():
                if entry.is_symlink():
                    left_out["links to folders"] += 1
                else:
                    below.append(f"{prefix}{name}/")
            elif suffix.lower() not in suffixes:
                left_out[suffix or "without a suffix"] += 1
            elif not entry.is_file():
                left_out["no regular files"] += 1
            else:
                files.append(prefix + name)
    return Listing(sorted(files), dict(sorted(left_out.items())))


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """Return what a folder holds.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error


def find_channels(paths: Iterable[Path]) -> int:
    """Return 1 where all pictures are gray by their headers, else 3.

    Raises:
        DataError: A file that is no picture.
    """
    for path in paths:
        try:
            with open_picture(path) as picture:
                is_gray = picture.mode in GRAY_MODES
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if not is_gray:
            return 3
    return 1


class PictureReader:
    """A reader of pictures of any mode as uint8 (H, W, channels), for use from several threads.

    The first frame is decoded, rotated as its EXIF says, composited on a background where it is transparent, scaled to
    8 bits, and converted to gray (ITU-R 601 luma) or colour.

    Args:
        channels: 1 for gray, 3 for colour.
        background: Colour behind transparent pixels, in CSS notation.
        max_pixels: Maximum number of pixels of a picture.
        value_range: Pair (low, high) of values of 16-bit and 32-bit gray pictures that become 0 and 255; values outside
            are clipped. None for 0 to 65535; 32-bit pictures have no range of their own, and are refused.
    """

    def __init__(
        self,
        channels: int,
        background: str = "white",
        max_pixels: int = MAX_PIXELS,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self._channels = channels
        self._background = background
        self._max_pixels = max_pixels
        self._value_range = value_range
        self._lock = Lock()
        self._lowest = LARGEST_16_BIT
        self._highest = -1

    @property
    def settings(self) -> list[object]:
        """What decides the pixels of a file."""
        return [self._max_pixels, self._channels, self._background, self._value_range]

    def read(self, source: Path | BinaryIO, name: str) -> np.ndarray:
        """Read a file.

        Args:
            source: File.
            name: Name of the file in errors.

        Returns:
            uint8 (H, W, channels).

        Raises:
            DataError: A file that is no picture, is corrupt or too large, has pixels without a defined range, or bands
                that are neither colour nor opacity.
        """
        try:
            with open_picture(source, max_pixels=self._max_pixels) as picture:
                return self.convert(picture)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error.__cause__

    def read_mode(self, source: Path | BinaryIO, name: str) -> str:
        """Return the mode that a picture has in its file, as Pillow names it.

        `RGB;16` is 16-bit colour, and `P+A` or `L+A` has a palette or a colour that is transparent.

        Args:
            source: File, of which the header is read.
            name: Name of the file in errors.

        Raises:
            DataError: A file that is no picture, or is too large.
        """
        try:
            with open_picture(source, max_pixels=self._max_pixels) as picture:
                mode = picture.mode
                if _has_16_bit_colour(picture):
                    mode += ";16"
                if picture.mode not in ALPHA_MODES and "transparency" in picture.info:
                    mode += TRANSPARENT
                return mode
        except DataError as error:
            raise DataError(f"{name}: {error}") from error.__cause__

    def convert(self, picture: Image.Image) -> np.ndarray:
        """Convert a Pillow image of any mode to uint8 (H, W, channels); see `read`."""
        _require_known_bands(picture)
        has_16_bit_colour = _has_16_bit_colour(picture)
        if has_16_bit_colour and self._value_range is not None:
            raise DataError("has 16-bit colour, of which only the upper 8 bits can be read: value_range has no use")

        # Older versions of Pillow open 16-bit gray PNGs in the 32-bit mode I.
        has_16_bits = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
        has_32_bits = not has_16_bits and picture.mode in ("I", "F")
        if has_32_bits and self._value_range is None:
            raise DataError(
                f"has 32-bit pixels (mode {picture.mode}), which have no defined range: set value_range, or save it "
                "with 8 or 16 bits"
            )
        # Most pictures are upright and of the wanted mode already, of which Pillow would make two copies.
        picture = turn_upright(_scale_clear_colour(picture))

        # Bring deep and transparent images to a plain mode.
        if has_16_bits or has_32_bits:
            values = np.asarray(picture)
            if has_16_bits:
                self._note_range(int(values.min()), int(values.max()))
            clear_value = picture.info.get("transparency")
            picture = Image.fromarray(_scale(values, self._value_range or (0, LARGEST_16_BIT)))
            if clear_value is not None:
                picture.putalpha(Image.fromarray(np.where(values == clear_value, 0, 255).astype(np.uint8)))
                picture = _composite_on_background(picture, self._background)
        elif picture.mode in ALPHA_MODES or "transparency" in picture.info:
            picture = _composite_on_background(picture, self._background)

        mode = "L" if self._channels == 1 else "RGB"
        if picture.mode != mode:
            picture = picture.convert(mode)
        pixels = np.asarray(picture)
        if has_16_bit_colour:
            self._note_range(int(pixels.min()) * 257, int(pixels.max()) * 257)
        return np.atleast_3d(pixels)

    def list_warnings(self, setting: str) -> list[str]:
        """Return a warning if 16-bit pictures that were read use a small part of their range.

        Args:
            setting: Name of the setting that holds the value range, as a config binds it.
        """
        with self._lock:
            low = self._lowest
            high = self._highest
        levels = (high - low) * 256 // (LARGEST_16_BIT + 1) + 1
        if self._value_range is not None or high < low or levels >= FEWEST_LEVELS:
            return []
        return [
            f"16-bit pictures have values from {low} to {high} only, which become {levels} of 256 levels; set "
            f"{setting} = ({low}, {high}), or to the range that matters"
        ]

    def _note_range(self, low: int, high: int) -> None:
        with self._lock:
            self._lowest = min(self._lowest, low)
            self._highest = max(self._highest, high)


def turn_upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its Exif says; one whose Exif is damaged or says nothing is returned as it is."""
    # Pixels that are damaged are an error, which reading the Exif must not hide.
    picture.load()
    try:
        turn = TURNS.get(picture.getexif().get(ORIENTATION, UPRIGHT))
    except Exception:  # damaged metadata can raise nearly anything, and the pixels are whole
        return picture
    return picture if turn is None else picture.transpose(turn)


def _scale_clear_colour(picture: Image.Image) -> Image.Image:
    """Return a picture whose transparent colour is one of its pixels', where Pillow scales these to 8 bits alone."""
    clear = picture.info.get("transparency")
    raw_modes = _list_raw_modes(picture)
    if isinstance(clear, tuple) and _has_16_bit_colour(picture):
        scaled: int | tuple[int, ...] = tuple(value >> 8 for value in clear)
    elif isinstance(clear, int) and raw_modes and raw_modes[0] in GRAY_STEPS:
        scaled = clear * GRAY_STEPS[raw_modes[0]]
    else:
        return picture
    picture = picture.copy()
    picture.info["transparency"] = scaled
    return picture


def _scale(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Scale values to uint8: low to 0, high to 255, rounded; values outside are clipped."""
    low, high = value_range
    shares = (values.astype(np.float64) - low) / (high - low)
    if np.isnan(shares).any():
        raise DataError("has pixels that are no numbers (NaN)")
    scaled: np.ndarray = np.floor(np.clip(shares, 0, 1) * 255 + 0.5).astype(np.uint8)
    return scaled


def _require_known_bands(picture: Image.Image) -> None:
    """Check that the bands of a TIFF are colours, and at most one that is declared as opacity.

    Pillow takes a fourth band that nobody declared for opacity, or drops it, where it may be near-infrared.
    """
    tags = getattr(picture, "tag_v2", None)
    if picture.format != "TIFF" or tags is None:
        return

    # Bands beyond the colours are declared as opacity, or they are something that no colour is.
    samples = tags.get(SAMPLES_PER_PIXEL, 1)
    colours = COLOUR_SAMPLES.get(tags.get(PHOTOMETRIC), samples)
    extra = tags.get(EXTRA_SAMPLES, ())
    if isinstance(extra, int):
        extra = (extra,)
    if samples <= colours or (samples == colours + 1 and extra in ((1,), (2,))):
        return
    raise DataError(
        f"has {samples} bands, of which {samples - colours} are not declared as colour or opacity (near-infrared?): "
        "save it with 1 or 3 bands, or take a data set that keeps all of them"
    )


def _has_16_bit_colour(picture: Image.Image) -> bool:
    """Return whether a file holds 16 bits a channel, of which Pillow keeps the upper 8."""
    if picture.mode in GRAY_MODES and picture.mode not in ("LA", "La"):
        return False
    return any(";16" in raw_mode for raw_mode in _list_raw_modes(picture))


def _list_raw_modes(picture: Image.Image) -> list[str]:
    """Return how the pixels of each part of a file are stored, such as `RGB;16B`; nothing once they are decoded."""
    first = [tile[3][0] if isinstance(tile[3], tuple) else tile[3] for tile in getattr(picture, "tile", [])]
    return [raw_mode for raw_mode in first if isinstance(raw_mode, str)]


def _composite_on_background(picture: Image.Image, background: str) -> Image.Image:
    # Pillow converts premultiplied modes to their plain form only.
    if picture.mode == "La":
        picture = picture.convert("LA")
    elif picture.mode == "RGBa":
        picture = picture.convert("RGBA")
    behind = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(behind, picture.convert("RGBA"))
