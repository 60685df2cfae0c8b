"""The suite of data sets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pggan_kit.testing.base import Suite
from pggan_kit.testing.support import require


class DatasetSuite(Suite):
    """Full-size images. `make` must give the same data at each call.

    Attributes:
        looked_at: how many images are looked at, spread evenly, the first and the last among them.
    """

    kind = "datasets"
    looked_at = 8

    def indices(self, length: int) -> list[int]:
        """Those that are looked at."""
        return sorted({round(i * (length - 1) / max(1, self.looked_at - 1)) for i in range(self.looked_at)})

    def test_length(self) -> None:
        """There are images."""
        require(len(self.make()) > 0, "the data set is empty")

    def test_images(self) -> None:
        """uint8 (H, W, C), all with the same C."""
        part = self.make()
        channels = set()
        for i in self.indices(len(part)):
            image = part.image(i)
            require(isinstance(image, np.ndarray), f"image({i}) is a {type(image).__name__}, no NumPy array")
            require(image.dtype == np.uint8, f"image({i}) is {image.dtype}, not uint8")
            require(
                image.ndim == 3 and image.shape[2] in (1, 3) and image.size > 0,
                f"image({i}) has shape {image.shape}, not (H, W, 1) or (H, W, 3)",
            )
            channels.add(image.shape[2])
        require(len(channels) == 1, f"some images have {min(channels)} channels and some {max(channels)}")

    def test_labels(self) -> None:
        """Whole numbers in [0, classes); 0 where there are none."""
        part = self.make()
        require(
            isinstance(part.classes, int) and part.classes >= 0, f"classes is {part.classes!r}, no number from 0 up"
        )
        for i in self.indices(len(part)):
            label = part.label(i)
            require(isinstance(label, (int, np.integer)), f"label({i}) is a {type(label).__name__}, no whole number")
            require(
                0 <= label < max(1, part.classes),
                f"label({i}) is {label}, outside [0, {max(1, part.classes)}) ({part.classes} classes)",
            )

    def test_same_image_each_time(self) -> None:
        """Reading an image again, also in another object, gives the same one: random changes belong elsewhere."""
        part, other = self.make(), self.make()
        for i in self.indices(len(part)):
            first = part.image(i).copy()
            require(
                np.array_equal(first, part.image(i)) and np.array_equal(first, other.image(i)),
                f"image({i}) is not the same each time it is read",
            )

    def test_threads(self) -> None:
        """Many threads read it at once, and get what one would get."""
        part = self.make()
        indices = self.indices(len(part)) * 4
        wanted = [part.image(i).copy() for i in indices]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i: part.image(i).copy(), indices))
        for i, one, two in zip(indices, found, wanted, strict=True):
            require(np.array_equal(one, two), f"image({i}) differs when several threads read at once")

    def test_fingerprint(self) -> None:
        """A text that is the same for the same data."""
        part, other = self.make(), self.make()
        prints = [part.fingerprint(), part.fingerprint(), other.fingerprint()]
        require(all(isinstance(text, str) and text for text in prints), "fingerprint() is no text, or an empty one")
        require(
            len(set(prints)) == 1,
            "fingerprint() differs from call to call, or object to object, for the same data: resized copies would be "
            "made anew in each run",
        )
