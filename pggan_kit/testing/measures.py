"""The suites of metrics and of feature extractors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pggan_kit.testing.base import Suite
from pggan_kit.testing.support import difference, equal, noise, require


class MetricSuite(Suite):
    """How far fakes are from reals.

    Attributes:
        sizes: (height, width) of images.
        image_channels: gray and colour.
        count, batch: how many images are taken in, and how many at once.
    """

    kind = "metrics"
    sizes: Sequence[tuple[int, int]] = ((16, 16), (28, 28))
    image_channels: Sequence[int] = (1, 3)
    count = 16
    batch = 8

    def measure(self, metric: object, size: tuple[int, int], channels: int, seed: int = 0) -> object:
        """What the metric says of noise."""
        torch.manual_seed(0)
        for start in range(0, self.count, self.batch):
            shape = (self.batch, channels, *size)
            batches = (noise(*shape, seed=1000 * seed + 10 * start + i).tanh() for i in (0, 1))
            metric.update(*batches)  # type: ignore[attr-defined]
        return metric.compute()  # type: ignore[attr-defined]

    def test_values(self) -> None:
        """Finite plain numbers by name, at every size, in gray and colour."""
        for size in self.sizes:
            for channels in self.image_channels:
                values = self.measure(self.make(), size, channels)
                where = f"at {size[0]}x{size[1]} with {channels} channels"
                require(isinstance(values, dict) and bool(values), f"compute() {where} returns no dict of values")
                assert isinstance(values, dict)
                for name, value in values.items():
                    require(
                        isinstance(value, float) and math.isfinite(value),
                        f"compute() {where} returns {name!r} as {value!r}, no finite float",
                    )

    def test_starts_anew(self) -> None:
        """After `compute`, nothing is left of what was taken in before; a second use gives the same values."""
        metric, size, channels = self.make(), self.sizes[0], self.image_channels[0]
        first = self.measure(metric, size, channels)
        self.measure(metric, size, channels, seed=1)
        again = self.measure(metric, size, channels)
        require(
            equal(again, first),
            f"the same images are measured as {first} and, after others, as {again}: compute() must start anew, and "
            "draw random numbers from torch's generator alone",
        )

    def test_leaves_images_alone(self) -> None:
        """Images are not changed in place."""
        shape = (self.batch, self.image_channels[0], *self.sizes[0])
        real, fake = noise(*shape), noise(*shape, seed=1)
        self.make().update(real, fake)
        unchanged = torch.equal(real, noise(*shape)) and torch.equal(fake, noise(*shape, seed=1))
        require(unchanged, "update() changes its images in place")


class FeatureExtractorSuite(Suite):
    """Features of images, for metrics.

    Attributes:
        sizes: (height, width) of images.
        image_channels: gray and colour.
        tolerance: for the same image in another batch, relative to the largest feature.
    """

    kind = "features"
    sizes: Sequence[tuple[int, int]] = ((16, 16), (28, 28))
    image_channels: Sequence[int] = (1, 3)
    tolerance = 1e-4

    def test_features(self) -> None:
        """(N, F), finite, with the same F at every size, in gray and colour."""
        part, widths = self.make(), set()
        for height, width in self.sizes:
            for channels in self.image_channels:
                found = part(noise(3, channels, height, width).tanh())
                where = f"of 3 images {height}x{width} with {channels} channels"
                require(
                    isinstance(found, Tensor) and found.dim() == 2 and found.shape[0] == 3,
                    f"the features {where} are no tensor (3, F)",
                )
                require(bool(found.isfinite().all()), f"the features {where} are not finite")
                widths.add(found.shape[1])
        require(len(widths) == 1, f"images of different sizes or channels have {sorted(widths)} features")

    def test_image_by_image(self) -> None:
        """An image's features depend on nothing but the image, and are the same each time."""
        part = self.make()
        images = noise(4, self.image_channels[0], *self.sizes[0]).tanh()
        together = part(images)
        require(difference(part(images), together) == 0, "the features of the same images differ from call to call")
        alone = torch.cat([part(image[None]) for image in images])
        require(
            difference(alone, together) <= self.tolerance,
            "an image's features depend on the others in its batch: is a network in training mode?",
        )
