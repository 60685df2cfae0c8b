"""Images in one NumPy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pggan_kit import DataError, check_choice, hash_files
from pggan_kit.pictures import LAYOUTS, choose_layout

from .conversion import describe_type
from .file_versions import FileVersions

TYPES = ("uint8", "uint16", "int16", "float16", "float32", "float64")
"""Types of numbers that a file may hold."""


class Arrays:
    """An .npy file, memory-mapped, or an .npz file with `images` and optionally `labels`, read into memory.

    Images are of shape (n, H, W) with one channel, or (n, C, H, W) or (n, H, W, C) with any number of them. Their
    numbers are kept as they are: uint8, uint16, int16 or float32; other floats become float32. `data.value_range` says
    which numbers become -1 and 1. Labels are integers (n,) from 0 up. Files that would need unpickling are refused.

    Args:
        file: The .npy or .npz file.
        layout: `NCHW`, `NHWC`, or `auto`: the axis that has 1 or 3 entries holds the channels, or else the second or
            the last one where it is shorter than both others. Images (n, H, W) need no layout.

    Attributes:
        classes: The largest label plus 1; 0 without labels, or where all have the same label 0.

    Raises:
        ValueError: An argument out of range, or `auto` where the shape does not tell which axis holds the channels.
        DataError: A file that does not exist or does not hold such arrays.
    """

    def __init__(self, file: str | Path, layout: str = "auto") -> None:
        check_choice("layout", layout, LAYOUTS)
        self._path = Path(file).expanduser()

        self._versions = FileVersions(self._path.parent, [self._path.name])
        images, self._labels = _load_arrays(self._path)
        check_image_type(images.dtype, self._path)
        self._images, self._layout = _arrange_as_nhwc(images, layout, self._path)
        if self._labels is not None:
            check_label_array(self._labels, len(images), self._path)

        # One class for all says nothing, and a file's labels cannot be switched off.
        self.classes = 0
        if self._labels is not None and self._labels.max() > 0:
            self.classes = int(self._labels.max()) + 1

    def __len__(self) -> int:
        return len(self._images)

    def image(self, i: int) -> np.ndarray:
        """Return image i (H, W, C), of the file's type."""
        return np.asarray(self._images[i])

    def image_name(self, i: int) -> str:
        """Return the path of the file, which has all images."""
        return str(self._path)

    def label(self, i: int) -> int:
        """Return the label of image i; 0 where there are no labels."""
        if self._labels is None:
            return 0
        return int(self._labels[i])

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path.resolve())

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file, and how it is read.

        Raises:
            DataError: The file was changed since it was opened.
        """
        (content,) = hash_files(self._path.parent, [self._path.name])
        self.check_unchanged()
        # Both layouts of a cube have one shape.
        layout = " NCHW" if self._layout == "NCHW" else ""
        return f"arrays {content}{layout} {self._images.shape} {describe_type(self._images.dtype)}"

    def check_unchanged(self) -> None:
        """Check that the file is what it was when it was opened.

        Raises:
            DataError: It was changed.
        """
        self._versions.check_unchanged()


def _load_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Load the images and, if there are any, the labels.

    Raises:
        DataError: A file that does not exist or cannot be read.
    """
    if not path.is_file():
        raise DataError(f"no file {path}: set datasets.Arrays.file to an .npy or .npz file")
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        # An .npy file holds the images alone.
        if isinstance(content, np.ndarray):
            return content, None
        with content:
            if "images" not in content:
                raise DataError(f"{path} has no array 'images', but {', '.join(map(repr, content)) or 'nothing'}")
            return content["images"], content.get("labels")
    except DataError:
        raise
    except Exception as error:  # a corrupt file can raise nearly anything
        raise DataError(f"{path} cannot be read as an .npy or .npz file of plain arrays: {error}") from error


def check_image_type(kind: np.dtype[Any], place: object) -> None:
    """Check that images may be of a type of numbers.

    Raises:
        DataError: They may not.
    """
    if kind.name not in TYPES:
        wanted = f"{', '.join(TYPES[:-1])} or {TYPES[-1]}"
        raise DataError(f"{place} holds {kind}; images must be {wanted}: convert them")


def check_label_array(labels: np.ndarray, count: int, place: object, name: str = "labels") -> None:
    """Check that there are `count` labels, integers from 0 up.

    Raises:
        DataError: There are not.
    """
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or (count and labels.min() < 0):
        raise DataError(
            f"{place}: {name!r} must be {count} whole numbers from 0 up, and are {labels.dtype} {labels.shape}"
        )


def _arrange_as_nhwc(images: np.ndarray, layout: str, path: Path) -> tuple[np.ndarray, str]:
    """Return a view (n, H, W, C) of the images, and their layout in the file.

    Raises:
        DataError: An array of another number of axes, or an empty one.
        SettingError: `auto`, where the shape does not tell the layout.
    """
    if images.ndim == 3 and len(images):
        return images[..., None], "NHW"
    if images.ndim != 4 or not images.size:
        raise DataError(f"{path} holds {images.shape}; images must be (n, H, W), (n, C, H, W) or (n, H, W, C)")

    layout = choose_layout(images.shape, layout, str(path))
    if layout == "NCHW":
        images = images.transpose(0, 2, 3, 1)
    return images, layout
