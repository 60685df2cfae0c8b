"""Images from the Hugging Face hub, or from a local data set of that library."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from pggan_kit import DataError, SettingError, check_choice
from pggan_kit.pictures import MAX_PIXELS

from .conversion import check_channels, check_max_pixels, parse_colour, read_image


class HuggingFace:
    """An image data set that `datasets.load_dataset` can load. Needs the extra `huggingface`.

    Args:
        path: The name on the hub, or a local folder.
        split: The split of the data set, e.g. `train`, or `train[:1000]`.
        image_column: The column with the images.
        label_column: The column with class labels. None: no labels.
        channels: 1 for gray, 3 for colour; images are converted.
        background: The colour put behind transparent pixels, in CSS notation.
        max_pixels: The most pixels of an image; the header of the file is checked before it is decoded.

    Attributes:
        classes: The number of names that the label column's type has, or its largest value plus 1; 0 without labels.

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
    ) -> None:
        check_channels(channels)
        check_max_pixels(max_pixels)
        parse_colour(background, channels)
        self._read = (max_pixels, channels, background)

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
        self._fingerprint = f"hugging face {rows._fingerprint} {image_column} {label_column} {self._read}"

        self._labels: np.ndarray | None = None
        self.classes = 0
        if label_column is not None:
            self._labels = np.asarray(rows[label_column])
            self.classes = _count_classes(rows, label_column, self._labels)

        # Files, not decoded images: their size is checked first, and their content is converted as in ImageFolder.
        self._column = image_column
        self._rows = rows.select_columns([image_column]).cast_column(image_column, library.Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, i: int) -> np.ndarray:
        """Return image i as uint8 (H, W, channels).

        Raises:
            DataError: An image that is missing, corrupt or too large.
        """
        name = f"{self._name}, row {i}"
        cell = self._rows[i][self._column] or {}

        # A row holds the file's content, or where the file is.
        if cell.get("bytes") is not None:
            return read_image(io.BytesIO(cell["bytes"]), name, *self._read)
        if not cell.get("path"):
            raise DataError(f"{name} has no image in column {self._column!r}")
        with open(cell["path"], "rb") as file:
            return read_image(file, name, *self._read)

    def label(self, i: int) -> int:
        """Return the label of image i; 0 where there are no labels."""
        if self._labels is None:
            return 0
        return int(self._labels[i])

    def fingerprint(self) -> str:
        """Return the library's own fingerprint of the rows, and how they are read."""
        return self._fingerprint


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
