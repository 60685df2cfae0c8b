"""Test what is said of the images of a data set, and that it survives kills and copies from older levels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import ArrayDataset

from pggan_kit.data.level_files import ROW_WORDS
from pggan_kit.data.sampler import Data, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import PluginError

MODES = ["RGB", "L", "RGB", "RGBA;16", "L", "RGB", "RGB"]
SHAPES = [(8, 8), (6, 9), (8, 8), (20, 4), (8, 8), (7, 7), (8, 8)]


class PicturesOfModes(ArrayDataset):
    """Seven pictures of several sizes and modes, with fingerprints of their own."""

    def __init__(self, name: str = "modes", classes: int = 3) -> None:
        images = [np.full((*shape, 1), number, np.uint8) for number, shape in enumerate(SHAPES)]
        super().__init__(images, classes, name)
        self.modes = list(MODES)
        self.asked: list[int] = []

    def image_mode(self, i: int) -> str:
        """Return the mode of a picture."""
        self.asked.append(i)
        return self.modes[i]

    def row_fingerprints(self) -> list[str]:
        """Return the number of each picture."""
        return [str(i) for i in range(len(self))]


def open_quietly(source: ArrayDataset, folder: Path) -> Data:
    return open_data(source, DataSettings(cache=str(folder), workers=1), [(2, 2), (4, 4)], 0)


def test_sizes_modes_and_classes_are_counted(tmp_path: Path) -> None:
    census = open_quietly(PicturesOfModes(), tmp_path).take_census()
    assert (census.sizes, census.smallest, census.largest) == (4, (7, 7), (20, 4))
    assert list(census.modes.items()) == [("RGB", 4), ("L", 2), ("RGBA;16", 1)]
    assert (census.class_counts, census.skipped, census.reasons) == ([3, 2, 2], 0, [])
    assert census.list_lines(["a", "b", "c"]) == [
        "sizes in the files, height x width: 4, from 7x7 to 20x4",
        "modes in the files: RGB: 4, L: 2, RGBA;16: 1",
        "kept as: uint8, 1 channel",
        "transparency: not kept, of 1 image; the background of the data set replaces it",
        "classes: 3 (a: 3, b: 2, c: 2)",
    ]
    assert census.list_lines()[-1] == "classes: 3 (0: 3, 1: 2, 2: 2)"
    many = census._replace(class_counts=list(range(5, 18)), sizes=1, channels=5)
    assert many.list_lines() == [
        "size in the files, height x width: 7x7",
        "modes in the files: RGB: 4, L: 2, RGBA;16: 1",
        "kept as: uint8, 5 channels",
        "classes: 13, of 5 to 17 images",
    ]


def test_transparent_palettes_and_colours_are_counted(tmp_path: Path) -> None:
    source = PicturesOfModes()
    source.modes = ["P+A", "L+A", "RGB;16+A", "I;16+A", "LA", "P", "LAB"]
    census = open_quietly(source, tmp_path).take_census()
    assert "transparency: not kept, of 5 images; the background of the data set replaces it" in census.list_lines()


def test_pictures_that_are_copied_keep_what_is_known_of_them(tmp_path: Path) -> None:
    open_quietly(PicturesOfModes(), tmp_path)
    later = PicturesOfModes("the same under another name")
    with pytest.warns(UserWarning, match="copies of 7 of 7 images"):
        census = open_quietly(later, tmp_path).take_census()
    assert later.asked == [] and census.modes == {"RGB": 4, "L": 2, "RGBA;16": 1} and census.sizes == 4


def test_what_was_left_out_is_known_later_with_its_reasons(tmp_path: Path) -> None:
    source = PicturesOfModes()
    source.broken = {0, 3}
    with pytest.warns(UserWarning, match="2 of 7 images are left out"):
        open_quietly(source, tmp_path)
    census = open_quietly(source, tmp_path).take_census()
    assert (census.skipped, census.reasons) == (2, ["picture 0 is broken", "picture 3 is broken"])
    assert census.class_counts == [1, 2, 2] and census.modes == {"RGB": 3, "L": 2}
    expected = ["left out: 2, because they could not be read", "  picture 0 is broken", "  picture 3 is broken"]
    assert census.list_lines()[-3:] == expected
    many = census._replace(skipped=30, reasons=[str(number) for number in range(20)])
    assert many.list_lines()[-7:] == [
        "left out: 30, because they could not be read",
        *(f"  {number}" for number in range(5)),
        "  ...",
    ]


def test_a_build_that_goes_on_knows_what_the_one_before_has_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pggan_kit.data.resizing.CHUNK_IMAGES", 2)

    class Stopping(PicturesOfModes):
        stops = True

        def image(self, i: int) -> np.ndarray:
            if self.stops and i == 5:
                raise KeyboardInterrupt
            return super().image(i)

    source = Stopping()
    source.broken = {1}
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="4 of 7 images are kept"):
        open_quietly(source, tmp_path)
    source.stops = False
    source.asked.clear()
    with pytest.warns(UserWarning, match="going on with the resized copies at picture 4"):
        census = open_quietly(source, tmp_path).take_census()
    assert source.asked == [4, 5, 6]
    assert census.modes == {"RGB": 4, "L": 1, "RGBA;16": 1} and census.reasons == ["picture 1 is broken"]


def test_data_sets_without_modes_and_copies_without_rows(tmp_path: Path) -> None:
    source = ArrayDataset([np.zeros((5, 6, 2), np.int16)] * 2)
    settings = DataSettings(cache=str(tmp_path), value_range=(0, 9))
    with pytest.warns(UserWarning, match="teaches nothing"):
        data = open_data(source, settings, [(4, 4)], 0)
    assert data.take_census().list_lines() == ["size in the files, height x width: 5x6", "kept as: int16, 2 channels"]

    # What is missing, or of another version, is not said.
    (rows,) = tmp_path.rglob("*.rows.npy")
    np.save(rows, np.zeros((2, ROW_WORDS - 2), np.uint32))
    (about,) = tmp_path.rglob("*-*.json")
    about.write_text(json.dumps({**json.loads(about.read_text()), "skipped": 3}))
    assert data.take_census().list_lines() == ["kept as: int16, 2 channels"]
    rows.unlink()
    assert data.take_census().list_lines() == ["kept as: int16, 2 channels"]


@pytest.mark.parametrize("mode", ["ninetimes", "größe", 3])
def test_wrong_modes_are_refused(tmp_path: Path, mode: str) -> None:
    source = PicturesOfModes()
    source.modes[2] = mode
    with pytest.raises(PluginError, match=r"image_mode\(\) of a data set must return a text of at most 8 letters"):
        open_quietly(source, tmp_path)
