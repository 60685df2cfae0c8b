"""Test what is known of a data set's classes before its images are read."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import ArrayDataset, make_random_dataset

from pggan_kit.data.contents import CLASS_LIMIT, check_classes, list_empty_classes, number_classes
from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.schedule import ScheduleSettings


class NamedDataset(ArrayDataset):
    """A data set whose classes have names."""

    def __init__(self, *names: str) -> None:
        super().__init__([np.zeros((8, 8, 1), np.uint8)] * 4, classes=len(names))
        self.class_names = names


def test_classes_are_found_by_their_names() -> None:
    training = NamedDataset("cat", "dog", "fish")
    assert number_classes(NamedDataset("cat", "dog", "fish"), training) == [0, 1, 2]
    assert number_classes(NamedDataset("fish", "cat"), training) == [2, 0]


def test_without_names_classes_are_their_numbers() -> None:
    assert number_classes(make_random_dataset(classes=2), make_random_dataset(classes=3)) == [0, 1]
    with pytest.raises(DataError, match="has 4 classes, and the training data 3"):
        number_classes(make_random_dataset(classes=4), make_random_dataset(classes=3))


def test_names_that_are_numbers_are_those_of_data_without_names() -> None:
    # A sub-folder without images has no place among the names.
    assert number_classes(NamedDataset("0", "2"), make_random_dataset(classes=3)) == [0, 2]
    assert number_classes(NamedDataset("00", "01"), make_random_dataset(classes=3)) == [0, 1]
    assert number_classes(make_random_dataset(classes=2), NamedDataset("1", "2", "0")) == [2, 0]
    with pytest.raises(DataError, match="has a class '1', which the training data lack"):
        number_classes(make_random_dataset(classes=3), NamedDataset("0", "2"))


@pytest.mark.parametrize("training", [("1", "2", "3"), ("01", "02", "03")])
def test_labels_from_one_are_those_of_sub_folders_from_one(training: tuple[str, ...]) -> None:
    def label(*labels: int) -> ArrayDataset:
        dataset = make_random_dataset(len(labels), classes=max(labels) + 1)
        dataset.label = lambda i: labels[i]  # type: ignore[method-assign]
        return dataset

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_classes(label(1, 2, 3, 1), NamedDataset(*training))[1:] == [0, 1, 2]
        assert number_classes(label(1, 2, 1), NamedDataset(*training))[1:] == [0, 1]
    with pytest.raises(DataError, match="has a class '4', which the training data lack"):
        number_classes(label(1, 4), NamedDataset(*training))
    with pytest.warns(UserWarning, match="by their places"):
        assert number_classes(label(0, 1, 2), NamedDataset(*training)) == [0, 1, 2]


def test_where_one_of_both_has_names_classes_are_matched_by_place_and_that_is_said() -> None:
    with pytest.warns(UserWarning, match=r"by their places, since evaluation\.dataset alone gives them names \(b, a\)"):
        assert number_classes(NamedDataset("b", "a"), make_random_dataset(classes=2)) == [0, 1]
    with pytest.warns(UserWarning, match="by their places, since the training data alone gives"):
        assert number_classes(make_random_dataset(classes=2), NamedDataset("1", "2")) == [0, 1]
    with pytest.raises(DataError, match=r"2 classes, and the training data 3, and evaluation\.dataset alone"):
        number_classes(NamedDataset("b", "a"), make_random_dataset(classes=3))
    with pytest.raises(DataError, match="2 classes, and the training data 3, and the training data alone"):
        number_classes(make_random_dataset(classes=2), NamedDataset("cat", "dog", "fish"))


@pytest.mark.parametrize(
    ("dataset", "complaint"),
    [
        (make_random_dataset(), "evaluation.dataset has no labels"),
        (
            make_random_dataset(classes=4),
            "has 4 classes, and the training data 3, and the training data alone gives them names",
        ),
        (NamedDataset("ant", "cat"), "has a class 'ant', which the training data lack"),
    ],
)
def test_other_classes_are_refused(dataset: ArrayDataset, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        number_classes(dataset, NamedDataset("cat", "dog", "fish"))


class DatedDataset(ArrayDataset):
    """A data set whose labels are dates."""

    def label(self, i: int) -> int:
        return 20240131120000 + i

    def image_name(self, i: int) -> str:
        return f"{i}.png"


def test_labels_that_are_no_class_numbers_are_refused_before_anything_is_read() -> None:
    images = [np.zeros((8, 8, 1), np.uint8)] * 3
    dataset = DatedDataset(images, classes=20240131120003)
    with pytest.raises(DataError, match=r"largest label is 20240131120002, of image 2 \(2\.png\)"):
        open_data(dataset, DataSettings(), [(4, 4)], seed=0)
    assert not dataset.reads
    check_classes(ArrayDataset(images, classes=CLASS_LIMIT))


def test_numbers_of_numpy_are_recorded_as_those_of_python(tmp_path: Path) -> None:
    source = make_random_dataset(4, classes=2)
    source.classes = np.array([0, 1]).max() + 1
    source.left_out = {".txt": np.int32(3)}
    schedule = ScheduleSettings((4, 8), 4, 4, 4).resolve(len(source), 3, source.classes)
    data = open_data(source, DataSettings(cache=str(tmp_path)), schedule.stages, 0)
    record = json.loads(json.dumps([data.record(), [asdict(stage) for stage in schedule.stages]]))
    assert record[0]["classes"] == record[1][1]["classes"] == 2
    assert record[0]["left_out"] == {".txt": 3}


def test_classes_without_images_are_said() -> None:
    labels = np.array([1, 3, 3])
    assert list_empty_classes([], 4, labels)[0].startswith("2 of 4 classes have no images (0, 2), and a conditional")
    assert list_empty_classes(["a", "b", "c", "d"], 4, labels)[0].startswith("2 of 4 classes have no images (a, c)")
    assert list_empty_classes([], 4, np.array([1, 2, 3]))[0].startswith("labels begin at 1, so that class 0 has no")
    assert list_empty_classes([], 99, np.array([98]))[0].startswith(
        "98 of 99 classes have no images (0, 1, 2, 3, 4, ...)"
    )
    assert list_empty_classes([], 3, np.array([2, 1, 0])) == []
    assert list_empty_classes([], 0, None) == []
