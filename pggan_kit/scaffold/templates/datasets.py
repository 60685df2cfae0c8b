"""A data set of your own: here discs, which are drawn and not read, so that it needs no file."""

import numpy as np

from pggan_kit import Component, check_at_least, hookimpl


class Mine:
    """Gray images, each of one bright disc on black; the label says whether it is small (0) or large (1).

    Args:
        count: Number of images, at least 1.
        size: Height and width of an image in pixels, at least 8.

    Raises:
        ValueError: A value is too small.
    """

    classes = 2  # the number of classes; 0 for data without labels

    def __init__(self, count: int = 2000, size: int = 28) -> None:
        check_at_least("count", count, 1)
        check_at_least("size", size, 8)
        self.count = count
        self.size = size

    def __len__(self) -> int:
        return self.count

    def image(self, i: int) -> np.ndarray:
        """Return an image, uint8 (H, W, C) at full size: the same for the same i, also from several threads at once."""
        rng = np.random.default_rng(i)
        radius = self.size * (0.15 + 0.15 * self.label(i))
        y, x = rng.uniform(radius, self.size - radius, 2)
        rows, columns = np.ogrid[: self.size, : self.size]
        inside = (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2
        return np.where(inside, 255, 0).astype(np.uint8)[:, :, None]

    def label(self, i: int) -> int:
        """Return the label of an image, in [0, classes)."""
        return i % self.classes

    def fingerprint(self) -> str:
        """Return a text that is equal if and only if images and labels are; it names resized copies on disk."""
        return f"discs 1 {self.count} {self.size}"


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@datasets.Mine()`."""
    return [Component("datasets", "Mine", Mine)]
