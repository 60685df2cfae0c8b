"""Images from the Hugging Face hub, or from a local data set of that library."""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pggan_kit import DataError, SettingError, check_choice, hash_files, hash_once, track_items
from pggan_kit.pictures import LAYOUTS, MAX_PIXELS, PictureReader, arrange_image

from .conversion import check_channels, check_max_pixels, parse_colour, parse_window


class HuggingFace:
    """An image data set that `datasets.load_dataset` can load. Needs the extra `huggingface`.

    A column of pictures is read as `datasets.ImageFolder` reads files. A column of numbers, such as `Array3D`, gives
    images of any number of channels. Its numbers are kept as they are: uint8, uint16, int16 or float32; other floats
    become float32. `data.value_range` says which numbers become -1 and 1.

    Args:
        path: The name on the hub, or a local folder.
        split: The split of the data set, e.g. `train`, or `train[:1000]`.
        image_column: The column with the images.
        label_column: The column with class labels. None: no labels.
        channels: 1 for gray, 3 for colour; pictures are converted.
        background: The colour put behind transparent pixels, in CSS notation.
        max_pixels: The most pixels of an image; the header of the file is checked before it is decoded.
        value_range: The pair (low, high) of values of 16-bit and 32-bit gray images that become 0 and 255; values
            outside are clipped. None: 0 to 65535, and 32-bit images are refused.
        layout: `NCHW`, `NHWC`, or `auto`, of a column of numbers; see `datasets.Arrays`.

    Attributes:
        classes: The number of names that the label column's type has, or its largest value plus 1; 0 without labels.
        class_names: The names that the label column's type has, in the order of their numbers.

    Raises:
        ValueError: An argument out of range, or a column that the data set lacks.
        DataError: A library that is not installed, or a data set that cannot be loaded.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        image_column: str = "image",
        label_column: str | None = None,
        channels: int = 3,
        background: str = "white",
        max_pixels: int = MAX_PIXELS,
        value_range: Sequence[float] | None = None,
        layout: str = "auto",
    ) -> None:
        check_channels(channels)
        check_choice("layout", layout, LAYOUTS)
        check_max_pixels(max_pixels)
        parse_colour(background, channels)
        self._reader = PictureReader(channels, background, max_pixels, parse_window(value_range))

        # Load the rows, and check the columns before anything is read from them.
        library = _import_library()
        try:
            rows = library.load_dataset(path, split=split)
        except Exception as error:  # the library raises errors of its own, of the hub and of the file system
            raise DataError(f"cannot load the data set {path!r}, split {split!r}: {error}") from error
        check_choice("image_column", image_column, rows.column_names)
        if label_column is not None:
            check_choice("label_column", label_column, rows.column_names)
        self._name = f"{path} {split}"
        self._version = f"hugging face {rows._fingerprint} {image_column}"

        self._labels: np.ndarray | None = None
        self.classes = 0
        self.class_names: list[str] = []
        if label_column is not None:
            self._labels = np.asarray(rows[label_column])
            self.classes = _count_classes(rows, label_column, self._labels)
            self.class_names = list(getattr(rows.features[label_column], "names", None) or [])

        self._column = image_column
        self._layout = layout
        feature = rows.features.get(image_column)
        self._has_numbers = feature is not None and type(feature).__name__ != "Image"
        if self._has_numbers:
            self._rows = rows.select_columns([image_column]).with_format("numpy")
            return

        # Files, not decoded images: their size is checked first, and their content is converted as in ImageFolder.
        self._rows = rows.select_columns([image_column]).cast_column(image_column, library.Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, i: int) -> np.ndarray:
        """Return image i: uint8 (H, W, channels), or (H, W, C) of the type of a column of numbers.

        Raises:
            DataError: An image that is missing, corrupt or too large.
        """
        name = f"{self._name}, row {i}"
        if self._has_numbers:
            return arrange_image(np.asarray(self._rows[i][self._column]), self._layout, name)
        cell = self._rows[i][self._column] or {}

        # A row holds the file's content, or where the file is.
        if cell.get("bytes") is not None:
            return self._reader.read(io.BytesIO(cell["bytes"]), name)
        if not cell.get("path"):
            raise DataError(f"{name} has no image in column {self._column!r}")
        return self._reader.read(Path(cell["path"]), name)

    def label(self, i: int) -> int:
        """Return the label of image i; 0 where there are no labels."""
        if self._labels is None:
            return 0
        return int(self._labels[i])

    def list_warnings(self) -> list[str]:
        """Return a warning if the 16-bit images that were read use a small part of their range."""
        return self._reader.list_warnings("datasets.HuggingFace.value_range")

    def fingerprint(self) -> str:
        """Return the SHA-256 of labels and images, and how they are read, wherever the rows come from.

        They are hashed once for each version of the rows, which the library's own fingerprint tells on one machine.
        """
        labels = "" if self._labels is None else hashlib.sha256(self._labels.astype(np.int64).tobytes()).hexdigest()
        content = hash_once(self._version, self._hash_images)
        settings = self._layout if self._has_numbers else self._reader.settings
        return f"hugging face {content} {labels} {self.classes} {settings}"

    def _hash_images(self) -> str:
        """Return the SHA-256 of all images' files."""
        content = hashlib.sha256()
        count = len(self._rows)
        for i in track_items(range(count), f"hashing the contents of {self._name}", count, "rows"):
            # Numbers are hashed as they are, with their type and shape.
            if self._has_numbers:
                numbers = np.ascontiguousarray(self._rows[i][self._column])
                content.update(f"{numbers.dtype} {numbers.shape}\n".encode())
                content.update(numbers.data)
                continue

            # Pictures are hashed as files: within the table, or beside it.
            cell = self._rows[i][self._column] or {}
            digest = ""
            if cell.get("bytes") is not None:
                digest = hashlib.sha256(cell["bytes"]).hexdigest()
            elif cell.get("path"):
                path = Path(cell["path"])
                (digest,) = hash_files(path.parent, [path.name])
            content.update(f"{digest}\n".encode())
        return content.hexdigest()


def _import_library() -> Any:
    """Import the library `datasets`.

    Raises:
        DataError: A library that is not installed.
    """
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"datasets.HuggingFace needs the library `datasets` ({error}): pip install 'pggan_kit[huggingface]'"
        ) from error


def _count_classes(rows: Any, column: str, labels: np.ndarray) -> int:
    """Return the number of classes of a label column.

    Raises:
        SettingError: A column that does not hold class numbers.
    """
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or labels.min(initial=0) < 0:
        raise SettingError("label_column", f"must hold class numbers from 0 up, and {column!r} does not")
    return getattr(rows.features[column], "num_classes", None) or int(labels.max(initial=-1)) + 1
