"""A folder with a file of numbers for each image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from pggan_kit import DataError, check_choice
from pggan_kit.pictures import ARRAY_SUFFIXES, LAYOUTS, read_array

from .image_folder import list_class_names
from .picture_dataset import find_top_folder
from .picture_sources import UNREADABLE, FolderSource


class ArrayFolder:
    """The .npy files and TIFFs of a folder and its sub-folders, one for each image, in the order of their paths.

    Images have the same number of channels, any, and may differ in size. Their numbers are kept as they are: uint8,
    uint16, int16 or float32; other floats become float32. `data.value_range` says which numbers become -1 and 1. TIFFs
    need the extra `tiff`, and their bands or pages are the channels. `datasets.ImageFolder` reads photographs.

    Args:
        folder: The folder.
        layout: `NCHW` for files (C, H, W), `NHWC` for (H, W, C), or `auto`: as TIFFs say; else the axis that has 1 or 3
            entries holds the channels, or the first or the last one where it is shorter than both others.
        labels: Whether images have labels: the first-level sub-folders, numbered in the order of their names.

    Attributes:
        classes: The number of classes; 0 without labels.
        class_names: The sub-folders' names, in the order of their numbers.
        left_out: The number of entries of the folder that are not read, by kind.

    Raises:
        ValueError: An argument out of range.
        DataError: A folder that does not exist or holds no such files, or labels that cannot be used.
    """

    def __init__(self, folder: str | Path, layout: str = "auto", labels: bool = False) -> None:
        check_choice("layout", layout, LAYOUTS)
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise DataError(f"no folder {path}: set datasets.ArrayFolder.folder to one with .npy files or TIFFs")

        # The files.
        self._source = FolderSource(path, ARRAY_SUFFIXES)
        if not self._source.files:
            raise DataError(f"{path} and its sub-folders hold no files of numbers ({', '.join(ARRAY_SUFFIXES)})")

        # The classes, where sub-folders are those.
        self._layout = layout
        self.left_out = self._source.left_out
        self.class_names: list[str] = []
        self.classes = 0
        if labels:
            self.class_names = list_class_names(self._source)
            self.classes = len(self.class_names)
        self._hashes: list[str] | None = None

    def __len__(self) -> int:
        return len(self._source.files)

    def image(self, i: int) -> np.ndarray:
        """Return image i (H, W, C), of the file's type.

        Raises:
            DataError: A file that cannot be read, or is no image.
        """
        return read_array(self._source.open(self._source.files[i]), self._layout)

    def image_name(self, i: int) -> str:
        """Return the path of image i within the folder."""
        return self._source.files[i]

    def label(self, i: int) -> int:
        """Return the class of image i; 0 without labels."""
        if not self.class_names:
            return 0
        return self.class_names.index(find_top_folder(self._source.files[i]))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the layout, and of each file's path and content.

        Raises:
            DataError: A file was changed since the first call.
        """
        if self._hashes is not None:  # which are of an earlier call
            self.check_unchanged()
        files = list(zip(self._source.files, self._hash_files(), strict=True))
        content = json.dumps([self._layout, self.classes, files], allow_nan=False).encode()
        return f"array folder {hashlib.sha256(content).hexdigest()}"

    def row_fingerprints(self) -> list[str]:
        """Return the SHA-256 of each file's content, and how it is read; an empty text for one that cannot be read."""
        return ["" if content == UNREADABLE else f"{self._layout} {content}" for content in self._hash_files()]

    def check_unchanged(self) -> None:
        """Check that the files are what they were when they were hashed.

        Raises:
            DataError: One was changed.
        """
        self._source.check_unchanged()

    @property
    def location(self) -> str:
        """The path of the folder."""
        return str(self._source.path.resolve())

    def _hash_files(self) -> list[str]:
        """Return the hash of each file as of the first call, like the list of files."""
        if self._hashes is None:
            self._hashes = self._source.hash_pictures()
        return self._hashes
