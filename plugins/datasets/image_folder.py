"""A folder of image files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pggan_kit import DataError, SettingError, SkipImage, check_choice
from pggan_kit.pictures import MAX_PIXELS

from .conversion import check_channels, check_max_pixels, parse_colour, read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class _File(NamedTuple):
    path: str  # below the folder, with slashes
    size: int
    modified: int  # nanoseconds


class ImageFolder:
    """PNG, JPEG, WebP, BMP and TIFF files in a folder and its sub-folders, in the order of their paths.

    Images may be of any mode and differ in size. Transparent ones are composited on `background`, 16-bit ones scaled
    to 8 bits, and all are rotated as their EXIF says. Hidden files and folders are ignored; links to folders are not
    followed.

    Images of unusual sizes:

    * `fit = 'crop'`, no `size`: each image stays as it is; the core centre-crops it to the stages' aspect ratio.
    * `fit = 'crop'` with a `size`: the central `size` pixels. A smaller image counts as broken.
    * `fit = 'pad'`, no `size`: bars of `background` make each image square.
    * `fit = 'pad'` with a `size`: bars enlarge it to `size`. A larger image counts as broken.

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
    ) -> None:
        check_channels(channels)
        check_choice("fit", fit, ("crop", "pad"))
        check_choice("on_error", on_error, ("stop", "skip"))
        check_max_pixels(max_pixels)
        self._background = parse_colour(background, channels)
        self._read = (max_pixels, channels, background)
        self._size = _parse_size(size)
        self._fit = fit
        self._skip = on_error == "skip"

        # List the folder once: a run sees the files that were there when it started.
        self._folder = Path(folder).expanduser()
        self._files = _list_files(self._folder)
        self.class_names: list[str] = []
        if labels:
            self.class_names = _list_class_names(self._folder, self._files)
        self.classes = len(self.class_names)
        self._numbers = {name: number for number, name in enumerate(self.class_names)}

    def __len__(self) -> int:
        return len(self._files)

    def image(self, i: int) -> np.ndarray:
        """Return image i as uint8 (H, W, channels).

        Raises:
            SkipImage: A broken image where `on_error` is `skip`.
            DataError: A broken image where `on_error` is `stop`.
        """
        path = self._folder / self._files[i].path
        try:
            return self._fit_to_size(read_image(path, str(path), *self._read), path)
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
        return self._numbers[self._files[i].path.split("/")[0]]

    def fingerprint(self) -> str:
        """Return the SHA-256 of the settings and of each file's path, size and time of change.

        The contents do not enter: reading a hundred thousand files would delay the start of each run by minutes.
        Copying the folder with its times (`cp -a`, `rsync -a`) keeps the fingerprint; touching a file changes it.
        """
        settings = [*self._read, self._size, self._fit, self._skip, self.classes]
        content = json.dumps([settings, self._files], allow_nan=False).encode()
        return f"folder {hashlib.sha256(content).hexdigest()}"

    def _fit_to_size(self, image: np.ndarray, path: Path) -> np.ndarray:
        """Crop or pad an image (H, W, C) to the size asked for.

        Raises:
            DataError: An image that is too large to be padded or too small to be cropped.
        """
        height, width = image.shape[:2]

        if self._fit == "pad":
            size = self._size or (max(height, width), max(height, width))
            if height > size[0] or width > size[1]:
                raise DataError(f"{path}: is {height}x{width} pixels, too large to be padded to {size[0]}x{size[1]}")
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


def _list_files(folder: Path) -> list[_File]:
    """List the images in a folder and its sub-folders, sorted by path.

    Raises:
        DataError: A folder that does not exist, cannot be listed, or holds no images.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: set datasets.ImageFolder.folder to one with images")

    def stop(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error

    files = []
    for parent, folders, names in os.walk(folder, onerror=stop):
        # `os.walk` goes into those folders that this list still has.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                status = path.stat()
                files.append(_File(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    if not files:
        raise DataError(f"{folder} and its sub-folders hold no images ({', '.join(SUFFIXES)})")
    return sorted(files)


def _list_class_names(folder: Path, files: Sequence[_File]) -> list[str]:
    """List the names of the first-level sub-folders, sorted.

    Raises:
        DataError: An image that is in no sub-folder.
    """
    loose = [file.path for file in files if "/" not in file.path]
    if loose:
        raise DataError(f"{folder / loose[0]} is in no sub-folder, and with labels = True each is a class: move it")
    return sorted({file.path.split("/")[0] for file in files})
