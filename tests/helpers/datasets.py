"""A data set of arrays in memory, for tests of the size pyramid and the sampler."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pggan_kit.errors import SkipImage


class ArrayDataset:
    """A data set of arrays, which counts how often each image is read.

    Args:
        images: Images, each uint8 (H, W, C).
        classes: Number of classes; image i has label i modulo that number.
        name: Fingerprint of the data set.

    Attributes:
        reads: Number of reads by image.
        broken: Numbers of the images that cannot be read.
    """

    def __init__(self, images: list[np.ndarray], classes: int = 0, name: str = "arrays") -> None:
        self.images = images
        self.classes = classes
        self.name = name
        self.reads: Counter[int] = Counter()
        self.broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> np.ndarray:
        """Return an image and count the read."""
        self.reads[i] += 1
        if i in self.broken:
            raise SkipImage(f"picture {i} is broken")
        return self.images[i]

    def label(self, i: int) -> int:
        """Return the label of an image."""
        return i % self.classes

    def fingerprint(self) -> str:
        """Return the name."""
        return self.name


def make_random_dataset(
    count: int = 10, shape: tuple[int, int, int] = (12, 12, 1), classes: int = 0, name: str = "random"
) -> ArrayDataset:
    """Return a data set of random images of one shape (H, W, C), always the same."""
    values = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return ArrayDataset(list(values), classes, name)
