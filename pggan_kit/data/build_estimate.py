"""Estimate what a build of resized copies will take, from a few pictures."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from pggan_kit.components import Dataset
from pggan_kit.data.image_kinds import check_image, find_image_kind
from pggan_kit.data.resizing import resize_to_all
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import SkipImage
from pggan_kit.schedule import Size

SAMPLES = 16
"""Maximum number of images that are read and resized for an estimate."""

SAMPLE_SECONDS = 2.0
"""Seconds after which no further image is read."""


class BuildEstimate(NamedTuple):
    """What a build of resized copies will take.

    Attributes:
        bytes: Bytes on the disk, by size.
        seconds: Seconds of the build.
    """

    bytes: dict[Size, int]
    seconds: float


def estimate_build(dataset: Dataset, settings: DataSettings, sizes: Iterable[Size]) -> BuildEstimate:
    """Estimate the bytes and the time of resized copies; those that are in the cache already count as well.

    The time is that of reading and resizing images from all over the data set, one after the other, divided by the
    number of threads.

    Args:
        dataset: Full-size images.
        settings: Filter and number of threads.
        sizes: (height, width) of each level.

    Raises:
        DataError: There are no images, or one cannot be used.
    """
    total = len(dataset)
    distinct = list(dict.fromkeys(sizes))
    kind = find_image_kind(dataset)
    needed = {(height, width): total * kind.count_bytes(height * width) for height, width in distinct}

    # The first image was read just now, and would be read faster than the others.
    step = -(-total // SAMPLES)
    began = time.perf_counter()
    done = 0
    for i in range(step // 2, total, step):
        try:
            image = check_image(dataset, dataset.image(i), i, kind)
            for _ in resize_to_all(image, distinct, settings.filter):
                pass
        except SkipImage:
            pass
        done += 1
        if time.perf_counter() - began > SAMPLE_SECONDS:
            break
    seconds = (time.perf_counter() - began) / done * total / settings.count_threads()
    return BuildEstimate(needed, seconds)
