"""Pictures in LMDB databases, as LSUN ships them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pggan_kit import DataError
from pggan_kit.pictures import MAX_PIXELS

from .lmdb_source import LmdbSource
from .picture_dataset import PictureDataset, find_top_folder, read_as_pictures

OFF = "set labels = False"
"""How labels are switched off, for messages."""


class LMDB(PictureDataset):
    """The pictures of an LMDB database, as LSUN ships them: each value is a WebP, JPEG or PNG file. Needs the extra
    `lmdb`.

    Pictures are read as `datasets.ImageFolder` reads files, in the order of their keys. Nothing is written to the
    database.

    Args:
        folder: The folder of the database, `bedroom_train_lmdb`, which holds `data.mdb`; or a folder of such folders.
        labels: Whether each database of a folder of them is a class, numbered in the order of their names.
        channels: 1 for gray, 3 for colour; images are converted.
        size: A side or (height, width); see `datasets.ImageFolder`.
        fit: `crop` or `pad`; see `datasets.ImageFolder`.
        background: A colour in CSS notation, for bars and behind transparent pixels.
        on_error: `stop` to fail with the name of a broken image, `skip` to leave it out and count it.
        max_pixels: The most pixels of an image; a larger one counts as broken.
        value_range: The pair (low, high) of values of 16-bit and 32-bit gray images that become 0 and 255; see
            `datasets.ImageFolder`.

    Attributes:
        classes: The number of classes; 0 without labels.
        class_names: The names of the databases' folders, in the order of their numbers.

    Raises:
        ValueError: An argument out of range.
        DataError: A database that does not exist, is damaged or empty, one class alone, or a library that is not
            installed.
    """

    def __init__(
        self,
        folder: str | Path,
        labels: bool = False,
        channels: int = 3,
        size: int | Sequence[int] | None = None,
        fit: str = "crop",
        background: str = "white",
        on_error: str = "stop",
        max_pixels: int = MAX_PIXELS,
        value_range: Sequence[float] | None = None,
    ) -> None:
        reading = read_as_pictures(channels, size, fit, background, on_error, max_pixels, value_range)
        source = LmdbSource(Path(folder).expanduser(), max_pixels)
        super().__init__("lmdb", source, reading)
        if not labels:
            return
        if not source.has_several:
            raise DataError(
                f"{source.path} is one database, and with labels = True each database is a class: set "
                f"datasets.LMDB.folder to a folder of several, or {OFF}"
            )
        # A database without entries is no class.
        self._set_labels_by_folder(sorted({find_top_folder(file) for file in source.files}), OFF)
