"""Pictures that a CSV file lists, with their labels."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pggan_kit import DataError, check_choice
from pggan_kit.pictures import MAX_PIXELS

from .picture_dataset import PictureDataset, read_as_pictures
from .picture_sources import ListedSource

NUMBER = re.compile(r"[0-9]+(\.0*)?")
"""Class number in a label column."""

OFF = "set label_column = None"
"""How labels are switched off, for messages."""


class CSV(PictureDataset):
    """The picture files that a CSV file names, in its order, with labels from another column.

    The file has a line of column names, and is comma-separated; tabs separate where its name ends in `.tsv`. Files of
    pictures are read as `datasets.ImageFolder` reads them, and a missing one counts as broken.

    Args:
        file: The CSV file, in UTF-8.
        file_column: The column with the paths of the pictures.
        label_column: The column with the labels: class numbers from 0 up, or names, which are numbered in alphabetical
            order. None: no labels.
        folder: The folder from which the paths go. None: that of the CSV file.
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
        class_names: The names in the label column, sorted; empty where it has numbers.

    Raises:
        ValueError: An argument out of range, or a column that the file lacks.
        DataError: A file that does not exist or is no such CSV, or labels that are missing or cannot be used.
    """

    def __init__(
        self,
        file: str | Path,
        file_column: str = "file",
        label_column: str | None = None,
        folder: str | Path | None = None,
        channels: int = 3,
        size: int | Sequence[int] | None = None,
        fit: str = "crop",
        background: str = "white",
        on_error: str = "stop",
        max_pixels: int = MAX_PIXELS,
        value_range: Sequence[float] | None = None,
    ) -> None:
        reading = read_as_pictures(channels, size, fit, background, on_error, max_pixels, value_range)

        # The paths of the table go from its own folder, or from the one that is named.
        table = Path(file).expanduser()
        place = table.parent if folder is None else Path(folder).expanduser()
        if not place.is_dir():
            raise DataError(f"no folder {place}: set datasets.CSV.folder to the one from which the paths go")
        files, labels = _read_table(table, file_column, label_column)

        # The pictures, and their labels where there is a column of them.
        super().__init__("csv", ListedSource(place, files), reading)
        if labels is not None:
            numbers, names = _number_labels(labels)
            self._set_labels(numbers, names, table, OFF)


def _read_table(path: Path, file_column: str, label_column: str | None) -> tuple[list[str], list[str] | None]:
    """Return the paths and the labels of a table.

    Raises:
        DataError: There is no such file, it is no such table, or a path or label is missing or cannot be used.
        SettingError: It lacks a column.
    """
    if not path.is_file():
        raise DataError(f"no file {path}: set datasets.CSV.file to a CSV file that lists pictures")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    label_of: dict[str, str] = {}
    line_of: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, delimiter=delimiter, strict=True)
            columns = list(table.fieldnames or [])
            if not columns:
                raise DataError(f"{path} is empty: its first line must have the names of the columns")
            repeated = sorted({name for name in columns if columns.count(name) > 1})
            if repeated:
                raise DataError(f"{path} has several columns {repeated[0]!r}: give each a name of its own")
            check_choice("file_column", file_column, columns)
            if label_column is not None:
                check_choice("label_column", label_column, columns)

            # Each line has a picture of its own.
            for row in table:
                where = f"{path}, line {table.line_num},"
                if None in row:
                    raise DataError(
                        f"{where} has more cells than there are columns: quote cells that hold {delimiter!r}"
                    )
                name = _read_path(row, file_column, where)
                if name in line_of:
                    raise DataError(f"{where} names {name} again, as line {line_of[name]} does: leave one of them")
                line_of[name] = table.line_num
                label_of[name] = "" if label_column is None else _read_label(row, label_column, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file in UTF-8 ({error})") from error
    if not label_of:
        raise DataError(f"{path} lists no pictures: it has a line of column names alone")
    return list(label_of), None if label_column is None else list(label_of.values())


def _read_path(row: Mapping[str, str | None], column: str, where: str) -> str:
    """Return the path in a line, with slashes: Windows' tools write backslashes.

    Raises:
        DataError: There is none, or it is the path of no file.
    """
    name = (row[column] or "").strip().replace("\\", "/")
    if not name:
        raise DataError(f"{where} has no path in the column {column!r}: add it, or remove the line")
    if "\0" in name:
        raise DataError(f"{where} has a path with a NUL, which no file has: {name!r}")
    # One file may be written in several ways.
    return posixpath.normpath(name)


def _read_label(row: Mapping[str, str | None], column: str, where: str) -> str:
    """Return the label in a line.

    Raises:
        DataError: There is none.
    """
    label = (row[column] or "").strip()
    if not label:
        raise DataError(f"{where} has no label in the column {column!r}: add it, remove the line, or {OFF}")
    return label


def _number_labels(labels: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the class number of each label, and the names of the classes where labels are no numbers."""
    # Tools that know of missing numbers write 3 as 3.0.
    if all(NUMBER.fullmatch(label) for label in labels):
        return [int(label.partition(".")[0]) for label in labels], []
    names = sorted(set(labels))
    number_of = {name: number for number, name in enumerate(names)}
    return [number_of[label] for label in labels], names
