"""Test pictures that a CSV file lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign_data import LABELS, PIXELS, write_csv

from pggan_kit.errors import DataError
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import CSV


class TestSuite(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.file = write_csv(tmp_path / "data.csv")

    def make(self) -> Any:
        return CSV(self.file, label_column="label")


def test_pictures_are_in_the_order_of_the_lines(tmp_path: Path) -> None:
    lines = ["class\tpath", "1\t4.png", "0\t2.png", "3\t0.png"]
    dataset = CSV(write_csv(tmp_path / "a.TSV", lines), "path", "class", folder=tmp_path / "pictures")
    for place, number in enumerate((4, 2, 0)):
        np.testing.assert_array_equal(dataset.image(place), PIXELS[number])
    assert [dataset.label(i) for i in range(3)] == [1, 0, 3]
    assert (dataset.classes, dataset.class_names, dataset.image_mode(0)) == (4, [], "RGB")

    named = CSV(write_csv(tmp_path / "b.csv"), label_column="label")
    assert (named.class_names, [named.label(i) for i in range(6)]) == (["a", "b", "c"], LABELS)
    assert CSV(tmp_path / "b.csv").classes == 0


def test_numbers_that_pandas_writes_as_floats_are_class_numbers(tmp_path: Path) -> None:
    """As names, 10.0 would come before 2.0."""
    lines = ["file,label", "pictures/0.png,2.0", "pictures/1.png,10.0", "pictures/2.png,0.0"]
    dataset = CSV(write_csv(tmp_path / "a.csv", lines), label_column="label")
    assert ([dataset.label(i) for i in range(3)], dataset.class_names, dataset.classes) == ([2, 10, 0], [], 11)
    shares = CSV(
        write_csv(tmp_path / "a.csv", ["file,label", "pictures/0.png,1", "pictures/1.png,0.5"]), "file", "label"
    )
    assert shares.class_names == ["0.5", "1"]


def test_fingerprints_tell_labels_and_order(tmp_path: Path) -> None:
    lines = ["file,label", "pictures/0.png,0", "pictures/1.png,1"]
    texts = set()
    rows = set()
    for own in (lines, [lines[0], "pictures/0.png,1", "pictures/1.png,0"], [lines[0], lines[2], lines[1]]):
        dataset = CSV(write_csv(tmp_path / "a.csv", own), label_column="label")
        texts.add(dataset.fingerprint())
        rows.add(frozenset(dataset.row_fingerprints()))
    assert (len(texts), len(rows)) == (3, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "pictures/0.png,a", "pictures/1.png,"], "line 3, has no label in the column 'label': add it"),
        (["file,label", "pictures/0.png,a", "pictures/1.png"], "line 3, has no label in the column 'label': add it"),
        (["file,label", "pictures/0.png,a", ",b"], "line 3, has no path in the column 'file': add it"),
        (
            ["file,label", "pictures/0.png,a", "pictures/0.png,b"],
            r"line 3, names pictures/0\.png again, as line 2 does",
        ),
        (
            ["file,label", "pictures/0.png,a", "./pictures//0.png,b"],
            r"line 3, names pictures/0\.png again, as line 2 does",
        ),
        (
            ["file,label", "pictures/0.png,a", "pictures/1.png,a"],
            "gives all images the one label 'a': set label_column",
        ),
        (["file,label"], "lists no pictures"),
        (["file,label", "pictures/0.png,a", "pictures/1.png,b,c"], r"line 3, has more cells than there are columns"),
        (["file,label,label", "pictures/0.png,a,b"], "has several columns 'label': give each a name of its own"),
        (["file,label", "pictures/0\0.png,a"], r"line 2, has a path with a NUL|cannot be read as a CSV file"),
        (["file,label", 'pictures/"0.png,"a'], "cannot be read as a CSV file"),
    ],
)
def test_wrong_tables(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises((DataError, ValueError), match=message):
        CSV(write_csv(tmp_path / "a.csv", lines), label_column="label")


def test_wrong_arguments_and_files(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"^file_column must be 'file' or 'label', not 'path'"):
        CSV(file, file_column="path")
    with pytest.raises(ValueError, match=r"^label_column must be 'file' or 'label', not 'labels'.*did you mean"):
        CSV(file, label_column="labels")
    with pytest.raises(DataError, match=r"no file .*nothing: set datasets\.CSV\.file"):
        CSV(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no folder .*nothing: set datasets\.CSV\.folder"):
        CSV(file, folder=tmp_path / "nothing")
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.csv is empty"):
        CSV(tmp_path / "b.csv")
    (tmp_path / "b.csv").write_bytes(b"file,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"b\.csv cannot be read as a CSV file in UTF-8"):
        CSV(tmp_path / "b.csv")
    (tmp_path / "pictures" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png: cannot be read .*on_error = 'skip'"):
        CSV(file).image(3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("channels", 2),
        ("size", 0),
        ("fit", "stretch"),
        ("background", "nothing"),
        ("on_error", "ignore"),
        ("max_pixels", 0),
        ("value_range", (1, 0)),
    ],
)
def test_settings_of_pictures_are_checked(setting: str, value: Any, tmp_path: Path) -> None:
    """They are those of ImageFolder, which the other data sets of pictures share."""
    with pytest.raises(ValueError, match=f"^{setting} "):
        CSV(tmp_path / "nothing", **{setting: value})
