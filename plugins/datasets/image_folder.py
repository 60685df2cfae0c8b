"""A folder of pictures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pggan_kit import DataError, SettingError, SkipImage, check_choice

from .images import MAX_PIXELS, check_channels, check_max_pixels, colour, read_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class _File(NamedTuple):
    path: str  # below the folder, with slashes
    size: int
    modified: int  # nanoseconds


class ImageFolder:
    """PNG, JPEG, WebP, BMP and TIFF files in a folder and its sub-folders, in the order of their paths.

    Pictures may be of any mode and differ in size. Transparent ones are composited on `background`, 16-bit ones scaled
    to 8, and those whose EXIF says so are turned. Hidden files and folders are ignored, links to folders not followed.

    What becomes of odd sizes:

    * `fit = 'crop'`, no `size`: each picture stays as it is; the core centre-crops it to the stages' aspect ratio.
    * `fit = 'crop'` with a `size`: the central `size` pixels. A smaller picture counts as broken.
    * `fit = 'pad'`, no `size`: bars of `background` make each picture square.
    * `fit = 'pad'` with a `size`: bars make it `size`. A larger picture counts as broken.

    Args:
        folder: where the pictures are.
        channels: 1 for gray, 3 for colour; pictures are converted.
        size: in pixels, a side or (height, width); nothing is resized here. None: see above.
        fit: `crop` or `pad`.
        background: a colour as CSS writes it, `white` or `#ffcc00`.
        on_error: with a broken picture, `stop` with its name, or `skip` it and count it.
        labels: whether the first-level sub-folders are classes, numbered in the order of their names.
        max_pixels: larger pictures count as broken, by what their header says. At most Pillow's 178,956,970.

    Attributes:
        classes: the number of classes; 0 without labels.
        class_names: the sub-folders' names, in the order of their numbers.

    Raises:
        ValueError: an argument out of range.
        DataError: no such folder, or no pictures in it.
    """

    def __init__(
        self,
        folder: str,
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
        self._background = colour(background, channels)
        self._read = (max_pixels, channels, background)
        self._size, self._fit, self._skip = _checked_size(size), fit, on_error == "skip"
        self._folder = Path(folder).expanduser()
        self._files = _list_files(self._folder)
        self.class_names = _class_names(self._folder, self._files) if labels else []
        self.classes = len(self.class_names)
        self._numbers = {name: number for number, name in enumerate(self.class_names)}

    def __len__(self) -> int:
        return len(self._files)

    def image(self, i: int) -> np.ndarray:
        """uint8 (H, W, channels).

        Raises:
            SkipImage: the picture is broken and `on_error` is `skip`.
            DataError: it is broken and `on_error` is `stop`.
        """
        path = self._folder / self._files[i].path
        try:
            return self._fitted(read_picture(path, str(path), *self._read), path)
        except DataError as error:
            if self._skip:
                raise SkipImage(str(error)) from error
            raise DataError(f"{error}. Mend or remove it, or set on_error = 'skip' to leave such files out") from error

    def label(self, i: int) -> int:
        """The number of the picture's sub-folder; 0 without labels."""
        return self._numbers[self._files[i].path.split("/")[0]] if self._numbers else 0

    def fingerprint(self) -> str:
        """SHA-256 of the settings and of each file's path, size and time of change.

        Not of the contents: reading a hundred thousand files would delay each start of each run by minutes. Copying
        the folder with its times (`cp -a`, `rsync -a`) keeps the fingerprint; touching a file changes it.
        """
        settings = [*self._read, self._size, self._fit, self._skip, self.classes]
        content = json.dumps([settings, self._files], allow_nan=False).encode()
        return f"folder {hashlib.sha256(content).hexdigest()}"

    def _fitted(self, image: np.ndarray, path: Path) -> np.ndarray:
        height, width = image.shape[:2]
        if self._fit == "pad":
            wanted = self._size or (max(height, width), max(height, width))
            if height > wanted[0] or width > wanted[1]:
                raise DataError(f"{path}: is {height}x{width} pixels, too large to be padded to {_text(wanted)}")
            padded = np.empty((*wanted, image.shape[2]), np.uint8)
            padded[:] = self._background
            _centre(padded, (height, width))[:] = image
            return padded
        if self._size is None:
            return image
        if height < self._size[0] or width < self._size[1]:
            raise DataError(f"{path}: is {height}x{width} pixels, too small to be cropped to {_text(self._size)}")
        return _centre(image, self._size)


def _centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A view of the central `size` pixels."""
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _checked_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in pair):
        raise SettingError("size", f"must be a side or (height, width) of at least 1, or None, not {size!r}")
    return pair[0], pair[1]


def _list_files(folder: Path) -> list[_File]:
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: set datasets.ImageFolder.folder to one with pictures")

    def stop(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error

    files = []
    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                status = path.stat()
                files.append(_File(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    if not files:
        raise DataError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}), nor do its sub-folders")
    return sorted(files)


def _class_names(folder: Path, files: Sequence[_File]) -> list[str]:
    loose = [file.path for file in files if "/" not in file.path]
    if loose:
        raise DataError(f"{folder / loose[0]} is in no sub-folder, and with labels = True each is a class: move it")
    return sorted({file.path.split("/")[0] for file in files})
