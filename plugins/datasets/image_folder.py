"""A folder of image files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pggan_kit import DataError, SettingError, SkipImage, check_choice, hash_files
from pggan_kit.pictures import MAX_PIXELS, SUFFIXES, PictureReader, list_pictures

from .conversion import check_channels, check_max_pixels, parse_colour, parse_window

if TYPE_CHECKING:
    from pggan_kit import Stage


class ImageFolder:
    """PNG, JPEG, WebP, BMP and TIFF files in a folder and its sub-folders, in the order of their paths.

    Images may be of any mode and differ in size. Transparent ones are composited on `background`, 16-bit ones scaled
    to 8 bits, and all are rotated as their EXIF says. Hidden files and folders, links to folders and files of other
    kinds are not read, but counted.

    Images of unusual sizes:

    * `fit = 'crop'`, no `size`: each image stays as it is; the core centre-crops it to the stages' aspect ratio.
    * `fit = 'crop'` with a `size`: the central `size` pixels. A smaller image counts as broken.
    * `fit = 'pad'`, no `size`: bars of `background` make each image square.
    * `fit = 'pad'` with a `size`: bars enlarge it to `size`, or to the aspect ratio of `size` where it is larger.
      Stages that are not square need it.

    Args:
        folder: The folder with the images.
        channels: 1 for gray, 3 for colour; images are converted.
        size: A side or (height, width), in pixels; nothing is resized here. None: see above.
        fit: `crop` or `pad`.
        background: A colour in CSS notation, `white` or `#ffcc00`.
        on_error: `stop` to fail with the name of a broken image, `skip` to leave it out and count it.
        labels: Whether the first-level sub-folders are classes, numbered in the order of their names.
        max_pixels: The most pixels of an image, at most Pillow's 178,956,970; a larger one counts as broken, by its
            header.
        value_range: The pair (low, high) of values of 16-bit and 32-bit gray images that become 0 and 255; values
            outside are clipped. None: 0 to 65535, and 32-bit images count as broken.

    Attributes:
        classes: The number of classes; 0 without labels.
        class_names: The sub-folders' names, in the order of their numbers.

    Raises:
        ValueError: An argument out of range.
        DataError: A folder that does not exist or holds no images.
    """

    def __init__(
        self,
        folder: str | Path,
        channels: int = 3,
        size: int | Sequence[int] | None = None,
        fit: str = "crop",
        background: str = "white",
        on_error: str = "stop",
        labels: bool = False,
        max_pixels: int = MAX_PIXELS,
        value_range: Sequence[float] | None = None,
    ) -> None:
        check_channels(channels)
        check_choice("fit", fit, ("crop", "pad"))
        check_choice("on_error", on_error, ("stop", "skip"))
        check_max_pixels(max_pixels)
        self._background = parse_colour(background, channels)
        self._reader = PictureReader(channels, background, max_pixels, parse_window(value_range))
        self._size = _parse_size(size)
        self._fit = fit
        self._skip = on_error == "skip"

        # List the folder once: a run sees the files that were there when it started.
        self._folder = Path(folder).expanduser()
        if not self._folder.is_dir():
            raise DataError(f"no folder {folder}: set datasets.ImageFolder.folder to one with images")
        self._files, self._left_out = list_pictures(self._folder)
        if not self._files:
            raise DataError(f"{folder} and its sub-folders hold no images ({', '.join(SUFFIXES)})")
        self.class_names: list[str] = []
        if labels:
            self.class_names = _list_class_names(self._folder, self._files)
        self.classes = len(self.class_names)
        self._numbers = {name: number for number, name in enumerate(self.class_names)}
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self._files)

    def image(self, i: int) -> np.ndarray:
        """Return image i as uint8 (H, W, channels).

        Raises:
            SkipImage: A broken image where `on_error` is `skip`.
            DataError: A broken image where `on_error` is `stop`.
        """
        path = self._folder / self._files[i]
        try:
            return self._fit_to_size(self._reader.read(path, str(path)), path)
        except DataError as error:
            if self._skip:
                raise SkipImage(str(error)) from error
            raise DataError(
                f"{error}. Repair it or take it out of the folder, or set on_error = 'skip' to leave such files out"
            ) from error

    def label(self, i: int) -> int:
        """Return the number of the sub-folder of image i; 0 without labels."""
        if not self._numbers:
            return 0
        return self._numbers[self._files[i].split("/")[0]]

    @property
    def left_out(self) -> dict[str, int]:
        """The number of entries of the folder that are not read, by kind, such as `.HEIC`."""
        return self._left_out

    def fingerprint(self) -> str:
        """Return the SHA-256 of the settings and of each file's path and content, however the folder was copied.

        The contents are hashed once for each version of a file; see `hash_files`.
        """
        if self._fingerprint is None:
            settings = [self._reader.settings, self._size, self._fit, self._skip, self.classes]
            files = list(zip(self._files, hash_files(self._folder, self._files), strict=True))
            content = json.dumps([settings, files], allow_nan=False).encode()
            self._fingerprint = f"folder {hashlib.sha256(content).hexdigest()}"
        return self._fingerprint

    def list_warnings(self) -> list[str]:
        """Return a warning if the 16-bit images that were read use a small part of their range."""
        return self._reader.list_warnings("datasets.ImageFolder.value_range")

    def check_stages(self, stages: Sequence[Stage]) -> None:
        """Check that padded images have the aspect ratio of the stages: else the core would cut the bars off again.

        Raises:
            DataError: They have another one.
        """
        if self._fit != "pad":
            return
        height, width = self._size or (1, 1)
        for stage in stages:
            if height * stage.width != width * stage.height:
                raise DataError(
                    f"fit = 'pad' makes images of the aspect ratio {height}:{width}, and the stage {stage.size} would "
                    f"crop them: set datasets.ImageFolder.size = ({stage.height}, {stage.width})"
                )

    def _fit_to_size(self, image: np.ndarray, path: Path) -> np.ndarray:
        """Crop or pad an image (H, W, C) to the size asked for.

        Raises:
            DataError: An image that is too small to be cropped.
        """
        height, width = image.shape[:2]

        if self._fit == "pad":
            size = _find_padded_size(height, width, self._size or (1, 1))
            padded = np.empty((*size, image.shape[2]), np.uint8)
            padded[:] = self._background
            _view_centre(padded, (height, width))[:] = image
            return padded

        # Without a size the core crops, to the aspect ratio of the stages.
        if self._size is None:
            return image
        size = self._size
        if height < size[0] or width < size[1]:
            raise DataError(f"{path}: is {height}x{width} pixels, too small to be cropped to {size[0]}x{size[1]}")
        return _view_centre(image, size)


def _find_padded_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size that holds an image, is at least `size`, and has its aspect ratio, but for rounding."""
    scale = max(1, height / size[0], width / size[1])
    return max(height, round(scale * size[0])), max(width, round(scale * size[1]))


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


def _list_class_names(folder: Path, files: Sequence[str]) -> list[str]:
    """List the names of the first-level sub-folders, sorted.

    Raises:
        DataError: An image that is in no sub-folder, or images in one sub-folder alone.
    """
    loose = [file for file in files if "/" not in file]
    if loose:
        raise DataError(f"{folder / loose[0]} is in no sub-folder, and with labels = True each is a class: move it")
    names = sorted({file.split("/")[0] for file in files})
    if len(names) == 1:
        raise DataError(
            f"{folder} has images in the one sub-folder {names[0]} alone, and with labels = True each sub-folder is a "
            "class (a dataset.json is not read): give each class a sub-folder, or set labels = False"
        )
    return names
