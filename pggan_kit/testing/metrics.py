"""The suites of metrics and of feature extractors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import Quantity
from pggan_kit.testing.base import Suite
from pggan_kit.testing.support import equal, noise, require


class MetricSuite(Suite):
    """How far fakes are from reals.

    Attributes:
        sizes: (height, width) of images; the metric must be defined at one of them at least.
        image_channels: gray and colour.
        count: how many images are described at once.
        tolerance: of a value, relative to itself (at least 1), when images come in another order.
    """

    kind = "metrics"
    sizes: Sequence[tuple[int, int]] = ((16, 16), (28, 28))
    image_channels: Sequence[int] = (1, 3)
    count = 16
    tolerance = 1e-4

    def described(self, metric: object, size: tuple[int, int], channels: int, seed: int = 0) -> Tensor | None:
        """What the metric keeps of noise."""
        torch.manual_seed(seed)
        images = noise(self.count, channels, *size, seed=seed).tanh()
        found: Tensor | None = metric.describe(images)  # type: ignore[attr-defined]
        return found

    def sides(self, metric: object) -> tuple[Tensor, Tensor]:
        """Descriptions of reals and fakes at the first size at which there are any."""
        for size in self.sizes:
            sides = [self.described(metric, size, self.image_channels[0], seed) for seed in (0, 1)]
            if sides[0] is not None and sides[1] is not None:
                return sides[0], sides[1]
        raise AssertionError(f"the metric is not defined at any of the sizes {list(self.sizes)}")

    def test_descriptions(self) -> None:
        """One finite row for each image, at every size, in gray and colour; or None."""
        for size in self.sizes:
            for channels in self.image_channels:
                found = self.described(self.make(), size, channels)
                where = f"describe() of {self.count} images at {size[0]}x{size[1]} with {channels} channels"
                if found is None:
                    continue
                require(
                    isinstance(found, Tensor) and found.dim() > 0 and len(found) == self.count,
                    f"{where} returns no tensor ({self.count}, ...)",
                )
                require(bool(found.isfinite().all()), f"{where} returns what is not finite")

    def test_values(self) -> None:
        """Finite plain numbers by name."""
        metric = self.make()
        values = metric.compare(*self.sides(metric))
        require(isinstance(values, dict) and bool(values), "compare() returns no dict of values")
        for name, value in values.items():
            require(isinstance(name, str), f"compare() names a value {name!r}, which is no text")
            require(
                isinstance(value, float) and math.isfinite(value),
                f"compare() returns {name!r} as {type(value).__name__} {value!r}, no finite float",
            )

    def test_quantities(self) -> None:
        """Each value is stated beforehand, by the name that `compare` gives it, and lies in its stated range."""
        metric = self.make()
        stated = metric.quantities
        require(isinstance(stated, Mapping) and bool(stated), "quantities is no dict of quantities by name")
        for name, quantity in stated.items():
            require(
                isinstance(quantity, Quantity),
                f"quantities states {name!r} as {type(quantity).__name__}, no pggan_kit.Quantity",
            )
        values = metric.compare(*self.sides(metric))
        for name, value in values.items():
            require(name in stated, f"compare() gives {name!r}, and quantities names {', '.join(stated)}: add it there")
            low, high = stated[name].range
            require(low <= value <= high, f"{name!r} is {value}, and quantities states that it lies in [{low}, {high}]")

    def test_remembers_nothing(self) -> None:
        """The same images give the same values to the bit, whatever was measured before, with any object."""
        metric, other = self.make(), self.make()
        sides = self.sides(metric)
        first = metric.compare(*sides)
        metric.compare(*reversed(sides))
        for again in (metric, other):
            sides = self.sides(again)
            found = again.compare(*sides)
            require(
                equal(found, first),
                f"the same images are measured as {first} and, after others, as {found}: describe() and compare() must "
                "remember nothing, and draw random numbers from torch's generator alone",
            )

    def test_order_of_images(self) -> None:
        """Which image comes first says nothing."""
        metric = self.make()
        real, fake = self.sides(metric)
        values, turned = metric.compare(real, fake), metric.compare(real.flip(0), fake.flip(0))
        for name, value in values.items():
            require(
                abs(turned[name] - value) <= self.tolerance * max(1.0, abs(value)),
                f"{name!r} is {value} and, with the images in another order, {turned[name]}",
            )

    def test_leaves_images_alone(self) -> None:
        """Images and descriptions are not changed in place."""
        metric = self.make()
        shape = (self.count, self.image_channels[0], *self.sizes[-1])
        images = noise(*shape)
        metric.describe(images)
        require(torch.equal(images, noise(*shape)), "describe() changes its images in place")
        sides = self.sides(metric)
        kept = [side.clone() for side in sides]
        metric.compare(*sides)
        require(all(map(torch.equal, sides, kept)), "compare() changes its descriptions in place")

    def test_fingerprint(self) -> None:
        """A text that is the same for the same descriptions."""
        require_fingerprint(self.make(), self.make())


def require_fingerprint(part: Any, other: Any) -> None:
    """Fail unless `fingerprint` gives the same text at each call and in two objects."""
    prints = [part.fingerprint(), part.fingerprint(), other.fingerprint()]
    require(all(isinstance(text, str) and text for text in prints), "fingerprint() is no text, or an empty one")
    require(
        len(set(prints)) == 1,
        "fingerprint() differs from call to call, or object to object: what is said of reals would be made anew in "
        "each run",
    )
