"""Rows of older levels that are used again, where a picture has not changed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import ArrayDataset

from pggan_kit.data.level_files import digest_rows
from pggan_kit.data.sampler import Data, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import PluginError

SIZES = [(3, 3), (6, 6)]


class NamedRows(ArrayDataset):
    """A data set whose pictures have fingerprints: those of a number each, of which the picture is a function.

    Args:
        numbers: Number of each picture.
        unknown: Places of pictures without a fingerprint.
    """

    def __init__(self, numbers: list[int], unknown: tuple[int, ...] = ()) -> None:
        super().__init__([draw_picture(number) for number in numbers], 4, f"numbers {numbers}")
        self.numbers = numbers
        self.unknown = unknown

    def row_fingerprints(self) -> list[str]:
        """Return the number of each picture as text."""
        return ["" if i in self.unknown else str(number) for i, number in enumerate(self.numbers)]


def draw_picture(number: int) -> np.ndarray:
    """Return a random picture, which is small where the number is divisible by ten."""
    side = 5 if number % 10 == 0 else 12
    return np.random.default_rng(number).integers(0, 256, (side, side, 1), np.uint8)


def open_levels(source: ArrayDataset, folder: Path, **options: object) -> tuple[Data, list[str]]:
    """Return the opened data and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = DataSettings(cache=str(folder), workers=2, **options)  # type: ignore[arg-type]
        data = open_data(source, settings, SIZES, 0)
    return data, [str(warning.message) for warning in caught]


def assert_same_levels(data: Data, wanted: Data) -> None:
    for size in SIZES:
        np.testing.assert_array_equal(data.level(size).images, wanted.level(size).images)
        np.testing.assert_array_equal(data.level(size).labels, wanted.level(size).labels)


def test_only_pictures_that_changed_are_read(tmp_path: Path) -> None:
    """One is replaced, one is new, one is gone, two change places, and labels are those of today."""
    open_levels(NamedRows(list(range(100))), tmp_path)
    numbers = [*range(40), 1000, *range(41, 98), 7, 98, 1001]
    numbers[3], numbers[4] = 4, 3
    changed = NamedRows(numbers)
    data, messages = open_levels(changed, tmp_path)
    assert set(changed.reads) == {0, 40, 100}, "the two that are new, and the look at the first"
    assert (
        "resized copies of 99 of 101 images are taken from those of an earlier version of the data: only the other 2 "
        "are read" in messages
    )
    wanted, wanted_messages = open_levels(NamedRows(numbers), tmp_path / "from scratch")
    assert_same_levels(data, wanted)
    enlarged = [message for message in messages if "enlarged" in message]
    assert enlarged == [message for message in wanted_messages if "enlarged" in message], "those copied are counted"
    assert enlarged and enlarged[0].startswith("10 of 101 images are smaller")

    # All of them are there, in another order and with other labels.
    shuffled = NamedRows(numbers[::-1])
    _, messages = open_levels(shuffled, tmp_path)
    assert set(shuffled.reads) == {0}
    assert any(
        message.endswith("images are taken from those of an earlier version of the data: no other is read")
        for message in messages
    )

    # Copies of copies are known as well.
    again = NamedRows([*numbers, 2000])
    open_levels(again, tmp_path)
    assert set(again.reads) == {0, 101}


def test_a_data_set_judges_its_pictures_where_all_were_read(tmp_path: Path) -> None:
    """Of one picture among those that were copied it would say what is true of this one alone."""

    class Judging(NamedRows):
        def list_warnings(self) -> list[str]:
            return [f"judged {len(self.reads)}"]

    assert "judged 20" in open_levels(Judging(list(range(20))), tmp_path)[1]
    assert not [line for line in open_levels(Judging(list(range(21))), tmp_path)[1] if line.startswith("judged")]
    assert "judged 21" in open_levels(Judging(list(range(21))), tmp_path / "from scratch")[1]


def test_pictures_without_a_fingerprint_and_broken_ones_are_read_again(tmp_path: Path) -> None:
    first = NamedRows(list(range(20)), unknown=(5,))
    first.broken = {8, 9}
    open_levels(first, tmp_path)
    second = NamedRows(list(range(21)), unknown=(5, 6))
    second.broken = {9}
    data, _ = open_levels(second, tmp_path)
    assert set(second.reads) == {0, 5, 6, 8, 9, 20}
    fresh = NamedRows(list(range(21)))
    fresh.broken = {9}
    assert_same_levels(data, open_levels(fresh, tmp_path / "from scratch")[0])


@pytest.mark.parametrize("difference", ["filter", "size", "channels", "cut", "rows cut", "no description"])
def test_other_copies_are_not_used(tmp_path: Path, difference: str) -> None:
    first = NamedRows(list(range(20)))
    if difference == "channels":
        first.images = [image.repeat(3, 2) for image in first.images]
    open_levels(first, tmp_path, **({"filter": "nearest"} if difference == "filter" else {}))
    place = tmp_path / "pyramids"
    if difference == "size":
        next(place.glob("*.images.npy")).unlink()
    elif difference == "cut":
        path = next(place.glob("*.images.npy"))
        path.write_bytes(path.read_bytes()[:-1])
    elif difference == "rows cut":
        path = next(place.glob("*.rows.npy"))
        np.save(path, np.load(path)[:-1])
    elif difference == "no description":
        next(place.glob("*.json")).write_text("[")
    second = NamedRows([*range(20), 20])
    data, _ = open_levels(second, tmp_path)
    assert len(second.reads) == 21
    assert_same_levels(data, open_levels(NamedRows([*range(20), 20]), tmp_path / "from scratch")[0])


def test_digests_tell_pictures_apart_and_zeros_stand_for_none() -> None:
    digests = digest_rows(NamedRows([1, 2, 1, 3], unknown=(3,)))
    assert digests is not None and digests.shape == (4, 4)
    assert (digests[0] == digests[2]).all() and (digests[0] != digests[1]).any() and not digests[3].any()
    assert digest_rows(ArrayDataset([])) is None


@pytest.mark.parametrize("texts", [["a"], ["a", "b", "c"], ["a", 1]])
def test_wrong_fingerprints_of_rows_are_refused(tmp_path: Path, texts: list[object]) -> None:
    source = ArrayDataset([draw_picture(1), draw_picture(2)])
    source.row_fingerprints = lambda: texts  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match=r"row_fingerprints\(\) of the data set ArrayDataset must return a text for"):
        open_levels(source, tmp_path)
