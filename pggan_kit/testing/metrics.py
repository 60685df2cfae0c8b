"""Test that metrics keep their contract: those of images, and those of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import Quantity, StageEnd, find_quantity
from pggan_kit.schedule import Stage
from pggan_kit.testing.suite import Suite
from pggan_kit.testing.support import are_equal, draw_noise, make_stages, measure_difference, require, summarize_error


class MetricSuite(Suite):
    """Metrics of how far fakes are from reals.

    Attributes:
        sizes: Sizes (height, width) of images; the metric must be defined at one of them at least.
        image_channels: Channel counts to try: gray, colour and others.
        count: Number of images that are described at once.
        image_by_image: Whether a row of `describe` depends on its own image alone; False where it compares images.
        tolerance: Tolerance of a value, relative to itself (at least 1), when images come in another order.
    """

    kind = "metrics"
    sizes: Sequence[tuple[int, int]] = ((16, 16), (28, 28))
    image_channels: Sequence[int] = (1, 2, 3, 7)
    count = 16
    image_by_image = True
    tolerance = 1e-4

    def describe_noise(self, metric: Any, size: tuple[int, int], channels: int, seed: int = 0) -> Tensor | None:
        """Return the metric's description of noise, None where it is not defined at this size."""
        torch.manual_seed(seed)
        images = draw_noise(self.count, channels, *size, seed=seed).tanh()
        description: Tensor | None = metric.describe(images)
        return description

    def describe_sides(self, metric: Any) -> tuple[Tensor, Tensor]:
        """Return descriptions of reals and fakes at the first size at which there are any."""
        for size in self.sizes:
            real = self.describe_noise(metric, size, self.image_channels[0], seed=0)
            fake = self.describe_noise(metric, size, self.image_channels[0], seed=1)
            if real is not None and fake is not None:
                return real, fake
        raise AssertionError(f"the metric is not defined at any of the sizes {list(self.sizes)}")

    def test_descriptions(self) -> None:
        """Require one finite row for each image, at every size, with each number of channels; or None."""
        for size in self.sizes:
            for channels in self.image_channels:
                description = self.describe_noise(self.make(), size, channels)
                if description is None:
                    continue
                where = f"describe() of {self.count} images at {size[0]}x{size[1]} with {channels} channels"
                require(
                    isinstance(description, Tensor) and description.dim() > 0 and len(description) == self.count,
                    f"{where} returns no tensor ({self.count}, ...)",
                )
                require(bool(description.isfinite().all()), f"{where} returns what is not finite")

    def test_image_by_image(self) -> None:
        """Require a row that depends on its own image alone: reals and fakes come in batches of any size.

        A metric that draws random numbers has other rows in other batches, and passes.
        """
        metric = self.make()
        for size in self.sizes if self.image_by_image else ():
            whole = self.describe_noise(metric, size, self.image_channels[0])
            if whole is None:
                continue
            images = draw_noise(self.count, self.image_channels[0], *size).tanh()
            torch.manual_seed(1)
            if not torch.equal(metric.describe(images), whole):
                continue
            slices = torch.cat([metric.describe(rows) for rows in images.split(max(1, self.count // 3))])
            change = measure_difference(slices, whole)
            require(
                change <= self.tolerance,
                f"describe() at {size[0]}x{size[1]} gives an image another row in a batch of another size, by "
                f"{change:.2g}: a row must depend on its own image alone",
            )

    def test_values(self) -> None:
        """Require finite plain numbers by name."""
        metric = self.make()
        real, fake = self.describe_sides(metric)
        require_values(metric.compare(real, fake), "compare()")

        # There may be more reals than fakes.
        try:
            values = metric.compare(real, fake[1:])
        except Exception as error:
            raise AssertionError(
                f"compare() of {len(real)} reals with {len(fake) - 1} fakes fails: {summarize_error(error)}"
            ) from error
        require_values(values, f"compare() of {len(real)} reals with {len(fake) - 1} fakes")

    def test_quantities(self) -> None:
        """Require each value to be stated beforehand, by the name that `compare` gives it, and to lie in its range."""
        metric = self.make()
        require_stated(metric, metric.compare(*self.describe_sides(metric)), "compare()")

    def test_remembers_nothing(self) -> None:
        """Require the same values of the same images, bit for bit, whatever was measured before, by any object."""
        metric = self.make()
        sides = self.describe_sides(metric)
        first = metric.compare(*sides)
        metric.compare(*reversed(sides))

        for again in (metric, self.make()):
            values = again.compare(*self.describe_sides(again))
            require(
                are_equal(values, first),
                f"the same images are measured as {first} and, after others, as {values}: describe() and compare() "
                "must remember nothing, and draw random numbers from torch's generator alone",
            )

    def test_order_of_images(self) -> None:
        """Require the same values whatever the order of the images."""
        metric = self.make()
        real, fake = self.describe_sides(metric)
        values = metric.compare(real, fake)
        for side, reordered in (
            ("images", metric.compare(real.flip(0), fake.flip(0))),
            ("fakes", metric.compare(real, fake.flip(0))),
        ):
            for name, value in values.items():
                require(
                    abs(reordered[name] - value) <= self.tolerance * max(1.0, abs(value)),
                    f"{name!r} is {value} and, with the {side} in another order, {reordered[name]}",
                )

    def test_leaves_images_alone(self) -> None:
        """Require images and descriptions not to be changed in place."""
        metric = self.make()
        shape = (self.count, self.image_channels[0], *self.sizes[-1])
        images = draw_noise(*shape)
        metric.describe(images)
        require(torch.equal(images, draw_noise(*shape)), "describe() changes its images in place")

        sides = self.describe_sides(metric)
        copies = [side.clone() for side in sides]
        metric.compare(*sides)
        require(all(map(torch.equal, sides, copies)), "compare() changes its descriptions in place")

    def test_fingerprint(self) -> None:
        """Require a text that is the same for the same descriptions."""
        require_fingerprint(self.make(), self.make())


class RunMetricSuite(Suite):
    """Metrics of a run, of the generators at the ends of its stages.

    Attributes:
        sizes: Heights of the stages; the metric must be defined for a run of all of them.
        image_channels: Channel counts to try: gray, colour and others.
        classes: Numbers of classes to try; 0 is an unconditional generator.
    """

    kind = "metrics"
    sizes: Sequence[int] = (4, 8, 16)
    image_channels: Sequence[int] = (1, 2, 3, 7)
    classes: Sequence[int] = (0, 3)

    def make_ends(self, channels: int = 1, classes: int = 0) -> list[StageEnd]:
        """Return ends of stages whose generators draw images that depend on the latents, the labels and the stage."""
        stages = make_stages(self.sizes, image_channels=channels)
        return [_make_end(stage, classes) for stage in stages]

    def test_values(self) -> None:
        """Require finite plain numbers by name, with each number of channels, with labels and without."""
        for channels in self.image_channels:
            for classes in self.classes:
                require_values(self.make().measure_run(self.make_ends(channels, classes)), "measure_run()")

    def test_quantities(self) -> None:
        """Require each value to be stated beforehand, by its name up to a space at least, and to lie in its range."""
        metric = self.make()
        require_stated(metric, metric.measure_run(self.make_ends()), "measure_run()")

    def test_few_stages(self) -> None:
        """Require values, or none, of a run none or one of whose stages has ended."""
        for count in (0, 1):
            values = self.make().measure_run(self.make_ends()[:count])
            require(isinstance(values, dict), f"measure_run() of {count} stages returns no dict of values")

    def test_remembers_nothing(self) -> None:
        """Require the same values of the same run, bit for bit, whatever was measured before, by any object."""
        metric = self.make()
        torch.manual_seed(0)
        first = metric.measure_run(self.make_ends())
        metric.measure_run(self.make_ends(self.image_channels[-1], self.classes[-1]))

        for again in (metric, self.make()):
            torch.manual_seed(0)
            values = again.measure_run(self.make_ends())
            require(
                are_equal(values, first),
                f"the same run is measured as {first} and, after another one, as {values}: measure_run() must remember "
                "nothing, and draw random numbers from torch's generator alone",
            )


def _make_end(stage: Stage, classes: int) -> StageEnd:
    """Return the end of a stage whose generator is a random projection of latents of 6 numbers."""
    shape = (stage.image_channels, stage.height, stage.width)
    weight = draw_noise(6, *shape, seed=stage.index)

    def generate(latents: Tensor, labels: Tensor | None = None) -> Tensor:
        images = torch.einsum("nz,zchw->nchw", latents, weight)
        if labels is not None:
            images = images + labels.view(-1, 1, 1, 1)
        return images.tanh()

    return StageEnd(stage, 40 * (stage.index + 1), 6, classes, generate)


def require_values(values: Any, method: str) -> None:
    """Fail unless a metric's method returned finite plain numbers by name."""
    require(isinstance(values, dict) and bool(values), f"{method} returns no dict of values")
    for name, value in values.items():
        require(isinstance(name, str), f"{method} names a value {name!r}, which is no text")
        require(
            isinstance(value, float) and math.isfinite(value),
            f"{method} returns {name!r} as {type(value).__name__} {value!r}, no finite float",
        )


def require_stated(metric: Any, values: Mapping[str, float], method: str) -> None:
    """Fail unless a metric states each of its values beforehand, in whose range it lies."""
    stated = metric.quantities
    require(isinstance(stated, Mapping) and bool(stated), "quantities is no dict of quantities by name")
    for name, quantity in stated.items():
        require(
            isinstance(quantity, Quantity),
            f"quantities states {name!r} as {type(quantity).__name__}, no pggan_kit.Quantity",
        )

    # A plan is made from the stated quantities, before any value is there.
    for name, value in values.items():
        quantity = find_quantity(stated, name)
        require(
            quantity is not None, f"{method} gives {name!r}, and quantities names {', '.join(stated)}: add it there"
        )
        assert quantity is not None
        low, high = quantity.range
        require(low <= value <= high, f"{name!r} is {value}, and quantities states that it lies in [{low}, {high}]")


def require_fingerprint(component: Any, other: Any) -> None:
    """Fail unless `fingerprint` gives the same text at each call and in two objects."""
    fingerprints = [component.fingerprint(), component.fingerprint(), other.fingerprint()]
    are_texts = all(isinstance(text, str) and text for text in fingerprints)
    require(are_texts, "fingerprint() is no text, or an empty one")
    require(
        len(set(fingerprints)) == 1,
        "fingerprint() differs from call to call, or object to object: reals would be described again in each run",
    )
