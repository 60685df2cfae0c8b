"""Stand in for the data set of a trained run, whose images sampling does not need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pggan_kit.components import Dataset
from pggan_kit.data.image_kinds import find_image_kind
from pggan_kit.errors import DataError
from pggan_kit.layers.value_maps import BYTES, ValueMap, read_value_map


@dataclass(frozen=True)
class RecordedDataset:
    """What a run's files record of its data set.

    Attributes:
        images: Its length; 0 for a run without training data, whose networks were imported.
        channels: Channels of its images.
        classes: Number of classes of its labels; 0 without labels.
        values: Map of its numbers to [-1, 1].
    """

    images: int
    channels: int
    classes: int
    values: ValueMap = BYTES

    def __len__(self) -> int:
        return self.images

    def image(self, i: int) -> np.ndarray:
        """Refuse to give an image.

        Raises:
            DataError: Always.
        """
        raise self.make_error("images")

    def label(self, i: int) -> int:
        """Refuse to give a label.

        Raises:
            DataError: Always.
        """
        raise self.make_error("labels")

    def fingerprint(self) -> str:
        """Refuse to identify the images.

        Raises:
            DataError: Always.
        """
        raise self.make_error("images")

    def make_error(self, what: str) -> DataError:
        """Return the error of a use of what is not recorded, `images` or `labels`."""
        if self.images == 0:
            return DataError(
                "the networks of this run were imported, without training data: to train them, begin a new run with "
                "--from, and bind train.dataset; to evaluate them, bind evaluation.dataset"
            )
        return DataError(f"the {what} of the training data are needed here, and a run's files do not hold them")


def count_channels(dataset: Dataset) -> int:
    """Return the channels of a data set's images.

    Raises:
        DataError: No image can be read.
    """
    if isinstance(dataset, RecordedDataset):
        return dataset.channels
    return find_image_kind(dataset).channels


def read_record(record: Mapping[str, Any]) -> RecordedDataset:
    """Return the data set that a run's `run.json` records.

    Raises:
        ValueError: It is not recorded, or by something else than numbers.
    """
    values = [record.get(name) for name in ("images", "channels", "classes")]
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("its data are not recorded by their images, channels and classes")
    images, channels, classes = values
    assert images is not None and channels is not None and classes is not None
    value_map = BYTES
    if "values" in record:
        value_map = read_value_map(record["values"])
        if len(value_map.ranges) not in (1, channels):
            raise ValueError(f"its values have {len(value_map.ranges)} ranges, and its images {channels} channels")
    return RecordedDataset(images, channels, classes, value_map)
