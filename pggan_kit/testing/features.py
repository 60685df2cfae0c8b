"""Test that feature extractors keep their contract."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pggan_kit.testing.metrics import require_fingerprint
from pggan_kit.testing.suite import Suite
from pggan_kit.testing.support import draw_noise, measure_difference, require


class FeatureExtractorSuite(Suite):
    """Features of images, for metrics.

    Attributes:
        sizes: Sizes (height, width) of images.
        image_channels: Channel counts to try: gray and colour.
        tolerance: Tolerance for the same image in another batch, relative to the largest feature.
    """

    kind = "features"
    sizes: Sequence[tuple[int, int]] = ((16, 16), (28, 28))
    image_channels: Sequence[int] = (1, 3)
    tolerance = 1e-4

    def test_features(self) -> None:
        """Require (N, F), finite, with the same F at every size, in gray and colour."""
        extract = self.make()
        widths = set()
        for height, width in self.sizes:
            for channels in self.image_channels:
                # The width F must not depend on the images.
                features = extract(draw_noise(3, channels, height, width).tanh())
                where = f"of 3 images {height}x{width} with {channels} channels"
                require(
                    isinstance(features, Tensor) and features.dim() == 2 and features.shape[0] == 3,
                    f"the features {where} are no tensor (3, F)",
                )
                require(bool(features.isfinite().all()), f"the features {where} are not finite")
                widths.add(features.shape[1])
        require(len(widths) == 1, f"images of different sizes or channels have {sorted(widths)} features")

    def test_image_by_image(self) -> None:
        """Require features that depend on nothing but the image, and are the same each time."""
        extract = self.make()
        images = draw_noise(4, self.image_channels[0], *self.sizes[0]).tanh()
        together = extract(images)
        require(
            measure_difference(extract(images), together) == 0,
            "the features of the same images differ from call to call",
        )
        alone = torch.cat([extract(image[None]) for image in images])
        require(
            measure_difference(alone, together) <= self.tolerance,
            "an image's features depend on the others in its batch: is a network in training mode?",
        )

    def test_fingerprint(self) -> None:
        """Require a text that is the same for the same features."""
        require_fingerprint(self.make(), self.make())
