"""Images in an HDF5 file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from pggan_kit import DataError, SettingError, check_choice
from pggan_kit.pictures import LAYOUTS, choose_layout

from .arrays import check_image_type, check_label_array
from .extras import import_extra
from .file_versions import FileVersions
from .picture_sources import UNREADABLE, hash_entries

CACHE_BYTES = 64 << 20
"""Bytes of unpacked chunks that are kept: neighbouring images often share one."""


class HDF5:
    """Images in a data set of an HDF5 file, read one at a time, with labels in another one. Needs the extra `hdf5`.

    Images are of shape (n, H, W) with one channel, or (n, C, H, W) or (n, H, W, C) with any number of them. Their
    numbers are kept as they are: uint8, uint16, int16 or float32; other floats become float32. `data.value_range` says
    which numbers become -1 and 1.

    Args:
        file: The HDF5 file.
        images: The path of the images' data set within the file, e.g. `train/images`.
        labels: The path of the labels' data set: as many class numbers from 0 up as there are images. None: no labels.
        layout: `NCHW`, `NHWC`, or `auto`; see `datasets.Arrays`.

    Attributes:
        classes: The largest label plus 1; 0 without labels.

    Raises:
        ValueError: An argument out of range, or a data set that the file lacks.
        DataError: A file that does not exist or cannot be read, a data set of another shape or type, labels that do not
            fit, or a library that is not installed.
    """

    def __init__(
        self, file: str | Path, images: str = "images", labels: str | None = None, layout: str = "auto"
    ) -> None:
        check_choice("layout", layout, LAYOUTS)
        library = import_extra("datasets.HDF5", "h5py", "hdf5")
        self._path = Path(file).expanduser()
        if not self._path.is_file():
            raise DataError(f"no file {self._path}: set datasets.HDF5.file to an HDF5 file")
        self._versions = FileVersions(self._path.parent, [self._path.name])
        try:
            self._file = library.File(self._path, "r", rdcc_nbytes=CACHE_BYTES)
            names = _list_datasets(library, self._file)
        except Exception as error:  # a corrupt file can raise nearly anything
            raise DataError(f"{self._path} cannot be read as an HDF5 file: {error}") from error

        # Images and labels stay in the file; their types are known before one is read.
        self._images = _find_dataset(self._file, names, "images", images)
        where = f"{self._path}, {images}"
        check_image_type(self._images.dtype, where)
        self._layout = _find_layout(self._images.shape, layout, where)
        self._labels: np.ndarray | None = None
        self.classes = 0
        if labels is not None:
            self._labels = _read_labels(_find_dataset(self._file, names, "labels", labels), len(self), labels, where)
            self.classes = int(self._labels.max()) + 1
            if self.classes == 1:
                raise DataError(f"{self._path}, {labels}, gives all images the one label 0: set labels = None")
        self._hashes: list[str] | None = None

    def __len__(self) -> int:
        return int(self._images.shape[0])

    def image(self, i: int) -> np.ndarray:
        """Return image i (H, W, C), of the file's type.

        Raises:
            DataError: Its part of the file is corrupt.
        """
        try:
            image: np.ndarray = np.asarray(self._images[i])
        except Exception as error:  # a corrupt file can raise nearly anything
            raise DataError(f"{self.image_name(i)} cannot be read ({error}): copy or make the file again") from error
        if image.ndim == 2:
            return image[..., None]
        return image.transpose(1, 2, 0) if self._layout == "NCHW" else image

    def image_name(self, i: int) -> str:
        """Return the place of image i."""
        return f"{self._path}, {self._images.name}, row {i}"

    def label(self, i: int) -> int:
        """Return the label of image i; 0 without labels."""
        if self._labels is None:
            return 0
        return int(self._labels[i])

    @property
    def location(self) -> str:
        """The path of the file, and of the data set in it."""
        return f"{self._path.resolve()} {self._images.name}"

    def fingerprint(self) -> str:
        """Return the SHA-256 of images and labels, and how they are read, however the file packs them.

        Raises:
            DataError: The file was changed since it was opened.
        """
        if self._hashes is not None:  # which are of an earlier call
            self.check_unchanged()
        labels = None if self._labels is None else self._labels.tolist()
        content = json.dumps([self._describe(), self._hash_images(), labels], allow_nan=False).encode()
        return f"hdf5 {hashlib.sha256(content).hexdigest()}"

    def row_fingerprints(self) -> list[str]:
        """Return the SHA-256 of each image, and how it is read; an empty text for one that cannot be read."""
        about = json.dumps(self._describe(), allow_nan=False)
        return ["" if content == UNREADABLE else f"{about} {content}" for content in self._hash_images()]

    def check_unchanged(self) -> None:
        """Check that the file is what it was when it was opened.

        Raises:
            DataError: It was changed.
        """
        self._versions.check_unchanged()

    def _describe(self) -> list[Any]:
        """Return what decides an image besides its bytes."""
        return [list(self._images.shape[1:]), self._images.dtype.str, self._layout]

    def _hash_images(self) -> list[str]:
        """Return the hash of each image as of the first call; each version of the file is read once."""
        if self._hashes is None:
            numbers = [str(i) for i in range(len(self))]
            settings = f"hdf5 {self._images.name} {self._describe()}"
            self._hashes = hash_entries(numbers, self._read_bytes, [self._path], self.check_unchanged, settings)
        return self._hashes

    def _read_bytes(self, number: str) -> bytes:
        return self.image(int(number)).tobytes()


def _list_datasets(library: Any, file: Any) -> list[str]:
    """Return the paths of all data sets of a file."""
    names: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, library.Dataset):
            names.append(name)

    file.visititems(note)
    return names


def _find_dataset(file: Any, names: list[str], setting: str, name: object) -> Any:
    """Return a data set of a file.

    Raises:
        SettingError: There is none of this name.
    """
    if not isinstance(name, str) or name.strip("/") not in names:
        listed = ", ".join(map(repr, names[:12])) or "none"
        raise SettingError(setting, f"must be the path of a data set of {file.filename}, not {name!r}: it has {listed}")
    return file[name.strip("/")]


def _find_layout(shape: tuple[int, ...], layout: str, where: str) -> str:
    """Return the layout of images (n, ...).

    Raises:
        DataError: They have another number of axes, or are empty.
        SettingError: `auto`, where the shape does not tell the layout.
    """
    if len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{where}, holds {shape}; images must be (n, H, W), (n, C, H, W) or (n, H, W, C)")
    return "NCHW" if len(shape) == 3 else choose_layout(shape, layout, where)


def _read_labels(labels: Any, count: int, name: str, where: str) -> np.ndarray:
    """Return the class number of each image (n,); axes of one entry are dropped.

    Raises:
        DataError: They are no class numbers, or not one for each image.
    """
    try:
        numbers: np.ndarray = np.asarray(labels[()])
    except Exception as error:  # a corrupt file can raise nearly anything
        raise DataError(f"{where}: the labels {name!r} cannot be read ({error})") from error
    if numbers.size == count and numbers.shape[:1] == (count,):
        numbers = numbers.reshape(count)
    check_label_array(numbers, count, where, name)
    return numbers
