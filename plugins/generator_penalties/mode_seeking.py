"""A penalty on images that are alike although their latents are not."""

from __future__ import annotations

from torch import Tensor

from pggan_kit import ConfigError, Fakes, Varying, at_least_float32
from pggan_plugins.generator_penalties.weighted_generator_penalty import WeightedGeneratorPenalty

EPSILON = 1e-5
"""Number that the released code adds to the ratio before its inverse is taken."""


class ModeSeeking(WeightedGeneratorPenalty):
    """The mean of `1 / (|G(z1) - G(z2)| / |z1 - z2| + 1e-5)` over pairs of latents, with mean absolute differences.

    So G spreads its images (Mao et al. 2019, equation 4, inverted as in the released code). Sample i is paired with
    sample i + N / 2; the images are those that G has made anyway. Where G is conditional, a pair must share its class:
    G then also draws the second latents with the labels of the first. The released code takes the inverse of a ratio of
    means over the batch; here each pair has its own, so that ranks and micro-batches do not change it, as long as each
    has an even number of images: the last of an odd number is in no pair, and takes no part.

    Args:
        weight: Factor of the term, at least 0; may be per stage or a curve.
        every: Number k of updates of G: every k-th one adds the term, multiplied by k. At least 1.
    """

    def __init__(self, weight: Varying[float] = 1.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(self, fakes: Fakes) -> Tensor:
        """Return the penalty, 0-dim.

        Raises:
            ConfigError: There is one image only.
        """
        # The first half of the images is compared with the second.
        half = len(fakes.images) // 2
        if half == 0:
            raise ConfigError(
                "generator_penalties.ModeSeeking compares images in pairs, and this process has one at a time: raise "
                "train.micro_batch or schedule.batch_size"
            )
        latents, other_latents = fakes.latents[:half], fakes.latents[half : 2 * half]
        images, other_images = fakes.images[:half], fakes.images[half : 2 * half]
        # The images of a pair have one label, so that they differ by their latents alone.
        if fakes.labels is not None:
            other_images = fakes.generator(other_latents, fakes.labels[:half])

        # How far images lie apart, for how far their latents do.
        image_distance = at_least_float32(images - other_images).abs().mean((1, 2, 3))
        latent_distance = at_least_float32(latents - other_latents).abs().mean(1)
        return (1 / (image_distance / latent_distance.detach() + EPSILON)).mean()
